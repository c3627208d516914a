from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import zoo.tasks.detection.looks as module
from image_files import make_image, write_image
from zoo.tasks.detection.annotations import Annotated, BoxSplit, no_boxes
from zoo.tasks.detection.looks import Look, look_at_all


def look(*images: Any, check: bool = True, in_threads: bool = False) -> list[Look]:
    notes = [Annotated(f"{i}", no_boxes(), (), (), np.zeros(0, bool)) for i in range(len(images))]
    split = BoxSplit("train", images.__getitem__, tuple(notes), in_threads)
    return list(look_at_all(split, check=check, count=lambda _: None))


@pytest.mark.parametrize("in_threads", [True, False])
def test_each_image_is_decoded_once(monkeypatch: pytest.MonkeyPatch, in_threads: bool) -> None:
    read: list[Any] = []
    keep = module.decode_image
    monkeypatch.setattr(module, "decode_image", lambda source: (read.append(source), keep(source))[1])
    images = [make_image((9, 7), seed) for seed in range(40)]
    looks = look(*images, in_threads=in_threads)
    assert sorted(map(images.index, read)) == list(range(40))
    assert len({seen.content for seen in looks}) == 40


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_orientations(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    make_image((30, 20)).save(path, exif=exif)
    size = (30, 20) if orientation > 4 else (20, 30)
    with Image.open(path) as opened:
        for seen in (*look(str(path), path, path.read_bytes(), opened), *look(path, check=False)):
            assert (seen.orientation, seen.size, seen.fault) == (orientation, size, None)


@pytest.mark.parametrize("orientation", [0, 9, 700])
def test_orientations_that_do_not_exist(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    make_image((30, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert [seen.orientation for seen in look(tmp_path / "a.jpg")] == [1]


def test_light(tmp_path: Path) -> None:
    Image.fromarray(np.full((5, 6), 40000, np.uint16)).save(tmp_path / "deep.png")
    dark, gray = Image.new("RGB", (6, 5), (7, 0, 0)), Image.new("L", (6, 5), 100)
    seen = look(tmp_path / "deep.png", dark, gray, np.zeros((5, 6, 3), np.uint8))
    assert [one.brightest for one in seen] == [156, 7, 100, 0]
    assert not any(one.remark for one in seen)
    (dim,) = look(np.full((5, 6), 4095, np.uint16))
    assert (dim.brightest, dim.remark[:34]) == (16, "its largest value is 4,095 of 65,5")
    assert look(dark, check=False)[0].brightest == 255  # not looked at
    assert look(tmp_path / "deep.png", check=False)[0].content == b""


def test_a_image_that_goes_away_while_it_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_image(tmp_path / "a.png")
    keep = module.decode_image
    monkeypatch.setattr(module, "decode_image", lambda source: (keep(source), path.unlink())[0])
    assert look(path)[0].fault == "it cannot be opened (No such file or directory)"


def test_encoded_and_decoded_images_of_the_same_pixels() -> None:
    stream = BytesIO()
    make_image((30, 20)).save(stream, "PNG")
    first, second = look(make_image((30, 20)), np.asarray(make_image((30, 20))))
    assert first.content == second.content
    assert look(stream.getvalue())[0].hash == first.hash
