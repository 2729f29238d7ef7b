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
    *("self", "cpuinfo", "diskstats", "filesystems", "loadavg", "meminfo", "net", "pressure", "stat"),
    *("swaps", "sys", "uptime", "version", "vmstat"),
)


def system_paths() -> tuple[Path, ...]:
    """Libraries and programs of the machine, the interpreter with what is installed for it, and Tailrace itself."""
    package = Path(__file__).parent.parent
    root = package.parent.parent
    installed = [Path(folder) for folder in sys.path if folder.endswith(("site-packages", "dist-packages"))]
    return (
        *map(Path, ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/sys")),
        *(Path("/etc", name) for name in _ETC),
        *(Path("/proc", name) for name in _PROC),
        *map(Path, (sys.prefix, sys.base_prefix, sys.exec_prefix)),
        *installed,
        *(path for folder in installed for path in _linked(folder)),
        package.parent,  # where the interpreter looks for it
        *(root / name for name in ("schemas", "contracts", "pyproject.toml")),
    )


def _linked(folder: Path) -> set[Path]:
    """Where the files really are that an installer has linked into the folder instead of copying them."""
    places = set()
    for entry in folder.iterdir() if folder.is_dir() else ():
        files = [entry] if entry.is_symlink() or not entry.is_dir() else entry.iterdir()
        link = next((file for file in files if file.is_symlink()), None)
        if link is not None:
            real = link.resolve()
            places.add(real if link == entry else real.parent.parent)
    return places
