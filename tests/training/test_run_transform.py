import json

import pytest
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import v2

import zoo
from zoo.engine.frozen import UnreadableCodeError
from zoo.engine.frozen.cache import _key, _Numbers
from zoo.engine.frozen.compute import Split
from zoo.errors import InputError
from zoo.settings import Preset
from zoo.tasks.classification.task import TASK
from zoo.training.run_transform import bring_transform, check_transform, describe_transform

STRENGTH = 2


def compose(degrees=30):
    return v2.Compose([v2.RandomRotation(degrees), v2.ColorJitter(0.4)])


def blur(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(STRENGTH))


def test_a_function_whose_code_has_changed_is_not_resumed_with(monkeypatch, tmp_path):
    preset = Preset(transform=blur)
    assert bring_transform(preset, None, tmp_path) is preset
    before = json.loads(json.dumps(describe_transform(preset)))
    assert before["transform"].keys() == {"name", "digest"}
    check_transform(before, preset, tmp_path)
    check_transform({}, Preset(), tmp_path)
    with pytest.raises(InputError, match=r"began without a transform, not with <Compose>"):
        bring_transform(Preset(), compose(), tmp_path)
    monkeypatch.setitem(blur.__globals__, "STRENGTH", 5)
    with pytest.raises(InputError, match=r"has changed since the run"):
        check_transform(before, preset, tmp_path)


def test_features_are_kept_by_the_code_of_the_transform(images):
    data, model = zoo.open_data(images), torch.nn.Identity()
    engine = type("Engine", (), {"digest": lambda self: "", "describe": lambda self: {}})()

    def find_key(transform):
        TASK.choose_preprocess(model, Preset())
        source = TASK.make_training_source(model, data, Preset(transform=transform, views=2), is_frozen=True)
        return _key(engine, "", Split(source, 2), _Numbers(torch.float32, 4))

    assert len({find_key(transform) for transform in (None, compose(), compose(), compose(31), blur)}) == 4
    with pytest.raises(UnreadableCodeError, match=r"calls eval\(\)"):
        find_key(lambda image: eval("image"))
