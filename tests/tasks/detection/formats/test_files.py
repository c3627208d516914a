import pickle
from pathlib import Path

import pytest

from annotated_folders import touch, write_files
from zoo.errors import DataError, InputError
from zoo.tasks.detection.formats._files import (
    Findings,
    ImageFiles,
    clip,
    count,
    deduplicate_class_names,
    escapes_folder,
    find_folder,
    list_files,
    list_folders,
    natural_key,
    parse_number,
    read_ends,
    read_limited,
    read_text,
    show_path,
    split_from_name,
    walk_files,
)


def test_findings_of_several_places_come_into_one_list() -> None:
    findings = Findings()
    there = findings.at(split="train", file="a.txt")
    there.error("bad lines", "lost", 3)
    there.at(file="b.txt").warn("polygons", "boxes")
    findings.note("class map", "gaps")
    assert [(item.level, item.kind, item.split, item.place, item.text) for item in findings.found] == [
        ("error", "bad lines", "train", "a.txt:3", "lost"),
        ("warning", "polygons", "train", "b.txt", "boxes"),
        ("note", "class map", "", "", "gaps"),
    ]


def test_errors_are_counted_from_a_place_on() -> None:
    findings = Findings()
    findings.error("bad lines", "lost")
    since = len(findings.found)
    findings.warn("polygons", "boxes")
    assert findings.count_errors(since) == 0
    findings.at(file="b.txt").error("bad lines", "lost")
    assert findings.count_errors(since) == 1
    assert findings.count_errors(0) == 2


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("train2017", "train"),
        ("Val_2014", "val"),
        ("valid", "val"),
        ("testing", "test"),
        ("trainval", None),
        ("2017", None),
        ("images", None),
    ],
)
def test_names_of_splits(name: str, split: str | None) -> None:
    assert split_from_name(name) == split


def test_files_come_in_natural_order(tmp_path: Path) -> None:
    names = ["img10.jpg", "img2.JPG", "Img3.jpg", "img2.txt", ".img1.jpg", "thumbs.db", "b/img1.jpg", "x.jpg/y.jpg"]
    touch(tmp_path, *names)
    assert list_files(tmp_path, {".jpg"}) == ["img2.JPG", "Img3.jpg", "img10.jpg"]
    assert list_folders(tmp_path) == ["b", "x.jpg"]
    assert list_files(tmp_path / "none", {".jpg"}) == []
    assert list(walk_files(tmp_path / "none", {".jpg"})) == []
    assert [path.relative_to(tmp_path).as_posix() for path in walk_files(tmp_path, {".jpg"})] == [
        "img2.JPG",
        "Img3.jpg",
        "img10.jpg",
        "b/img1.jpg",
        "x.jpg/y.jpg",
    ]


def test_walking_does_not_go_in_circles(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "store/2.jpg")
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "a" / "self").symlink_to("self")
    (tmp_path / "a" / "more").symlink_to("../store")
    assert [path.relative_to(tmp_path).as_posix() for path in walk_files(tmp_path / "a", {".jpg"})] == [
        "a/1.jpg",
        "a/more/2.jpg",
        "a/up/store/2.jpg",
    ]


def test_folders_are_not_entered_that_are_not_wanted(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg", "a/b/3.jpg")
    found = walk_files(tmp_path, {".jpg"}, enters=lambda name: name != "b")
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["a/1.jpg"]


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(DataError, match=r"cannot be listed \(Permission denied\)\. Grant"):
        list_files(tmp_path, {".jpg"})


def test_folders_are_found_large_or_small(tmp_path: Path) -> None:
    touch(tmp_path, "JPEGImages/a", "data/b", "images.txt")
    assert find_folder(tmp_path, ["jpegimages", "data"]) == tmp_path / "JPEGImages"
    assert find_folder(tmp_path, ["images", "data"]) == tmp_path / "data"
    assert find_folder(tmp_path, ["images"]) is None


def test_texts(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.txt": b"\xef\xbb\xbfh\xc3\xa9", "b.txt": b"one\ntwo\n\xff\xfe", "c.txt": b"0123456789"})
    assert read_text(tmp_path / "a.txt", 100) == "hé"
    assert read_limited(tmp_path / "c.txt", 10) == b"0123456789"
    assert read_ends(tmp_path / "c.txt", 3) == (b"012", b"789")
    assert read_ends(tmp_path / "c.txt", 99) == (b"0123456789", b"0123456789")
    with pytest.raises(InputError, match=r"^it is not UTF-8 text \(line 3\)\. Save it as UTF-8$"):
        read_text(tmp_path / "b.txt", 100)
    with pytest.raises(InputError, match=r"^it is longer than 9 bytes$"):
        read_limited(tmp_path / "c.txt", 9)
    with pytest.raises(InputError, match=r"^it is not a regular file$"):
        read_limited(tmp_path, 9)
    with pytest.raises(InputError, match=r"^it cannot be read \(No such file or directory\)$"):
        read_ends(tmp_path / "d.txt", 9)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12", 12),
        ("-1.5e1", -15),
        (" .5 ", 0.5),
        *((text, None) for text in ("nan", "inf", "1e999", "1_000", "", "abc", "1,5", "１２", "0x1f", "--1")),
    ],
)
def test_numbers(text: str, number: float | None) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize(
    ("name", "out"),
    [
        *((name, False) for name in ("a.jpg", "a/b..c.jpg", "./a.jpg")),
        *((name, True) for name in ("../a.jpg", "a/../b.jpg", "/a.jpg", "C:/a.jpg", "C:\\a.jpg")),
    ],
)
def test_paths_that_lead_out(name: str, out: bool) -> None:
    assert escapes_folder(name) is out


def test_words_and_paths_are_shown() -> None:
    assert show_path(Path("/data/a b/é.jpg"), Path("/data")) == "a b/é.jpg"
    assert show_path("/else/a.jpg", Path("/data")) == "/else/a.jpg"
    assert show_path("/data/a\n\udcff.jpg", Path("/data")) == r"a\n\udcff.jpg"
    assert clip("a\nb") == r"'a\nb'"
    assert clip("x" * 100) == "'" + "x" * 56 + "..."
    assert [count(number, "box", "boxes") for number in (0, 1, 2345)] == ["0 boxes", "1 box", "2,345 boxes"]
    assert count(2, "name") == "2 names"
    assert sorted(["a" + "9" * 5000, "a10", "a9"], key=natural_key)[:2] == ["a9", "a10"]
    assert sorted(["²", "1", "٣"], key=natural_key)[0] == "1"
    reader = pickle.loads(pickle.dumps(ImageFiles(("/a.jpg", "/b.jpg"))))
    assert reader(1) == "/b.jpg"


def test_names_are_made_to_differ() -> None:
    findings = Findings()
    names = deduplicate_class_names({3: "cat", 5: "dog", 7: "cat", 8: "cat (7)", 9: "Dog ", 10: "a\ud800"}, findings)
    assert names == {3: "cat", 5: "dog", 7: "cat (7)", 8: "cat (7) (8)", 9: "Dog ", 10: "a\\ud800"}
    assert [(item.level, item.kind, item.text) for item in findings.found] == [
        ("warning", "classes with the same name", "3 and 7 are both called 'cat'; 7 becomes the class 'cat (7)'"),
        (
            "warning",
            "classes with the same name",
            "7 and 8 are both called 'cat (7)'; 8 becomes the class 'cat (7) (8)'",
        ),
        (
            "warning",
            "classes with almost the same name",
            "'dog' and 'Dog ' differ only by case or spaces; they are treated as two classes",
        ),
    ]
    findings = Findings()
    assert deduplicate_class_names({"b": "b", "a": "a"}, findings) == {"b": "b", "a": "a"}
    assert list(deduplicate_class_names({"b": "b", "a": "a"}, findings)) == ["b", "a"]
    assert not findings.found
