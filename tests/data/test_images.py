import os
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from image_files import make_image, write_image
from zoo.data.decode import examine
from zoo.data.image_store import ImageStore
from zoo.data.images import Images, check_splits, number_images, pick_val
from zoo.data.splits import Split, split_of_dataset, split_of_files
from zoo.errors import DataError


def files(root: Path, **classes: list[str]) -> Split:
    for name in (name for names in classes.values() for name in names):
        if "bad" in name:
            (root / name).write_text("no image")
        else:
            write_image(root / name, seed=len(name))
    return split_of_files(root, classes, "train")


def test_a_check_tells_good_from_bad(tmp_path: Path) -> None:
    split = files(tmp_path, cat=["1.png", "bad2.png"], dog=["bad3.png", "4.png"])
    seen: list[tuple[int, int]] = []
    check = check_splits({"train": split}, check=True, on_progress=lambda done, total: seen.append((done, total)))[
        "train"
    ]
    assert check.good == (0, 3)
    assert check.labels == ("cat", "dog")
    assert [problem.name for problem in check.problems] == ["bad2.png", "bad3.png"]
    assert "not an image" in check.problems[0].reason
    assert seen == [(4, 4)]


def test_files_that_were_found_good_are_not_read_again_until_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    split = files(tmp_path, cat=["1.png", "bad2.png"], dog=["3.png", "4.png"])
    for path in tmp_path.glob("*.png"):
        os.utime(path, (1e9, 1e9))
    read: list[str] = []

    def watch(source: Any) -> tuple[str | None, str]:
        read.append(Path(source).name)
        return examine(source)

    monkeypatch.setattr("zoo.data.images.examine", watch)
    seen: list[tuple[int, int]] = []
    first = check_splits({"train": split}, check=True)
    assert sorted(read) == ["1.png", "3.png", "4.png", "bad2.png"]
    read.clear()
    (tmp_path / "4.png").write_bytes(b"cut off")
    again = check_splits({"train": split}, check=True, on_progress=lambda done, total: seen.append((done, total)))
    assert sorted(read) == ["4.png", "bad2.png"]
    assert (first["train"].good, again["train"].good) == ((0, 2, 3), (0, 2))
    assert [problem.name for problem in again["train"].problems] == ["bad2.png", "4.png"]
    assert seen == [(4, 4)]


def test_images_that_are_almost_black_are_told_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    split = files(tmp_path, cat=["1.png", "2.png"])
    Image.fromarray(np.array([[0, 4095], [7, 9]], np.uint16)).save(tmp_path / "1.png")
    for path in tmp_path.glob("*.png"):
        os.utime(path, (1e9, 1e9))
    for _ in range(2):
        check = check_splits({"train": split}, check=True)["train"]
        assert (check.good, check.problems) == ((0, 1), ())
        assert [(remark.name, remark.reason.split(",")[0]) for remark in check.remarks] == [
            ("1.png", "its largest value is 4")
        ]


def test_many_files_are_checked_in_order(tmp_path: Path) -> None:
    names = [f"{number:03}{'bad' * (number % 50 == 7)}.png" for number in range(300)]
    split = files(tmp_path, cat=names)
    seen: list[tuple[int, int]] = []
    check = check_splits({"train": split}, check=True, on_progress=lambda done, total: seen.append((done, total)))[
        "train"
    ]
    assert [problem.name for problem in check.problems] == [name for name in names if "bad" in name]
    assert len(check.good) == 294
    assert seen[-1] == (300, 300)
    assert seen == sorted(seen)


def test_labels_are_read_even_without_a_check_and_files_are_not(tmp_path: Path) -> None:
    split = split_of_files(tmp_path, {"cat": ["missing.png"]}, "train")
    check = check_splits({"train": split}, check=False, on_progress=lambda done, total: pytest.fail("read"))["train"]
    assert (check.good, check.labels, check.problems) == ((0,), ("cat",), ())
    split = split_of_dataset([(make_image(), 1), (None, 0), 7], "train")
    check = check_splits({"train": split}, check=False)["train"]
    assert (check.good, check.labels) == ((0, 1), (1, 0))
    assert [problem.name for problem in check.problems] == ["train[2]"]
    assert check_splits({"train": split}, check=True)["train"].good == (0,)


@pytest.mark.filterwarnings("error")
def test_pillow_is_not_heard_while_it_checks(tmp_path: Path) -> None:
    make_image().save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0" + b"\xff" * 20)
    split = split_of_files(tmp_path, {"cat": ["a.jpg"]}, "train")
    assert check_splits({"train": split}, check=True)["train"].good == (0,)


def test_wrong_labels_are_errors() -> None:
    with pytest.raises(DataError, match=r"1 label of train cannot be used.*\n  train\[1\]: 0\.5 \(float\)"):
        check_splits({"train": split_of_dataset([(make_image(), 1), (make_image(), 0.5)], "train")}, check=True)


def numbered(root: Path) -> Images:
    split = files(root, cat=["1.png", "bad2.png", "33.png"], dog=["444.png"])
    return number_images(split, check_splits({"train": split}, check=True)["train"], ("dog", "cat"), "train")


def test_a_part_of_the_images_may_be_taken(tmp_path: Path) -> None:
    images = numbered(tmp_path)
    assert (len(images), images.names, images.targets) == (3, ("1.png", "33.png", "444.png"), (1, 1, 0))
    for each in (images, pickle.loads(pickle.dumps(images))):
        image, target = each.read(1)
        assert target == 1
        assert np.array_equal(np.asarray(image), np.asarray(make_image(seed=6)))
    part = numbered(tmp_path).subset([2, 0])
    assert (part.names, part.targets) == (("444.png", "1.png"), (0, 1))
    image, target = part.subset([0]).read(0)
    assert target == 0
    assert np.array_equal(np.asarray(image), np.asarray(make_image(seed=7)))


def test_files_may_be_read_in_threads_and_data_sets_not(tmp_path: Path) -> None:
    assert numbered(tmp_path).subset([1]).in_threads
    split = split_of_dataset([(make_image(), 1), (make_image(), 0)], "train")
    check = check_splits({"train": split}, check=True)["train"]
    assert not number_images(split, check, ("0", "1"), "train").in_threads


def test_kept_images_are_read_once(tmp_path: Path) -> None:
    images = numbered(tmp_path)
    with ImageStore("disk", 10**7, tmp_path / "kept") as store:
        train, val = images.keeping(store, "train"), images.keeping(store, "val")
        train.read(1)
        for path in tmp_path.glob("*.png"):
            path.unlink()
        for each in (train, pickle.loads(pickle.dumps(train.subset([2, 1]))).subset([1])):
            image, target = each.read(len(each) // 2)
            assert target == 1
            assert np.array_equal(np.asarray(image), np.asarray(make_image(seed=6)))
        for other, index in ((images, 1), (val, 1), (train, 0)):
            with pytest.raises(DataError, match=r"the file does not exist"):
                other.read(index)
        assert (store.hits, store.kept) == (1, 1)


def test_an_image_that_has_gone_bad_is_named(tmp_path: Path) -> None:
    images = numbered(tmp_path)
    (tmp_path / "33.png").unlink()
    with pytest.raises(
        DataError,
        match=r"^image '33\.png': cannot read '.*': the file does not exist\. Restore the image; a new run can skip "
        r"unreadable images with skip_bad=True \(--skip-bad",
    ):
        images.read(1)


def test_val_is_the_same_share_of_every_class_and_depends_on_seed_and_names_alone() -> None:
    targets = [0] * 10 + [1] * 100 + [2] * 2 + [3]
    names = [f"{number}.jpg" for number in range(len(targets))]
    chosen = pick_val(names, targets, fraction=0.2, seed=0)
    assert chosen == sorted(set(chosen))
    assert Counter(targets[index] for index in chosen) == {0: 2, 1: 20, 2: 1}  # none of the class with one image
    assert Counter(targets[index] for index in pick_val(names, targets, fraction=0.99, seed=0))[0] == 9
    names, targets = [f"{number}.jpg" for number in range(100)], [0] * 100

    def pick(order: Any, seed: int) -> set[str]:
        listed = [names[index] for index in order]
        return {listed[index] for index in pick_val(listed, targets[: len(listed)], fraction=0.2, seed=seed)}

    assert pick(range(100), 0) == pick(range(99, -1, -1), 0)
    assert pick(range(100), 0) != pick(range(100), 1)
    assert len(pick(range(100), 0) - pick(range(95), 0)) <= 5  # few images change sides when some are added
