import sys
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from zoo.data.video import is_video, read_frame, read_frames, write_video
from zoo.errors import InputError

SIZE = (64, 48)
COUNT = 40
CODECS = {".mp4": "libx264", ".mov": "libx264", ".mkv": "libx264", ".webm": "libvpx-vp9", ".avi": "mpeg4"}


def shade(number, size=SIZE):
    """An image that says which it is by its brightness, with a bright left upper corner."""
    image = Image.new("RGB", size, (5 * number,) * 3)
    image.paste((255, 255, 255), (0, 0, 16, 8))
    return image


def record(path, codec, count=COUNT, rotation=0):
    """Write a video with the library itself: 10 frames a second, every fifth without need of others."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.gop_size = 5
        if rotation:
            stream.set_display_rotation(rotation)
        container.start_encoding()  # also without a frame
        for number in range(count):
            frame = av.VideoFrame.from_image(shade(number))
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def brightness(image):
    return np.asarray(image)[-16:, -16:].mean()


@pytest.mark.parametrize(("suffix", "codec"), CODECS.items())
def test_frames_come_in_order_with_number_and_time(suffix, codec, tmp_path):
    frames = list(read_frames(record(tmp_path / f"clip{suffix}", codec)))
    assert [frame.number for frame in frames] == list(range(COUNT))
    start = frames[0].seconds
    assert [frame.seconds - start for frame in frames] == pytest.approx([n / 10 for n in range(COUNT)], abs=2e-3)
    assert all(frame.image.size == SIZE and frame.image.mode == "RGB" for frame in frames)
    assert [brightness(frame.image) for frame in frames] == pytest.approx([5 * n for n in range(COUNT)], abs=4)


@pytest.mark.parametrize(("suffix", "codec"), CODECS.items())
def test_a_frame_is_found_again(suffix, codec, tmp_path):
    path = record(tmp_path / f"clip{suffix}", codec)
    for frame in list(read_frames(path))[::-7]:
        for ticks in (frame.ticks, None, 10**9 if frame.number == COUNT - 1 else -1):
            assert np.array_equal(read_frame(path, frame.number, ticks), frame.image)
    with pytest.raises(InputError, match=r"clip\.\w+' no longer has frame 40\. Was the file overwritten\?"):
        read_frame(path, COUNT)


def test_only_part_of_a_video_is_decoded_for_one_frame(tmp_path, monkeypatch):
    path = record(tmp_path / "clip.mp4", "libx264")
    frame = list(read_frames(path))[33]
    monkeypatch.setattr("zoo.data.video.read_frames", None)  # what would begin at the beginning
    assert np.array_equal(read_frame(path, 33, frame.ticks), frame.image)


@pytest.mark.parametrize(("rotation", "corner"), [(0, (0, 0)), (90, (0, -1)), (-90, (-1, 0)), (180, (-1, -1))])
def test_frames_are_turned_as_the_file_says(rotation, corner, tmp_path):
    path = record(tmp_path / "clip.mp4", "libx264", count=6, rotation=rotation)
    frame = list(read_frames(path))[5]
    pixels = np.asarray(frame.image)
    assert frame.image.size == (SIZE if rotation in (0, 180) else SIZE[::-1])
    corners = {place: pixels[place].mean() for place in ((0, 0), (0, -1), (-1, 0), (-1, -1))}
    assert max(corners, key=corners.get) == (corner if abs(rotation) != 90 else (corner[1], corner[0]))
    assert np.array_equal(read_frame(path, 5, frame.ticks), pixels)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".m4v"])
def test_written_images_are_read_at_their_times(suffix, tmp_path):
    times = [0.0, 0.1, 0.5, 0.54, 2.0]
    path = tmp_path / "new" / f"clip{suffix}"
    assert write_video(path, ((shade(5 * number), time) for number, time in enumerate(times))) == path
    frames = list(read_frames(path))
    assert [frame.seconds for frame in frames] == pytest.approx(times, abs=2e-3)
    assert [brightness(frame.image) for frame in frames] == pytest.approx([0, 25, 50, 75, 100], abs=4)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_odd_sides_become_even(tmp_path):
    write_video(tmp_path / "clip.mp4", [(Image.new("RGB", (33, 21), "white"), 0.0)])
    (frame,) = read_frames(tmp_path / "clip.mp4")
    assert frame.image.size == (34, 22)
    assert np.asarray(frame.image)[:20, :32].min() > 245
    assert np.asarray(frame.image)[-1].max() < 60


@pytest.mark.parametrize(
    ("images", "text"),
    [
        ([], r"no frames to write to 'clip\.mp4'"),
        ([(shade(0), 0.0), (shade(0, (32, 32)), 1.0)], "frame 1 has 32 x 32 pixels at 1 s; expected 64 x 48, like the"),
        (
            [(shade(0), 0.0), (shade(0), 0.0)],
            "frame 1 has 64 x 48 pixels at 0 s; expected 64 x 48, like the first frame, and a time after the "
            "previous frame",
        ),
    ],
)
def test_images_that_make_no_video_leave_the_old_one(images, text, tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"old")
    with pytest.raises(InputError, match=text):
        write_video(path, images)
    assert [entry.name for entry in tmp_path.iterdir()] == ["clip.mp4"]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("name", ["clip", "clip.gif", "clip.avi"])
def test_a_video_needs_a_suffix_that_can_be_written(name, tmp_path):
    with pytest.raises(InputError, match=r"expected a file name with the suffix \.mp4, \.m4v, \.mov, \.mkv, \.webm"):
        write_video(tmp_path / name, [(shade(0), 0.0)])


def test_an_installation_without_encoder(tmp_path, monkeypatch):
    monkeypatch.setattr("av.codecs_available", {"h264"})
    with pytest.raises(InputError, match=r"av cannot write \.webm \(it lacks libvpx-vp9 and libvpx\)"):
        write_video(tmp_path / "clip.webm", [(shade(0), 0.0)])


def test_what_is_no_whole_video(tmp_path):
    text, sound, cut = tmp_path / "text.mp4", tmp_path / "sound.avi", tmp_path / "cut.mp4"
    text.write_text("not a video")
    with wave.open(str(sound), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\0\0" * 8000)
    cut.write_bytes(record(tmp_path / "clip.mp4", "libx264").read_bytes()[:300])
    for path, reason in (
        (text, r"not a video, or damaged \("),
        (sound, r"it has no video stream, only audio or subtitles\. Expected a video"),
        (cut, r"not a video, or damaged \("),
        (tmp_path, "it is a folder; expected a video"),
        (tmp_path / "gone.mp4", "the file does not exist; expected a video"),
    ):
        with pytest.raises(InputError, match=rf"cannot read '.*{path.name}': {reason}"):
            list(read_frames(path))
    path = record(tmp_path / "clip.avi", "mpeg4", count=0)
    with pytest.raises(InputError, match=r"clip\.avi' has no frames\. Expected at least one"):
        list(read_frames(path))


def test_a_video_that_is_damaged_in_its_middle(tmp_path):
    path = record(tmp_path / "clip.mp4", "libx264")
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    middle = (start + data.index(b"moov")) // 2
    data[middle : middle + 400] = b"\xff" * 400
    path.write_bytes(data)
    seen = []
    with pytest.raises(InputError, match=r"clip\.mp4' is damaged after \d+ frames \(.+\)\. Repair it or cut it there"):
        seen.extend(frame.number for frame in read_frames(path))
    assert 0 < len(seen) < COUNT


def test_a_playlist_reaches_no_other_place(tmp_path):
    path = tmp_path / "list.mp4"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(InputError, match=r"not a video, or damaged \("):
        list(read_frames(path))


def test_without_the_library(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"videos need the library av\. Install it: pip install 'zoo-finetune\[detec"):
        next(read_frames(tmp_path / "clip.mp4"))


@pytest.mark.parametrize(
    ("path", "answer"), [("a.mp4", True), (Path("b/c.MOV"), True), ("a.jpg", False), ("mp4", False)]
)
def test_videos_are_known_by_their_suffix(path, answer):
    assert is_video(path) is answer
