import json
import os
import shutil
import sys
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset, TensorDataset

from image_files import make_image, png_header, write_image, write_tree
from zoo.errors import DataError, InputError
from zoo.tasks.classification.data import Data, open_data

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    datasets = pytest.importorskip("datasets")

PIXELS = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8)
NUMBERS = torch.arange(20) % 4
SET = TensorDataset(PIXELS, NUMBERS)
SHARED = Path(__file__).parents[4] / "shared" / "data" / "cifar10_small"


def counts(data: Data) -> dict[str, list[int]]:
    return {split: list(numbers.values()) for split, numbers in data.describe()["counts"].items()}


def hugging_face(labels: Any, label: Any = None) -> Any:
    stream = BytesIO()
    make_image().save(stream, "PNG")
    images = [{"bytes": stream.getvalue(), "path": None}] * len(labels)
    features = {"image": datasets.Image(), "label": label or datasets.ClassLabel(names=["x", "y"])}
    return datasets.Dataset.from_dict({"image": images, "label": labels}, features=datasets.Features(features))


def test_a_folder_with_splits(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train/dog": 3, "train/a cat é": 2, "val/dog": 1, "test/dog": 2})
    data = open_data(str(tmp_path))
    assert data.classes == ("a cat é", "dog")
    assert counts(data) == {"train": [2, 3], "val": [0, 1], "test": [0, 2]}
    assert data.source == str(tmp_path)
    assert data.train is not None
    assert data.train.names[0] == "train/a cat é/0.png"
    image, target = data.train.read(0)
    assert (image.size, image.mode, target) == ((9, 7), "RGB", 0)
    assert open_data(data) is data
    assert (data.skipped, data.loaders) == ((), None)


def test_a_plain_folder_is_split(tmp_path: Path) -> None:
    write_tree(tmp_path / "first", {"cat": 10, "dog": 5, "elk": 1})
    data = open_data(tmp_path / "first", val_fraction=0.2, seed=3)
    assert counts(data) == {"train": [8, 4, 1], "val": [2, 1, 0]}
    assert data.train is not None
    assert data.val is not None
    assert not set(data.train.names) & set(data.val.names)
    shutil.copytree(tmp_path / "first", tmp_path / "second")  # another order on the disk
    again = open_data(tmp_path / "second", val_fraction=0.2, seed=3)
    assert again.val is not None
    assert again.val.names == data.val.names
    assert again.describe()["digest"] == data.describe()["digest"]
    other = open_data(tmp_path / "first", val_fraction=0.2, seed=4)
    assert other.describe()["digest"] != data.describe()["digest"]


def test_train_without_val_is_split_and_test_serves_as_val(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train/a": 5, "train/b": 5})
    assert counts(open_data(tmp_path)) == {"train": [4, 4], "val": [1, 1]}
    write_tree(tmp_path, {"test/a": 2})
    assert counts(open_data(tmp_path)) == {"train": [5, 5], "val": [2, 0], "test": [2, 0]}


def test_classes_in_another_order(tmp_path: Path) -> None:
    write_tree(tmp_path, {"cat": 4, "dog": 2})
    data = open_data(tmp_path, classes=["dog", "cat"])
    assert data.classes == ("dog", "cat")
    assert counts(data) == {"train": [1, 3], "val": [1, 1]}


def test_for_evaluation_nothing_is_split_and_classes_may_be_missing(tmp_path: Path) -> None:
    write_tree(tmp_path / "plain", {"cat": 4})
    data = open_data(tmp_path / "plain", classes=["dog", "cat"], evaluation=True)
    assert data.train is None
    assert counts(data) == {"val": [0, 4]}
    write_tree(tmp_path / "split", {"val/cat": 2, "test/cat": 1})
    assert counts(open_data(tmp_path / "split")) == {"val": [2], "test": [1]}
    with pytest.raises(DataError, match="the data has classes that are missing in the list of classes: 'cat'"):
        open_data(tmp_path / "plain", classes=["dog"], evaluation=True)


def test_only_one_split_is_looked_at(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train/a": 2, "train/b": 2, "val/b": 3, "test/a": 1})
    (tmp_path / "train/a/bad.jpg").touch()
    (tmp_path / "test/a/bad.jpg").touch()
    data = open_data(tmp_path, evaluation=True, only="val")
    assert data.classes == ("a", "b")
    assert counts(data) == {"val": [0, 3]}
    with pytest.raises(DataError, match=r"1 of 2 images are unusable:\n  test/a/bad\.jpg"):
        open_data(tmp_path, evaluation=True, only="test")
    assert counts(open_data((SET, TensorDataset(PIXELS[:2], NUMBERS[:2])), evaluation=True, only="val"))["val"] == [
        1,
        1,
        0,
        0,
    ]
    write_tree(tmp_path / "plain", {"a": 2, "b": 2})
    assert counts(open_data(tmp_path / "plain", evaluation=True, only="val")) == {"val": [2, 2]}
    with pytest.raises(DataError, match=r"the data has no split 'test'; it has no splits, .*use val"):
        open_data(tmp_path / "plain", evaluation=True, only="test")
    with pytest.raises(InputError, match="unknown split 'dev'; expected train, val or test"):
        open_data(tmp_path, evaluation=True, only="dev")


def test_opening_needs_neither_datasets_nor_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tree(tmp_path, {"a": 2, "b": 2})
    seen: list[tuple[int, int]] = []
    open_data(tmp_path, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 4)]
    assert capsys.readouterr() == ("", "")
    assert "datasets" not in (
        sys.modules["zoo.tasks.classification.data"].__dict__ | sys.modules["zoo.data.splits"].__dict__
    )


def spoil(root: Path) -> Path:
    write_tree(root, {"train/a": 2, "train/b": 2, "val/a": 1, "val/b": 1})
    write_image(root / "train/b/cut.jpg", (60, 60))
    (root / "train/b/cut.jpg").write_bytes((root / "train/b/cut.jpg").read_bytes()[:2000])
    (root / "train/a/empty.jpg").touch()
    (root / "train/a/notes.txt").write_text("buy milk")
    (root / "val/a/huge.png").write_bytes(png_header(50_000, 50_000))
    (root / "val/b/link.png").symlink_to("nothing")
    os.mkfifo(root / "val/b/pipe")
    return root


BAD = ["train/a/empty.jpg", "train/a/notes.txt", "train/b/cut.jpg", "val/a/huge.png", "val/b/link.png", "val/b/pipe"]


def test_all_bad_files_are_listed_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        open_data(spoil(tmp_path))
    first, *lines, last = str(caught.value).splitlines()
    assert first == "6 of 12 images are unusable:"
    assert [line.strip().split(": ")[0] for line in lines] == BAD
    reasons = [
        "empty file",
        "not an image",
        "damaged or truncated",
        "too large: 50000 x 50000",
        "a broken symbolic link",
        "not a regular",
    ]
    assert all(reason in line for reason, line in zip(reasons, lines, strict=True))
    assert last == "Repair or remove them, or pass skip_bad=True (--skip-bad) to skip them."


def test_bad_files_can_be_left_out(tmp_path: Path) -> None:
    data = open_data(spoil(tmp_path), skip_bad=True)
    assert counts(data) == {"train": [2, 2], "val": [1, 1]}
    assert [problem.name for problem in data.skipped] == BAD
    described = json.loads(json.dumps(data.describe()))
    assert described["skipped"][0] == {"name": "train/a/empty.jpg", "reason": "empty file (0 bytes)"}


def test_images_that_are_almost_black_are_remarked(tmp_path: Path) -> None:
    write_tree(tmp_path, {"cat": 3, "dog": 3})
    Image.fromarray(np.full((9, 7), 1023, np.uint16)).save(tmp_path / "cat/0.png")
    data = open_data(tmp_path)
    assert [remark.name for remark in data.remarks] == ["cat/0.png"]
    assert data.remarks[0].reason.startswith("its largest value is 1,023 of 65,535, which is read as 4 of 255")
    assert not data.skipped


def test_without_a_check_bad_files_stay(tmp_path: Path) -> None:
    assert counts(open_data(spoil(tmp_path), check=False)) == {"train": [4, 3], "val": [2, 3]}


def test_long_lists_are_cut(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a": 2, "b": 2})
    for number in range(25):
        (tmp_path / f"a/bad\n{number:02}.jpg").touch()
    with pytest.raises(DataError, match=r"^25 of 29 images .*\n  a/bad\\n00\.jpg: empty(.*\n){20}  \.\.\. and 5"):
        open_data(tmp_path)


def lose_a_class(root: Path) -> None:
    write_tree(root, {"a": 2, "b": 0, "c": 2})
    (root / "b/empty.jpg").touch()


@pytest.mark.parametrize(
    ("counts_", "options", "text"),
    [
        ({"a": 3}, {}, r"the data has images of one class only, 'a'; expected at least two classes\."),
        ({"train/a": 3, "val/a": 1}, {}, "train has images of one class only, 'a'"),
        ({"a": 2, "b": 0, "c": 0}, {}, r"classes without a usable image in the data: 'b', 'c'\. Add images"),
        ({"train/a": 2, "train/b": 2, "val/a": 0}, {}, "val has no usable image. Add images, or remove val"),
        ({"train/a": 0, "train/b": 0, "val/a": 1}, {}, r"train has no usable image\. Add images, or remove"),
        (
            {"a": 1, "b": 1},
            {},
            r"every class has a single image, so none can be held out for val\. Add images, or a folder val/",
        ),
        (
            {"train/a": 2, "train/b": 2, "val/x": 2},
            {},
            r"val has classes that are missing in train: 'x' \(2 images\)\.",
        ),
        ({"a": 2, "b": 2}, {"classes": ["a", "b", "c"]}, "classes without a usable image in the data: 'c'"),
        (
            {"a": 2, "b": 2},
            {"classes": ["a", "B"]},
            r"that are missing in the list of classes: 'b' \(2 images\)\. Did you mean",
        ),
        ({"a": 2, "b": 2}, {"classes": "ab"}, "classes is 'ab'; expected a list of names"),
        ({"a": 2, "b": 2}, {"val_fraction": 1}, "val_fraction is 1; expected a number between 0 and 1"),
        ({"a": 2, "b": 2}, {"val_fraction": "0.2"}, "val_fraction is '0.2'; expected"),
        ({"val/a": 0}, {"evaluation": True}, "has no usable image. Expected at least"),
    ],
)
def test_folders_that_cannot_be_used(
    tmp_path: Path, counts_: dict[str, int], options: dict[str, Any], text: str
) -> None:
    with pytest.raises(InputError, match=text):
        open_data(write_tree(tmp_path, counts_), **options)


def test_a_class_that_loses_all_its_images(tmp_path: Path) -> None:
    lose_a_class(tmp_path)
    with pytest.raises(DataError, match="classes without a usable image in the data: 'b'"):
        open_data(tmp_path, skip_bad=True)


def test_torch_data_sets() -> None:
    data = open_data((SET, TensorDataset(PIXELS[:4], NUMBERS[:4])))
    assert data.classes == ("0", "1", "2", "3")
    assert counts(data) == {"train": [5] * 4, "val": [1] * 4}
    assert data.source == "data set TensorDataset"
    for whole in (SET, (SET, None)):
        assert counts(open_data(whole)) == {"train": [4] * 4, "val": [1] * 4}
    assert open_data(SET, classes=["a", "b", "c", "d"]).classes == ("a", "b", "c", "d")
    assert counts(open_data({"Train": SET, "valid": SET})) == {"train": [5] * 4, "val": [5] * 4}
    assert counts(open_data(SET, evaluation=True)) == {"val": [5] * 4}


def test_class_names_of_a_torch_data_set_are_matched() -> None:
    class Named(TensorDataset):
        def __init__(self, *names: str) -> None:
            super().__init__(PIXELS[:4], NUMBERS[:4] % 2)
            self.classes = list(names)

    data = open_data((Named("x", "y"), Named("y", "x")))
    assert data.classes == ("x", "y")
    assert data.train is not None
    assert data.val is not None
    assert data.train.targets == (0, 1, 0, 1)
    assert data.val.targets == (1, 0, 1, 0)


def test_hugging_face_data_sets() -> None:
    parts = {"train": hugging_face([0, 1, 0, 1]), "validation": hugging_face([1, 1]), "test": hugging_face([-1, -1])}
    data = open_data(datasets.DatasetDict(parts))
    assert data.classes == ("x", "y")
    assert counts(data) == {"train": [2, 2], "val": [0, 2]}  # a test without labels is of no use
    assert counts(open_data(datasets.DatasetDict(train=parts["train"]))) == {"train": [1, 1], "val": [1, 1]}
    assert counts(open_data(parts["train"])) == {"train": [1, 1], "val": [1, 1]}
    swapped = hugging_face([0, 0], datasets.ClassLabel(names=["y", "x"]))
    assert counts(open_data((parts["train"], swapped))) == {"train": [2, 2], "val": [0, 2]}
    texts = hugging_face(["b", "a", "b", "a"], datasets.Value("string"))
    assert open_data(texts).classes == ("a", "b")


def loader(pixels: torch.Tensor = PIXELS / 255, numbers: torch.Tensor = NUMBERS, **options: Any) -> Any:
    return DataLoader(TensorDataset(pixels, numbers), batch_size=8, **options)


def test_loaders_are_used_as_they_are() -> None:
    train, val = loader(shuffle=True), loader()
    seen: list[tuple[int, int]] = []
    data = open_data((train, val), on_progress=lambda done, total: seen.append((done, total)))
    assert data.loaders is not None
    assert [(name, user.loader, user.table) for name, user in data.loaders.items()] == [
        ("train", train, None),
        ("val", val, None),
    ]
    assert (data.train, data.val, data.classes) == (None, None, ("0", "1", "2", "3"))
    assert seen[-1] == (20, 20)
    assert json.loads(json.dumps(data.describe()))["counts"] == {}
    assert open_data((train, val), classes=["a", "b", "c", "d"]).classes == ("a", "b", "c", "d")
    train.dataset.classes = val.dataset.classes = ["p", "q", "r", "s"]
    assert open_data((train, val)).classes == ("p", "q", "r", "s")
    for source in (val, (None, val), {"validation": val}):
        opened = open_data(source, evaluation=True).loaders
        assert opened is not None
        assert [user.loader for user in opened.values()] == [val]


def named_loader(*classes: str, numbers: torch.Tensor = NUMBERS) -> Any:
    made = loader(numbers=numbers)
    made.dataset.classes = list(classes)
    return made


def targets_of(data: Any, name: str) -> list[int]:
    user = data.loaders[name]
    return [int(n) for images, targets in user.loader for n in user.prepare(images, targets, 0, 0)[1]]


def test_loaders_that_know_their_names_are_matched_by_name() -> None:
    data = open_data({"train": named_loader("p", "q", "r", "s"), "val": named_loader("s", "r", "q", "p")})
    assert data.classes == ("p", "q", "r", "s")
    assert targets_of(data, "train") == NUMBERS.tolist()
    assert targets_of(data, "val") == (3 - NUMBERS).tolist()
    part = open_data((named_loader("p", "q", "r", "s"), named_loader("q", "s", numbers=NUMBERS % 2)))
    assert targets_of(part, "val") == (1 + 2 * (NUMBERS % 2)).tolist()
    liked = open_data((named_loader("p", "q", "r", "s"), named_loader("p", "q", "r", "s")), like=("s", "x", "q"))
    assert liked.classes == ("s", "q", "p", "r")
    assert targets_of(liked, "train") == [{0: 2, 1: 1, 2: 3, 3: 0}[number] for number in NUMBERS.tolist()]


def test_loaders_without_names_are_not_matched_with_names() -> None:
    text = "the labels of the loader val are numbers without names, but the classes of the loader train have names: 'p'"
    with pytest.raises(DataError, match=text):
        open_data((named_loader("p", "q", "r", "s"), loader()))
    with pytest.raises(DataError, match=r"val are 'p', 'q', 'r', 's', and none of them .* loader train: '0', '1'"):
        open_data((loader(), named_loader("p", "q", "r", "s")))
    with pytest.raises(DataError, match=r"the labels of the loader val .* the classes of the model have names: 'p"):
        open_data(loader(), classes=["p", "q", "r", "s"], by_name=True, evaluation=True)
    named = open_data((named_loader("p", "q", "r", "s"), loader()), classes=["s", "r", "q", "p"])  # they name numbers
    assert targets_of(named, "val") == NUMBERS.tolist()
    assert targets_of(named, "train") == (3 - NUMBERS).tolist()


def test_numbers_without_names_stand_for_the_classes_of_these_digits() -> None:
    classes = ["0", "1", "10", "2"]
    opened = open_data(loader(numbers=NUMBERS % 3), classes=classes, by_name=True, evaluation=True)
    assert targets_of(opened, "val") == [{0: 0, 1: 1, 2: 3}[number % 3] for number in NUMBERS.tolist()]
    images = open_data(TensorDataset(PIXELS, NUMBERS % 3), classes=classes, by_name=True, evaluation=True)
    assert images.val is not None
    assert list(images.val.targets) == targets_of(opened, "val")


def test_a_split_of_numbers_beside_one_with_names_is_refused() -> None:
    joined = ConcatDataset([SET])
    named = TensorDataset(PIXELS, NUMBERS)
    named.classes = ["p", "q", "r", "s"]  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="the labels of val are numbers without names, but the classes of train have"):
        open_data((named, joined))


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Any:
        yield from zip(PIXELS / 255, NUMBERS, strict=True)


def test_splits_without_labels_are_told_of_when_they_are_asked_for() -> None:
    parts = datasets.DatasetDict(train=hugging_face([0, 1, 0, 1]), test=hugging_face([-1, -1]))
    with pytest.raises(DataError, match=r"2 labels of test cannot be used; .*\n  test\[0\]: -1 \(int\)"):
        open_data(parts, evaluation=True, only="test")


def test_classes_are_numbered_like_others(tmp_path: Path) -> None:
    write_tree(tmp_path, {f"{split}/{name}": 2 for split in ("train", "val") for name in ("ant", "bee", "cat")})
    data = open_data(tmp_path, like=("cat", "dog", "ant"))
    assert data.classes == ("cat", "ant", "bee")
    assert data.train is not None
    assert [data.train.names[data.train.targets.index(number)].split("/")[1] for number in range(3)] == [
        "cat",
        "ant",
        "bee",
    ]
    assert data.options == {"skip_bad": False, "exclude": None, "classes": ["cat", "ant", "bee"]}


def test_what_data_was_opened_with_is_kept() -> None:
    data = open_data(SET, val_fraction=0.4, seed=3, skip_bad=True)
    assert data.options == {"skip_bad": True, "exclude": None, "val_fraction": 0.4, "split_seed": 3}
    assert not data.named
    assert open_data((SET, SET), classes=list("pqrs")).options == {
        "skip_bad": False,
        "exclude": None,
        "classes": list("pqrs"),
    }


class Broken:
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        raise RuntimeError("no disk")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("", "the path of the data is empty; expected a folder"),
        ("no/such/folder", "there is no folder '.*no/such/folder'"),
        (None, "the data is of type NoneType; expected a folder, or a data set"),
        (3, "the data is of type int; expected"),
        ([1, 2, 3], r"no sample of the data is usable\. The first one, data\[0\]: it is of type int; expected a"),
        ([], "the data has no samples"),
        ((None, None), r"the data is \(None, None\); expected"),
        (("a", "b"), "train is the path 'a'; expected a data set"),
        (Broken(), r"no sample of the data is usable\. The first one, data\[0\]: the data set raised RuntimeError"),
        (TensorDataset(PIXELS / 50 - 1, NUMBERS), r"data\[0\]: the tensor has values from .* Do not apply Normalize"),
        (TensorDataset(PIXELS, NUMBERS - 1), r"5 labels of the data cannot be used; .*\n  data\[0\]: tensor\(-1\)"),
        (TensorDataset(PIXELS, NUMBERS / 2), "20 labels of the data cannot be used"),
        (TensorDataset(PIXELS, NUMBERS + 5000), "the labels of the data go up to 5,003"),
        (TensorDataset(PIXELS, NUMBERS + 1), "the labels of the data go from 1 to 4; expected class numbers from 0"),
        ((SET, TensorDataset(PIXELS[:4], NUMBERS[:4] + 2)), r"2 labels of val out of range; .*\n  val\[2\]: 4\n"),
        (TensorDataset(PIXELS, NUMBERS * 0), "images of one class only, '0'"),
        ({"full": SET}, "the data has the splits full; expected train"),
        ({}, r"the data has the splits \(none\); expected train"),
        ({"val": SET, "valid": SET}, "several splits for val: val, valid. Keep one"),
        (loader(), r"the data is one loader, which cannot be split; expected a pair of loaders \(train, val\)"),
        ((loader(), None), "val is missing, and a loader cannot be split"),
        ({"train": loader()}, "val is missing, and a loader cannot be split"),
        ((loader(), SET), "train is a loader and val is not; expected all splits as loaders"),
        ((map(list, loader()), loader()), "train is a map, which can be read only once; expected a loader"),
        ((DataLoader(Endless()), loader()), r"the loader train has no length, because Endless has no len\(\)"),
        ((loader(numbers=NUMBERS + 1), loader()), "the labels of the loader train go from 1 to 4; expected .* from 0"),
        ((loader(PIXELS), loader()), "the images of the loader train are uint8"),
        ((loader(), loader(numbers=NUMBERS + 1)), "the loader val has targets from .* expected 0 to 3"),
    ],
)
def test_what_cannot_be_used(source: Any, text: str) -> None:
    with pytest.raises(DataError, match=text):
        open_data(source)


def test_one_bad_sample_of_a_data_set_can_be_left_out() -> None:
    samples = [(np.zeros((8, 8, 3), np.uint8), number % 2) for number in range(6)]
    samples[2] = (np.zeros((8, 8, 7), np.uint8), 0)
    with pytest.raises(DataError, match=r"1 of 6 images are unusable:\n  data\[2\]: the array has shape \(8, 8"):
        open_data(samples)
    data = open_data(samples, skip_bad=True)
    assert [problem.name for problem in data.skipped] == ["data[2]"]
    assert counts(data) == {"train": [1, 2], "val": [1, 1]}


def test_the_digest_tells_data_sets_apart(tmp_path: Path) -> None:
    def digest() -> str:
        return str(open_data(tmp_path).describe()["digest"])

    write_tree(tmp_path, {"train/a": 2, "train/b": 2, "val/a": 1})
    digests = [digest()]
    assert digest() == digests[0]
    write_image(tmp_path / "train/a/1.png", (12, 12))
    digests.append(digest())
    (tmp_path / "train/a/1.png").rename(tmp_path / "train/b/1.png")
    digests.append(digest())
    (tmp_path / "train/b/1.png").rename(tmp_path / "val/a/1.png")
    digests.append(digest())
    assert len(set(digests)) == 4
    sets = [SET, TensorDataset(PIXELS, NUMBERS.flip(0))]
    assert len({open_data(dataset).describe()["digest"] for dataset in sets}) == 2


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared sample of CIFAR-10 is not here")
def test_a_real_folder() -> None:
    data = open_data(SHARED)
    assert counts(data) == {"train": [500] * 10, "val": [100] * 10}
    assert data.classes[:3] == ("airplane", "automobile", "bird")
