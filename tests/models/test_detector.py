import copy
import inspect
import io
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import zoo.data.video
from zoo.data.letterbox import Letterbox
from zoo.data.video import write_video
from zoo.errors import InputError
from zoo.models.detector import Detector, FusedCopy
from zoo.tasks.detection.postprocess import Postprocess, Predictions

BOX = (12, 5, 36, 25)  # of the coloured thing on every image
SIZE = (60, 40)
LETTERBOX = Letterbox(canvas_size=(96, 128), content_size=(90, 120))
COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}


class Finder(Detector):
    """Finds the box around all red, blue and white pixels; `red` is whatever is bright in the first channel alone."""

    num_classes = 3

    def __init__(self, letterbox=LETTERBOX):
        super().__init__()
        self.sureness = nn.Parameter(torch.tensor([2.0, 1.0, 0.5]))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.norm = nn.BatchNorm2d(3)  # something with a mode and statistics, which changes nothing
        self.preprocess, self.postprocess = letterbox, Postprocess()
        self.classes, self.load_report, self.config = tuple(COLOURS), None, {}
        self.fused_copy = FusedCopy()
        self.sizes = []

    def forward(self, images):
        self.sizes.append(tuple(images.shape))
        self.norm(images)
        bright, dark = images > 0.7, images < 0.3
        masks = torch.stack(
            [bright[:, 0] & dark[:, 1] & dark[:, 2], bright[:, 2] & dark[:, 0] & dark[:, 1], bright.all(1)], 1
        )
        boxes = torch.stack([torch.stack([_box_around(mask) for mask in image]) for image in masks])
        return boxes, masks.any(-1).any(-1)[..., None] * torch.diag(self.sureness.sigmoid())

    def decode(self, outputs):
        return Predictions(*outputs)


class Fusing(Finder):
    """Counts how often it is fused."""

    fused = 0

    def fuse(self):
        type(self).fused += 1
        return copy.deepcopy(self).eval().requires_grad_(False)


def _box_around(mask):
    y, x = mask.nonzero(as_tuple=True)
    if not len(x):
        return torch.zeros(4)
    return torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()


@pytest.fixture
def model():
    return Finder()


@pytest.fixture
def fusing(monkeypatch):
    monkeypatch.setattr(Fusing, "fused", 0)
    return Fusing()


def draw(colour="red", box=BOX, size=SIZE):
    image = Image.new("RGB", size)
    image.paste(COLOURS[colour], box)
    return image


def check(result, name, box=BOX, near=1.0):
    """One thing of this name, at this place to one pixel or so of the image."""
    assert result.names == (name,)
    assert result.boxes.shape == (1, 4)
    assert (result.boxes.dtype, result.scores.dtype, result.labels.dtype) == (np.float32, np.float32, np.int64)
    assert np.abs(result.boxes[0] - box).max() <= near


LETTERBOXES = [
    LETTERBOX,
    Letterbox(canvas_size=(128, 96), content_size=(96, 96), position="top-left"),
    Letterbox(canvas_size=(64, 64), content_size=(60, 50), keep_ratio=False),
    Letterbox(canvas_size=(96, 128), content_size=(90, 120), fill=0),
]


@pytest.mark.parametrize("letterbox", LETTERBOXES)
@pytest.mark.parametrize("colour", COLOURS)
def test_boxes_are_in_pixels_of_the_image(letterbox, colour):
    (result,) = Finder(letterbox).predict(draw(colour))
    check(result, colour)
    assert result.size == (40, 60)
    assert result.scores[0] == pytest.approx(torch.tensor([2.0, 1.0, 0.5]).sigmoid()[result.labels[0]].item())


@pytest.mark.parametrize("position", ["center", "top-left"])
def test_weights_that_know_colours_the_other_way_round(position):
    letterbox = Letterbox(canvas_size=(128, 128), content_size=(128, 100), position=position, channels="bgr")
    for seen, colour in (("blue", "red"), ("red", "blue"), ("white", "white")):
        check(Finder(letterbox).predict(draw(colour))[0], seen)


def test_weights_that_know_other_values():
    letterbox = Letterbox(
        canvas_size=(96, 128), content_size=(90, 120), max_value=1.0, mean=(90.0,) * 3, std=(100.0,) * 3
    )
    (result,) = Finder(letterbox).predict(draw("red"))
    check(result, "red")
    assert not Finder(letterbox.replace(std=(300.0,) * 3)).predict(draw("red"))[0]  # nothing is above 0.7 any more


def save(image, path, **options):
    image.save(path, **options)
    return path


def turned(image):
    exif = Image.Exif()
    exif[0x112] = 6  # to be turned clockwise
    return image.transpose(Image.Transpose.ROTATE_90), exif


def test_files_of_every_kind(model, tmp_path):
    white, grey = draw("white"), draw("white").convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    lying, exif = turned(draw("red"))
    cases = [
        (save(draw("red"), tmp_path / "a.png"), "red"),
        (save(draw("blue"), tmp_path / "a.jpg", quality=100, subsampling=0), "blue"),
        (save(grey, tmp_path / "grey.png"), "white"),
        (save(grey, tmp_path / "grey.jpg", quality=100), "white"),
        (save(deep, tmp_path / "deep.png"), "white"),
        (save(deep, tmp_path / "deep.tif"), "white"),
        (save(draw("red").convert("CMYK"), tmp_path / "cmyk.jpg", quality=100, subsampling=0), "red"),
        (save(white.convert("RGBA"), tmp_path / "alpha.png"), "white"),
        (save(draw("red").convert("P"), tmp_path / "palette.gif"), "red"),
        (save(lying, tmp_path / "turned.jpg", exif=exif, quality=100, subsampling=0), "red"),
        (save(lying, tmp_path / "turned.png", exif=exif), "red"),
    ]
    results = model.predict([path for path, _ in cases], batch_size=3)
    for result, (path, colour) in zip(results, cases, strict=True):
        check(result, colour, near=1.5)
        assert result.source == str(path)
        assert (result.size, result.image.size) == ((40, 60), (60, 40))


def test_images_that_are_turned_tiny_or_very_long(model, tmp_path):
    """An image in memory may still carry the mark by which it was turned when it was read."""
    lying, exif = turned(draw("red"))
    with Image.open(save(lying, tmp_path / "a.png", exif=exif)) as opened:
        for stream in (False, True):
            (result,) = model.predict([opened], stream=stream)
            check(result, "red")
            assert result.image.size == result.draw().size == SIZE
    (result,) = model.predict(Image.new("RGB", (1, 1), "white"))
    check(result, "white", (0, 0, 1, 1), near=1e-6)
    (nothing,) = model.predict(Image.new("RGB", (1, 1), "black"))
    assert len(nothing) == 0
    assert nothing.boxes.shape == (0, 4)
    for size, box in (((3000, 2), (1000, 0, 2000, 2)), ((2, 3000), (0, 1000, 2, 2000))):
        check(model.predict(draw("red", box, size))[0], "red", box, near=26)


def test_everything_in_memory(model, tmp_path):
    pixels = np.asarray(draw("red"))
    planes = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    path = save(draw("red"), tmp_path / "a.png")
    for source in (draw("red"), pixels, planes, planes.double() / 255, path, str(path), path.read_bytes()):
        (result,) = model.predict(source)
        check(result, "red")
        assert result.source == (str(path) if isinstance(source, (str, Path)) else "image 0")
        assert np.array_equal(result.image, pixels)
    for batch in (np.stack([pixels, pixels[::-1]]), torch.stack([planes, planes.flip(1)])):
        first, second = model.predict(batch)
        check(first, "red")
        check(second, "red", (12, 15, 36, 35))
        assert second.source == "image 1"


def test_a_list_may_mix_all_of_them(model, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    path = save(draw("blue"), folder / "b.png")
    save(draw("white"), folder / "c.png")
    for batch_size in (1, 2, 100):
        results = model.predict([draw("red"), path, folder, str(folder / "*.png")], batch_size=batch_size)
        assert [result.names[0] for result in results] == ["red", "blue", "blue", "white", "blue", "white"]
        assert [Path(result.source).name for result in results[1:]] == ["b.png", "b.png", "c.png", "b.png", "c.png"]
        assert [result.file for result in results] == ["image-0.jpg", "b.png", "b-2.png", "c.png", "b-3.png", "c-2.png"]


@pytest.fixture
def video(tmp_path):
    """A red thing that moves to the right by two pixels a frame, 20 frames in two seconds."""
    frames = ((draw("red", (2 * n, 10, 2 * n + 20, 30), (64, 40)), n / 10) for n in range(20))
    return write_video(tmp_path / "clip.mp4", frames)


@pytest.mark.parametrize("stream", [False, True])
def test_a_video_gives_a_result_for_each_frame(stream, model, video):
    results = list(model.predict(video, stream=stream, batch_size=3))
    assert [result.frame for result in results] == list(range(20))
    assert [result.seconds for result in results] == pytest.approx([n / 10 for n in range(20)], abs=1e-3)
    assert {result.source for result in results} == {str(video)}
    for number, result in list(enumerate(results))[::5]:
        check(result, "red", (2 * number, 10, 2 * number + 20, 30), near=2.5)
        pixels = np.asarray(result.image)
        assert pixels[20, 2 * number + 10] == pytest.approx([255, 0, 0], abs=12)
    assert isinstance(results[0].item, Image.Image) is stream


def test_a_stream_reads_images_when_they_are_asked_for(model, video, monkeypatch):
    frames, decode = [], zoo.data.video.upright
    monkeypatch.setattr("zoo.data.inputs.MOST_THREADS", 1)
    monkeypatch.setattr("zoo.data.video.upright", lambda frame: frames.append(frame.pts) or decode(frame))
    results = model.predict(video, stream=True, batch_size=2)
    assert inspect.isgenerator(results)
    assert not frames
    assert next(results).frame == 0
    assert len(frames) <= 6
    assert not torch.is_inference_mode_enabled()
    before = threading.active_count()
    results.close()
    assert threading.active_count() < before  # the thread that read ahead


def test_files_are_kept_by_name_unless_they_are_streamed(model, tmp_path):
    path = save(draw("red"), tmp_path / "a.png")
    (listed,), (streamed,) = model.predict(path), model.predict(path, stream=True)
    path.unlink()
    assert streamed.image.size == SIZE
    with pytest.raises(InputError, match=r"a\.png': the file does not exist"):
        listed.draw()


def test_thresholds_and_overlap_are_the_models_own_unless_given(model):
    both = draw("red")
    both.paste(COLOURS["blue"], (12, 30, 36, 40))
    assert model.predict(both)[0].names == ("red", "blue")
    assert model.predict(both, conf=0.8)[0].names == ("red",)
    assert model.predict(both, max_predictions=1)[0].names == ("red",)
    model.postprocess = Postprocess(conf=0.8)
    assert model.predict(both)[0].names == ("red",)
    assert model.predict(both, conf=0.1)[0].names == ("red", "blue")
    assert model.postprocess == Postprocess(conf=0.8)
    image = draw("red", (0, 0, 60, 40))
    image.paste(COLOURS["blue"], (2, 2, 58, 38))
    model.postprocess = Postprocess(class_agnostic=True)
    assert model.predict(image)[0].names == ("red",)  # IoU 0.84
    assert model.predict(image, iou=0.9)[0].names == ("red", "blue")


def test_another_canvas(model):
    before = model.preprocess
    model.sizes.clear()
    check(model.predict(draw("red"), image_size=64)[0], "red", near=1.2)
    assert model.fused_copy.of(model).sizes[-1] == (1, 3, 64, 64)
    assert model.preprocess == before


@pytest.mark.parametrize("size", [100, 0, -32, 64.0, True, (64, 64), "64"])
def test_sides_that_are_no_multiple_of_the_step(size, model):
    with pytest.raises(InputError, match=r"image_size is .*; expected a multiple of 32 pixels, such as 320"):
        model.predict(draw(), image_size=size)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"conf": 1.5}, r"conf is 1\.5; expected a number from 0 to 1"),
        ({"iou": "0.5"}, r"iou is '0\.5'; expected a number from 0 to 1"),
        ({"max_predictions": 0}, r"max_predictions is 0; expected an integer, 1 or more"),
        ({"batch_size": 0}, r"batch_size is 0; expected an integer, 1 or more"),
        ({"batch_size": 2.0}, r"batch_size is 2\.0; expected an integer, 1 or more"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_options_out_of_range_are_told_at_once(options, text, stream, model):
    with pytest.raises(InputError, match=text):
        model.predict(draw(), stream=stream, **options)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("no/such.png", r"cannot read 'no/such\.png': the file does not exist"),
        (__file__, r"cannot read '.*test_detector\.py': not an image; expected JPEG"),
        (0.5, "it is of type float; expected a path"),
    ],
)
def test_sources_that_are_no_images(source, text, model):
    with pytest.raises(InputError, match=text):
        model.predict(source)


def test_a_damaged_image_ends_a_stream_after_those_before_it(model, tmp_path):
    good, bad = save(draw("red"), tmp_path / "a.jpg"), tmp_path / "b.jpg"
    bad.write_bytes(good.read_bytes()[:-200])
    results = model.predict([good, bad], stream=True, batch_size=1)
    assert next(results).names == ("red",)
    with pytest.raises(InputError, match=r"cannot read '.*': damaged or truncated \(image"):
        next(results)


def test_what_lies_beside_the_image_is_left_out():
    """With a white border the network finds the border, too; clipped, nothing of that is left inside."""
    letterbox = Letterbox(canvas_size=(96, 96), content_size=(48, 96), position="top-left", fill=255)
    (result,) = Finder(letterbox).predict(Image.new("RGB", (96, 48), "black"))
    assert len(result) == 0
    (result,) = Finder(letterbox).predict(draw("white", (0, 0, 10, 48), (96, 48)))
    check(result, "white", (0, 0, 96, 48))


def test_the_fused_copy_is_made_once_until_a_weight_changes(fusing):
    for _ in range(3):
        fusing.predict(draw())
    assert fusing.fused == 1
    changes = [
        lambda: fusing.load_state_dict({name: value + 1 for name, value in fusing.state_dict().items()}),
        lambda: fusing.sureness.data.mul_(0.5),  # seen by no version
        lambda: nn.init.constant_(fusing.norm.weight, 3.0),
        lambda: setattr(fusing, "norm", nn.BatchNorm2d(3)),
        lambda: setattr(fusing, "sureness", nn.Parameter(torch.ones(3))),
        lambda: fusing.norm.train()(torch.rand(2, 3, 4, 4)),
        lambda: fusing.seen.add_(1),
        lambda: fusing.double(),
    ]
    for count, change in enumerate(changes, 2):
        with torch.no_grad():
            change()
        for _ in range(2):
            fusing.predict(draw())
        assert fusing.fused == count


def test_new_weights_are_used(model):
    before = model.predict(draw("red"))[0].scores[0]
    model.sureness.data += 1.0
    assert model.predict(draw("red"))[0].scores[0] == pytest.approx(torch.tensor(3.0).sigmoid().item())
    assert before == pytest.approx(torch.tensor(2.0).sigmoid().item())


@pytest.mark.parametrize("kind", [Finder, Fusing])
def test_the_model_itself_is_not_used(kind):
    model = kind().train()
    before = copy.deepcopy(model.state_dict())
    model.predict(draw())
    assert not model.sizes
    assert model.training
    assert model.norm.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.sureness.requires_grad


def test_the_fused_copy_is_not_copied_or_saved(model):
    empty = len(pickle.dumps(model))
    model.predict(draw())
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert vars(other.fused_copy) == vars(FusedCopy())
        check(other.predict(draw())[0], "red")
    assert len(pickle.dumps(model)) == empty
    assert set(model.state_dict()) == set(Finder().state_dict())
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    assert vars(torch.load(stream, weights_only=False).fused_copy) == vars(FusedCopy())


def test_any_mode_of_gradients_and_any_precision_will_do(model):
    for mode in (torch.inference_mode(), torch.no_grad(), torch.enable_grad()):
        with mode:
            check(model.predict(draw())[0], "red")
    born = None
    with torch.inference_mode():
        born = Finder()
    check(born.predict(draw())[0], "red")
    for dtype in (torch.float64, torch.bfloat16):
        check(model.to(dtype).predict(draw("blue"))[0], "blue")


def test_classes_without_names_have_numbers(model):
    model.classes = ()
    assert model.predict(draw("blue"))[0].names == ("1",)


def test_an_image_of_one_tile_is_looked_at_as_without_tiles(model):
    images = [draw("red"), draw("blue", size=(640, 480), box=(100, 50, 300, 200))]
    plain, tiled = model.predict(images), Finder().predict(images, tiles=640)
    for one, other in zip(plain, tiled, strict=True):
        for name in ("boxes", "scores", "labels"):
            assert np.array_equal(getattr(one, name), getattr(other, name))
            assert len(getattr(one, name)) == 1


RED = np.array([703, 414, 710, 421])


def test_small_things_on_large_images_are_found_in_tiles(model):
    large = draw("red", size=(1200, 900), box=RED)
    large.paste("blue", (20, 30, 700, 500))  # larger than a tile: once, not in pieces
    small = draw("white")
    (plain,) = model.predict(large)
    assert np.abs(dict(zip(plain.names, plain.boxes, strict=True)).get("red", 0) - RED).max() > 2
    found, last = model.predict([large, small], tiles=120, overlap=0.2, batch_size=7)
    assert sorted(found.names) == ["blue", "red"]
    boxes = dict(zip(found.names, found.boxes, strict=True))
    assert np.abs(boxes["red"] - RED).max() <= 1
    assert np.abs(boxes["blue"] - (20, 30, 700, 500)).max() <= 12  # a pixel of the canvas
    check(last, "white")


def test_more_looks_at_the_same_image(model):
    model.fused_copy.of = lambda own: own
    (result,) = model.predict(draw("red"), tta=True)
    check(result, "red")
    assert result.scores[0] == pytest.approx(torch.tensor(2.0).sigmoid().item())
    assert [shape[0] for shape in model.sizes] == [3]


def test_batches_are_halved_when_memory_runs_out(model):
    images, whole = [draw("red", box=(5 + n, 5, 30, 25)) for n in range(7)], Finder()
    forward = model.forward

    def greedy(batch):
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return forward(batch)

    model.forward = greedy
    model.fused_copy.of = lambda own: own
    with pytest.warns(UserWarning, match=r"out of memory with .* images at a time"):
        found = model.predict(images, batch_size=7)
    assert {shape[0] for shape in model.sizes} == {1, 2}
    for one, other in zip(found, whole.predict(images, batch_size=7), strict=True):
        assert np.array_equal(one.boxes, other.boxes)
    model.forward = lambda batch: greedy(torch.cat([batch] * 3))
    with pytest.raises(InputError, match="out of memory with a single image"):
        model.predict(images[0])


def test_numbers_of_workers(model):
    assert [result.source for result in model.predict([draw()] * 3, workers=1)] == ["image 0", "image 1", "image 2"]
    with pytest.raises(InputError, match="workers is 0; expected an integer, 1 or more"):
        model.predict(draw(), workers=0)
