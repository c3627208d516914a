"""Before any test: an environment of its own, with a Hub on loopback instead of the real one.

The Hub's client reads its environment once, when it is imported, so all of this happens while this file is imported.
Under pytest-xdist each worker imports it and gets a server and folders of its own.
"""

import ctypes
import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psutil
import pytest

from hub_server import HubServer

assert "huggingface_hub" not in sys.modules, "the Hub's client was imported before its environment was set"

HOME = Path(tempfile.mkdtemp(prefix="zoo-tests-"))
(HOME / "hub").mkdir()
HUB = HubServer(HOME / "hub")
for name in list(os.environ):
    if name.startswith(("HF_", "HUGGINGFACE_", "HUGGING_FACE_", "ZOO_")) and not name.startswith("ZOO_TEST_"):
        del os.environ[name]
os.environ |= {
    "HF_ENDPOINT": HUB.endpoint,
    "HF_HOME": str(HOME / "huggingface"),
    "XDG_CACHE_HOME": str(HOME / "cache"),
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DOWNLOAD_TIMEOUT": "2",
    "HF_HUB_ETAG_TIMEOUT": "2",
    "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "1",  # tiny networks: threads cost more than they bring, and workers share the cores
    "NO_PROXY": "127.0.0.1,localhost",
    "TORCH_HOME": str(HOME / "torch"),
}


LITTLE, MORE = 1 << 30, 1 << 28  # bytes: a worker that has grown by so many more gives back what it does not use
_held = [LITTLE]
_modules = [0]  # how many were loaded when garbage was collected last
_drawing: list[bool] = []  # holds something while plots are drawn


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)  # so that no worker ends with a long one alone


def pytest_collection_finish() -> None:
    from PIL import Image

    from zoo.files import write_file
    from zoo.training.loggers import report
    from zoo.training.run_folder import RunFolder

    keep = RunFolder.draw

    # Drawing takes longer than training a tiny network, so runs write a blank image under the name of each plot. That
    # every plot can be drawn is asked by the task contract and by the tests that are marked.
    def draw(run: RunFolder, name: str, plot: Callable[[Path], object]) -> None:
        keep(run, name, plot if _drawing else Image.new("RGB", (2, 2)).save)

    RunFolder.draw = draw  # type: ignore[method-assign]
    write = report.write_report

    def write_page(folder: Path) -> Path:  # likewise an empty page
        if _drawing:
            return write(folder)
        write_file(folder / "report.html", "")
        return folder / "report.html"

    report.write_report = write_page
    _freeze()


def _freeze() -> None:
    """Spare those who collect garbage the modules that were loaded since last time: they stay."""
    if len(sys.modules) > _modules[0] + 50:
        gc.collect()
        gc.freeze()
        _modules[0] = len(sys.modules)


@contextmanager
def drawing(wanted: bool = True) -> Iterator[None]:
    """Draw the plots of all runs meanwhile, or none."""
    before = _drawing.copy()
    _drawing[:] = [True] * wanted
    try:
        yield
    finally:
        _drawing[:] = before


@pytest.fixture(scope="session")
def drawn() -> Callable[[], AbstractContextManager[None]]:
    """What the run of a fixture is made in if its plots are looked at; a test is marked instead."""
    return drawing


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    with drawing(item.get_closest_marker("plots") is not None):
        result = yield
    if isinstance(item, pytest.Function) and (nextitem is None or nextitem.path != item.path):
        for value in vars(item.module).values():  # the networks that a file's tests share
            if getattr(value, "__module__", None) == item.module.__name__:
                getattr(value, "cache_clear", int)()
        _freeze()
    if psutil.Process().memory_info().rss > _held[0] + MORE:
        gc.collect()
        getattr(ctypes.CDLL(None), "malloc_trim", int)(0)  # glibc keeps what is free otherwise
        _held[0] = max(LITTLE, psutil.Process().memory_info().rss)
    return result


def pytest_unconfigure() -> None:
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _serving() -> Iterator[None]:
    with HUB:
        yield


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images that many runs share: `train` with 6 of each colour, `val` with 3; leave them as they are."""
    from coloured_folder import write_coloured

    return write_coloured(tmp_path_factory.mktemp("images"), train=6, val=3)


@pytest.fixture(scope="module")
def small_detector() -> Iterator[None]:
    """`yolo_nas_s` and its sisters are small networks in a file that uses this."""
    from small_yolo_nas import small_yolo_nas

    with small_yolo_nas():
        yield


@pytest.fixture
def hub() -> HubServer:
    """The Hub, healed, without repositories and requests; and an empty cache."""
    HUB.reset()
    shutil.rmtree(HOME / "huggingface", ignore_errors=True)
    return HUB
