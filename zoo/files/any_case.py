"""Paths that are found whatever the case of their letters and how accents are composed, as on Windows and macOS."""

import os
import unicodedata
from pathlib import Path


def fold(name: str) -> str:
    """Return what is equal of two names that differ only by case, or by how their accents are composed."""
    return unicodedata.normalize("NFC", name).casefold()


class AnyCase:
    """Finds files and folders by a path whose letters may be large or small; each folder is listed once.

    What is there as it is written comes first, then what is alike but for case, the first by name.
    """

    def __init__(self) -> None:
        self._listed: dict[Path, dict[str, str]] = {}
        self._folders: dict[Path, Path | None] = {}

    def find_file(self, path: Path) -> Path | None:
        """Return the path of a file; None if there is none."""
        if os.path.isfile(path):
            return path
        folder = self.find_folder(path.parent)
        name = self._list(folder).get(fold(path.name)) if folder else None
        return folder / name if folder and name and os.path.isfile(folder / name) else None

    def find_folder(self, path: Path) -> Path | None:
        """Return the path of a folder; None if there is none."""
        if path not in self._folders:
            self._folders[path] = self._search(path)
        return self._folders[path]

    def list_names(self, folder: Path) -> list[str]:
        """Return what is in a folder, but of names that are alike but for case only one."""
        return list(self._list(folder).values())

    def _search(self, path: Path) -> Path | None:
        if os.path.isdir(path):
            return path
        above = self.find_folder(path.parent) if path.parent != path else None
        name = self._list(above).get(fold(path.name)) if above else None
        return above / name if above and name and os.path.isdir(above / name) else None

    def _list(self, folder: Path) -> dict[str, str]:
        if folder not in self._listed:
            try:
                names = sorted(os.listdir(folder), reverse=True)
            except (OSError, ValueError):
                names = []
            self._listed[folder] = {fold(name): name for name in names}
        return self._listed[folder]
