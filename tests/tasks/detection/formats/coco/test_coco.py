from pathlib import Path
from typing import Any

import pytest

from annotated_folders import Content, coco, contents, names, told, touch, write_files
from tasks.detection.formats.contract import FormatContract
from zoo.errors import DataError
from zoo.tasks.detection.annotations import BoxSource
from zoo.tasks.detection.formats.coco import read_coco

CATS = [{"id": 1, "name": "cat"}]


def one(name: str = "a.jpg", key: int = 1) -> dict[str, Any]:
    """Return a file of one image and one box."""
    image = {"id": 5, "file_name": name, "width": 64, "height": 48}
    return coco([image], [{"id": 1, "image_id": 5, "category_id": key, "bbox": [1, 2, 3, 4]}], CATS)


def read(root: Path) -> BoxSource:
    source = read_coco(root)
    assert source is not None
    return source


def texts(source: BoxSource, kind: str) -> list[str]:
    return [finding.text for finding in source.findings if finding.kind == kind]


def many(root: Path, content: dict[str, Any]) -> BoxSource:
    """Read one file whose images are all there."""
    touch(root, *(image["file_name"] for image in content["images"]))
    return read(write_files(root, {"data.json": content}))


class TestCoco(FormatContract):
    name = "COCO"
    image = "images/a.jpg"
    annotation = "annotations/instances_default.json"
    lines_above = 7

    def files(self, image: str, side: object = 20) -> dict[str, Content]:
        boxes = [{"image_id": 5, "category_id": 1, "bbox": [1, 2, 3, width]} for width in (20, side)]
        return {
            self.annotation: coco(
                [{"id": 5, "file_name": Path(image).name if image == self.image else image}], boxes, CATS
            )
        }

    def save_by_supervision(self, dataset: Any, root: Path) -> None:
        dataset.as_coco(str(root / "train"), str(root / "train/_annotations.coco.json"))


def test_what_is_read(tmp_path: Path) -> None:
    images = [{"id": 8, "file_name": "b10.jpg", "height": 5, "width": 7}, {"id": 3, "file_name": "b9.jpg"}]
    boxes = [
        {"image_id": 8, "category_id": 4, "bbox": [1, 2, 3, 4]},
        {"image_id": 3, "category_id": 2, "bbox": [0, 0, 0.5, 0.25], "segmentation": [[9, 9, 8, 8, 7, 7]]},
        {"image_id": 8, "category_id": 2, "bbox": [2, 2, 2, 2], "iscrowd": 1},
    ]
    categories = [{"id": 4, "name": "dog"}, {"id": 2, "name": "cat"}, {"id": 3, "name": "cow"}]
    source = many(tmp_path, coco(images, boxes, categories))
    assert contents(source) == {
        "all": {"b9.jpg": [(2, [0, 0, 0.5, 0.25])], "b10.jpg": [(4, [1, 2, 4, 6]), (2, [2, 2, 4, 4])]}
    }
    assert list(source.names.items()) == [(2, "cat"), (3, "cow"), (4, "dog")]
    split = source.splits["all"]
    assert [image.size for image in split.images] == [None, (5, 7)]
    assert [image.crowd.tolist() for image in split.images] == [[False], [False, True]]
    assert [image.lines for image in split.images] == [(26,), (16, 46)]
    assert {image.file for image in split.images} == {"data.json"}
    assert not any(image.is_relative for image in split.images)
    assert [split.reader(place) for place in (0, 1)] == [str(tmp_path / "b9.jpg"), str(tmp_path / "b10.jpg")]
    assert (source.form, source.where, split.in_threads) == ("COCO", str(tmp_path), True)
    assert told(source) == [("note", "class map", "", "")]
    assert texts(source, "class map") == ["category ids are 2 to 4; they become class numbers 0 to 2, in order"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"annotations/instances_train2017.json": "train2017/", "annotations/instances_val2017.json": "val2017/"},
            {"train": "train2017/", "val": "val2017/"},
        ),
        (
            {"annotations/train.json": "images/train/", "annotations/val.json": "images/val/"},
            {"train": "images/train/", "val": "images/val/"},
        ),
        (
            {"Annotations/train.json": "images/", "Annotations/test.json": "images/"},
            {"train": "images/", "test": "images/"},
        ),
        ({"annotations/instances_default.json": "images/"}, {"all": "images/"}),
        ({"annotations/instances_default.json": ""}, {"all": ""}),
        (
            {"train/_annotations.coco.json": "train/", "valid/_annotations.coco.json": "valid/"},
            {"train": "train/", "val": "valid/"},
        ),
        (
            {"train/labels.json": "train/data/", "validation/labels.json": "validation/data/"},
            {"train": "train/data/", "val": "validation/data/"},
        ),
        ({"labels.json": "data/"}, {"all": "data/"}),
        ({"train.json": "train/", "val.json": "val/"}, {"train": "train/", "val": "val/"}),
        ({"_annotations.coco.json": ""}, {"all": ""}),
    ],
)
def test_layouts(tmp_path: Path, files: dict[str, str], expected: dict[str, str]) -> None:
    for number, (file, folder) in enumerate(files.items()):
        write_files(tmp_path, {file: one(f"{number}.jpg"), f"{folder}{number}.jpg": ""})
    source = read(tmp_path)
    assert names(source) == {split: [f"{folder}{n}.jpg"] for n, (split, folder) in enumerate(expected.items())}
    assert [finding for finding in source.findings if finding.level != "note"] == []


def test_file_names_with_folders(tmp_path: Path) -> None:
    write_files(
        tmp_path, {"annotations/train.json": one("images/train/a.jpg"), "annotations/val.json": one("sub\\b.jpg")}
    )
    assert names(read(touch(tmp_path, "images/train/a.jpg", "images/val/sub/b.jpg"))) == {
        "train": ["images/train/a.jpg"],
        "val": ["images/val/sub/b.jpg"],
    }


def test_one_file_may_be_given(tmp_path: Path) -> None:
    write_files(tmp_path, {"annotations/instances_val.json": one(), "annotations/instances_train.json": one("b.jpg")})
    touch(tmp_path, "images/a.jpg", "else/c.jpg")
    source = read(tmp_path / "annotations/instances_val.json")
    assert [image.file for image in source.splits["val"].images] == ["instances_val.json"]
    assert source.splits["val"].reader(0) == str(tmp_path / "images/a.jpg")
    write_files(tmp_path, {"else/x.json": one("c.jpg")})
    assert names(read(tmp_path / "else/x.json")) == {"all": ["c.jpg"]}


def test_the_folder_with_most_of_the_images(tmp_path: Path) -> None:
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in range(3)]
    write_files(tmp_path, {"annotations/train.json": coco(images, [], CATS)})
    source = read(touch(tmp_path, "train/0.jpg", "images/0.jpg", "images/1.jpg", "val/0.jpg", "val/1.jpg", "val/2.jpg"))
    assert names(source) == {"train": ["images/0.jpg", "images/1.jpg"]}
    assert ("error", "missing images", "train", "annotations/train.json:12") in told(source)
    assert texts(source, "missing images") == ["there is no '2.jpg' in 'images'; the image is skipped"]


@pytest.mark.parametrize(
    "files",
    [
        {"a.jpg": ""},
        {"data.json": {"images": 3}, "x/instances.json": one()},
        {"notes.json": {"categories": [{"id": 0, "name": "cat"}], "info": {}}, "images/a.jpg": "", "labels/a.txt": ""},
        {"a.json": {"shapes": [], "imagePath": "a.jpg"}, "a.jpg": ""},
        {"annotations.json": '[{"images": 1}]'},
        {"Annotations/a.xml": "<annotation/>"},
    ],
)
def test_what_is_no_coco(tmp_path: Path, files: dict[str, Any]) -> None:
    files = {name: content for name, content in files.items() if content != {"images": 3}}
    assert read_coco(write_files(tmp_path, files)) is None
    assert read_coco(tmp_path / "none") is None
    assert all(read_coco(tmp_path / name) is None for name in files if "instances" not in name)


def test_files_without_boxes_are_not_read(tmp_path: Path) -> None:
    files = ["captions_train2017.json", "person_keypoints_train2017.json", "image_info_test2017.json"]
    write_files(tmp_path, {f"annotations/{name}": one("none.jpg") for name in files})
    write_files(tmp_path, {"annotations/instances_train2017.json": one(), "annotations/extra.json": one()})
    source = read(touch(tmp_path, "train2017/a.jpg"))
    assert names(source) == {"train": ["train2017/a.jpg"]}
    reasons = ["it has no boxes", "it has no boxes", "it has only people, and there are other files"]
    assert [finding.text for finding in source.findings if finding.level == "note"] == [
        f"{name!r} is not read: its name suggests that {reason}"
        for name, reason in zip(sorted(files), reasons, strict=True)
    ] + ["category ids are 1 to 1; they become class numbers 0 to 0, in order"]
    unread = "'extra.json' is not read: its name does not name a split, unlike others"
    assert [finding.text for finding in source.findings if finding.level == "error"] == [
        f"{unread}. There is no val split: rename the file to its split, or move it elsewhere"
    ]
    write_files(tmp_path, {"annotations/instances_val2017.json": one()})
    assert [finding.text for finding in read(tmp_path).findings if finding.kind == "json files not used"] == [unread]


@pytest.mark.parametrize(
    ("files", "text"),
    [
        (["annotations/train2014.json", "annotations/train2017.json"], r"'train2014.json' and 'train2017.json"),
        (["a.json", "b.json"], r"holds 'a.json' and 'b.json', and either could be the data\. Move all but one"),
        (["train/a.json", "train/b.json"], r"/train' holds 'a.json' and 'b.json', and either could be train"),
    ],
)
def test_two_files_for_a_split(tmp_path: Path, files: list[str], text: str) -> None:
    with pytest.raises(DataError, match=text):
        read_coco(write_files(tmp_path, {name: one() for name in files}))


def test_images_outside_are_not_read(tmp_path: Path) -> None:
    outside = touch(tmp_path, "secret.jpg") / "secret.jpg"
    images = [
        {"id": number, "file_name": name}
        for number, name in enumerate(["a.jpg", "../secret.jpg", str(outside), "x/../../secret.jpg", "C:\\a.jpg"])
    ]
    root = write_files(tmp_path / "data", {"train.json": coco(images, [], CATS)})
    source = read(touch(root, "a.jpg"))
    assert names(source) == {"train": ["a.jpg"]}
    assert sorted(kind for level, kind, _, _ in told(source) if level == "error") == [
        *["file names outside the folder"] * 3,
        "missing images",
    ]
    assert texts(source, "missing images") == ["'C:/a.jpg': only 'a.jpg' matches, which is already used. Skipped"]
    text = "'../secret.jpg' is outside the folder, and its file name is not in '.'; the image is skipped"
    assert text in texts(source, "file names outside the folder")


def test_names_of_another_machine(tmp_path: Path) -> None:
    content = one("../../label-studio/media/upload/4/a.jpg")
    source = read(touch(write_files(tmp_path, {"result.json": content}), "images/a.jpg"))
    assert names(source) == {"all": ["images/a.jpg"]}
    assert len(source.splits["all"].images[0].keys) == 1
    assert texts(source, "images matched by file name") == [
        "'../../label-studio/media/upload/4/a.jpg' does not exist; 'images/a.jpg' is used"
    ]


def test_two_names_that_end_alike_are_both_left_out(tmp_path: Path) -> None:
    images = [{"id": number, "file_name": f"/mnt/{number}/a.jpg"} for number in range(2)]
    source = read(touch(write_files(tmp_path, {"train.json": coco(images, [], CATS)}), "images/a.jpg"))
    assert names(source) == {"train": []}
    assert len(texts(source, "missing images")) == 2
    same = [{"id": number, "file_name": "/mnt/0/a.jpg"} for number in range(2)]
    source = read(write_files(tmp_path, {"train.json": coco(same, [], CATS)}))
    assert names(source) == {"train": ["images/a.jpg"]}


def test_boxes_of_unknown_images_and_images_twice(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "./a.jpg"}, {"id": 3, "file_name": "gone.jpg"}]
    boxes = [{"image_id": key, "category_id": 1, "bbox": [key, 0, 1, 1]} for key in (2, 9, 3, 1)]
    source = read(touch(write_files(tmp_path, {"train.json": coco(images, boxes, CATS)}), "a.jpg"))
    assert contents(source) == {"train": {"a.jpg": [(1, [1, 0, 2, 1]), (1, [2, 0, 3, 1])]}}
    assert told(source)[1:] == [
        ("error", "annotations without an image", "train", "train.json:28"),
        ("warning", "images with the same file name", "train", "train.json:8"),
        ("error", "missing images", "train", "train.json:12"),
    ]
    assert texts(source, "annotations without an image") == [
        "annotations[1]: no usable image has the image_id 9. Skipped"
    ]


def test_a_category_that_is_not_listed_is_an_error_and_its_image_not_used(tmp_path: Path) -> None:
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in (1, 2)]
    boxes = [{"id": key, "image_id": image, "category_id": key, "bbox": [1, 1, 1, 1]}
             for image, key in ((1, 90), (1, 7), (2, 1))]  # fmt: skip
    source = many(tmp_path, coco(images, boxes, [{"id": 90, "name": "brush"}, {"id": 1, "name": "person"}]))
    assert list(source.names.items()) == [(1, "person"), (90, "brush")]
    assert [image.lost for image in source.splits["all"].images] == [1, 0]
    assert [(finding.level, finding.kind, finding.text) for finding in source.findings] == [
        (
            "note",
            "class map",
            "category ids are 1 to 90, of which 88 are missing; they become class numbers 0 to 1, in order",
        ),
        (
            "error",
            "annotations with an unknown category",
            "annotation 7: category_id is 7, which is not among the categories of the file",
        ),
    ]


def test_ids_that_two_images_or_two_categories_have(tmp_path: Path) -> None:
    """Nobody knows of which image, or of which class, such an annotation is."""
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}, {"id": 2, "file_name": "c.jpg"}]
    categories = [*CATS, {"id": 2, "name": "dog"}, {"id": 2, "name": "cow"}]
    boxes = [{"image_id": image, "category_id": key, "bbox": [1, 1, 1, 1]} for image, key in ((1, 1), (2, 2), (2, 1))]
    source = many(tmp_path, coco(images, boxes, categories))
    assert source.names == {1: "cat"}
    assert [(image.name, image.keys, image.lost) for image in source.splits["all"].images] == [
        ("a.jpg", (), 1),
        ("c.jpg", (1,), 1),
    ]
    assert {kind for level, kind, _, _ in told(source) if level == "error"} == {
        "images with the same id",
        "categories with the same id",
    }


def test_a_file_without_annotations_says_nothing_of_its_images(tmp_path: Path) -> None:
    bare = {name: value for name, value in one("b.jpg").items() if name != "annotations"}
    for split in ("val", "test"):
        root = write_files(tmp_path / split, {"train.json": one("a.jpg"), f"{split}.json": bare})
        source = read(touch(root, "a.jpg", "b.jpg"))
        level = "error" if split == "val" else "warning"
        assert (level, "json files without annotations", split, f"{split}.json") in told(source)
        assert names(source) == ({"train": ["a.jpg"], "val": []} if split == "val" else {"train": ["a.jpg"]})


@pytest.mark.parametrize(
    ("train", "val"),
    [({1: "cat", 2: "dog"}, {11: "cat", 12: "dog"}), ({1: "cat", 2: "dog"}, {1: "dog", 2: "cat"}),
     ({1: "cat", 2: "dog"}, {0: "dog"}), ({1: "cat", 2: "dog"}, {1: "cat", 2: "bird", 3: "dog"})],
)  # fmt: skip
def test_ids_are_those_of_their_file(tmp_path: Path, train: dict[int, str], val: dict[int, str]) -> None:
    files = {}
    for split, names_by_id in (("train", train), ("val", val)):
        images = [{"id": key, "file_name": f"{split}-{name}.jpg"} for key, name in names_by_id.items()]
        boxes = [{"image_id": key, "category_id": key, "bbox": [1, 1, 5, 5]} for key in names_by_id]
        categories = [{"id": key, "name": name} for key, name in names_by_id.items()]
        touch(tmp_path, *(image["file_name"] for image in images))
        files[f"{split}.json"] = coco(images, boxes, categories)
    source = read(write_files(tmp_path, files))
    named = [(image.name, [source.names[key] for key in image.keys])
             for split in source.splits.values() for image in split.images]  # fmt: skip
    assert sorted(named) == sorted(
        (f"{split}-{name}.jpg", [name]) for split, names in (("train", train), ("val", val)) for name in names.values()
    )
    assert list(source.names.values())[:2] == ["cat", "dog"]
    assert [level for level, *_ in told(source)] == ["note"]
    assert source.findings[0].text.startswith("category ids differ between the files, so classes are matched by name: ")


def test_a_list_that_tells_a_split_of_the_one_file_is_an_error(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}]
    write_files(tmp_path, {"annotations.json": coco(images, [], CATS)})
    touch(tmp_path, "images/a.jpg", "images/b.jpg")
    assert "splits that are not read" not in {finding.kind for finding in read(tmp_path).findings}
    source = read(write_files(tmp_path, {"splits/val.txt": "b.jpg\n"}))
    assert ("error", "splits that are not read", "", "splits/val.txt") in told(source)


def test_a_folder_that_may_be_val_is_an_error(tmp_path: Path) -> None:
    files = {f"{split}/_annotations.coco.json": one() for split in ("train", "pruebas")}
    source = read(touch(write_files(tmp_path, files), "train/a.jpg", "pruebas/a.jpg"))
    assert ("error", "splits that are not read", "", "") in told(source)
