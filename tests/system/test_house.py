"""The house keeps its measures: small modules, classes and functions, or a line `# Long: ...` that says why."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [path for folder in ("zoo", "tools") for path in sorted((ROOT / folder).rglob("*.py"))]
PACKAGES = sorted({path.parent for path in (ROOT / "zoo").rglob("*.py")} - {ROOT / "zoo"})
MODULE, CLASS, FUNCTION, ATTRIBUTES, MODULES_OF_ZOO = 450, 150, 60, 12, 10
REASON = "# Long: "


def count_lines(node: ast.AST) -> int:
    """Return the lines of a class or function, less its docstring."""
    first = node.body[0]
    has_docstring = ast.get_docstring(node) is not None
    docstring = first.end_lineno - first.lineno + 1 if has_docstring else 0
    return node.end_lineno - node.lineno + 1 - docstring


def own_attributes(node: ast.ClassDef) -> set[str]:
    """Return the names that a class assigns on `self`."""
    targets = [
        target
        for part in ast.walk(node)
        if isinstance(part, (ast.Assign, ast.AnnAssign, ast.AugAssign))
        for target in (part.targets if isinstance(part, ast.Assign) else [part.target])
    ]
    inner = [name for target in targets for name in ast.walk(target) if isinstance(name, ast.Attribute)]
    return {name.attr for name in inner if isinstance(name.value, ast.Name) and name.value.id == "self"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_classes_and_functions_are_small_or_say_why_not(path):
    text = path.read_text("utf8")
    lines = text.splitlines()
    too_long = []
    if len(lines) > MODULE:
        too_long.append((None, f"the module has {len(lines)} lines"))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and count_lines(node) > FUNCTION:
            too_long.append((node, f"{node.name} has {count_lines(node)} lines"))
        if isinstance(node, ast.ClassDef) and (count_lines(node) > CLASS or len(own_attributes(node)) > ATTRIBUTES):
            too_long.append((node, f"{node.name}: {count_lines(node)} lines, {len(own_attributes(node))} attributes"))
    for node, text in too_long:
        part = lines if node is None else lines[node.lineno - 2 : node.end_lineno]
        assert any(line.strip().startswith(REASON) for line in part), f"{text} and no line {REASON!r}"


def test_the_top_of_the_package_is_short():
    modules = {path.name for path in (ROOT / "zoo").glob("*.py")} - {"__main__.py"}  # `python -m` finds it only here
    assert len(modules) <= MODULES_OF_ZOO


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_every_package_says_what_it_owns_and_has_tests(folder):
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf8")))
    assert docstring
    assert list((ROOT / "tests" / folder.relative_to(ROOT / "zoo")).rglob("test_*.py"))


@pytest.mark.parametrize("path", [path for path in FILES if path.is_relative_to(ROOT / "zoo")], ids=str)
def test_modules_and_their_functions_do_not_share_names(path):
    body = ast.parse(path.read_text("utf8")).body
    assert path.stem not in [node.name for node in body if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("stub", sorted((ROOT / "zoo").rglob("*.pyi")), ids=lambda stub: str(stub.relative_to(ROOT)))
def test_no_shown_name_hides_a_module(stub):
    shown = {alias.name for node in ast.parse(stub.read_text("utf8")).body for alias in node.names}
    modules = {path.stem for path in stub.parent.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert not shown & modules
