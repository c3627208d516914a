import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import zoo
from coloured_folder import write_coloured
from tools.cli import main
from zoo.analysis import DataCheck
from zoo.data.near_duplicates import find_near_pairs
from zoo.errors import InputError


def draw(seed: int, side: int = 64) -> Image.Image:
    """A smooth image that no other resembles."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def reasons(found: DataCheck) -> dict[tuple[str, str], str]:
    return {(suspect.path, suspect.reason): suspect.other for suspect in found.suspects}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(24):
        split, label = ("val" if number % 6 > 3 else "train"), ("cat" if number % 2 else "dog")
        (place := tmp_path / f"data/{split}/{label}").mkdir(parents=True, exist_ok=True)
        draw(number).save(place / f"{number:02}.png")
    return tmp_path / "data"


WAYS: dict[str, Callable[[Image.Image, Path], None]] = {
    "same file": lambda image, path: image.save(path.with_suffix(".png")),
    "quality 60": lambda image, path: image.save(path.with_suffix(".jpg"), quality=60),
    "half the size": lambda image, path: image.resize((32, 32)).save(path.with_suffix(".png")),
    "mirrored": lambda image, path: ImageOps.mirror(image).save(path.with_suffix(".png")),
    "same pixels": lambda image, path: image.save(path.with_suffix(".bmp")),
}


@pytest.mark.parametrize("way", WAYS)
def test_copies_are_found_across_splits_and_classes_and_within(folder: Path, way: str) -> None:
    assert zoo.check_data(folder, progress=False).suspects == ()
    for name, place in (("00", "val/dog/leak"), ("01", "train/dog/both"), ("02", "train/dog/twice")):
        WAYS[way](draw(int(name)), folder / place)
    found = zoo.check_data(folder, progress=False)
    names = {path.rpartition(".")[0]: other.rpartition(".")[0] for (path, _), other in reasons(found).items()}
    expected = {
        "train/dog/00": "val/dog/leak",  # it is the image to learn from that is left out
        "train/cat/01": "train/dog/both",
        "train/dog/both": "train/cat/01",
    }
    pair = ("train/dog/02", "train/dog/twice")
    if way.startswith("same"):
        assert names == expected | dict([pair[::-1]])
        assert not found.near
    else:
        assert names == expected
        assert [(near.first.name[:-4], near.second.name[:-4]) for near in found.near] == [pair]


def test_odd_and_unreadable_images_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = folder / "train/cat"
    draw(50).resize((200, 20)).save(place / "long.png")
    draw(51).resize((40, 9)).save(place / "tiny.png")
    Image.new("RGB", (40, 40), "red").save(place / "red.png")
    Image.new("RGB", (40, 50), "red").save(place / "red too.png")  # one colour resembles any other
    Image.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40) * 40).save(place / "deep.png")
    draw(52).save(place / "moving.gif", save_all=True, append_images=[draw(53)])
    draw(54).convert("CMYK").save(place / "print.jpg")
    clear = draw(55).convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    clear.save(place / "clear.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    draw(56).save(place / "turned.jpg", exif=exif)
    (place / "cut.png").write_bytes((place / "01.png").read_bytes()[:300])
    found = zoo.check_data(folder, progress=False)
    assert {kind: [Path(name).name for name in names] for kind, names in found.odd.items()} == {
        "tiny": ["tiny.png"],
        "elongated": ["long.png", "tiny.png"],
        "one colour": ["red too.png", "red.png"],
        "16 bits": ["deep.png"],
        "animated": ["moving.gif"],
        "turned": ["turned.jpg"],
        "CMYK": ["print.jpg"],
        "transparent": ["clear.png"],
    }
    assert found.suspects == ()
    assert found.sizes["val"] == ((64, 64),) * 3
    assert main(["data", "check", str(folder), "--json"]) == 1
    written = json.loads(capsys.readouterr().out)
    assert written["odd"] == {kind: list(names) for kind, names in found.odd.items()}
    assert [problem["name"] for problem in written["skipped"]] == ["train/cat/cut.png"]


def test_wrong_labels_and_outliers_by_a_model_and_what_becomes_of_them(tmp_path: Path, capsys: Any) -> None:
    folder = write_coloured(tmp_path / "data", noise=20, train=32, val=8)
    (folder / "train/red/05.png").rename(folder / "train/blue/wrong.png")
    (folder / "val/green/01.png").rename(folder / "val/red/wrong.png")
    torch.manual_seed(0)
    model = zoo.get("timm/test_resnet", num_classes=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = zoo.check_data(folder, model, progress=False, image_size=32)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    labels = {suspect.path: (suspect.given, suspect.likely) for suspect in found.suspects if suspect.reason == "label"}
    assert labels == {"train/blue/wrong.png": ("blue", "red"), "val/red/wrong.png": ("red", "green")}
    table, sheet = found.write(tmp_path / "out")
    assert Image.open(sheet).width > 500
    with table.open() as file:
        assert [row["path"] for row in csv.DictReader(file)] == [suspect.path for suspect in found.suspects]
    data = zoo.open_data(folder, exclude=table)
    assert not {"train/blue/wrong.png", "val/red/wrong.png"} & {*data.train.names, *data.val.names}
    with pytest.raises(InputError, match="one class for each image"):
        zoo.check_data(folder, model, labels="multi")
    with pytest.raises(InputError, match="checked by a classifier"):
        zoo.check_data(folder, zoo.get("yolo_nas_s", num_classes=2))


def test_near_pairs_in_buckets_are_those_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = np.random.default_rng(0)
    hashes = draws.integers(0, 2**63, 400).astype(np.uint64)
    flips = draws.integers(0, 64, (200, 6))
    hashes[200:] = hashes[:200] ^ np.bitwise_or.reduce(np.uint64(1) << flips.astype(np.uint64), axis=1)
    marks = draws.integers(0, 3, (400, 2))
    whole = find_near_pairs(hashes, marks)
    assert {(pair.place, pair.other) for pair in whole} >= {(place, place + 200) for place in range(200)}
    monkeypatch.setattr("zoo.data.near_duplicates.FEW", 0)
    assert find_near_pairs(hashes, marks) == whole
