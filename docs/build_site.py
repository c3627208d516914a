"""Build the documentation site, `site/`: the pages of docs/, and those that are generated from the code.

`make docs` calls it. The reference of the command line comes from typer, that of preset fields from their schema.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from zoo.settings import PresetField, list_fields, list_settings

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "build" / "docs"  # what the site is built from
COPIED = {  # pages of the repository that the site has, too
    "MODEL_CARDS.md": "reference/models.md",
    "CHANGELOG.md": "reference/changelog.md",
    "benchmarks/README.md": "explanation/benchmarks.md",
}
TYPE = re.compile(r" <\S+>$")  # that typer puts behind a name
DEFAULT = re.compile(r"\[default: \((.*)\)\]")
LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[\w-]+)?\))")


def main() -> int:
    """Gather the pages, run the notebooks, and build the site; the exit status is that of the builder."""
    from notebook_page import write_notebook_page  # which the tests of the pages do without

    shutil.rmtree(PAGES, ignore_errors=True)
    gather_pages(PAGES)
    for notebook, page in find_notebooks(PAGES).items():
        write_notebook_page(notebook, page)
    shutil.rmtree(ROOT / "site", ignore_errors=True)
    builder = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    return subprocess.run(builder, cwd=ROOT, check=False).returncode


def gather_pages(folder: Path) -> None:
    """Write all pages and images of the site into a folder, with links that lead from page to page."""
    shutil.copytree(ROOT / "docs", folder, ignore=shutil.ignore_patterns("*.py", "*.ipynb", "__pycache__"))
    origins = {page: ROOT / "docs" / page.relative_to(folder) for page in folder.rglob("*.md")}
    origins |= {folder / page: ROOT / source for source, page in COPIED.items()}
    pages = {origin: page for page, origin in origins.items()} | find_notebooks(folder)
    for page, origin in origins.items():
        page.write_text(_relink(origin, page, pages), "utf8")
    for name, write in GENERATED.items():
        (folder / name).write_text("\n".join((*write(), "")), "utf8")


def find_notebooks(folder: Path) -> dict[Path, Path]:
    """Return the notebooks, and the page that each becomes."""
    return {
        path: folder / "notebooks" / f"{path.stem}.md" for path in sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
    }


def _relink(origin: Path, page: Path, pages: dict[Path, Path]) -> str:
    """Return the text of a file with its links to files of the repository turned into links to pages of the site."""

    def turn(found: re.Match[str]) -> str:
        target = (origin.parent / found[2]).resolve()
        link = os.path.relpath(pages[target], page.parent) if target in pages else found[2]
        return f"{found[1]}{link}{found[3]}"

    return LINK.sub(turn, origin.read_text("utf8"))


def write_commands() -> Iterator[str]:
    """Yield the lines of the page on the command line: each command with its arguments, options and examples."""
    from zoo.tools.cli import app

    yield "# Command line"
    yield ""
    yield "Generated from the program. `zoo COMMAND --help` shows the same."
    yield from _command(typer.main.get_command(app))


def _command(command: Any, name: str = "zoo", parent: Any = None) -> Iterator[str]:
    context = command.context_class(command, info_name=name.split()[-1], parent=parent)
    inner = getattr(command, "commands", {})
    if parent is not None:
        yield from ("", f"{'#' * (name.count(' ') + 1)} {name}", "")
        if not inner:
            yield from ("```text", " ".join((name, *command.collect_usage_pieces(context))), "```")
        yield from _help(command.help or "")
    if not inner:
        rows = [row for parameter in command.get_params(context) if (row := parameter.get_help_record(context))]
        yield from _table([(TYPE.sub("", names), DEFAULT.sub(r"[default: \1]", text)) for names, text in rows])
    for key, one in inner.items():
        yield from _command(one, f"{name} {key}", context)


def _help(text: str) -> Iterator[str]:
    """Yield a command's own words; a paragraph with click's mark keeps its lines, which are a heading and examples."""
    for part in text.split("\n\n"):
        if part.startswith("\b\n"):
            heading, *examples = part.removeprefix("\b\n").splitlines()
            yield from ("", heading, "", "```console", *map(str.strip, examples), "```")
        else:
            yield from ("", *map(_plain, part.splitlines()))


def write_fields() -> Iterator[str]:
    """Yield the lines of the page on preset fields: each with its default, its values and its meaning."""
    yield from (
        "# Preset fields",
        "",
        "Generated from the schema. `zoo preset show --fields` shows the same. Every field can stand in a YAML preset, "
        "after `--set` on the command line, and as an argument of `zoo.finetune` and `zoo.plan`.",
    )
    yield from _fields("All fields", list_fields())
    yield from _fields("Settings of one key of `lr`", list_settings())


def _fields(title: str, fields: list[PresetField]) -> Iterator[str]:
    yield from ("", f"## {title}")
    for field in fields:
        meaning = field.meaning[:1].upper() + field.meaning[1:]
        told = f":   {_plain(meaning)}. *Values: {_plain(field.expected)}.*"
        yield from ("", f"**`{field.name}`** = `{field.default}`", told)


def _table(rows: list[tuple[str, str]]) -> Iterator[str]:
    yield from ("", "| argument or option | meaning |", "|---|---|")
    for names, text in rows:
        yield f"| `{names}` | {_plain(' '.join(text.split()))} |"


def _plain(text: str) -> str:
    """Return text in which nothing is taken for Markdown but code."""
    return re.sub(r"[*|\[\]]", r"\\\g<0>", text).replace("<", "&lt;")


GENERATED = {"reference/cli.md": write_commands, "reference/preset.md": write_fields}

if __name__ == "__main__":
    sys.exit(main())
