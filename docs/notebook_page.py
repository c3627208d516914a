"""Run a notebook, and write it with its outputs as a page of the site."""

import asyncio
import html
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from nbclient import NotebookClient

TIMEOUT = 120  # seconds for a cell
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")  # colours of a terminal


def write_notebook_page(notebook: Path, page: Path) -> None:
    """Run a notebook from top to bottom and write a page in Markdown.

    Args:
        notebook: It stays as it is.
        page: Where the page goes; its folder is made if need be.

    Raises:
        CellExecutionError: A cell has failed.
    """
    cells = nbformat.read(notebook, as_version=4)
    with TemporaryDirectory() as desk:  # in which the notebook writes its files
        client = NotebookClient(cells, timeout=TIMEOUT, kernel_name="python3", resources={"metadata": {"path": desk}})
        asyncio.run(client.async_execute())
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n\n".join(_write_cells(cells.cells)) + "\n", "utf8")


def _write_cells(cells: list[Any]) -> Iterator[str]:
    for cell in cells:
        if cell.cell_type == "markdown":
            yield cell.source
        else:
            yield f"```python\n{cell.source}\n```"
            shown = [output for output in cell.outputs if output.get("name") != "stderr"]
            for is_stream, outputs in groupby(shown, lambda output: output.output_type == "stream"):
                if is_stream:
                    yield _write_text("".join(output.text for output in outputs))
                else:
                    yield from map(_write_data, outputs)


def _write_data(output: Any) -> str:
    """Return what a cell has shown: HTML as it is, on one line, so that Markdown leaves it alone; else text."""
    if "text/html" in output.data:
        return f'<div class="output">{re.sub(chr(10) + "+", " ", output.data["text/html"])}</div>'
    return _write_text(output.data["text/plain"])


def _write_text(text: str) -> str:
    lines = html.escape(ESCAPES.sub("", text).rstrip("\n")).replace("\n", "&#10;")
    return f'<div class="output"><pre>{lines}</pre></div>'
