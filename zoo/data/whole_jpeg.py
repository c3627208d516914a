"""Whether a JPEG can be decoded, without decoding it: for large photos in a tenth of the time.

The decoder of JPEG fails for two reasons only: the segments before the pixels are wrong, or the file ends before they
do. The first shows when a tiny image with the same segments is decoded, the second when the pixels end with the mark
of the end. What lies between may be damaged; a decoder paints over that without a word.
"""

import re
from contextlib import suppress
from io import BytesIO

from PIL import JpegImagePlugin

END = b"\xff\xd9"
MOST_BYTES = 2**26  # of a file that is read at once
MOST_SIDE = 65_500  # pixels, of the decoder
SEQUENTIAL = (0xC0, 0xC1)  # frames whose pixels come in one scan, in Huffman code
OTHER_FRAMES = frozenset(range(0xC2, 0xD0)) - {0xC4, 0xC8, 0xCC}  # 0xC4 holds Huffman tables
SCAN = 0xDA
PROBE_BYTES = 4096  # of the pixels: more than a few blocks take

_MARK = re.compile(rb"\xff[^\x00]")
_MARK_BETWEEN_RESTARTS = re.compile(rb"\xff[^\x00\xd0-\xd7]")


def is_whole_jpeg(data: bytes) -> bool:
    """Return whether a JPEG can surely be decoded; False says nothing, as it does of a progressive one.

    Args:
        data: The file, which begins like a JPEG.
    """
    place, frame, restarts = 2, None, False
    if len(data) > MOST_BYTES:
        return False
    while data[place : place + 1] == b"\xff" and place + 4 < len(data):
        kind, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4])
        end = place + 2 + length
        if kind in OTHER_FRAMES or kind < 0xC0 or 0xD0 <= kind <= 0xD9 or length < 2 or end > len(data):
            return False
        if kind == SCAN:
            pattern = _MARK_BETWEEN_RESTARTS if restarts else _MARK
            mark = pattern.search(data, end)
            is_single = frame is not None and data[frame + 9] == data[place + 4]  # all components in this scan
            return mark is not None and mark.group() == END and is_single and _starts(data, frame or 0, end)
        if kind in SEQUENTIAL:
            if frame is not None or length < 8:
                return False
            frame = place
        restarts |= kind == 0xDD
        place = end
    return False


def _starts(data: bytes, frame: int, pixels: int) -> bool:
    """Return whether a tiny image with these segments is decoded.

    Args:
        data: The file.
        frame: Where the segment of the size begins.
        pixels: Where the pixels begin.
    """
    height, width = (int.from_bytes(data[frame + place : frame + place + 2]) for place in (5, 7))
    if not 0 < max(height, width) <= MOST_SIDE:
        return False
    tiny = bytearray(data[: pixels + PROBE_BYTES] + END)
    tiny[frame + 5 : frame + 9] = (8).to_bytes(2) * 2
    with suppress(Exception):  # decoders raise whatever a damaged header leads them to
        JpegImagePlugin.JpegImageFile(BytesIO(tiny), "").load()
        return True
    return False
