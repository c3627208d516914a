"""The wheel, outside the checkout: packages, presets, the console script."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_every_dependency_says_why():
    lines = (ROOT / "pyproject.toml").read_text("utf8").splitlines()
    named = [line for line in lines if line.strip().startswith('"') and ">=" in line]
    assert len(named) >= 15
    assert all("#" in line for line in named)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel, built without the network and unpacked into a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    source = folder / "source"  # setuptools leaves a build folder behind
    source.mkdir()
    for name in ("zoo", "presets", "tools", "pyproject.toml", "setup.py", "README.md", "LICENSE"):
        (source / name).symlink_to(ROOT / name)
    subprocess.run([*command, "-w", str(folder), str(source)], check=True, cwd=folder, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    zipfile.ZipFile(wheel).extractall(site)
    return site


def run_in(site, code, tmp_path):
    env = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    ).stdout


def test_the_wheel_works_outside_the_checkout(installed, tmp_path):
    code = (
        "import zoo, sys; from zoo.tools.cli import main; print(zoo.__file__); assert main(['preset', 'list']) == 0;"
        "print(len(zoo.list_presets()), 'torch' in sys.modules)"
    )
    first, *listed, last = run_in(installed, code, tmp_path).splitlines()
    assert Path(first).is_relative_to(installed)
    assert last == f"{len(list((ROOT / 'presets').glob('*.yaml')))} False"
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
