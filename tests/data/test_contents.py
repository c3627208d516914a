import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from coloured_folder import write_coloured
from zoo.data import contents
from zoo.data.contents import digest_contents, tell_change


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(contents, "YOUNG_SECONDS", -1.0)  # what is written here counts as old
    return write_coloured(tmp_path / "images", train=2, val=1, size=8)


def invert(path: Path, *, keeps_times: bool = False) -> None:
    """Give an image other pixels; the size of the file stays as it is."""
    before = path.stat()
    with Image.open(path) as image:
        pixels = 255 - np.asarray(image)
    path.write_bytes(b"")
    Image.fromarray(pixels).save(path, "BMP")
    if keeps_times:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("keeps_times", [False, True])
def test_an_image_with_other_pixels_and_as_many_bytes_is_noticed_and_named(folder: Path, keeps_times: bool) -> None:
    path = folder / "train" / "red" / "00.png"
    with Image.open(path) as image:
        image.convert("RGB").save(path, "BMP")
    before, size = zoo.open_data(folder).describe(), path.stat().st_size
    assert zoo.open_data(folder).describe() == before
    invert(path, keeps_times=keeps_times)
    assert path.stat().st_size == size
    now = zoo.open_data(folder).describe()
    assert now["digest"] != before["digest"]
    assert tell_change(before, now) == "train: 1 changed ('train/red/00.png')"


def test_missing_and_new_files_and_labels_are_told(folder: Path) -> None:
    before = zoo.open_data(folder).describe()
    shutil.copy(folder / "train" / "red" / "00.png", folder / "train" / "red" / "new.png")
    os.remove(folder / "val" / "blue" / "00.png")
    shutil.copy(folder / "val" / "red" / "00.png", folder / "val" / "blue" / "01.png")
    now = zoo.open_data(folder).describe()
    assert tell_change(before, now) == (
        "train: 1 new ('train/red/new.png'); val: 1 missing ('val/blue/00.png'); val: 1 new ('val/blue/01.png')"
    )
    assert tell_change({}, now) == tell_change(now, now) == "its labels, boxes or order differ"


def test_files_are_hashed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = zoo.open_data(folder).train
    first = digest_contents(images)
    monkeypatch.setattr(contents.hashlib, "file_digest", None)
    assert digest_contents(images) == first


@pytest.mark.parametrize("damage", [b"", b"[]", b"{", b'{"a": 1}', b"[" * 100_000, b'{"a": [Infinity]}'])
def test_a_damaged_note_counts_for_nothing(folder: Path, tmp_path: Path, damage: bytes) -> None:
    images = zoo.open_data(folder).train
    first = digest_contents(images)
    (note,) = (tmp_path / "cache" / "zoo" / "contents").iterdir()
    note.write_bytes(damage)
    assert digest_contents(images) == first


def test_a_file_that_is_gone_is_another_one(folder: Path) -> None:
    images = zoo.open_data(folder).train
    before = digest_contents(images)
    os.remove(folder / "train" / "red" / "00.png")
    assert [old == new for old, new in zip(before, digest_contents(images), strict=True)].count(False) == 1


def test_images_in_memory_are_read_if_they_give_the_same_twice() -> None:
    pixels = torch.arange(4 * 3 * 8 * 8, dtype=torch.float32).reshape(4, 3, 8, 8) / 800
    samples = [(image, number % 2) for number, image in enumerate(pixels)]

    def describe(samples: object) -> object:
        return zoo.open_data((samples, samples)).describe()["digest"]

    first = describe(samples)
    assert describe(list(samples)) == first
    assert describe([(samples[0][0] * 0.5, 0), *samples[1:]]) != first
    assert describe(samples[::-1]) != first

    class Random(torch.utils.data.Dataset[object]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> object:
            return torch.rand(3, 8, 8), index % 2

    assert describe(Random()) == describe(Random())


def test_a_damaged_note_does_not_change_what_an_image_is(folder: Path, tmp_path: Path) -> None:
    right = zoo.open_data(folder).describe()["digest"]
    for note in (tmp_path / "cache" / "zoo" / "contents").iterdir():
        text = note.read_bytes()
        begin = text.index(b'00.png"')
        for place in range(begin, begin + 120, 5):  # size, times, inode and digest of an image
            note.write_bytes(text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :])
            assert zoo.open_data(folder).describe()["digest"] == right
