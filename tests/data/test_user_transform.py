import random
import sys
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from image_files import make_image
from zoo.data import Preprocess, Samples, eval_transform, load_transform, name_transform
from zoo.errors import DataError, InputError, PresetError
from zoo.settings import Preset

MODULE = """
from torchvision.transforms import v2

LEAST = v2.RandomHorizontalFlip(1.0)
number = 3

def make(p=1.0):
    return v2.RandomHorizontalFlip(p)

def flip(image):
    return image.transpose(0)

class Flip:
    def __call__(self, image):
        return image.transpose(0)

def fails():
    raise RuntimeError("no")
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "own_changes.py").write_text(MODULE)
    (tmp_path / "wrong_changes.py").write_text("import nothing_of_this_name")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("own_changes", None)
    sys.path.remove(str(tmp_path))


class Pictures:
    in_threads = True
    names = ("a.png", "b.png")

    def __len__(self) -> int:
        return 2

    def read(self, index: int) -> tuple[Image.Image, int]:
        return make_image((32, 32), index), index


def load(transform: Any, place: tuple[int, int] = (0, 0)) -> torch.Tensor:
    plain = eval_transform(Preprocess(image_size=32, crop_pct=1.0), normalise=False)
    return Samples(Pictures(), plain, 7, user=load_transform(transform))[place][0]


@pytest.mark.parametrize("name", ["LEAST", "make", "flip", "Flip"])
def test_a_name_leads_to_a_transform_or_to_what_makes_one(folder, name):
    assert torch.equal(load(f"own_changes:{name}"), load(None).flip(2))
    assert str(load_transform(f"own_changes:{name}")) == f"own_changes:{name} ({folder / 'own_changes.py'})"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("own_changes:mak", r"own_changes has no 'mak'\. Did you mean 'make'"),
        ("own_chnges:make", r"there is no module 'own_chnges' in .* or on the Python path"),
        ("own_changes:number", r"own_changes:number is 3; expected a transform that is called with an image, or a"),
        ("own_changes:fails", r"own_changes:fails\(\) fails: RuntimeError: no"),
        ("wrong_changes:make", r"importing it fails: ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("<Compose>", r"the transform <Compose> was a Python object, which is not saved\. Pass it again: zoo\.resume"),
    ],
)
def test_what_cannot_be_made_is_told(folder, name, text):
    if name.startswith("<"):
        sys.path.insert(0, str(folder))
    with pytest.raises(InputError, match=text):
        load_transform(name)


@pytest.mark.parametrize("wrong", ["augment.py", "a b:c", 3, ":make", "module:"])
def test_other_values_are_refused_by_the_preset(wrong):
    with pytest.raises(PresetError, match=r"transform is .*; expected module:name, such as augmentation:make"):
        Preset(transform=wrong)


def test_a_preset_keeps_the_name_of_an_object_and_its_own_object():
    composed = v2.Compose([v2.RandomRotation(5)])
    preset = Preset(transform=composed, epochs=3)
    assert preset.replace(epochs=4).transform is composed
    assert "transform: <Compose>" in preset.to_yaml()
    assert preset.model_dump()["transform"] == "<Compose>"
    assert name_transform(lambda image: image) == "<lambda>"
    assert name_transform(make_image) == "image_files:make_image"
    assert name_transform(v2.RandomRotation) == "<RandomRotation>" or ":" in name_transform(v2.RandomRotation)


def from_every_generator(image: Image.Image) -> Image.Image:
    numbers = [random.random(), np.random.random(), torch.rand(()).item()]
    return Image.new("RGB", image.size, tuple(int(255 * number) for number in numbers))


def test_what_it_draws_is_decided_by_seed_epoch_and_image():
    state = torch.get_rng_state()
    drawn = {place: load(from_every_generator, place) for place in ((0, 0), (0, 1), (1, 0))}
    assert all(torch.equal(load(from_every_generator, place), pixels) for place, pixels in drawn.items())
    assert len({tuple(pixels[:, 0, 0].tolist()) for pixels in drawn.values()}) == 3
    assert torch.equal(state, torch.get_rng_state())


def test_tensors_and_arrays_are_taken_too():
    expected = load(None).flip(2)
    assert torch.equal(load(v2.Compose([v2.ToImage(), v2.RandomHorizontalFlip(1.0)])), expected)
    assert torch.equal(load(lambda image: np.asarray(image)[:, ::-1]), expected)


def raising(image: Image.Image) -> Any:
    raise KeyError("colour")


@pytest.mark.parametrize(
    ("transform", "text"),
    [
        (v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]), r"float32 \(3, 32, 32\); .* normalizes"),
        (lambda image: image.convert("L"), r"the transform <lambda> returned an image of mode L; expected an RGB"),
        (lambda image: np.asarray(image)[..., :1], r"returned uint8 \(32, 32, 1\)"),
        (lambda image: np.asarray(image)[:0], r"returned an image of 32 x 0 pixels"),
        (lambda image: None, r"returned a NoneType; expected an RGB image, uint8\. The image is 'b\.png'"),
        (raising, r"fails with KeyError: 'colour'\. The image is 'b\.png'"),
    ],
)
def test_what_it_returns_is_checked_and_the_image_named(transform, text):
    with pytest.raises(DataError, match=text):
        load(transform, (1, 0))
