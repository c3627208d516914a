"""The sdist and the wheel that is made of it, outside the checkout: packages, presets, the console script."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from zoo._version import VERSION

ROOT = Path(__file__).parents[2]
PARTS = ("zoo", "presets", "tools", "pyproject.toml", "setup.py", "README.md", "LICENSE")
TRY = """
import importlib, pkgutil, sys
import zoo
from zoo.tools.cli import main

assert main(["preset", "list"]) == 0 and "torch" not in sys.modules
assert main(["--help"]) == 0 and main(["models", "--names"]) == 0
names = [found.name for found in pkgutil.walk_packages(zoo.__path__, "zoo.") if "__main__" not in found.name]
for name in names:
    importlib.import_module(name)
print(zoo.__file__, len(zoo.list_presets()), len(names))
"""


def test_every_dependency_says_why():
    lines = (ROOT / "pyproject.toml").read_text("utf8").splitlines()
    named = [line for line in lines if line.strip().startswith('"') and ">=" in line]
    assert len(named) >= 15
    assert all("#" in line for line in named)


def test_the_citation_and_the_issue_forms_are_sound():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text("utf8"))["version"] == VERSION
    forms = {path.name: path.read_text("utf8") for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")}
    assert len(forms) >= 3
    assert all({"name", "description", "body"} <= yaml.safe_load(text).keys() for text in forms.values())
    assert "zoo env" in forms["bug_report.yml"]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The source distribution, built without the network."""
    folder = tmp_path_factory.mktemp("sdist")
    source = folder / "source"  # setuptools leaves its own files behind
    source.mkdir()
    for name in PARTS:
        (source / name).symlink_to(ROOT / name)
    build = "from setuptools.build_meta import build_sdist; build_sdist('..')"
    subprocess.run([sys.executable, "-c", build], check=True, cwd=source, capture_output=True)
    (path,) = folder.glob("*.tar.gz")
    return path


@pytest.fixture(scope="module")
def installed(sdist, tmp_path_factory):
    """The wheel of the source distribution, unpacked into a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", "."]
    subprocess.run([*command, str(sdist)], check=True, cwd=folder, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    zipfile.ZipFile(wheel).extractall(site)
    return site


def test_the_sdist_holds_sources_licence_and_no_tests(sdist):
    with tarfile.open(sdist) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    assert {"zoo/__init__.py", "zoo/py.typed", "tools/cli.py", "presets/classify-heads.yaml", *PARTS} - {"zoo"} <= files
    assert not [name for name in files if name.startswith(("tests", "docs", "benchmarks"))]


def test_the_wheel_works_outside_the_checkout(installed, tmp_path):
    env = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-W", "ignore", "-c", TRY]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    *listed, last = done.stdout.splitlines()
    place, presets, modules = last.split()
    assert Path(place).is_relative_to(installed)
    assert int(presets) == len(list((ROOT / "presets").glob("*.yaml")))
    assert int(modules) > 200
    assert {"resnet18", "yolo_nas_s"} <= set(listed)
    assert any("classify-heads" in line for line in listed)


def test_the_wheel_holds_every_module_presets_types_and_no_tests(installed):
    files = {path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()}
    modules = {path.relative_to(ROOT).as_posix() for end in ("py", "pyi") for path in (ROOT / "zoo").rglob(f"*.{end}")}
    assert len(modules) > 100
    assert modules <= files
    assert "zoo/py.typed" in files
    assert {f"zoo/presets/{path.name}" for path in (ROOT / "presets").glob("*.yaml")} <= files
    assert {f"zoo/tools/{path.name}" for path in (ROOT / "tools").glob("*.py")} <= files
    assert not [name for name in files if "test" in name]


def test_the_console_script_is_named_zoo(installed):
    (entry_points,) = installed.glob("*.dist-info/entry_points.txt")
    assert "zoo = zoo.tools.cli:main" in entry_points.read_text()
