import pickle
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from image_files import make_image
from zoo.data.decode import read_image
from zoo.data.splits import known_classes, split_of_dataset, split_of_files
from zoo.errors import DataError, InputError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    datasets = pytest.importorskip("datasets")

PIXELS = torch.randint(0, 256, (6, 3, 8, 9), dtype=torch.uint8)
NUMBERS = torch.tensor([0, 1, 0, 1, 0, 1])


class Numbered(Dataset[Any]):
    """Gives what a function makes of each number."""

    def __init__(self, make: Any, count: int = 4) -> None:
        self.make, self.count = make, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.make(index)


def encode(image: Image.Image) -> bytes:
    stream = BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def hugging_face(label: Any = None, labels: Any = (0, 1, 0, 1), **columns: Any) -> Any:
    features = {"image": datasets.Image(), "label": label or datasets.ClassLabel(names=["x", "y"])}
    images = [{"bytes": encode(make_image(seed=i)), "path": None} for i in range(len(labels))]
    return datasets.Dataset.from_dict({"image": images, "label": list(labels)}, features=datasets.Features(features))


def test_files(tmp_path: Path) -> None:
    split = split_of_files(tmp_path, {"b": ["b/2.jpg"], "a": ["a/1.jpg", "a/\udcff\n.jpg"]}, "train")
    assert split.names == ("b/2.jpg", "a/1.jpg", r"a/\udcff\n.jpg")  # fit to be printed
    assert split.labels == ("b", "a", "a")
    assert split.classes == ("b", "a")
    assert split.reader(2) == (str(tmp_path / "a/\udcff\n.jpg"), None)


def test_torch_data_sets() -> None:
    split = split_of_dataset(TensorDataset(PIXELS, NUMBERS), "train")
    assert (split.labels, split.classes, split.names[5]) == (None, None, "train[5]")
    image, label = split.reader(1)
    assert torch.equal(image, PIXELS[1])
    assert label == 1
    assert len(split_of_dataset([(make_image(), 0)] * 3, "train").names) == 3


def test_class_names_are_found_in_subsets_and_nests() -> None:
    dataset = TensorDataset(PIXELS, NUMBERS)
    dataset.classes = ["x", "y"]  # type: ignore[attr-defined]
    assert known_classes(Subset(Subset(dataset, [0, 1]), [0])) == ("x", "y")
    assert known_classes(TensorDataset(PIXELS)) is None
    dataset.classes = 2  # type: ignore[attr-defined]
    assert known_classes(dataset) is None
    joined = ConcatDataset([Subset(named("x", "y"), [0]), named("x", "y")])
    assert known_classes(DataLoader(Subset(joined, [0, 1]))) == ("x", "y")
    assert known_classes(DataLoader(hugging_face())) == ("x", "y")
    assert known_classes(ConcatDataset([TensorDataset(PIXELS, NUMBERS)] * 2)) is None


def named(*classes: str) -> Any:
    dataset = TensorDataset(PIXELS, NUMBERS)
    dataset.classes = list(classes)  # type: ignore[attr-defined]
    return dataset


def test_parts_that_number_their_classes_differently_are_refused() -> None:
    for other, words in ((named("y", "x"), "y, x"), (TensorDataset(PIXELS, NUMBERS), "none")):
        text = rf"train combines data sets with different class numbers: x, y and {words}\. Give them"
        with pytest.raises(DataError, match=text):
            split_of_dataset(ConcatDataset([named("x", "y"), other]), "train")


def test_what_labels_are_made_with_comes_before_a_list_of_names() -> None:
    dataset = named("x", "y")
    dataset.class_to_idx = {"x": 1, "y": 0}
    assert known_classes(dataset) == ("y", "x")
    dataset.class_to_idx = {"x": 0, "y": 0, "z": 1}  # several names of a class
    assert known_classes(dataset) == ("x", "y")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda i: {"image": 1, "label": 2},
            r"it is a dict with the keys image, label; expected a pair \(image, label\)",
        ),
        (lambda i: (1, 2, 3), "it is a tuple of 3; expected a pair"),
        (lambda i: 7, "of type int; expected a pair"),
        (lambda i: 1 / 0, "the data set raised ZeroDivisionError: division by zero"),
    ],
)
def test_samples_that_are_no_pairs(make: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        split_of_dataset(Numbered(make), "train").reader(0)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        yield 1


@pytest.mark.parametrize(
    ("dataset", "text"),
    [
        (
            Stream(),
            r"train is of type Stream; expected a folder, or a data set with len\(\) and integer indexing\. "
            r"Read a streaming",
        ),
        (3, "of type int; expected"),
        (None, "of type NoneType; expected"),
        ("some/folder", "train is the path 'some/folder'; expected a data set. Pass the folder that holds both"),
        ([], "train has no samples; expected one or more"),
    ],
)
def test_what_is_no_data_set(dataset: Any, text: str) -> None:
    with pytest.raises(DataError, match=text):
        split_of_dataset(dataset, "train")


def test_hugging_face_data_sets() -> None:
    split = split_of_dataset(hugging_face(), "the data")
    assert (split.labels, split.classes, split.in_threads) == ((0, 1, 0, 1), ("x", "y"), True)
    assert split.names[3] == "data[3]"
    source, _ = split.reader(2)
    assert isinstance(source, bytes)
    assert (np.asarray(read_image(source)) == np.asarray(make_image(seed=2))).all()
    assert pickle.loads(pickle.dumps(split.reader))(2)[0] == source
    split = split_of_dataset(hugging_face().with_format("torch"), "train")
    assert split.labels == (0, 1, 0, 1)
    assert isinstance(split.reader(0)[0], bytes)


def test_images_as_files_and_missing_images(tmp_path: Path) -> None:
    make_image().save(tmp_path / "a.png")
    dataset = datasets.Dataset.from_dict({"image": [str(tmp_path / "a.png"), None], "label": ["a", "b"]})
    split = split_of_dataset(dataset.cast_column("image", datasets.Image()), "train")
    assert split.labels == ("a", "b")
    assert split.classes is None
    assert read_image(split.reader(0)[0]).size == (9, 7)
    with pytest.raises(InputError, match="NoneType"):
        read_image(split.reader(1)[0])


def test_columns_of_other_names() -> None:
    split = split_of_dataset(hugging_face().rename_columns({"image": "photo", "label": "kind"}), "train")
    assert split.labels == (0, 1, 0, 1)
    numbered = hugging_face(datasets.Value("int64")).rename_column("label", "target")
    assert split_of_dataset(numbered, "train").labels == (0, 1, 0, 1)
    two = hugging_face().add_column("coarse", [0] * 4).cast_column("coarse", datasets.ClassLabel(names=["u", "v"]))
    assert split_of_dataset(two, "train").labels == (0, 1, 0, 1)  # 'label' is the usual name
    with pytest.raises(
        DataError, match=r"several label columns; .*fine \(ClassLabel\), coarse .*rename_column\(\.\.\., 'label'"
    ):
        split_of_dataset(two.rename_column("label", "fine"), "train")
    with pytest.raises(DataError, match=r"train has no image columns; its columns are label \(ClassLabel\)"):
        split_of_dataset(hugging_face().remove_columns("image"), "train")


def test_data_sets_that_are_read_otherwise_are_refused() -> None:
    with pytest.raises(DataError, match=r"has its own transform .* Pass dataset\.with_format\(None\)"):
        split_of_dataset(hugging_face().with_transform(lambda rows: rows), "train")
    with pytest.raises(DataError, match=r"IterableDataset; expected .* Read a streaming"):
        split_of_dataset(hugging_face().to_iterable_dataset(), "train")
