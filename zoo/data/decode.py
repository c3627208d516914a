"""Decoding: files, encoded bytes, arrays and tensors become upright 8-bit RGB images, or a reason why not.

A JPEG that is much larger than needed may be asked for at a half, a quarter or an eighth of its sides, which its
decoder gives in a fraction of the time.
"""

import math
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np
from PIL import ExifTags, Image

from zoo.data.deep_images import FACTORS, find_clear_colour, find_dim_colours, gray_to_rgb, is_deep_gray, raw_mode
from zoo.data.whole_jpeg import MOST_BYTES, is_whole_jpeg
from zoo.errors import InputError
from zoo.files import open_regular

if TYPE_CHECKING:
    from torch import Tensor

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | np.ndarray[Any, Any] | Tensor"
Decoding: TypeAlias = Literal["fast", "full"]
Need: TypeAlias = Callable[[int, int], tuple[float, float]]  # sides of an image -> to which it is resized as a whole

FULL = ("decode", "full")  # of a stored preprocessing: not written, for without it all was decoded
HEAD_BYTES = 512  # by which a format is known
MAX_PIXELS = 178_956_970  # half a gigabyte as RGB; also where Pillow sees a decompression bomb
HEIC = "HEIC is not supported; convert it to JPEG"
HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"})
AVIF_BRANDS = frozenset({b"avif", b"avis"})

# Only these decoders are tried: others (PostScript) would run foreign programs, or have no mark to be known by.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")

REDUCIBLE = ("JPEG", "MPO")
LARGE = 500_000  # pixels of a JPEG that is checked without being decoded
REDUCING_GAP = 2  # times what is needed that a reduced image has at least, so that resizing it hardly tells
ALWAYS_CONVERTED = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})  # into RGB, and nothing fails

UPRIGHT = {  # EXIF orientation -> what makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
LYING = (5, 6, 7, 8)  # EXIF orientations that swap the sides


class _Fault(Exception):
    """Why a source is no image, in a few words and without its name."""


class InputImage(NamedTuple):
    """An upright 8-bit RGB image.

    Attributes:
        image: It may be smaller than its source, if less was needed.
        remark: What a person should know of it: empty, or that it is almost black.
        size: Width and height of the source, upright, in pixels.
    """

    image: Image.Image
    remark: str
    size: tuple[int, int]


def read_image(source: ImageSource, need: Need | None = None) -> Image.Image:
    """Read one image as upright 8-bit RGB.

    Files are turned as their EXIF orientation says. Gray, palette and CMYK become RGB; transparent parts become white;
    16 bits are scaled to 8; of an animation the first image is taken.

    Args:
        source: a path; the bytes of an encoded file; a PIL image; a uint8 array `(H, W)`, `(H, W, 1 | 3 | 4)`;
            a tensor `(1 | 3 | 4, H, W)` or `(H, W)`, uint8 or floating point in 0..1. Colours in the order RGB(A).
        need: Called with width and height of the upright image; returns those to which all of it will be resized. A
            JPEG, by path or as bytes, is decoded at the smallest of all, a half, a quarter or an eighth of its sides
            that leaves twice as much. None: as it is stored.

    Returns:
        The image. A PIL image that needs no change is returned as it is.

    Raises:
        InputError: with the file's name and what is wrong with it, or with the shape, type or range expected.
    """
    return decode_image(source, need).image


def decode_image(source: ImageSource, need: Need | None = None) -> InputImage:
    """Read one image as `read_image` does, with its own size and what a person should know of it."""
    try:
        return _decode(source, need)
    except _Fault as fault:
        name = f"{os.fspath(source)!r}" if isinstance(source, (str, os.PathLike)) else "the image"
        raise InputError(f"cannot read {name}: {fault}") from fault


def find_fault(source: ImageSource) -> str | None:
    """Say why `read_image` would refuse a source, or None; faster than reading it, for large JPEGs."""
    return examine(source)[0]


def examine(source: ImageSource) -> tuple[str | None, str]:
    """Return what `find_fault` does, and the remark of `decode_image`."""
    try:
        return None, _decode(source, _nothing).remark
    except _Fault as fault:
        return str(fault), ""


def begins_like_image(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as those of a format do that can be read, or HEIC; whatever its name is."""
    try:
        with open_regular(path) as file:
            head = file.read(HEAD_BYTES)
    except (OSError, ValueError):
        return False
    return any(_accepted(Image.OPEN[name][1], head) for name in _formats()) or _is_heic(head)


def _nothing(width: int, height: int) -> tuple[float, float]:
    """Need no pixel: a JPEG is still read to its end, but at an eighth of its size."""
    return 0, 0


def _decode(source: ImageSource, need: Need | None) -> InputImage:
    torch = sys.modules.get("torch")  # whoever holds a tensor has imported it
    if isinstance(source, Image.Image):
        return _guarded(source)  # whoever holds it may want it whole
    if isinstance(source, (str, os.PathLike)):
        return _decode_file(os.fspath(source), need)
    if isinstance(source, bytes):
        return _decode_stream(BytesIO(source), need)
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if torch is not None and isinstance(source, torch.Tensor):
        return _from_tensor(source)
    raise _Fault(
        f"it is of type {type(source).__name__}; expected a path, the bytes of a file, a PIL image, a numpy array or "
        "a tensor"
    )


def _decode_file(path: str, need: Need | None) -> InputImage:
    if path.startswith(("http://", "https://")):
        raise _Fault("it is a URL; expected a file. Download it first")
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for ever
            raise _Fault("it is a folder" if os.path.isdir(path) else "it is not a regular file")
        with open(path, "rb") as stream:
            return _decode_stream(stream, need)
    except FileNotFoundError as error:
        raise _Fault("it is a broken symbolic link" if os.path.islink(path) else "the file does not exist") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise _Fault(f"it cannot be opened ({getattr(error, 'strerror', None) or error})") from error


def _decode_stream(stream: IO[bytes], need: Need | None) -> InputImage:
    return _guarded(_open(stream), need, stream)


def _open(stream: IO[bytes]) -> Image.Image:
    """Read the header. `Image.open` would warn of large images, and warnings cannot be silenced for one thread."""
    head = stream.read(HEAD_BYTES)
    for name in _formats():
        factory, accepts = Image.OPEN[name]
        if not _accepted(accepts, head):
            continue
        stream.seek(0)
        try:
            return factory(stream, "")
        except Exception as error:  # decoders raise whatever a damaged header leads them to
            if name == "AVIF" and not _find_brands(head) & AVIF_BRANDS:  # it says of what family it is, no more
                raise _Fault(HEIC) from error
            raise _Fault(
                f"it starts like a {name} file, but is damaged or of an unsupported variant ({_text(error)})"
            ) from error
    raise _Fault(_describe_foreign(head))


def _accepted(accepts: Callable[[bytes], bool | str] | None, head: bytes) -> bool:
    try:
        return accepts is not None and accepts(head) is True  # a text says what this Pillow lacks
    except IndexError:  # one byte is too short for some
        return False


def _guarded(image: Image.Image, need: Need | None = None, stream: IO[bytes] | None = None) -> InputImage:
    """Decode the pixels, with every failure turned into a `_Fault`; the stream is that of the file, if it is one."""
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise _Fault(f"too large: {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
    if min(image.size) < 1:
        raise _Fault(f"it has {image.width} x {image.height} pixels")
    try:
        if need is _nothing and stream and _is_surely_whole(image, stream):
            return InputImage(image, "", image.size)
        with _budget.spend(pixels):
            full = None if need is None else _reduce(image, need)
            raw = raw_mode(image)
            image.load()
            if need is _nothing and image.mode in ALWAYS_CONVERTED:
                return InputImage(image, find_dim_colours(image, raw), image.size)
            rgb, remark = _to_rgb(image, raw, stream)
            upright = _upright(image, rgb)
            return InputImage(upright, remark, full or upright.size)
    except _Fault:
        raise
    except MemoryError as error:
        raise _Fault(f"not enough memory to decode it ({image.width} x {image.height} pixels)") from error
    except Exception as error:
        raise _Fault(f"damaged or truncated ({_text(error)})") from error


def _is_surely_whole(image: Image.Image, stream: IO[bytes]) -> bool:
    """Return whether a large JPEG is known to be sound without being decoded."""
    if image.format not in REDUCIBLE or image.width * image.height < LARGE or image.mode not in ALWAYS_CONVERTED:
        return False
    place = stream.tell()
    stream.seek(0)
    is_whole = is_whole_jpeg(stream.read(MOST_BYTES + 1))
    stream.seek(place)
    return is_whole


def _reduce(image: Image.Image, need: Need) -> tuple[int, int] | None:
    """Ask the decoder for no more than is needed; return the full, upright size, or None if it gives all of it."""
    if image.format not in REDUCIBLE:
        return None
    stored, is_lying = image.size, _find_orientation(image) in LYING
    full = stored[::-1] if is_lying else stored
    least = [math.ceil(REDUCING_GAP * side) or 1 for side in need(*full)]
    image.draft(None, (least[1], least[0]) if is_lying else (least[0], least[1]))
    return None if image.size == stored else full


def _to_rgb(image: Image.Image, raw: str, stream: IO[bytes] | None) -> tuple[Image.Image, str]:
    """Return an image as RGB, and what a person should know of it."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image, find_dim_colours(image, raw)
    if is_deep_gray(image):
        return gray_to_rgb(image, raw)
    if image.mode in ("I", "F"):
        raise _Fault("its pixels are 32-bit, signed or floating-point; expected 8 or 16 bits. Rescale and convert it")
    if image.mode == "LAB":
        raise _Fault("it uses Lab colours; expected RGB, CMYK or gray. Convert it")
    if not image.has_transparency_data:
        return image.convert("RGB"), ""
    remark = find_dim_colours(image, raw)
    if mask := find_clear_colour(image, raw, stream) if stream else None:
        return _paint_on_white(image, mask), remark
    if isinstance(clear := image.info.get("transparency"), int):
        image.info["transparency"] = clear * FACTORS.get(raw, 1)
    rgba = image.convert("RGBA")
    return _paint_on_white(rgba, rgba.getchannel("A")), remark


def _paint_on_white(image: Image.Image, mask: Image.Image) -> Image.Image:
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(image, mask=mask)
    return canvas


def _upright(image: Image.Image, rgb: Image.Image) -> Image.Image:
    turn = UPRIGHT.get(_find_orientation(image))
    if turn is None:
        return rgb
    turned = rgb.transpose(turn)
    turned.info = {}  # it would say that it still has to be turned
    return turned


def _find_orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a damaged EXIF block says nothing about the pixels
        return 1


class _Budget:
    """Lets threads decode at the same time only what has so many pixels together; one image always may be."""

    def __init__(self, pixels: int) -> None:
        self._pixels = pixels
        self.reset()

    def reset(self) -> None:
        """Forget what is being decoded: a forked process has none of the threads that do it."""
        self._spent, self._changed = 0, threading.Condition()

    @contextmanager
    def spend(self, pixels: int) -> Iterator[None]:
        """Wait until so many pixels more may be decoded."""
        with self._changed:
            self._changed.wait_for(lambda: not self._spent or self._spent + pixels <= self._pixels)
            self._spent += pixels
        try:
            yield
        finally:
            with self._changed:
                self._spent -= pixels
                self._changed.notify_all()


_budget = _Budget(MAX_PIXELS)  # so files that unfold to far more than they weigh do not do so all at once
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_budget.reset)


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _find_brands(head: bytes) -> frozenset[bytes]:
    """Return the brands of a file of the family of HEIC and AVIF: what it may be read as."""
    if head[4:8] != b"ftyp":
        return frozenset()
    end = min(int.from_bytes(head[:4]), len(head))
    return frozenset(head[place : place + 4] for place in (8, *range(16, end - 3, 4)))


def _describe_foreign(head: bytes) -> str:
    """Name what stands where an image should be, from the first bytes."""
    text = head.lstrip().lower()
    if not head:
        return "empty file (0 bytes)"
    if not head.strip(b"\0"):
        return "it contains only zero bytes"
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the image; fetch it with 'git lfs pull'"
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page, not an image"
    if text.startswith((b"<svg", b"<?xml")):
        return "SVG or XML, not a raster image"
    if _is_heic(head) or _find_brands(head) & {b"mif1", b"msf1"}:
        return HEIC
    return "not an image; expected JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, JPEG 2000 or AVIF"


def _is_heic(head: bytes) -> bool:
    brands = _find_brands(head)
    return bool(brands & HEIC_BRANDS) and not brands & AVIF_BRANDS


def _from_array(array: "np.ndarray[Any, Any]") -> InputImage:
    expected = "expected uint8 of shape (H, W) or (H, W, 3), RGB"
    shape = tuple(array.shape)
    if array.ndim == 3 and shape[0] in (1, 3, 4) and shape[2] not in (1, 3, 4):
        raise _Fault(f"the array has shape {shape}; {expected}. Use array.transpose(1, 2, 0)")
    if not (array.ndim == 2 or (array.ndim == 3 and shape[2] in (1, 3, 4))) or 0 in shape:
        raise _Fault(f"the array has shape {shape}; {expected}, for one image")
    if array.dtype == np.uint16 and (array.ndim == 2 or shape[2] == 1):
        return _guarded(Image.fromarray(np.ascontiguousarray(array.reshape(shape[:2]))))
    if array.dtype != np.uint8:
        hint = ". Values in 0..1: use (array * 255).round().astype('uint8')" if array.dtype.kind == "f" else ""
        raise _Fault(f"the array is {array.dtype}; {expected}{hint}")
    flat = array[:, :, 0] if array.ndim == 3 and shape[2] == 1 else array
    return _guarded(Image.fromarray(np.ascontiguousarray(flat)))


def _from_tensor(tensor: "Tensor") -> InputImage:
    import torch

    expected = "expected (3, H, W), (1, H, W) or (H, W), uint8 or floating point in 0..1, RGB"
    shape = tuple(tensor.shape)
    if tensor.ndim == 3 and shape[2] in (1, 3, 4) and shape[0] not in (1, 3, 4):
        raise _Fault(f"the tensor has shape {shape}; {expected}. Use tensor.permute(2, 0, 1)")
    if not (tensor.ndim == 2 or (tensor.ndim == 3 and shape[0] in (1, 3, 4))) or 0 in shape:
        raise _Fault(f"the tensor has shape {shape}; {expected}, for one image")
    values = tensor.detach().cpu()
    if values.is_floating_point():
        low, high = values.min().item(), values.max().item()
        if not (low >= 0 and high <= 1):  # also when they are not numbers
            raise _Fault(
                f"the tensor has values from {low:.4g} to {high:.4g}; {expected}. Do not apply Normalize: zoo "
                "applies the model's mean and std"
            )
        values = (values.float() * 255).round().to(torch.uint8)
    if values.dtype != torch.uint8:
        raise _Fault(f"the tensor is {str(tensor.dtype).removeprefix('torch.')}; {expected}")
    return _from_array((values if values.ndim == 2 else values.permute(1, 2, 0)).numpy())
