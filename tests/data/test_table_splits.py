from pathlib import Path

import pytest

from image_files import write_image, write_tree
from zoo.errors import DataError, InputError
from zoo.tasks.classification.data import open_data


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.fixture
def root(tmp_path):
    return write_tree(tmp_path / "data", {"img": 9})


def table(root, *rows, head="image,label,split"):
    return write(root / "labels.csv", "\n".join((head, *rows)) + "\n")


def test_a_table_is_the_folder_that_it_describes(root, tmp_path):
    rows = [f"img/{n}.png,{'cat' if n % 2 else 'dog'},{'train' if n < 6 else 'Validation'}" for n in range(8)]
    data = open_data(table(root, *rows))
    assert (data.classes, len(data.train), len(data.val)) == (("cat", "dog"), 6, 2)
    assert data.val.targets == (1, 0)
    assert data.train.names[0] == "img/0.png"
    assert data.train.read(1)[0].size == (9, 7)
    assert data.notes == ("labels.csv: images from 'image', labels from 'label', splits from 'split'",)
    digest = data.describe()["digest"]
    assert open_data(table(root, *reversed(rows))).describe()["digest"] == digest
    assert open_data(table(root, *rows[1:], rows[0].replace("dog", "cat"))).describe()["digest"] != digest


def test_columns_have_many_names_and_paths_those_of_windows(root, tmp_path):
    rows = [f"cls{n % 2};x;.\\img\\{n}.png" for n in range(8)]
    head = "Class Name;Comment;File_Name"
    elsewhere = write(tmp_path / "labels.csv", "\n".join((head, *rows)))
    with pytest.raises(DataError, match=r"8 of 8 rows .*\n  labels.csv line 2: there is no image"):
        open_data(elsewhere)
    data = open_data(elsewhere, image_root=root, val_fraction=0.25)
    assert (data.classes, len(data.train), len(data.val)) == (("cls0", "cls1"), 6, 2)
    assert data.options["image_root"] == str(root)
    absolute = [row.replace(".\\img\\", f"{root}/img/") for row in rows]
    inside = write(root / "absolute.csv", "\n".join((head, *absolute)))
    assert open_data(inside, val_fraction=0.25).val.names == data.val.names


def test_all_bad_rows_are_told_with_their_lines(root, tmp_path):
    write_image(tmp_path / "out.png")
    rows = ["img/0.png,cat,train", "img/1.png,dog,train", "img/2.png,cat,val", "img/8.png,cat,train"]
    bad = ["img/9.png,cat,train", "img/4.png,,train", "../out.png,cat,train", "img/5.png,cat,trial"]
    bad += [",cat,train", "img/6.png,cat", "img/0.png,dog,train", "img/7.png,cat,"]
    path = table(root, *rows, *bad)
    with pytest.raises(DataError) as found:
        open_data(path)
    said = str(found.value)
    assert said.startswith("8 of 12 rows cannot be used:\n  labels.csv line 6: there is no image 'img/9.png'")
    for line, text in {
        7: "the label is missing",
        8: "'../out.png' is outside",
        9: "the split is 'trial'; expected train, val or test",
        10: "the image is missing",
        11: "2 cells for 3 columns",
        12: "'img/0.png' is in line 2, too: it has the labels 'cat' and 'dog'",
        13: "the split is missing",
    }.items():
        assert f"line {line}: {text}" in said
    data = open_data(path, skip_bad=True)
    assert (len(data.train), len(data.val), len(data.skipped)) == (2, 1, 8)


def test_images_and_groups_stay_on_one_side(root):
    rows = [f"img/{n}.png,{'cat' if n % 2 else 'dog'},{'train' if n < 4 else 'val'},{n // 3}" for n in range(8)]
    head = "image,label,split,group"
    with pytest.raises(DataError, match=r"group '1': train \(labels.csv line 5\), val \(labels.csv line 6\)"):
        open_data(table(root, *rows, head=head))
    rows = [f"img/{n}.png,{'cat' if n % 2 else 'dog'},,{n // 2}" for n in range(8)]
    for seed in range(4):
        data = open_data(table(root, *rows, head=head), seed=seed)
        assert data.val.targets == (1, 0) or data.val.targets == (0, 1)
        assert len({int(name[4]) // 2 for name in data.val.names}) == 1


def test_tables_of_splits_lie_in_a_folder(root):
    write(root / "train.csv", "file,target\n" + "".join(f"img/{n}.png,{n % 2}\n" for n in range(6)))
    write(root / "valid.csv", "file,target\nimg/6.png,0\nimg/5.png,1\n")
    with pytest.raises(DataError, match=r"image 'img/5.png': train \(train.csv line 7\), val \(valid.csv line 3\)"):
        open_data(root)
    write(root / "valid.csv", "file,target\nimg/6.png,0\nimg/7.png,1\n")
    data = open_data(root)
    assert (data.classes, data.val.targets, data.source) == (("0", "1"), (0, 1), str(root))


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("picture,label", "has no column of images; its columns are 'picture', 'label'"),
        ("image,name", "has no column of labels"),
    ],
)
def test_columns_that_are_missed_are_told(root, head, said):
    with pytest.raises(DataError, match=said):
        open_data(table(root, "img/0.png,cat", head=head))


def test_several_labels_are_not_taken_for_one(root):
    with pytest.raises(DataError, match=r"several labels for an image: 'cat\|dog'\. Set labels=multi"):
        open_data(table(root, "img/0.png,cat", "img/1.png,cat|dog", head="image,labels"))


def test_an_image_root_needs_a_table(root, tmp_path):
    write_tree(tmp_path / "classes", {"cat": 2, "dog": 2})
    with pytest.raises(InputError, match="image_root needs a table"):
        open_data(tmp_path / "classes", image_root=root)
    with pytest.raises(DataError, match="which is no folder"):
        open_data(table(root, "img/0.png,cat", head="image,label"), image_root=tmp_path / "no")
