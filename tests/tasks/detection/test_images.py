from pathlib import Path

import numpy as np
import pytest

from image_files import make_image, write_image
from zoo.data.image_store import ImageStore
from zoo.errors import DataError
from zoo.tasks.detection.images import BoxedImages, Boxes


def boxes(labels: list[int], crowd: list[bool] | None = None) -> Boxes:
    xyxy = np.array([[number, 0, number + 2, 3] for number in range(len(labels))], np.float32).reshape(-1, 4)
    return Boxes(xyxy, np.array(labels, np.int64), np.array(crowd or [False] * len(labels), bool))


@pytest.fixture
def images() -> BoxedImages:
    pictures = [make_image(seed=seed) for seed in range(5)]
    every = (boxes([1, 1, 0]), boxes([]), boxes([2, 1], [True, False]))
    return BoxedImages(pictures.__getitem__, ("a", "b", "c"), ((7, 9),) * 3, every, (4, 0, 2))


def test_reading_follows_the_positions_also_in_a_subset(images: BoxedImages) -> None:
    assert len(images) == 3
    for index, seed in enumerate((4, 0, 2)):
        image, found = images.read(index)
        assert np.array_equal(np.asarray(image), np.asarray(make_image(seed=seed)))
        assert found is images.boxes[index]
    part = images.subset([2, 0])
    assert (part.names, part.positions, part.sizes) == (("c", "a"), (2, 4), ((7, 9), (7, 9)))
    assert [found.labels.tolist() for found in part.boxes] == [[2, 1], [1, 1, 0]]
    assert np.array_equal(np.asarray(part.read(1)[0]), np.asarray(make_image(seed=4)))
    assert len(images.subset([])) == 0


def test_crowds_are_neither_learnt_nor_counted(images: BoxedImages) -> None:
    single = images.boxes[2].learnable()
    assert single.labels.tolist() == [1]
    assert single.xyxy.tolist() == [[1, 0, 3, 3]]
    assert single.crowd.tolist() == [False]
    assert images.count_boxes(4) == [1, 3, 0, 0]
    assert images.subset([1]).count_boxes(2) == [0, 0]
    assert images.subset([]).count_boxes(2) == [0, 0]


def test_kept_images_are_read_once(tmp_path: Path, images: BoxedImages) -> None:
    with ImageStore("disk", 10**7, tmp_path / "kept") as store:
        kept = images.keeping(store, "train")
        first = [kept.read(index) for index in range(3)]
        again = kept.subset([2, 0])
        for found, index in ((again.read(0), 2), (again.read(1), 0)):
            assert np.array_equal(np.asarray(found[0]), np.asarray(first[index][0]))
            assert found[1] is images.boxes[index]
        assert (store.hits, store.kept) == (2, 3)


def test_a_file_that_has_gone_since_is_named(tmp_path: Path) -> None:
    path = write_image(tmp_path / "photo.png")
    images = BoxedImages(lambda position: str(path), ("photo.png",), ((7, 9),), (boxes([0]),), (0,))
    assert images.read(0)[0].size == (9, 7)
    path.unlink()
    with pytest.raises(DataError, match=r"image 'photo.png': cannot read .*does not exist.*skip_bad=True"):
        images.read(0)
