"""Pixels are compared with what numpy makes of the very values that were written."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from image_files import png_of
from zoo.data.decode import decode_image, find_fault, read_image
from zoo.data.deep_images import find_dim, spread

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 65_536, (12, 10), dtype=np.uint16)
COLOURS = RNG.integers(0, 65_536, (12, 10, 3), dtype=np.uint16)


def pixels(source: Any) -> Any:
    return np.asarray(read_image(source)).astype(int)


def truth(values: Any, full: int = 65_535) -> Any:
    """Return `(H, W, 3)` in 0..255, not rounded."""
    scaled = np.asarray(values, np.float64) * 255 / full
    return np.repeat(scaled[..., None], 3, axis=2) if scaled.ndim == 2 else scaled


def big_endian(values: Any) -> Any:
    return values.astype(">u2").reshape(len(values), -1).view(np.uint8)


def tiff(values: Any, **tags: int) -> bytes:
    """Return a TIFF whose tags are then set to other values, as Pillow would change the pixels with them."""
    stream = BytesIO()
    Image.fromarray(values).save(stream, "TIFF")
    data = bytearray(stream.getvalue())
    for tag, value in tags.items():
        place = data.index(int(tag.removeprefix("tag")).to_bytes(2, "little") + (3).to_bytes(2, "little")) + 8
        data[place : place + 2] = value.to_bytes(2, "little")
    return bytes(data)


def test_every_value_is_rounded_to_the_nearest() -> None:
    values = np.arange(65_536, dtype=np.uint16)
    np.testing.assert_array_equal(spread(values), np.rint(values / 257).astype(np.uint8))
    np.testing.assert_array_equal(spread(values[:4096], 4095), np.rint(values[:4096] * (255 / 4095)).astype(np.uint8))
    assert np.abs(pixels(tiff(GRAY, tag262=0)) - truth(65_535 - GRAY.astype(int))).max() <= 0.5
    small = (GRAY >> 8).astype(np.uint8)
    assert np.abs(pixels(tiff(small, tag262=0)) - truth(255 - small.astype(int), 255)).max() == 0
    assert np.abs(pixels(tiff(GRAY, tag262=1)) - truth(GRAY)).max() <= 0.5


@pytest.mark.parametrize("values", [GRAY, GRAY[::-1], np.asfortranarray(GRAY)])
def test_gray(values: Any) -> None:
    copy = np.ascontiguousarray(values)
    for source in (tiff(copy), png_of(big_endian(copy), 10, 16), values, values[..., None]):
        assert np.abs(pixels(source) - truth(values)).max() <= 0.5


@pytest.mark.parametrize("clear", [0, 300, 65_535])
def test_the_transparent_value_of_gray_becomes_white(clear: int) -> None:
    values = GRAY.copy()
    values[0, :3] = clear, clear ^ 1, clear ^ 256  # neighbours that differ in one half only stay
    expected = truth(values)
    expected[values == clear] = 255
    assert np.abs(pixels(png_of(big_endian(values), 10, 16, clear=(clear,))) - expected).max() <= 0.5


@pytest.mark.parametrize("clear", [(0, 0, 0), (300, 5, 60_000), (65_535, 0, 1)])
def test_the_transparent_colour_becomes_white(clear: tuple[int, int, int]) -> None:
    values = COLOURS.copy()
    values[0, 0] = clear
    values[0, 1] = np.array(clear) ^ [1, 0, 0]  # the same but for the last bit of red
    expected = truth(values)
    expected[(values == clear).all(axis=2)] = 255
    read = pixels(png_of(big_endian(values), 10, 16, colours=True, clear=clear))
    assert np.abs(read - expected).max() <= 1  # Pillow cuts colours to 8 bits, and does not round them
    assert read[0, 0].tolist() == [255] * 3
    assert np.abs(pixels(png_of(big_endian(values), 10, 16, colours=True)) - truth(values)).max() <= 1


@pytest.mark.parametrize(
    ("depth", "packed", "values"), [(2, [0b00011011], [0, 85, 170, 255]), (4, [0x02, 0xF3], [0, 34, 255, 51])]
)
def test_the_transparent_value_of_few_bits(depth: int, packed: list[int], values: list[int]) -> None:
    for place, value in enumerate(values):
        expected = [255 if here == value else here for here in values]
        clear = (value * (2**depth - 1) // 255,)
        read = pixels(png_of(np.array([packed], np.uint8), 4, depth, clear=clear))
        assert read[0, :, 0].tolist() == expected, place


@pytest.mark.parametrize("full", [1_000, 4_095, 65_535])
def test_portable_gray_maps_are_spread_over_the_range_that_they_state(full: int) -> None:
    values = RNG.integers(0, full + 1, (12, 10), dtype=np.uint16)
    data = b"P5 10 12 %d\n" % full + values.astype(">u2").tobytes()
    assert np.abs(pixels(data) - truth(values, full)).max() <= 0.51
    assert find_fault(data) is None


def test_12_bits_of_a_tiff_are_spread_over_12_bits() -> None:
    """Two values in three bytes, as the file states it: nothing has to be guessed."""
    values = np.array([[0, 4095, 2048, 1000]], np.uint16)
    packed = b"".join((first << 12 | second).to_bytes(3, "big") for first, second in values.reshape(-1, 2).tolist())
    data = bytearray(tiff(values, tag258=12))
    data[-values.nbytes :] = packed.ljust(values.nbytes, b"\0")
    assert np.abs(pixels(bytes(data)) - truth(values, 4_095)).max() <= 0.5
    assert not decode_image(bytes(data)).remark


@pytest.mark.parametrize(
    ("largest", "text"),
    [
        (0, ""),
        (65_535, ""),
        (16_384, ""),
        (
            16_383,
            "its largest value is 16,383 of 65,535, which is read as 64 of 255: almost black. If its values have 14 ",
        ),
        (
            1_023,
            "its largest value is 1,023 of 65,535, which is read as 4 of 255: almost black. If its values have 10 bits",
        ),
    ],
)
def test_what_is_almost_black(largest: int, text: str) -> None:
    assert find_dim(largest)[: len(text) or None] == text


def test_dim_colours_and_dim_negatives() -> None:
    assert "almost black" in decode_image(png_of(big_endian(COLOURS >> 4), 10, 16, colours=True)).remark
    assert "read as 239 of 255: almost white" in decode_image(tiff((GRAY >> 4) | 0xFFF, tag262=0)).remark
    dark = Image.fromarray((COLOURS >> 12).astype(np.uint8))  # 8 bits say nothing of a range
    assert not decode_image(dark).remark
