import os
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from image_files import make_image, write_image
from zoo.data.inputs import (
    FramePlace,
    UnreadableError,
    count_sources,
    gather,
    iterate_sources,
    read_again,
    read_sources,
    skipping,
)
from zoo.data.video import write_video
from zoo.errors import InputError

PIXELS = np.zeros((2, 7, 9, 3), np.uint8)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Images, a video and other files in folders; the working folder is above them."""
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a/1.JPG", "a/2.png", "a/deep/3.webp", ".hidden.png"):
        write_image(Path("photos", name))
    write_video("photos/clip.mp4", [(Image.new("RGB", (32, 32), "red"), second) for second in (0.0, 0.5)])
    Path("photos/notes.txt").write_text("no image")
    return Path("photos")


def find_sources(given):
    return list(iterate_sources(given))


def labels(given):
    return [source.label for source in find_sources(given)]


def files(given):
    return [source.file for source in find_sources(given)]


@pytest.mark.parametrize("kind", [Path, str])
def test_a_folder_stands_for_the_images_in_it(kind, photos):
    assert labels(kind(photos)) == ["photos/a/1.JPG", "photos/a/2.png", "photos/a/deep/3.webp", "photos/b.png"]
    assert files(kind(photos)) == ["a/1.JPG", "a/2.png", "a/deep/3.webp", "b.png"]


def test_places_are_called_by_their_names(photos):
    assert find_sources("photos/a/2.png") == [("photos/a/2.png", Path("photos/a/2.png"), "2.png")]
    assert labels("gone.png") == ["gone.png"]  # reading it will say so
    assert labels([["photos/b.png"], [["photos/a"]]]) == [
        "photos/b.png",
        "photos/a/1.JPG",
        "photos/a/2.png",
        "photos/a/deep/3.webp",
    ]
    assert labels(np.array(["photos/b.png"])) == ["photos/b.png"]
    found = find_sources("photos")
    assert find_sources(found) == found


@pytest.mark.parametrize(
    ("pattern", "found", "named"),
    [
        ("photos/*.png", ["photos/b.png"], ["b.png"]),
        ("photos/*", ["photos/b.png", "photos/clip.mp4"], ["b.png", "clip.mp4"]),
        ("~/photos/b.*", ["photos/b.png"], ["b.png"]),
        ("photos/a/?.*", ["photos/a/1.JPG", "photos/a/2.png"], ["1.JPG", "2.png"]),
        (
            "*/**/*.[pw]*",
            ["photos/a/2.png", "photos/a/deep/3.webp", "photos/b.png"],
            ["a/2.png", "a/deep/3.webp", "b.png"],
        ),
    ],
)
def test_a_pattern_stands_for_images_and_videos(pattern, found, named, photos, monkeypatch):
    monkeypatch.setenv("HOME", str(photos.absolute().parent))
    assert [label.removeprefix(f"{photos.absolute().parent}/") for label in labels(pattern)] == found
    assert files(pattern) == named
    if pattern.startswith("~"):
        return
    assert labels(str(photos.absolute().parent / pattern)) == [str(Path(path).absolute()) for path in found]


def test_a_name_with_marks_of_patterns_is_a_name_if_there_is_such_a_file(photos):
    write_image(photos / "[b].png")
    assert labels("photos/[b].png") == ["photos/[b].png"]
    (photos / "[b].png").unlink()
    assert labels("photos/[b].png") == ["photos/b.png"]


@pytest.mark.parametrize("batch", [PIXELS, torch.zeros(2, 3, 7, 9, dtype=torch.uint8)], ids=["array", "tensor"])
def test_images_in_memory_are_called_by_their_place(batch, photos):
    given = [batch, make_image(), "photos/b.png", batch[0], [b"bytes", {"a": "thing"}], BytesIO(b"bytes")]
    numbers = [0, 1, 2, None, 4, 5, 6, 7]
    assert labels(given) == ["photos/b.png" if n is None else f"image {n}" for n in numbers]
    assert files(given) == ["b.png" if n is None else f"image-{n}.jpg" for n in numbers]
    assert [len(find_sources(one)) for one in (batch, batch[0], b"bytes", make_image())] == [2, 1, 1, 1]


def test_no_two_files_have_the_same_name(photos):
    write_image(photos / "other" / "B.PNG")
    given = ["photos/b.png", "photos/other/B.PNG", "photos/b.png", "photos/a/2.png", make_image(), "photos/a"]
    assert files(given) == ["b.png", "B-2.PNG", "b-3.png", "2.png", "image-4.jpg", "1.JPG", "2-2.png", "deep/3.webp"]


def test_no_two_files_are_drawn_over_one_another(photos):
    """What cannot be written in its own format is drawn as a JPEG, videos as mp4."""
    folder = Path("formats")
    for name in ("1.gif", "1.ppm", "1.jpg", "1.JPG", "a/1.gif", "caf\u00e9.png", "cafe\u0301.png"):
        write_image(folder / name)
    assert files(folder) == ["1.JPG", "1-2.jpg", "1-3.jpg", "1-4.jpg", "a/1.jpg", "cafe\u0301.png", "caf\u00e9-2.png"]
    assert files(["x.avi", "x.mp4"]) == ["x.mp4", "x-2.mp4"]


def test_large_folders_are_walked_in_order_as_they_were(photos, monkeypatch):
    """Blocks of a few names give the same order as all of them, and what is written meanwhile is not read."""
    expected = labels("photos")
    monkeypatch.setattr("zoo.data.folders.BLOCK", 2)
    sources = iterate_sources(iter(["photos", "gone/*.png"]))  # an iterator is not run ahead of
    found = []
    for _, source in zip(expected, sources, strict=False):
        found.append(source.label)
        write_image(photos / "z" / f"{len(found)}.png")
    assert found == expected
    with pytest.raises(InputError, match="no file matches"):
        next(sources)
    with pytest.raises(InputError, match="no file matches"):
        iterate_sources(["photos", "gone/*.png"])  # at once


def test_what_training_takes_is_taken(photos):
    """A file is an image whatever its name is; others are told."""
    make_image().save("photos/scan", "PNG")
    make_image().save("photos/camera.dat", "JPEG")
    make_image().save("photos/twin.mpo", "JPEG")
    Path("photos/phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    Path("photos/Thumbs.db").write_bytes(b"x")
    os.mkfifo("photos/pipe")
    others = []
    found = [source.file for source in find_sources("photos")]
    assert found == ["a/1.JPG", "a/2.png", "a/deep/3.webp", "b.png", "camera.jpg", "phone.jpg", "scan.jpg", "twin.jpg"]
    assert count_sources("photos", others.append) == len(found)
    assert others == [Path("photos", name) for name in ("clip.mp4", "notes.txt", "pipe")]


def refuse():
    raise InputError("damaged")


def test_what_was_read_before_a_fault_comes_first():
    batches = gather([lambda: 1, lambda: 2, lambda: 3, refuse, lambda: 4], 2, None)
    assert [next(batches), next(batches)] == [[1, 2], [3]]
    with pytest.raises(UnreadableError, match=r"^damaged$"):
        next(batches)


def test_faults_are_left_out_and_told_once():
    bad = []
    assert list(gather([refuse, lambda: 1, refuse, lambda: 2, lambda: 3], 2, bad.append)) == [[1, 2], [3]]
    assert [str(error) for error in bad] == ["damaged", "damaged"]
    told = r"skipped 2 unreadable images\. The first: damaged"
    with pytest.warns(UserWarning, match=told), skipping(True) as on_bad:
        assert list(gather([refuse, lambda: 1, refuse], 2, on_bad)) == [[1]]
    with skipping(False) as on_bad:
        assert on_bad is None


@pytest.mark.parametrize("nothing", [[], (), PIXELS[:0], [[], []]], ids=repr)
def test_nothing(nothing):
    with pytest.raises(InputError, match=r"no images were passed\. Pass at least one"):
        find_sources(nothing)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("https://example.com/a.jpg", r"cannot read 'https://example.com/a.jpg': it is a URL; .* Download it"),
        ("s3://bucket/1", r"it is a URL; expected a file"),
        ("photos/*.tif", r"no file matches the pattern 'photos/\*\.tif'\. Current folder: /"),
        ("/no/such/*.tif", r"no file matches the pattern '/no/such/\*\.tif'\.$"),
        ("photos/*.txt", r"no image or video matches the pattern 'photos/\*\.txt', but the file 'notes\.txt'"),
        ("empty", r"the folder empty holds no files\. Expected images to predict"),
        ("texts", r"the folder texts holds no images, but 2 other files such as 'a\.md'\.$"),
        ("videos", r"holds no images, but the file 'clip\.mp4'\. Pass videos by their paths or a pattern"),
    ],
)
def test_places_without_images(given, text, photos):
    for name in ("empty", "texts", "videos"):
        Path(name).mkdir()
    for name in ("a.md", "b.md"):
        Path("texts", name).write_text("no image")
    (photos / "clip.mp4").rename("videos/clip.mp4")
    with pytest.raises(InputError, match=text):
        find_sources(given)


def test_videos_are_read_frame_by_frame_when_they_are_reached(photos):
    images = list(read_sources(find_sources(["photos/b.png", "photos/clip.mp4"])))
    assert images[0] == ("photos/b.png", "b.png", Path("photos/b.png"), None, None, None, None)
    assert [image.label for image in images[1:]] == ["photos/clip.mp4"] * 2
    assert [image.file for image in images[1:]] == ["clip/frame-000000.jpg", "clip/frame-000001.jpg"]
    assert [image.seconds for image in images[1:]] == [0.0, 0.5]
    assert [image.place[:2] for image in images[1:]] == [("photos/clip.mp4", 0), ("photos/clip.mp4", 1)]
    for image in images[1:]:
        assert np.array_equal(read_again(image.place), image.item)
    images = read_sources(find_sources(["photos/b.png", "gone.mp4"]))
    assert next(images).label == "photos/b.png"
    assert "cannot read 'gone.mp4': the file does not exist; expected a video" in str(next(images).fault)


def test_what_can_be_read_again(photos):
    assert read_again(Path("photos/b.png")).size == (9, 7)
    assert read_again(Path("photos/b.png").read_bytes()).size == (9, 7)
    assert read_again(FramePlace("photos/clip.mp4", 1, None)).size == (32, 32)
