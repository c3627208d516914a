"""Small images for tests, as objects, files and folders."""

import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def make_image(size: tuple[int, int] = (9, 7), seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise)


def make_photo(size: tuple[int, int] = (1600, 1200), **options: Any) -> bytes:
    """A JPEG of large soft shapes, as on photos."""
    image, file = make_image((size[0] // 80, size[1] // 80)).resize(size, Image.Resampling.BICUBIC), BytesIO()
    image.convert(options.pop("mode", "RGB")).save(file, "JPEG", **options)
    return file.getvalue()


def write_image(path: Path, size: tuple[int, int] = (9, 7), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    make_image(size, seed).save(path)
    return path


def write_tree(root: Path, counts: dict[str, int]) -> Path:
    """Write so many images into each folder; all of them differ."""
    root.mkdir(parents=True, exist_ok=True)
    for seed, (folder, count) in enumerate(counts.items()):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            write_image(root / folder / f"{number}.png", seed=1000 * seed + number)
    return root


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises so many pixels and has none."""
    return _png(struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"", b"")


def png_of(rows: np.ndarray, width: int, depth: int, *, colours: bool = False, clear: tuple[int, ...] = ()) -> bytes:
    """A PNG of packed bytes `(H, B)`, gray or RGB, with a transparent value or colour."""
    head = struct.pack(">IIBBBBB", width, len(rows), depth, 2 if colours else 0, 0, 0, 0)
    extra = _chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear)) if clear else b""
    return _png(head, extra, b"".join(b"\0" + row.tobytes() for row in rows))


def _png(head: bytes, extra: bytes, pixels: bytes) -> bytes:
    parts = _chunk(b"IHDR", head), extra, _chunk(b"IDAT", zlib.compress(pixels)), _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
