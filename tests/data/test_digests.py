import os
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from zoo.data import digests
from zoo.data.digests import digest_images, digest_sources
from zoo.data.images import Images
from zoo.data.splits import FileReader
from zoo.errors import DataError, InputError
from zoo.tasks.detection.images import BoxedImages, Boxes


@pytest.fixture
def images(tmp_path):
    names = tuple(f"{number}.jpg" for number in range(150))
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(f"image {number}".encode())
    return Images(FileReader(tmp_path, names), names, tuple(range(150)), tuple(range(150)))


class Paths:
    """Gives images alone, as readers of images with boxes do."""

    def __init__(self, reader):
        self.reader = reader

    def __call__(self, position):
        return self.reader(position)[0]


@pytest.fixture
def boxed(images):
    boxes = tuple(
        Boxes(
            np.arange(4 * count, dtype=np.float32).reshape(count, 4), np.arange(count), np.zeros(count, dtype=np.bool_)
        )
        for count in (2, 0, 1)
    )
    return BoxedImages(Paths(images.reader), images.names[:3], ((4, 4),) * 3, boxes, (0, 1, 2))


def images_of(sources):
    names = tuple(f"train[{number}]" for number in range(len(sources)))
    places = tuple(range(len(sources)))
    return Images(lambda position: (sources[position], "label"), names, (0,) * len(sources), places)


def test_the_digest_of_images_depends_on_nothing_else(images, tmp_path):
    digest = digest_images(images)
    assert re.fullmatch(r"[0-9a-f]{64}", digest)
    assert digest_images(images, threads=1) == digest
    assert len(set(digest_sources(images))) == 150
    folder = tmp_path / "moved"
    folder.mkdir()
    for path in sorted(tmp_path.glob("*.jpg")):
        path.rename(folder / f"x{path.name}")
    names = tuple(f"x{name}" for name in images.names)
    assert digest_images(replace(images, reader=FileReader(folder, names), names=names)) == digest


def test_one_byte_one_class_or_the_order_changes_it(images, tmp_path):
    digest, targets = digest_images(images), list(images.targets)
    targets[7] += 1
    assert digest_images(replace(images, targets=tuple(targets))) != digest
    assert digest_images(images.subset(range(149))) != digest
    assert digest_images(images.subset([1, 0, *range(2, 150)])) != digest
    swapped = replace(images, positions=(1, 0, *range(2, 150)))
    assert digest_images(swapped) != digest
    data = bytearray((tmp_path / "149.jpg").read_bytes())
    data[-1] ^= 1
    (tmp_path / "149.jpg").write_bytes(data)
    assert digest_images(images) != digest


def test_large_files_are_read_to_their_end(tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "_BLOCK_BYTES", 1000)
    path = tmp_path / "large.jpg"
    path.write_bytes(bytes(2500))
    first = digest_sources(images_of([path]))
    assert first == digest_sources(images_of([bytes(2500)])), "a file is its bytes, on disk or in memory"
    path.write_bytes(bytes(2499) + b"x")
    assert digest_sources(images_of([path])) != first


def test_one_box_or_label_changes_it(boxed):
    digest = digest_images(boxed)

    def with_first(**changes):
        return replace(boxed, boxes=(boxed.boxes[0]._replace(**changes), *boxed.boxes[1:]))

    first = boxed.boxes[0]
    assert digest_images(with_first(xyxy=first.xyxy.copy())) == digest
    moved = first.xyxy.copy()
    moved[1, 3] = np.nextafter(moved[1, 3], np.float32(100))
    assert digest_images(with_first(xyxy=moved)) != digest
    assert digest_images(with_first(labels=np.array([0, 2]))) != digest
    assert digest_images(with_first(crowd=np.array([False, True]))) != digest
    # the same boxes, of other images
    shifted = (boxed.boxes[1], boxed.boxes[0], boxed.boxes[2])
    assert digest_images(replace(boxed, boxes=shifted)) != digest
    assert digest_images(boxed.subset([0, 1])) != digest
    assert digest_images(boxed.subset([1])) != digest_images(boxed.subset([]))


def test_images_in_memory_are_told_apart_by_pixels_and_size():
    array = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    other = array.copy()
    other[3, 3, 2] += 1
    same = [array, Image.fromarray(array), array.copy()]
    assert len(set(digest_sources(images_of(same)))) == 1
    different = [array, other, array.reshape(2, 8, 3), array.reshape(8, 2, 3)]
    assert len(set(digest_sources(images_of(different)))) == 4


def test_progress_is_told(images):
    seen = []
    digest_images(images, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(64, 150), (128, 150), (150, 150)]


def test_images_that_cannot_be_read(images, tmp_path):
    (tmp_path / "7.jpg").unlink()
    with pytest.raises(DataError, match=r"image '7\.jpg' cannot be read: No such file or directory\. Check"):
        digest_images(images)
    os.mkfifo(tmp_path / "7.jpg")
    with pytest.raises(DataError, match=r"image '7\.jpg' cannot be read: it is not a regular file"):
        digest_images(images)
    with pytest.raises(DataError, match=r"image 'train\[0\]': cannot read the image: it is of type dict"):
        digest_images(images_of([{}]))
    with pytest.raises(DataError, match=r"image 'train\[0\]' cannot be read: embedded null byte\. Check the"):
        digest_images(images_of(["a\0b"]))

    def fail(position):
        raise InputError("the data set raised IndexError: 7")

    with pytest.raises(DataError, match=r"image '0\.jpg': the data set raised IndexError: 7\. Check the data\."):
        digest_images(replace(images, reader=fail))
