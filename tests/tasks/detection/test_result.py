import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zoo.data.decode import read_image
from zoo.data.inputs import FramePlace
from zoo.data.video import read_frames, write_video
from zoo.errors import InputError
from zoo.tasks.detection.drawing import import_supervision
from zoo.tasks.detection.result import DetectionResult, save_video

CLASSES = ("Platelets", "RBC", "WBC")
BOXES = np.array([[50, 60, 150.5, 140.25], [200, 25, 300, 125], [0, 0, 320, 240]], np.float32)
GRAY = Image.new("RGB", (320, 240), (90, 90, 90))


def make(item=GRAY, count=3, **changes):
    values = {
        "source": "photo.jpg",
        "boxes": BOXES[:count],
        "scores": np.array([0.9, 0.75, 0.5], np.float32)[:count],
        "labels": np.array([1, 2, 1])[:count],
        "classes": CLASSES,
        "size": (240, 320),
        "file": "photo.png",
        "item": item,
    }
    return DetectionResult(**values | changes)


@pytest.fixture
def photo(tmp_path):
    """An image that lies on its side, as telephones write them."""
    exif = Image.Exif()
    exif[0x112] = 6
    path = tmp_path / "photos" / "photo.jpg"
    path.parent.mkdir()
    Image.new("RGB", (240, 320), (90, 90, 90)).save(path, exif=exif)
    return path


def test_a_result_can_be_counted_and_gone_through():
    assert len(make()) == 3
    assert make().names == ("RBC", "WBC", "RBC")
    first, second, _ = make()
    assert first == ("RBC", pytest.approx(0.9), (50, 60, 150.5, 140.25))
    assert second == ("WBC", 0.75, (200, 25, 300, 125))
    assert not make(count=0)
    assert list(make(count=0)) == []


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (make(), "photo.jpg: 2 RBC, 1 WBC"),
        (make(count=0), "photo.jpg: nothing found"),
        (make(source="clip.mp4", frame=12, seconds=0.483), "clip.mp4, frame 12 at 0.48 s: 2 RBC, 1 WBC"),
        (make(source="clip.avi", frame=0, seconds=None), "clip.avi, frame 0: 2 RBC, 1 WBC"),
    ],
)
def test_a_result_is_readable(result, text):
    assert str(result) == text


def test_plain_values():
    third = np.float32(1 / 3)
    result = make(count=1, boxes=BOXES[:1] + third, scores=np.array([third]))
    assert result.to_dict() == {
        "source": "photo.jpg",
        "height": 240,
        "width": 320,
        "detections": [{"name": "RBC", "label": 1, "score": 0.333333, "box": [50.333, 60.333, 150.833, 140.583]}],
    }
    assert make(count=0, frame=3, seconds=0.5).to_dict() == {
        "source": "photo.jpg",
        "frame": 3,
        "seconds": 0.5,
        "height": 240,
        "width": 320,
        "detections": [],
    }


def test_json_is_returned_and_written(tmp_path):
    result = make(classes=("a", "Zelle groß", "c"))
    text = result.to_json()
    assert json.loads(text) == result.to_dict()
    assert "groß" in text
    assert result.to_json(tmp_path / "new" / "photo.json") == text
    assert json.loads((tmp_path / "new" / "photo.json").read_text("utf8")) == result.to_dict()


def test_supervision_gets_the_same():
    detections = make().to_supervision()
    assert isinstance(detections, import_supervision().Detections)
    assert np.array_equal(detections.xyxy, BOXES)
    assert detections.confidence.tolist() == pytest.approx([0.9, 0.75, 0.5])
    assert detections.class_id.tolist() == [1, 2, 1]
    assert detections["class_name"].tolist() == ["RBC", "WBC", "RBC"]
    assert len(detections[detections.class_id == 2]) == 1
    assert make(count=0).to_supervision().is_empty()


def test_drawing_changes_a_copy_at_the_boxes_alone():
    before = np.asarray(GRAY).copy()
    drawn = np.asarray(make(count=1).draw())
    assert np.array_equal(GRAY, before)
    changed = (drawn != before).any(2)
    assert changed[65:135, 50].all()  # its left side
    assert changed[140, 55:145].all()
    assert not changed[90:130, 60:140].any()
    assert not changed[150:].any()
    assert not changed[:, 200:].any()
    assert np.array_equal(make(count=0).draw(), before)


def test_the_image_is_read_when_it_is_asked_for(photo):
    result = make(photo)
    assert result.image.size == (320, 240)
    assert make(photo.read_bytes()).image.size == (320, 240)
    upright = read_image(photo)
    assert make(upright).image is upright
    photo.unlink()
    with pytest.raises(InputError, match=r"photo\.jpg': the file does not exist"):
        _ = result.image


def test_a_frame_is_read_from_its_video(tmp_path):
    shades = [0, 80, 160, 240]
    images = ((Image.new("RGB", (64, 48), (shade,) * 3), n / 10) for n, shade in enumerate(shades))
    path = write_video(tmp_path / "clip.mp4", images)
    for frame in list(read_frames(path))[::-1]:
        result = make(FramePlace(str(path), frame.number, frame.ticks))
        assert np.asarray(result.image).mean() == pytest.approx(shades[frame.number], abs=4)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("out", "out/photo.png"),
        ("out/there.jpg", "out/there.jpg"),
        ("a.b", "a.b/photo.png"),
        ("x.PNG", "x.PNG"),
        ("x.webp", "x.webp"),
        ("x.tif", "x.tif"),
        ("x.bmp", "x.bmp"),
    ],
)
def test_a_drawn_image_is_saved_upright(target, expected, photo, tmp_path):
    (tmp_path / "a.b").mkdir()
    result = make(photo)
    assert result.save(tmp_path / target) == tmp_path / expected
    with Image.open(tmp_path / expected) as saved:
        assert saved.getexif().get(0x112, 1) == 1
        assert saved.size == (320, 240)
        assert np.abs(np.asarray(saved.convert("RGB")).astype(int) - np.asarray(result.draw())).mean() < 4


@pytest.mark.parametrize(
    ("file", "expected"),
    [("a/b.gif", "a/b.jpg"), ("b.jp2", "b.jpg"), ("b.JPEG", "b.JPEG"), ("v/frame-000001.jpg",) * 2],
)
def test_names_in_a_folder_follow_the_source(file, expected, tmp_path):
    assert make(file=file).save(tmp_path) == tmp_path / expected


def test_no_source_is_written_over(photo, monkeypatch):
    before = photo.read_bytes()
    monkeypatch.chdir(photo.parent)
    result = make(photo, source=str(photo), file="photo.jpg")
    for target in (photo, photo.parent, "photo.jpg", "../photos"):
        with pytest.raises(InputError, match=r"photo\.jpg' is the source image\. Choose another name"):
            result.save(target)
    with pytest.raises(InputError, match=r"is the source image"):
        result.to_json(photo)
    assert photo.read_bytes() == before
    assert result.save("found").read_bytes() != before


def test_a_image_needs_a_suffix_that_can_be_written(tmp_path):
    with pytest.raises(InputError, match=r"cannot write an image as 'x\.gif'; expected a folder, or a file name with"):
        make().save(tmp_path / "x.gif")


def test_results_survive_pickling(photo):
    result = pickle.loads(pickle.dumps(make(photo)))
    assert result.image.size == (320, 240)
    assert np.array_equal(result.boxes, BOXES)


@pytest.mark.parametrize(
    ("fps", "seconds", "expected"),
    [
        (None, [0.0, 0.25, 1.0], [0.0, 0.25, 1.0]),
        (None, [None] * 3, [0, 0.04, 0.08]),
        (10, [0.0, 0.25, 1.0], [0, 0.1, 0.2]),
    ],
)
def test_results_become_a_video(fps, seconds, expected, tmp_path):
    results = (make(frame=n, seconds=second) for n, second in enumerate(seconds))
    path = save_video(results, tmp_path / "out" / "clip.mp4", fps)
    frames = list(read_frames(path))
    assert [frame.seconds for frame in frames] == pytest.approx(expected, abs=1e-3)
    assert np.abs(np.asarray(frames[0].image).astype(int) - np.asarray(make().draw())).mean() < 10


def test_a_video_is_not_written_over_its_source(tmp_path):
    path = write_video(tmp_path / "clip.mp4", [(GRAY, 0.0)])
    before = path.read_bytes()
    results = [make(FramePlace(str(path), 0, 0), source=str(path), frame=0, seconds=0.0)]
    with pytest.raises(InputError, match=r"clip\.mp4' is the source image\. Choose another"):
        save_video(results, path)
    assert path.read_bytes() == before
    assert save_video(results, tmp_path / "other.mp4") == Path(tmp_path / "other.mp4")


@pytest.mark.parametrize("fps", [0, -1, float("nan"), 1e9])
def test_odd_numbers_of_images_per_second(fps, tmp_path):
    with pytest.raises(InputError, match=r"fps is .*; expected a number above 0, at most 1000, or None"):
        save_video([make()], tmp_path / "clip.mp4", fps)
