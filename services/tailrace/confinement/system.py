"""What every Python program reads of the machine: libraries, the interpreter, time zones, figures of the machine."""

from __future__ import annotations

import sys
from pathlib import Path

DEVICES = tuple(Path("/dev", name) for name in ("null", "zero", "random", "urandom", "full"))

# Of /etc no more than programs look up by themselves: it also holds what only root may read.
_ETC = (
    *(
        "ld.so.cache",
        "localtime",
        "timezone",
        "nsswitch.conf",
        "host.conf",
        "hosts",
        "resolv.conf",
        "gai.conf",
    ),
    *("passwd", "group", "ssl", "ca-certificates", "os-release", "mime.types", "protocols", "services"),
)
# Of /proc the machine's own figures and this process: what is told of others has their environment in it.
_PROC = (
    *(
        "self",
        "cpuinfo",
        "diskstats",
        "filesystems",
        "loadavg",
        "meminfo",
        "net",
        "pressure",
        "stat",
        "swaps",
    ),
    *("sys", "uptime", "version", "vmstat"),
)


def system_paths() -> tuple[Path, ...]:
    """Libraries and programs of the machine, the interpreter with what is installed for it, and Tailrace itself."""
    package = Path(__file__).parent.parent
    root = package.parent.parent
    return (
        *(Path(folder) for folder in ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/sys")),
        *(Path("/etc", name) for name in _ETC),
        *(Path("/proc", name) for name in _PROC),
        *(Path(folder) for folder in (sys.prefix, sys.base_prefix, sys.exec_prefix)),
        *(Path(folder) for folder in sys.path if folder.endswith(("site-packages", "dist-packages"))),
        package.parent,  # where the interpreter looks for it
        *(root / name for name in ("schemas", "contracts", "pyproject.toml")),
    )
