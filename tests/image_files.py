"""Small pictures for tests, as objects, files and folders."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def make_picture(size: tuple[int, int] = (9, 7), seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise)


def write_picture(path: Path, size: tuple[int, int] = (9, 7), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    make_picture(size, seed).save(path)
    return path


def write_tree(root: Path, counts: dict[str, int]) -> Path:
    """Write so many pictures into each folder; all of them differ."""
    root.mkdir(parents=True, exist_ok=True)
    for seed, (folder, count) in enumerate(counts.items()):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            write_picture(root / folder / f"{number}.png", seed=1000 * seed + number)
    return root


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises so many pixels and has none."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
