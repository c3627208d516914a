import importlib
import sys
from pathlib import Path

import pytest

from zoo.files.modules import import_modules, module_names


def test_files_and_folders_are_found_and_helpers_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("__init__.py", "b.py", "a/__init__.py", "_helper.py", "notes.txt", "no_package/c.txt"):
        file = tmp_path / "found_here" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("VALUE = __name__\n" if name.endswith(".py") else "")
    monkeypatch.syspath_prepend(tmp_path)
    package = importlib.import_module("found_here")
    assert module_names(package) == ["a", "b"]
    assert "found_here.a" not in sys.modules
    assert [module.VALUE for module in import_modules(package)] == ["found_here.a", "found_here.b"]
