"""Distributions as pip leaves them where it installs a wheel, made without it."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path


def install(
    site: Path, name: str, files: Mapping[str, str], entry_points: str = "", version: str = "1.2"
) -> Path:
    """Writes the files of a distribution and its metadata into a folder of packages; its metadata's folder."""
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    written = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/entry_points.txt": entry_points,
        f"{info}/INSTALLER": "pip\n",
    }
    lines = [f"{info}/RECORD,,"]
    for file, text in written.items():
        path = site / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        digest = urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
        lines.append(f"{file},sha256={digest},{len(text.encode())}")
    (site / info / "RECORD").write_text("\n".join(lines) + "\n")
    return site / info
