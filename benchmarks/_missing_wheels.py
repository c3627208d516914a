"""Print those wheels of a folder whose packages are not installed: what is there already is not put in the shade."""

import importlib.metadata
import sys
from pathlib import Path

from packaging.version import Version

REPLACED_BELOW = {"pydantic": Version("2.10"), "pydantic_core": Version("2.27")}  # older ones are of no use


def is_missing(name: str) -> bool:
    """Whether a package is not installed, or too old."""
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return True
    return name in REPLACED_BELOW and Version(version) < REPLACED_BELOW[name]


def list_missing(folder: Path) -> list[Path]:
    """Return the wheels of a folder whose packages are not installed."""
    wheels = {path: path.name.partition("-")[0].lower() for path in sorted(folder.glob("*.whl"))}
    missing = {name for name in wheels.values() if is_missing(name)}
    if missing & set(REPLACED_BELOW):
        missing |= set(REPLACED_BELOW)  # each fits one version of the other
    return [path for path, name in wheels.items() if name in missing]


if __name__ == "__main__":
    print(*list_missing(Path(sys.argv[1])))
