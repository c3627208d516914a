import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

import zoo.data.near_duplicates as module
from zoo.data.decode import read_image
from zoo.data.near_duplicates import LIMIT, check_installed, find_near_duplicates, hash_image
from zoo.errors import InputError

BCCD = Path(__file__).parents[3] / "shared" / "data" / "bccd"


def make_scene(seed: int, size: tuple[int, int] = (400, 300)) -> Image.Image:
    """An image of soft blots, as photographs have them and noise has not."""
    noise = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def bits(first: int, second: int) -> int:
    return (first ^ second).bit_count()


def recode(image: Image.Image) -> Image.Image:
    stream = BytesIO()
    image.save(stream, "JPEG", quality=40)
    return Image.open(stream)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.resize((360, 270)),
        lambda image: image.resize((130, 100)),
        recode,
        lambda image: ImageEnhance.Brightness(image).enhance(1.15),
        lambda image: ImageEnhance.Contrast(image).enhance(0.8),
        lambda image: image.crop((4, 3, 396, 297)),
    ],
    ids=["smaller", "much smaller", "compressed", "brighter", "paler", "cropped"],
)
def test_small_changes_are_found(change) -> None:
    for seed in range(5):
        assert bits(hash_image(make_scene(seed)), hash_image(change(make_scene(seed)))) <= LIMIT


def test_other_images_and_none_are_not_alike_and_tiny_ones_have_a_hash() -> None:
    hashes = np.array([hash_image(make_scene(seed)) for seed in range(60)], np.uint64)
    assert find_near_duplicates(hashes) == []
    assert bits(int(hashes[0]), hash_image(make_scene(0).rotate(90))) > 2 * LIMIT
    none, one = np.zeros(0, np.uint64), np.zeros(1, np.uint64)
    assert find_near_duplicates(none) == find_near_duplicates(none, one) == find_near_duplicates(one, none) == []
    assert find_near_duplicates(one) == []
    assert hash_image(Image.new("RGB", (1, 1))) == hash_image(Image.new("RGB", (1, 1)))
    assert 0 <= hash_image(make_scene(0, (3, 500))) < 2**64


def test_the_closest_other_is_named() -> None:
    pool = np.array([0b1111111, 0b11, 0b1], np.uint64)
    found = find_near_duplicates(np.array([0, 2**63 + 2**40 - 1], np.uint64), pool)
    assert found == [(0, 2, 1)]
    assert find_near_duplicates(np.array([0], np.uint64), pool[:1], limit=7) == [(0, 0, 7)]
    assert find_near_duplicates(np.array([0], np.uint64), pool[:1]) == []
    hashes = np.array([0, 2**64 - 1, 1, 2**64 - 2], np.uint64)
    assert find_near_duplicates(hashes) == [(2, 0, 1), (3, 1, 1)]
    chain = np.array([0b0, 0b111, 0b111111], np.uint64)  # the ends have one neighbour, the middle names the first
    assert find_near_duplicates(chain) == [(1, 0, 3), (2, 1, 3)]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_parts_give_what_the_whole_gives(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**12, 90, dtype=np.uint64)  # few bits: many are close
    whole = [find_near_duplicates(hashes, limit=2), find_near_duplicates(hashes[:40], hashes[40:], limit=2)]
    assert all(whole)
    monkeypatch.setattr(module, "PAIRS_AT_A_TIME", size)
    assert [find_near_duplicates(hashes, limit=2), find_near_duplicates(hashes[:40], hashes[40:], limit=2)] == whole


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed()
    monkeypatch.setitem(sys.modules, "imagehash", None)
    with pytest.raises(
        InputError, match=r"needs the library imagehash\. Install it: pip install 'zoo-finetune\[detection\]'"
    ):
        check_installed()


@pytest.mark.skipif(not BCCD.is_dir(), reason="the blood cells (BCCD) are not here")
def test_of_the_blood_cells_one_pair_is_found() -> None:
    files = sorted((BCCD / "JPEGImages").iterdir())
    hashes = np.array([hash_image(read_image(file)) for file in files], np.uint64)
    names = [(files[near.place].stem[-5:], files[near.other].stem[-5:]) for near in find_near_duplicates(hashes)]
    assert names == [("00038", "00037")]
    assert len(find_near_duplicates(hashes, limit=12)) == 1  # far from the limit there is nothing else
