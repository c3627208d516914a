"""Videos, frame by frame: read as upright RGB images, and written.

Read and written by FFmpeg through the library `av`; no more than a few frames are in memory at a time.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from PIL import Image

from zoo.errors import InputError
from zoo.files import open_whole, to_path

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv")
ENCODERS = {  # file suffix -> encoders, the best first
    ".mp4": ("libx264", "mpeg4"),
    ".m4v": ("libx264", "mpeg4"),
    ".mov": ("libx264", "mpeg4"),
    ".mkv": ("libx264", "mpeg4"),
    ".webm": ("libvpx-vp9", "libvpx"),
}
CONTAINERS = {".m4v": "ipod", ".mkv": "matroska"}  # FFmpeg's names, where the suffix is not the name
TICKS = (
    60_000  # per second; whole numbers of them make 24, 25, 30, 50 and 60 frames, and MPEG-4 allows no more than 65535
)


class Frame(NamedTuple):
    """One image of a video.

    Attributes:
        number: From 0.
        seconds: When it is shown; None if the file does not say.
        ticks: The same in the file's own unit, by which `read_frame` finds it again.
        image: RGB, turned as the file says.
    """

    number: int
    seconds: float | None
    ticks: int | None
    image: Image.Image


def is_video(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a video by its name."""
    return os.path.splitext(os.fspath(path))[1].lower() in VIDEO_SUFFIXES


def read_frames(path: str | os.PathLike[str]) -> Iterator[Frame]:
    """Yield the frames of a video, in order.

    Raises:
        InputError: If the file does not exist, it is no video, has no frames, or is damaged after some of them.
    """
    number = -1
    with _opened(path) as (container, stream):
        for number, frame in enumerate(_decode(path, container, stream)):
            yield Frame(number, frame.time, frame.pts, upright(frame))
    if number < 0:
        raise InputError(f"the video {os.fspath(path)!r} has no frames. Expected at least one.")


def read_frame(path: str | os.PathLike[str], number: int, ticks: int | None = None) -> Image.Image:
    """Read one frame of a video again.

    Args:
        path: The video.
        number: Of the frame, from 0.
        ticks: Of the frame, by which most of the video before it can be passed over.

    Raises:
        InputError: As `read_frames`, and if there is no such frame (any more).
    """
    image = None if ticks is None else _jump_to(path, ticks)
    if image is not None:
        return image
    for found in read_frames(path):  # not every file can be entered in its middle
        if found.number == number:
            return found.image
    raise InputError(f"the video {os.fspath(path)!r} no longer has frame {number}. Was the file overwritten?")


def write_video(path: str | os.PathLike[str], images: Iterable[tuple[Image.Image, float]]) -> Path:
    """Write images as a video without sound; it appears under its name when it is complete.

    Args:
        path: Where to; its suffix is one of `ENCODERS`. A file that is there is replaced.
        images: RGB, all of one size, each with the second at which it is shown, rising. A side of odd length gets a
            black pixel more, because the encoders take even ones only.

    Returns:
        The path.

    Raises:
        InputError: If the suffix is another one, there are no images, or they differ in size or do not rise in time.
    """
    path = to_path(path)
    encoder = _choose_encoder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_whole(path) as file:
        _encode(file, path, encoder, images)
    return path


def import_av() -> Any:
    """Return the library av.

    Raises:
        InputError: It is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise InputError("videos need the library av. Install it: pip install 'zoo-finetune[detection]'") from error
    return av


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[Any, Any]]:
    """Open a video file and its first video stream."""
    av, name = import_av(), os.fspath(path)
    if not os.path.isfile(name):
        what = "it is a folder" if os.path.isdir(name) else "the file does not exist"
        raise InputError(f"cannot read {name!r}: {what}; expected a video.")
    try:
        container = av.open(name, options={"protocol_whitelist": "file"})  # a playlist must not reach the network
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"cannot read {name!r}: not a video, or damaged ({say_reason(error)}).") from error
    with container:
        if not container.streams.video:
            raise InputError(
                f"cannot read {name!r}: it has no video stream, only audio or subtitles. Expected a video."
            )
        yield container, container.streams.video[0]


def _decode(path: str | os.PathLike[str], container: Any, stream: Any) -> Iterator[Any]:
    """Yield the decoder's frames."""
    av, done = import_av(), 0
    stream.thread_type = "AUTO"
    try:
        for frame in container.decode(stream):
            done += 1
            yield frame
    except av.error.FFmpegError as error:
        raise InputError(
            f"the video {os.fspath(path)!r} is damaged after {done:,} frames ({say_reason(error)}). Repair it or cut "
            "it there."
        ) from error


def _jump_to(path: str | os.PathLike[str], ticks: int) -> Image.Image | None:
    """Return the frame of this time, decoded from the last one before it that needs no other.

    None if the file cannot be entered there: not every format and not every file allows it.
    """
    av = import_av()
    with _opened(path) as (container, stream):
        try:
            container.seek(ticks, stream=stream)
            for frame in container.decode(stream):
                if frame.pts == ticks:
                    return upright(frame)
                if frame.pts is None or frame.pts > ticks:
                    break
        except av.error.FFmpegError:
            return None
    return None


def say_reason(error: Exception) -> str:
    """Return what FFmpeg or the system says, in a few words."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def upright(frame: Any) -> Image.Image:
    """Return the image of a frame, turned as the file says."""
    image: Image.Image = frame.to_image()
    turns = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
    turn = turns.get(round(frame.rotation) % 360)  # counter-clockwise, as Pillow's
    return image if turn is None else image.transpose(turn)


def _choose_encoder(path: Path) -> str:
    av, suffix = import_av(), path.suffix.lower()
    if suffix not in ENCODERS:
        raise InputError(
            f"cannot write a video as {path.name!r}; expected a file name with the suffix {', '.join(ENCODERS)}."
        )
    for encoder in ENCODERS[suffix]:
        if encoder in av.codecs_available:
            return encoder
    lacking = " and ".join(ENCODERS[suffix])
    raise InputError(f"this installation of av cannot write {suffix} (it lacks {lacking}). Choose another suffix.")


def _encode(file: BinaryIO, path: Path, encoder: str, images: Iterable[tuple[Image.Image, float]]) -> None:
    av, stream, size, last = import_av(), None, (0, 0), -1
    suffix = path.suffix.lower()
    with av.open(file, "w", format=CONTAINERS.get(suffix, suffix[1:])) as container:
        for number, (image, seconds) in enumerate(images):
            if stream is None:
                size = image.size
                stream = _add_stream(container, encoder, size)
            ticks = round(seconds * TICKS)
            if image.size != size or ticks <= last:
                raise InputError(
                    f"frame {number} has {image.width} x {image.height} pixels at {seconds:g} s; expected {size[0]} "
                    f"x {size[1]}, like the first frame, and a time after the previous frame."
                )
            last = ticks
            frame = av.VideoFrame.from_image(image.crop((0, 0, stream.width, stream.height)))
            frame.pts, frame.time_base = ticks, Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        if stream is None:
            raise InputError(f"no frames to write to {path.name!r}.")
        container.mux(stream.encode())


def _add_stream(container: Any, encoder: str, size: tuple[int, int]) -> Any:
    stream = container.add_stream(encoder, rate=30)
    stream.width, stream.height = (side + side % 2 for side in size)
    stream.pix_fmt = "yuv420p"  # what every player shows
    stream.codec_context.time_base = Fraction(1, TICKS)
    return stream
