import io
import socket
import struct
import threading
import time
from contextlib import contextmanager

import av
import numpy as np
import pytest
from PIL import Image

from loopback import Answer, Loopback
from zoo.data.inputs import iterate_sources, read_sources
from zoo.data.live import LiveStream, _newest, as_stream, has_stream, read_live
from zoo.data.video import read_frames, write_video
from zoo.errors import InputError

COUNT = 12


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    frames = ((Image.new("RGB", (64, 48), (20 * number, 0, 0)), number / 10) for number in range(COUNT))
    return write_video(tmp_path_factory.mktemp("videos") / "clip.mp4", frames)


def as_transport_stream(clip):
    """The same frames as a camera sends them."""
    sent = io.BytesIO()
    with av.open(sent, "w", format="mpegts") as target:
        stream = target.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for frame in read_frames(clip):
            target.mux(stream.encode(av.VideoFrame.from_image(frame.image)))
        target.mux(stream.encode())
    return sent.getvalue()


@contextmanager
def serving(content, *, breaks):
    """Send bytes to one client, then close the connection properly or break it."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        client, _ = server.accept()
        with client:
            client.sendall(content)
            if breaks:
                time.sleep(0.5)  # until all of it was received
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with server:
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def test_a_file_behind_http_is_read_whole(clip):
    with Loopback() as server:
        server.answers["/clip.mp4"] = Answer(clip.read_bytes())
        images = list(read_sources(iterate_sources(server.url("/clip.mp4"))))
    expected = list(read_frames(clip))
    assert [(image.frame, image.seconds) for image in images] == [(frame.number, frame.seconds) for frame in expected]
    assert all(np.array_equal(image.item, frame.image) for image, frame in zip(images, expected, strict=True))
    assert images[3].label.startswith("http://127.0.0.1")
    assert images[3].file.endswith("-clip-mp4/frame-000003.jpg")


def test_a_live_stream_ends_when_its_sender_does(clip):
    with serving(as_transport_stream(clip), breaks=False) as address:
        frames = list(read_live(LiveStream(address)))
    numbers = [frame.number for frame in frames]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == COUNT - 1
    times = [frame.seconds for frame in frames]
    assert times == sorted(times)


def test_a_stream_that_breaks_off_says_so_after_its_frames(clip):
    with serving(as_transport_stream(clip), breaks=True) as address:
        images = list(read_sources(iterate_sources(address)))
    assert images[0].frame is not None
    assert f"'{address}' broke off after {images[-2].frame + 1} frames (" in str(images[-1].fault)


def test_only_the_newest_frame_waits():
    begun, taken, ended = (threading.Event() for _ in range(3))

    def count():
        yield 0
        begun.wait(5)
        yield from range(1, 10)
        taken.set()
        ended.wait(5)

    numbers = _newest(count())
    assert next(numbers) == 0
    begun.set()
    taken.wait(5)
    assert next(numbers) == 9
    ended.set()
    assert next(numbers, None) is None


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (987, r"there is no camera 987 \(/dev/video987\); this machine has"),
        ("tcp://127.0.0.1:1", r"cannot open 'tcp://127\.0\.0\.1:1' \(Connection refused\)\. Check that it is there"),
        ("rtsp://me:secret@127.0.0.1:1/a", r"cannot open 'rtsp://.*127\.0\.0\.1:1/a' \(Connection refused\)"),
    ],
)
def test_what_is_not_there(given, text):
    (image,) = read_sources(iterate_sources(given))
    with pytest.raises(InputError, match=text) as caught:
        raise image.fault
    assert "secret" not in str(caught.value) + image.label + image.file


def test_no_address_leads_to_a_file_of_this_machine(clip):
    with Loopback() as server:
        server.answers["/list.m3u8"] = Answer(f"#EXTM3U\n#EXTINF:1,\nfile://{clip}\n#EXT-X-ENDLIST\n".encode())
        with pytest.raises(InputError, match=r"cannot open|has no video|broke off"):
            list(read_live(LiveStream(server.url("/list.m3u8"))))


def test_what_stands_for_a_camera(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert as_stream("0") == as_stream(0) == LiveStream(0)
    assert [as_stream(other) for other in (True, "a.jpg", "s3://x", "file:///x", None, "٣")] == [None] * 6
    assert has_stream(["a.jpg", "rtsp://camera/1"])
    assert not has_stream(["a.jpg", b"0"])
    (tmp_path / "0").write_bytes(b"")
    assert as_stream("0") is None
