from types import SimpleNamespace

import numpy as np
import pytest
import torch

import zoo
from image_files import make_image, write_tree
from zoo.data import Row, Table
from zoo.errors import DataError, InputError
from zoo.tasks.classification.data import open_data

LABELS = [("cat", "dog"), ("dog",), (), ("cat",), ("owl", "cat"), ("dog", "owl")]


@pytest.fixture
def root(tmp_path):
    return write_tree(tmp_path / "data", {"img": 8})


def open_table(root, head, cells, **options):
    splits = ["train"] * 4 + ["val"] * 2
    lines = [f"img/{n}.png,{cell},{split}" for n, (cell, split) in enumerate(zip(cells, splits, strict=True))]
    (root / "t.csv").write_text("\n".join([f"image,{head},split", *lines]))
    return open_data(root / "t.csv", labels="multi", **options)


def named(images, classes):
    return [tuple(classes[number] for number in numbers) for numbers in images.list_numbers()]


@pytest.mark.parametrize(
    ("head", "write"),
    [
        ("labels", "|".join),
        ("Tags", ";".join),
        ("labels", lambda names: f'"{",".join(names)}"'),
        ("labels", lambda names: f'"{list(names)}"'),
        ("cat,dog,owl", lambda names: ",".join(str(int(name in names)) for name in ("cat", "dog", "owl"))),
        ("cat,dog,owl", lambda names: ",".join(f"{1.0 if name in names else -1}" for name in ("cat", "dog", "owl"))),
    ],
)
def test_tables_say_labels_in_many_ways(root, head, write):
    cells = [write(names) for names in [*LABELS[:3], ("owl", "cat"), ("cat",), ("owl", "dog")]]
    data = open_table(root, head, cells)
    assert data.classes == ("cat", "dog", "owl")
    assert named(data.train, data.classes) == [("cat", "dog"), ("dog",), (), ("cat", "owl")]
    assert named(data.val, data.classes) == [("cat",), ("dog", "owl")]
    assert data.val.read(1)[1] == (0.0, 1.0, 1.0)
    assert data.describe()["counts"]["train"] == {"cat": 2, "dog": 2, "owl": 1}
    assert data.describe()["images"] == {"train": 4, "val": 2}


def test_rows_of_one_image_are_united(root):
    (root / "t.csv").write_text("image,label\n" + "".join(f"img/{n // 2}.png,{'abc'[n % 3]}\n" for n in range(12)))
    data = open_data(root / "t.csv", labels="multi", evaluation=True)
    assert named(data.val, data.classes) == [("a", "b"), ("a", "c"), ("b", "c")] * 2


def test_bad_cells_are_told_with_their_lines(root):
    with pytest.raises(DataError, match=r"1 of 6 rows .*\n  t.csv line 4: 'dog' is 'x'; expected 0 or 1"):
        open_table(root, "cat,dog", ["1,0", "0,1", "1,x", "1,1", "0,0", "0,1"])
    with pytest.raises(DataError, match="no column 'labels', and not two columns of 0 and 1"):
        open_table(root, "name", list("abcdef"))


def test_a_file_in_several_folders_has_all_their_labels(tmp_path):
    for split in ("train", "val"):
        for seed, labels in enumerate((("cat",), ("cat", "dog"), ("dog",))):
            for number, label in enumerate(labels):
                path = tmp_path / split / label / f"{seed}{number}.png"  # the name does not matter
                path.parent.mkdir(parents=True, exist_ok=True)
                make_image(seed=seed + 10 * (split == "val")).save(path)
    data = open_data(tmp_path, labels="multi")
    assert sorted(named(data.train, data.classes)) == [("cat",), ("cat", "dog"), ("dog",)]
    assert len(data.val) == 3


class Rows(list):
    classes = ("cat", "dog", "owl")


@pytest.mark.parametrize(
    "write",
    [
        lambda names: [name in names for name in Rows.classes],
        lambda names: torch.tensor([float(name in names) for name in Rows.classes]),
        lambda names: np.array([int(name in names) for name in Rows.classes]),
        lambda names: [Rows.classes.index(name) for name in names],
        list,
    ],
)
def test_data_sets_give_flags_numbers_or_names(write):
    rows = Rows((make_image(seed=n), write(names)) for n, names in enumerate(LABELS))
    data = open_data((rows, rows), labels="multi")
    assert [set(of) for of in named(data.train, data.classes)] == [set(names) for names in LABELS]


def test_columns_of_hugging_face_hold_lists():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "tags": datasets.Sequence(datasets.ClassLabel(names=["cat", "dog"]))}
    )
    rows = {"image": [make_image(seed=n) for n in range(3)], "tags": [[0, 1], [1], []]}
    data = open_data(datasets.Dataset.from_dict(rows, features=features), labels="multi", evaluation=True)
    assert named(data.val, data.classes) == [("cat", "dog"), ("dog",), ()]


def test_what_are_no_labels_is_told():
    rows = [(make_image(seed=n), label) for n, label in enumerate(([0, 1, 1], 0.5, [[1], [2]]))]
    with pytest.raises(DataError, match=r"2 labels of the data cannot be used.*\n  data\[1\]: 0.5 \(float\)"):
        open_data(rows, labels="multi", evaluation=True)
    with pytest.raises(InputError, match=r"labels is 'many'; expected single or multi"):
        open_data(rows, labels="many")


def test_opened_data_is_of_one_kind(root):
    data = open_table(root, "labels", ["a|b", "b", "a", "b|c", "a", "c"])
    with pytest.raises(InputError, match="opened with labels=multi, but labels=single"):
        open_data(data)
    loader = torch.utils.data.DataLoader(Rows((torch.zeros(3, 8, 8), 0) for _ in range(4)))
    with pytest.raises(DataError, match="labels=multi needs data sets"):
        zoo.open_data((loader, loader), labels="multi")


def test_a_parquet_cell_may_be_a_list():
    from zoo.tasks.classification.multi_label import MULTI

    table = Table(
        SimpleNamespace(name="t.parquet"), ("image", "labels"), (Row(1, ("a", ["x", "y"])), Row(2, ("b", "")))
    )
    reader = MULTI.read_labels(table)
    assert [reader(row) for row in table.rows] == [("x", "y"), ()]
