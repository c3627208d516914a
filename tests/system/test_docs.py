"""The pages: their Python runs, their YAML is a preset, their commands are commands."""

import functools
import re
import shlex
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import typer
from torch import nn

import zoo
from boxed_folder import write_boxed
from coloured_folder import write_coloured
from tools.cli import app, main
from zoo.data.transforms import Preprocess
from zoo.settings.files import parse_preset

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(python|yaml|sh)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]*)(?:#([\w-]+))?\)")
RUN_AT_ONCE = (
    "plan",
    "preset",
    "schedules",
    "optimizers",
)  # other commands train or look for weights: their words are checked alone


class Block(NamedTuple):
    line: int
    language: str
    file: str  # name under which a YAML block is kept for the commands of the page
    text: str


class Net(nn.Module):
    """What the pages call `Net`: `(B, 3, 32, 32)` to `(B, 3)`."""

    def __init__(self):
        super().__init__()
        self.preprocess = Preprocess(image_size=32)
        self.conv1, self.norm1 = nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4)
        self.conv2, self.norm2 = nn.Conv2d(4, 8, 3, stride=2), nn.BatchNorm2d(8)
        self.fc1, self.fc2 = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, images):
        maps = self.norm1(self.conv1(images)).relu()
        maps = self.norm2(self.conv2(maps)).relu()
        return self.fc2(self.fc1(maps.mean((2, 3))).relu())


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder to work in, with images. No weights are loaded, what is compiled is traced only, names are forgotten."""
    for folder in ("flowers", "path/to/images"):
        write_coloured(tmp_path / folder, train=4, val=2)
    (tmp_path / "flowers" / "val" / "red" / "00.png").rename(tmp_path / "photo.jpg")
    write_boxed(tmp_path / "cells", train=3, val=2)
    (tmp_path / "photos").mkdir()
    shutil.copy(tmp_path / "photo.jpg", tmp_path / "photos" / "1.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(zoo, "get", without_weights(zoo.get))
    monkeypatch.setattr("zoo.engine.compile.BACKEND", "eager")
    monkeypatch.setattr("zoo.optim.catalog._registered", {})
    monkeypatch.setattr("zoo.rates.schedules.parse._REGISTERED", {})
    torch.manual_seed(0)
    return tmp_path


def without_weights(get):
    @functools.wraps(get)
    def made(name, *, pretrained=False, **options):
        return get(name, **options)

    return made


def find_blocks(page: Path) -> Iterator[Block]:
    text = page.read_text("utf8")
    for found in BLOCK.finditer(text):
        yield Block(text.count("\n", 0, found.start()) + 2, found[1], found[2] or "", found[3])


def run_python(block: Block, page: Path, names: dict) -> None:
    exec(compile("\n" * (block.line - 1) + block.text, page, "exec"), names)


def read_preset(block: Block) -> None:
    if block.file:
        Path(block.file).write_text(block.text, "utf8")
    else:
        parse_preset(block.text, "of the page")


def run_commands(block: Block) -> None:
    for line in block.text.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["zoo"] and words[1] in RUN_AT_ONCE and not missing_file(words):
            assert main(words[1:]) == 0, line
        elif words[:1] == ["zoo"]:
            check_words(words[1:])


def missing_file(words: list[str]) -> bool:
    """Whether a command reads a run or a file that the page has not made; the one after `-o` is written."""
    read = [word for before, word in pairwise(words) if before != "-o"]
    return any(word in ("RUN", "MODEL") or (word.endswith(".yaml") and not Path(word).exists()) for word in read)


def check_words(words: list[str]) -> None:
    """Let the command line read the words, and stop there."""
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    command.make_context(command.name, list(words))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_snippet_of_the_page_works(page, desk):
    names = {"__name__": page.stem, "Net": Net, "model": Net(), "data": "flowers", "zoo": zoo}
    blocks = list(find_blocks(page))
    assert blocks, f"{page} shows nothing that could be tried"
    for block in blocks:
        try:
            if block.language == "python":
                run_python(block, page, names)
            elif block.language == "yaml":
                read_preset(block)
            else:
                run_commands(block)
        except BaseException as error:
            error.add_note(f"{page.relative_to(ROOT)}, block of line {block.line}")
            raise


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page):
    text = page.read_text("utf8")
    for file, heading in LINK.findall(text):
        target = (page.parent / file).resolve() if file else page
        assert target.is_file(), f"{page}: {file}"
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text("utf8"), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}, heading


def test_what_is_wrong_on_a_page_is_found(desk):
    wrong = Block(1, "python", "", "assert zoo.plan(Net(), 0.1).rates(0) == {}")
    with pytest.raises(AssertionError):
        run_python(wrong, ROOT / "docs" / "page.md", {"zoo": zoo, "Net": Net})
    with pytest.raises(zoo.ZooError, match=r"epocs"):
        read_preset(Block(1, "yaml", "", "epocs: 1"))
    with pytest.raises(Exception, match=r"--epocs"):
        run_commands(Block(1, "sh", "", "zoo finetune resnet18 flowers --epocs 1"))
    with pytest.raises(AssertionError):
        run_commands(Block(1, "sh", "", "zoo plan resnet5"))
