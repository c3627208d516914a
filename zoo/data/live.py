"""Cameras and streams, frame by frame as they come.

Of what is live only the newest frame is handed on, so that a slow model does not fall behind; a file behind http is
read whole. The network is reached by the protocol of the address alone, and no address leads to a file of this machine.
"""

import os
import re
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from time import monotonic
from typing import Any, NamedTuple

from zoo.data.video import Frame, import_av, say_reason, upright
from zoo.errors import InputError
from zoo.files import hide_password

PROTOCOLS = {  # what each kind of address may use
    "http": "http,https,tcp,tls,crypto,httpproxy",
    "https": "http,https,tcp,tls,crypto,httpproxy",
    "rtsp": "rtsp,rtp,udp,tcp,tls",
    "rtsps": "rtsps,rtsp,rtp,udp,tcp,tls",
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,tls,tcp",
    "tcp": "tcp",
    "udp": "udp",
    "srt": "srt",
}
WHOLE = ("http", "https")  # files, which wait
SECONDS = (10.0, 30.0)  # to open a stream, and for its next frame
SYSTEMS = {"linux": "v4l2", "darwin": "avfoundation"}  # how FFmpeg calls their cameras


class LiveStream(NamedTuple):
    """A camera or a stream.

    Attributes:
        address: The number of a camera, or a URL.
    """

    address: int | str

    @property
    def label(self) -> str:
        """What messages call it, without a password."""
        return f"camera {self.address}" if isinstance(self.address, int) else hide_password(self.address)

    @property
    def file(self) -> str:
        """A file name for a recording."""
        return re.sub(r"[^A-Za-z0-9]+", "-", self.label.partition("?")[0]).strip("-") + ".mp4"


def as_stream(given: object) -> LiveStream | None:
    """Return the camera or stream that a number or text stands for; None if it stands for none.

    `0` is the first camera, unless there is a file of that name.
    """
    if isinstance(given, int) and not isinstance(given, bool):
        return LiveStream(given)
    if not isinstance(given, str) or os.path.lexists(given):
        return None
    if given.isascii() and given.isdigit():
        return LiveStream(int(given))
    return LiveStream(given) if given.partition("://")[0].lower() in PROTOCOLS and "://" in given else None


def has_stream(given: object) -> bool:
    """Whether something that `predict` is given is a camera or a stream, or a list with one."""
    if isinstance(given, Sequence) and not isinstance(given, (str, bytes)):
        return any(as_stream(part) is not None for part in given)
    return as_stream(given) is not None


def read_live(stream: LiveStream) -> Iterator[Frame]:
    """Yield the frames of a camera or stream until it ends; numbers go on over frames that are left out.

    Raises:
        InputError: It cannot be opened, has no video, or breaks off.
    """
    is_whole = str(stream.address).partition("://")[0].lower() in WHOLE
    frames = _read(stream, is_whole=is_whole)
    with closing(frames if is_whole else _newest(frames)) as wanted:
        yield from wanted


def _read(stream: LiveStream, *, is_whole: bool) -> Generator[Frame]:
    av, done = import_av(), 0
    place, options = _find(stream)
    try:
        container = av.open(place, timeout=SECONDS, **options)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise InputError(
            f"cannot open {stream.label!r} ({say_reason(error)}). Check that it is there and that nothing else uses it."
        ) from None  # the error repeats the address with its password
    with container:
        if not container.streams.video:
            raise InputError(f"{stream.label!r} has no video. Expected a stream with video.")
        video = container.streams.video[0]
        video.thread_type = "SLICE"  # threads by frames would hold some back
        began = monotonic()
        try:
            for frame in container.decode(video):
                # The clocks of cameras begin anywhere, and streams may jump.
                yield Frame(done, frame.time if is_whole else monotonic() - began, None, upright(frame))
                done += 1
        except av.error.FFmpegError as error:
            raise InputError(f"{stream.label!r} broke off after {done:,} frames ({say_reason(error)}).") from None


def _find(stream: LiveStream) -> tuple[str, dict[str, Any]]:
    """Return what to open and how."""
    if isinstance(stream.address, str):
        protocol = stream.address.partition("://")[0].lower()
        options = {"protocol_whitelist": PROTOCOLS[protocol]}
        return stream.address, {"options": options | ({"rtsp_transport": "tcp"} if protocol == "rtsp" else {})}
    kind = SYSTEMS.get(sys.platform)
    if kind is None or kind not in {name for names in import_av().formats_available for name in names.split(",")}:
        raise InputError(f"cannot read {stream.label} on this system. Serve it as a stream, and pass its URL.")
    if kind != "v4l2":
        return f"{stream.address}:none", {"format": kind, "options": {"framerate": "30"}}
    place = f"/dev/video{stream.address}"
    if not os.path.exists(place):
        there = sorted(name.removeprefix("video") for name in os.listdir("/dev") if re.fullmatch(r"video\d+", name))
        raise InputError(f"there is no {stream.label} ({place}); this machine has {', '.join(there) or 'none'}.")
    return place, {"format": kind}


def _newest(frames: Iterator[Frame]) -> Generator[Frame]:
    """Yield the newest frame whenever one is asked for; a thread reads on meanwhile."""
    changed, closed = threading.Condition(), threading.Event()
    newest: list[Frame] = []
    ends: list[BaseException | None] = []

    def work() -> None:
        error: BaseException | None = None
        try:
            for frame in frames:
                with changed:
                    newest[:] = [frame]
                    changed.notify()
                if closed.is_set():
                    break
        except BaseException as caught:  # whatever it is, it belongs to whoever waits
            error = caught
        with changed:
            ends.append(error)
            changed.notify()

    threading.Thread(target=work, name="zoo live", daemon=True).start()
    try:
        while True:
            with changed:
                changed.wait_for(lambda: newest or ends)
                frame = newest.pop() if newest else None
            if frame is not None:
                yield frame
            elif ends[0] is not None:
                raise ends[0]
            else:
                return
    finally:
        closed.set()
