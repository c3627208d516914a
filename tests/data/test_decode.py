import os
import pickle
import threading
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, features

from image_files import make_image, make_photo, png_header, write_image
from zoo.data import decode
from zoo.data.decode import _Budget, decode_image, examine, find_fault, read_image
from zoo.data.transforms import Preprocess, eval_transform, need_of_crops
from zoo.errors import InputError

RED, WHITE = (255, 0, 0), (255, 255, 255)


def pixels(image: Image.Image) -> Any:
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF", "WEBP", "JPEG2000"])
def test_lossless_files_keep_their_pixels(tmp_path: Path, kind: str) -> None:
    image = make_image()
    path = tmp_path / "a.bin"  # the name says nothing
    path.write_bytes(encode(image, kind, **({"lossless": True} if kind == "WEBP" else {})))
    for source in (path, str(path), path.read_bytes()):
        assert np.abs(pixels(read_image(source)) - pixels(image)).max() <= (0 if kind != "GIF" else 255)
        assert find_fault(source) is None


def test_images_are_read_as_pillow_reads_them(tmp_path: Path) -> None:
    image = make_image()
    assert read_image(image) is image
    path = write_image(tmp_path / "a.jpg", (40, 30))
    with Image.open(path) as image:
        assert (pixels(read_image(path)) == pixels(image.convert("RGB"))).all()
    assert read_image(write_image(tmp_path / "1.png", (1, 1))).size == (1, 1)
    data = encode(Image.new("RGB", (8, 8), RED).convert("CMYK"), "JPEG", quality=100)
    assert np.abs(pixels(read_image(data)) - RED).max() <= 3
    first, second = Image.new("RGB", (4, 3), RED), Image.new("RGB", (4, 3), (0, 255, 0))
    assert (pixels(read_image(encode(first, "GIF", save_all=True, append_images=[second]))) == RED).all()


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "P", "YCbCr"])
def test_other_modes_become_rgb(mode: str) -> None:
    image = Image.new("RGB", (4, 3), RED).convert(mode)
    assert np.abs(pixels(read_image(image)) - pixels(image.convert("RGB"))).max() == 0


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(kind: str) -> None:
    values = np.linspace(0, 65535, 12 * 10).astype(np.uint16).reshape(10, 12)
    read = pixels(read_image(encode(Image.fromarray(values), kind)))
    assert np.abs(read - (values / 257)[..., None]).max() <= 0.51
    assert read.min() == 0
    assert read.max() == 255


def test_transparent_parts_become_white() -> None:
    clear, half = Image.new("RGBA", (4, 3), (*RED, 0)), Image.new("RGBA", (4, 3), (0, 0, 0, 128))
    assert (pixels(read_image(clear)) == WHITE).all()
    assert (pixels(read_image(encode(clear, "WEBP"))) == WHITE).all()
    assert np.abs(pixels(read_image(half)) - 127).max() <= 1
    assert (pixels(read_image(Image.new("LA", (4, 3), (7, 0)))) == WHITE).all()
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, 0, 0, 255])
    image.putdata([0, 1])
    for transparency in (1, bytes([255, 0])):
        read = read_image(encode(image, "PNG", transparency=transparency))
        assert [read.getpixel((x, 0)) for x in (0, 1)] == [RED, WHITE]
    read = read_image(encode(Image.new("RGB", (2, 2), RED), "PNG", transparency=RED))
    assert (pixels(read) == WHITE).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int) -> None:
    image, exif = make_image((24, 16)), Image.Exif()
    exif[0x0112] = orientation
    data = encode(image, "JPEG", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(BytesIO(data)))
    assert (pixels(read_image(data)) == pixels(expected)).all()
    assert read_image(data).size == ((24, 16) if orientation < 5 else (16, 24))
    assert read_image(read_image(data)).tobytes() == read_image(data).tobytes()  # it is turned once


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_matter() -> None:
    data = encode(make_image(), "JPEG", exif=b"Exif\0\0II*\0" + b"\xff" * 20)
    assert read_image(data).size == (9, 7)


def test_arrays_and_tensors() -> None:
    image = make_image()
    array = np.asarray(image)
    chw = torch.from_numpy(array.copy()).permute(2, 0, 1)
    for source in (array, array[:, ::-1][:, ::-1], chw, chw / 255, (chw / 255).double(), chw.requires_grad_(False)):
        assert (pixels(read_image(source)) == pixels(image)).all()
    gray = pixels(Image.fromarray(array[:, :, 0]).convert("RGB"))
    wide = array[:, :, 0].astype(np.uint16) * 257
    for source in (array[:, :, 0], array[:, :, :1], chw[:1], chw[0], (chw[0] / 255).bfloat16().float(), wide):
        assert np.abs(pixels(read_image(source)) - gray).max() <= 1
    clear = np.concatenate([array, np.zeros_like(array[:, :, :1])], axis=2)
    assert (pixels(read_image(clear)) == WHITE).all()


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (
            np.zeros((3, 8, 9), np.uint8),
            r"shape \(3, 8, 9\); expected uint8 of shape \(H, W\) or \(H, W, 3\), RGB\. Use "
            r"array\.transpose\(1, 2, 0\)",
        ),
        (np.zeros((2, 8, 9, 3), np.uint8), r"shape \(2, 8, 9, 3\); expected .*, for one image$"),
        (np.zeros((0, 9, 3), np.uint8), r"shape \(0, 9, 3\)"),
        (np.zeros((8, 9, 3)), r"is float64; expected uint8 .*\(array \* 255\)\.round\(\)"),
        (np.zeros((8, 9, 3), int), r"is int64; expected uint8"),
        (np.zeros((8, 9, 3), bool), r"is bool; expected uint8"),
        (np.zeros((8, 9, 3), np.uint16), r"is uint16; expected uint8"),
        (torch.zeros(8, 9, 3), r"shape \(8, 9, 3\); expected \(3, H, W\).*tensor\.permute\(2, 0, 1\)"),
        (torch.zeros(1, 3, 8, 9), r"shape \(1, 3, 8, 9\); expected .*, for one image$"),
        (torch.full((3, 8, 9), -2.1), r"values from -2\.1 to -2\.1; expected .* Do not apply Normalize"),
        (torch.full((3, 8, 9), 255.0), r"values from 255 to 255; expected .* 0\.\.1"),
        (torch.full((3, 8, 9), float("nan")), r"values from nan to nan"),
        (torch.zeros(3, 8, 9, dtype=torch.int64), r"the tensor is int64; expected"),
        (torch.zeros(3, 8, 9, dtype=torch.bool), r"the tensor is bool; expected"),
        (
            None,
            "cannot read the image: it is of type NoneType; expected a path, the bytes of a file, a PIL image",
        ),
        ([1, 2], "cannot read the image: it is of type list; expected"),
        (Image.new("F", (2, 2)), r"its pixels are 32-bit, signed or floating-point; expected 8 or 16 bits"),
        (Image.new("I", (2, 2)), r"its pixels are 32-bit"),
        (Image.new("LAB", (2, 2)), r"Lab colours; expected RGB"),
        (Image.new("RGB", (0, 2)), r"0 x 2 pixels"),
    ],
)
def test_what_is_no_image_is_refused(source: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        read_image(source)


def cut_jpeg() -> bytes:
    data = encode(make_image((64, 64)), "JPEG")
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", r"empty file \(0 bytes\)"),
        (b"P", "not an image"),
        (b"\0" * 100, "zero bytes"),
        (b"hello", "not an image; expected JPEG, PNG, WebP"),
        (b"version https://git-lfs.github.com/spec/v1\noid ...", "Git LFS pointer.*git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'>", "SVG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC.*convert it to JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "not an image"),  # would start Ghostscript
        (b"\x89PNG\r\n\x1a\n", "starts like a PNG file, but is damaged"),
        (b"\xff\xd8\xff", "starts like a JPEG file, but is damaged"),
        (png_header(60_000, 60_000), "too large: 60000 x 60000 pixels, more than 178,956,970"),
        (png_header(12_000, 10_000), r"damaged or truncated \(image file"),  # where Pillow would warn
        (cut_jpeg(), r"damaged or truncated \(image file is truncated"),
    ],
    ids=range(14),
)
def test_bad_files_are_named_and_described(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"^cannot read '.*bad\.jpg': .*{text}"):
        read_image(path)
    for source in (path, content):
        fault = find_fault(source)
        assert fault is not None
        assert str(path) not in fault


def link_in_a_circle(path: Path) -> None:
    path.symlink_to(path)


def link_to_nothing(path: Path) -> None:
    path.symlink_to("nothing")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda path: None, "the file"),
        (Path.mkdir, "it is a folder"),
        (os.mkfifo, "not a regular file"),
        (link_to_nothing, "a broken symbolic link"),
        (link_in_a_circle, "cannot be opened"),
    ],
    ids=["missing", "folder", "pipe", "broken link", "circle"],
)
def test_what_is_no_file(tmp_path: Path, make: Callable[[Path], None], text: str) -> None:
    path = tmp_path / "a b é.jpg"
    make(path)
    assert text in str(find_fault(path))
    with pytest.raises(InputError, match=text):
        read_image(str(path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png")
    path.chmod(0)
    assert find_fault(path) == "it cannot be opened (Permission denied)"


def test_an_address_and_a_null_byte() -> None:
    assert "Download it first" in str(find_fault("https://example.org/cat.jpg"))
    assert "cannot be opened" in str(find_fault("a\0b"))


def can_be_read(data: bytes) -> bool:
    try:
        read_image(data)
    except InputError:
        return False
    return True


def test_the_check_and_reading_agree_on_damaged_files() -> None:
    generator = np.random.default_rng(0)
    whole = encode(make_image((70, 50)), "JPEG", quality=90)
    refused = 0
    for round_ in range(120):
        data = bytearray(whole)
        if round_ % 2:
            del data[generator.integers(len(data)) :]
        else:
            for place in generator.integers(len(data), size=3):
                data[place] = generator.integers(256)
        assert (find_fault(bytes(data)) is None) == can_be_read(bytes(data))
        refused += not can_be_read(bytes(data))
    assert 50 < refused < 120


def test_errors_travel_between_processes() -> None:
    with pytest.raises(InputError) as caught:
        read_image(b"hello")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def ftyp(*brands: bytes) -> bytes:
    return (16 + 4 * len(brands[1:])).to_bytes(4, "big") + b"ftyp" + brands[0] + bytes(4) + b"".join(brands[1:])


@pytest.mark.parametrize(
    "brands", [(b"heic", b"mif1", b"heic"), (b"mif1", b"heic", b"miaf"), (b"mif1",), (b"msf1", b"hevc"), (b"heix",)]
)
def test_heic_is_named_whatever_its_first_brand(brands: tuple[bytes, ...]) -> None:
    with pytest.raises(InputError, match=r"cannot read the image: HEIC is not supported; convert it to JPEG$"):
        read_image(ftyp(*brands) + bytes(600))


def test_avif_is_read_and_a_broken_one_is_no_heic(tmp_path: Path) -> None:
    if not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    data = encode(make_image((16, 16)), "AVIF")
    assert read_image(data).size == (16, 16)
    mif1 = data.replace(b"ftypavif", b"ftypmif1", 1)
    assert read_image(mif1).size == (16, 16)
    with pytest.raises(InputError, match="starts like a AVIF file, but is damaged"):
        read_image(ftyp(b"avif", b"mif1") + bytes(600))


def test_threads_decode_only_so_many_pixels_at_once() -> None:
    budget, running, most = _Budget(100), [0], [0]
    gate = threading.Barrier(4)

    def work(pixels: int) -> None:
        gate.wait(10)
        for _ in range(20):
            with budget.spend(pixels):
                running[0] += pixels
                most[0] = max(most[0], running[0])
                running[0] -= pixels

    threads = [threading.Thread(target=work, args=(pixels,)) for pixels in (60, 60, 30, 500)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert most[0] <= 500  # the one that is alone larger than the budget, and nothing beside it
    assert budget._spent == 0


def test_every_image_is_decoded_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    spent: list[int] = []
    keep = decode._budget.spend
    monkeypatch.setattr(decode._budget, "spend", lambda pixels: (spent.append(pixels), keep(pixels))[1])
    for source in (encode(make_image((9, 7)), "PNG"), np.zeros((4, 5), np.uint8), Image.new("L", (3, 2))):
        read_image(source)
        assert find_fault(source) is None
    assert spent == [63, 63, 20, 20, 6, 6]
    for _ in range(3):
        assert find_fault(png_header(13_000, 13_000)) is not None
    assert decode._budget._spent == 0


@pytest.mark.parametrize("source", ["array", "PNG", "TIFF"])
def test_images_that_are_almost_black_are_told(source: str) -> None:
    """Of 12 bits in 16, as microscopes write them; the pixels stay what the file says."""
    values = np.array([[0, 4095], [2048, 100]], np.uint16)
    given = values if source == "array" else encode(Image.fromarray(values), source)
    image, remark, _ = decode_image(given)
    assert pixels(image)[..., 0].tolist() == [[0, 16], [8, 0]]
    assert remark == (
        "its largest value is 4,095 of 65,535, which is read as 16 of 255: almost black. If its values have "
        "12 bits, multiply them by 16, or rescale the relevant range to 0 to 65,535, and save it again"
    )
    assert examine(given) == (None, remark)
    assert decode_image(make_image()).remark == decode_image(encode(Image.fromarray(values * 16), "PNG")).remark == ""


@pytest.mark.parametrize(
    "options", [{}, {"mode": "L"}, {"mode": "CMYK"}, {"progressive": True}, {"orientation": 6}, {"orientation": 3}]
)
def test_large_jpegs_are_decoded_at_a_smaller_size_and_look_the_same(options: dict[str, Any]) -> None:
    exif = Image.Exif()
    exif[274] = options.pop("orientation", 1)
    photo, how = make_photo(exif=exif, **options), Preprocess(image_size=128, decode="fast")
    found, full = decode_image(photo, how.need), decode_image(photo)
    upright = (1200, 1600) if exif[274] == 6 else (1600, 1200)
    assert found.size == full.size == full.image.size == upright
    assert found.image.size == (upright[0] // 4, upright[1] // 4)  # 300 is more than twice 146
    change = eval_transform(how, normalise=False)
    assert (change(found.image).float() - change(full.image).float()).abs().mean() < 1


@pytest.mark.parametrize(
    ("need", "width"),
    [
        ((800, 600), 1600),  # the image has only twice as many
        ((400, 300), 800),
        ((401, 300), 1600),
        ((400, 301), 1600),
        ((10, 10), 200),
    ],
)
def test_twice_the_pixels_that_are_needed_are_left(need: tuple[int, int], width: int) -> None:
    assert read_image(make_photo(), lambda *_: need).width == width


def test_the_smallest_crop_counts() -> None:
    how = {"augment": "crop-flip", "crop_scale_min": 0.35}
    fast, photo = Preprocess(image_size=128, decode="fast"), make_photo()
    crops = need_of_crops(fast, **how)  # type: ignore[arg-type]
    assert read_image(photo, fast.need).width == 400
    assert read_image(photo, crops).width == 800  # of 400, a crop of 205 pixels would be less than twice the target
    least = 0.35 * 0.75 * 1600 * 1200
    assert crops is not None
    assert crops(1600, 1200)[0] == pytest.approx(1600 * 128 / least**0.5)
    assert need_of_crops(Preprocess(), **how) is None  # type: ignore[arg-type]


def test_what_is_no_jpeg_or_belongs_to_somebody_is_decoded_in_full() -> None:
    need, photo = Preprocess(image_size=32, decode="fast").need, Image.open(BytesIO(make_photo()))
    assert read_image(encode(make_image((900, 700)), "PNG"), need).size == (900, 700)
    assert read_image(photo, need).size == photo.size == (1600, 1200)
