"""The pages: each block of Python runs alone, their YAML is a preset, their commands are commands."""

import copy
import functools
import importlib.util
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import typer
from timm.models import resnet

import zoo
from boxed_folder import write_boxed
from coloured_folder import write_coloured
from tools.cli import app, main
from zoo.settings.files import parse_preset

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r"^```(python|yaml|sh)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]*)(?:#([\w-]+))?\)")
WRITTEN = re.compile(r'out="([^"]+)"')  # the folder that a block makes
SIDE = 64  # pixels: pages speak of networks of 224, which learn nothing more from images of 32
CHANNELS = (8, 16, 32, 64)  # of a ResNet's stages, an eighth: its parts have the same names
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


@pytest.fixture(scope="module", autouse=True)
def _thin_networks(small_detector):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resnet, "_create_resnet", functools.partial(resnet._create_resnet, channels=CHANNELS))
        yield


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """What the pages take for granted: images with classes and with boxes, and a finished run of each."""
    shelf = tmp_path_factory.mktemp("shelf")
    write_coloured(shelf / "flowers", train=4, val=2)
    write_coloured(shelf / "photos", train=1)
    shutil.copy(shelf / "photos" / "train" / "red" / "00.png", shelf / "photo.jpg")
    write_boxed(shelf / "cells", train=3, val=2)
    quick: dict[str, Any] = {"epochs": 1, "progress": False}
    zoo.finetune(get_at_once("resnet18", num_classes=3), shelf / "flowers", 0.1, out=shelf / "runs/flowers", **quick)
    cells = {"image_size": SIDE, "out": shelf / "runs/cells", **quick}
    zoo.finetune(get_at_once("yolo_nas_s", num_classes=2), shelf / "cells", 0.001, **cells)
    return shelf


@pytest.fixture
def desk(shelf, tmp_path, monkeypatch):
    """A copy of the shelf to work in. No weights are loaded, what is compiled is traced only, names are forgotten."""
    lay(shelf, tmp_path)
    monkeypatch.chdir(tmp_path)
    for place in ("zoo.get", "zoo.training.named_model.get"):
        monkeypatch.setattr(place, get_at_once)
    monkeypatch.setattr("zoo.training.named_model.fetch_weights", lambda name, pretrained: None)
    monkeypatch.setattr("zoo.engine.compile.BACKEND", "eager")
    monkeypatch.setattr("zoo.optim.catalog._registered", {})
    monkeypatch.setattr("zoo.rates.schedules.parse._REGISTERED", {})
    torch.manual_seed(0)
    return tmp_path


def lay(shelf: Path, desk: Path) -> None:
    """Put what is on the shelf on the desk, where it is not."""
    for source in shelf.rglob("*"):
        if source.is_file() and not (target := desk / source.relative_to(shelf)).exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)


def get_at_once(name: str, *, pretrained: Any = False, commercial: bool | None = None, **options: Any) -> Any:
    """Return what `zoo.get` does, with random weights where those of the Hub are asked for, and for small images."""
    if isinstance(pretrained, str) or commercial:
        return _get(name, pretrained=pretrained, commercial=commercial, **options)
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    return copy.deepcopy(_make(name, pretrained=pretrained and name.startswith("efficientnet_lite"), **options))


_get = zoo.get


@functools.cache
def _make(name: str, **options: Any) -> Any:
    model = _get(name, **options)
    if model.task == "classification":
        model.preprocess = model.preprocess.replace(image_size=SIDE)
    return model


def find_blocks(page: Path) -> Iterator[Block]:
    text = page.read_text("utf8")
    for found in BLOCK.finditer(text):
        yield Block(text.count("\n", 0, found.start()) + 2, found[1], found[2] or "", found[3])


def run_python(block: Block, page: Path) -> None:
    """Run a block as a script of its own."""
    for folder in WRITTEN.findall(block.text):
        shutil.rmtree(folder, ignore_errors=True)
    exec(compile("\n" * (block.line - 1) + block.text, page, "exec"), {"__name__": "__main__"})


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
        elif words[:1] == ["zoo"] and not words[1].startswith("-"):
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
def test_every_block_of_the_page_works_alone(page, shelf, desk):
    for block in find_blocks(page):
        try:
            if block.language == "python":
                run_python(block, page)
                lay(shelf, desk)
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


def test_the_site_has_every_page_once_and_its_links_lead_to_pages(tmp_path):
    spec = importlib.util.spec_from_file_location("build_site", DOCS / "build_site.py")
    builder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(builder)
    builder.gather_pages(tmp_path / "pages")
    for page in builder.find_notebooks(tmp_path / "pages").values():  # they are run when the site is built
        page.parent.mkdir(exist_ok=True)
        page.touch()
    pages = {path.relative_to(tmp_path / "pages").as_posix(): path for path in (tmp_path / "pages").rglob("*.md")}
    listed = list(find_pages(tomllib.loads((ROOT / "zensical.toml").read_text("utf8"))["project"]["nav"]))
    assert sorted(listed) == sorted(pages)
    for page in pages.values():
        for file, _ in LINK.findall(page.read_text("utf8")):
            assert not file or (page.parent / file).is_file(), f"{page}: {file}"
    commands = pages["reference/cli.md"].read_text("utf8")
    assert all(text in commands for text in ("## zoo finetune", "### zoo weights pull", "--batch-size"))
    assert "**`batch_size`** = `32`" in pages["reference/preset.md"].read_text("utf8")


def find_pages(nav: list) -> Iterator[str]:
    for entry in nav:
        for page in [entry] if isinstance(entry, str) else entry.values():
            yield from [page] if isinstance(page, str) else find_pages(page)


def test_the_reference_has_every_public_name():
    described = re.findall(r"^::: zoo\.(\w+)$", (DOCS / "reference/python.md").read_text("utf8"), re.MULTILINE)
    assert sorted(described) == sorted(set(zoo.__all__) - {"__version__"})


def test_what_is_wrong_on_a_page_is_found(desk):
    wrong = Block(1, "python", "", 'import zoo\nassert zoo.plan(zoo.get("resnet18"), 0.1).rates(0) == {}')
    with pytest.raises(AssertionError):
        run_python(wrong, DOCS / "page.md")
    with pytest.raises(NameError):
        run_python(Block(1, "python", "", "zoo.list_models()"), DOCS / "page.md")
    with pytest.raises(zoo.ZooError, match=r"epocs"):
        read_preset(Block(1, "yaml", "", "epocs: 1"))
    with pytest.raises(Exception, match=r"--epocs"):
        run_commands(Block(1, "sh", "", "zoo finetune resnet18 flowers --epocs 1"))
    with pytest.raises(AssertionError):
        run_commands(Block(1, "sh", "", "zoo plan resnet5"))
