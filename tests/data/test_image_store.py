import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from image_files import make_image
from zoo.data import image_store
from zoo.data.image_store import BLOCK, ImageStore
from zoo.errors import InputError

SIZE = (40, 30)  # one block
MANY = 10**8


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "shm").mkdir()
    monkeypatch.setattr(image_store, "MEMORY_FOLDER", tmp_path / "shm")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    with ImageStore("disk", MANY) as made:
        yield made


def same(image: Image.Image | None, seed: int) -> bool:
    return image is not None and np.array_equal(np.asarray(image), np.asarray(make_image(SIZE, seed=seed)))


@pytest.mark.parametrize("where", ["disk", "memory", "process"])
def test_what_is_put_in_comes_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Any) -> None:
    if where == "process":
        monkeypatch.setattr(image_store, "MEMORY_FOLDER", tmp_path / "nowhere")
    lines: list[str] = []
    with ImageStore("disk" if where == "disk" else "memory", MANY, log=lines.append) as store:
        assert store.get("train-1") is None
        for number in (1, 2):
            store.put(f"train-{number}", make_image(SIZE, seed=number))
        assert same(store.get("train-1"), 1)
        assert same(store.get("train-2"), 2)
        assert store.get("val-1") is None
        assert (store.hits, store.kept, store.bytes) == (2, 2, 2 * BLOCK)
        assert store.total() == (2, 2 * BLOCK)
        parents = {"disk": tmp_path / "cache" / "zoo" / "decoded", "memory": tmp_path / "shm"}
        assert store.folder.parent == parents.get(where, store.folder.parent)
        assert lines == (
            ["each process caches decoded images for itself: no in-memory file system has enough space"]
            if where == "process"
            else []
        )
    assert not store.folder.exists()
    assert store.get("train-1") is None


def test_images_of_any_size_and_nothing_but_rgb(store: ImageStore) -> None:
    for number, size in enumerate([(1, 1), (300, 200), (7, 500)]):
        store.put(str(number), make_image(size, seed=number))
        found = store.get(str(number))
        assert found is not None
        assert np.array_equal(np.asarray(found), np.asarray(make_image(size, seed=number)))
    store.put("gray", Image.new("L", SIZE))
    assert store.get("gray") is None


def test_a_image_is_written_once(store: ImageStore) -> None:
    for seed in (1, 2):
        store.put("a", make_image(SIZE, seed=seed))
    assert same(store.get("a"), 1)
    assert store.kept == 1


def test_a_image_that_was_found_is_not_changed_by_the_next(store: ImageStore) -> None:
    for number in (1, 2):
        store.put(str(number), make_image(SIZE, seed=number))
    first = store.get("1")
    store.get("2")
    assert same(first, 1)


@pytest.mark.parametrize("content", [b"", b"123", b"\x01\0\0\0\x01\0\0\0ab"])
def test_a_broken_file_is_as_if_it_were_not_there(store: ImageStore, content: bytes) -> None:
    (store.folder / "a.rgb").write_bytes(content)
    assert store.get("a") is None


@pytest.mark.parametrize("where", ["disk", "process"])
def test_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    monkeypatch.setattr(image_store, "MEMORY_FOLDER", tmp_path / "nowhere")
    with ImageStore("disk" if where == "disk" else "memory", 10 * BLOCK) as store:
        for number in range(20):
            store.put(str(number), make_image(SIZE, seed=number))
        assert store.total() == (10, 10 * BLOCK)
        assert [same(store.get(str(number)), number) for number in range(20)] == [True] * 10 + [False] * 10


def test_what_does_not_fit_leaves_room_for_less(tmp_path: Path) -> None:
    with ImageStore("disk", 10 * BLOCK) as store:
        store.put("large", make_image((200, 100)))  # 15 blocks
        assert store.total() == (0, 0)
        store.put("small", make_image(SIZE))
        assert store.total() == (1, BLOCK)


def _fill(store: ImageStore, first: int) -> None:
    for number in range(first, first + 40):
        store.put(str(number), make_image(SIZE, seed=number))
    os._exit(0 if store.get(str(first)) is None or same(store.get(str(first)), first) else 1)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_share_images_and_limit(method: str) -> None:
    with ImageStore("disk", 60 * BLOCK) as store:
        store.put("0", make_image(SIZE, seed=0))  # so that some of this process's share is left at the fork
        context = multiprocessing.get_context(method)
        processes = [context.Process(target=_fill, args=(store, first)) for first in (0, 20, 40)]  # type: ignore[attr-defined]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0, 0, 0]
        images, size = store.total()
        assert 50 <= images <= 60
        assert size <= 60 * BLOCK
        assert all(store.get(path.stem) for path in store.folder.glob("*.rgb"))
    assert not store.folder.exists()


def test_two_runs_share_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "shared" / "images"
    with ImageStore("disk", 4 * BLOCK, folder) as one:
        with ImageStore("disk", 100 * BLOCK, folder) as other:
            for number in range(3):
                one.put(str(number), make_image(SIZE, seed=number))
                other.put(str(9 - number), make_image(SIZE, seed=9 - number))
            assert other.total() == one.total() == (4, 4 * BLOCK)
            assert same(other.get("0"), 0)
        assert same(one.get("0"), 0)  # the one that made the folder removes it
    assert not folder.exists()


def test_a_copy_for_another_process_counts_for_itself_and_removes_nothing(store: ImageStore) -> None:
    store.put("a", make_image(SIZE, seed=3))
    copy = pickle.loads(pickle.dumps(store))
    assert same(copy.get("a"), 3)
    assert (copy.hits, copy.kept, store.hits) == (1, 0, 0)
    copy.close()
    assert same(store.get("a"), 3)


def test_a_full_disk_ends_the_keeping_but_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    with ImageStore("disk", MANY, log=lines.append) as store:
        store.put("a", make_image(SIZE, seed=1))

        def full(path: Path, content: bytes) -> None:
            path.touch()
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", full)
        store.put("b", make_image(SIZE))
        store.put("c", make_image(SIZE))
        assert same(store.get("a"), 1)
        assert store.total() == (1, BLOCK)
        assert not list(store.folder.glob("*.tmp"))
    assert lines == ["the image cache is full (No space left on device); the remaining images are decoded every epoch"]


def test_half_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(image_store.shutil, "disk_usage", lambda path: SimpleNamespace(free=8 * BLOCK))
    with ImageStore("disk", MANY, log=lines.append) as store:
        for number in range(9):
            store.put(str(number), make_image(SIZE, seed=number))
        assert store.total()[1] == 4 * BLOCK
    assert lines == ["image cache limited to 0.0 GB, half of the free space"]


def test_the_main_process_says_what_stopped_another(store: ImageStore) -> None:
    lines: list[str] = []
    with ImageStore("disk", MANY, log=lines.append) as store:
        worker = pickle.loads(pickle.dumps(store))
        worker._stop(OSError(28, "No space left on device"))
        assert lines == []
    assert lines == [
        "a data-loading process had no space left in the image cache; the remaining images were decoded every epoch"
    ]


KILLED = """
import os, sys
from pathlib import Path
from PIL import Image
from zoo.data.image_store import ImageStore
store = ImageStore("disk", 10**7)
store.put("a", Image.new("RGB", (8, 8)))
print(store.folder, flush=True)
os.kill(os.getpid(), int(sys.argv[1]))
"""


@pytest.mark.parametrize(("signal", "stays"), [(9, True), (2, False)], ids=["kill", "Ctrl-C"])
def test_nothing_stays_for_long(signal: int, stays: bool) -> None:
    run = subprocess.run([sys.executable, "-c", KILLED, str(signal)], check=False, capture_output=True, text=True)
    left = Path(run.stdout.strip())
    assert left.name.startswith("zoo-images-")
    assert left.exists() == stays
    with ImageStore("disk", MANY) as store:
        assert not left.exists()
        with ImageStore("disk", MANY):
            assert store.folder.exists()  # of a process that lives


def test_folders_of_other_machines_and_strangers_stay(tmp_path: Path) -> None:
    base = tmp_path / "cache" / "zoo" / "decoded"
    names = ["zoo-images-4-5-aa-elsewhere", "zoo-images-notes", "photos"]
    for name in names:
        (base / name).mkdir(parents=True)
    ImageStore("disk", MANY).close()
    assert sorted(path.name for path in base.iterdir()) == sorted(names)


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"where is 'ram'; expected memory or disk"):
        ImageStore("ram", 1)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"limit_bytes is 0; expected 1 or more"):
        ImageStore("disk", 0)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"the image cache folder .*: File exists\. Fix that, or use image_cache=off"):
        ImageStore("disk", MANY, tmp_path / "file" / "images")
