from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn

import zoo
from small_detr import NAMES, build_small
from zoo._model import ModelInterface
from zoo.errors import InputError
from zoo.models.class_rows import find_rows, move_rows, say_rows

ROWS = (2, None, 0, 1)  # of four classes, which were three


class Declared(ModelInterface, nn.Sequential):
    """Layers that may be asked."""


def outputs(model: Any, images: torch.Tensor) -> torch.Tensor:
    """The scores of classes, whatever the model is."""
    with torch.no_grad():
        found = model.eval()(images)
    return found if isinstance(found, torch.Tensor) else model.decode(found).scores


def build(name: str, count: int) -> Any:
    return build_small(name, num_classes=count) if name in NAMES else zoo.get(name, num_classes=count)


def disturb(model: Any) -> None:
    """Let every output differ, also where all classes are made alike."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.startswith(getattr(model, "class_prefixes", None) or model.head_prefixes):
                tensor.add_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(len(tensor))))


def test_rows_by_name() -> None:
    assert find_rows(("c", "d", "caf\u00e9"), ("a", "cafe\u0301", "c ")) == (2, None, 1)
    assert say_rows(("c", "d", "a"), ("a", "b", "c")) == "'c', 'a' keep their weights; 'd' are new; 'b' are dropped"


@pytest.mark.usefixtures("small_detector")
@pytest.mark.parametrize("name", ["timm/test_resnet", "timm/test_vit", "yolo_nas_s", *NAMES])
def test_outputs_move_with_their_classes(name: str) -> None:
    model = build(name, 3)
    disturb(model)
    size = 160 if name == "timm/test_vit" else 128
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    before, twin = outputs(model, images), deepcopy(model)
    parameters = [id(parameter) for parameter in model.parameters()]
    move_rows(model, build(name, 3), (2, 0, 1))
    same = outputs(model, images)
    assert torch.allclose(same, before[..., [2, 0, 1]], atol=1e-5)
    assert [id(parameter) for parameter in model.parameters()] == parameters
    fresh = build(name, 4)
    move_rows(twin, fresh, ROWS)
    assert twin.num_classes == 4
    rows = {key: value for key, value in twin.state_dict().items() if len(value.shape) and len(value) in (4, 5)}
    assert outputs(twin, images).shape[-1] == 4
    assert rows
    if name in NAMES:
        return
    assert torch.allclose(outputs(twin, images)[..., [2, 3, 0]], before, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_detector_of_transformers_learns_after_a_move(name: str) -> None:
    model = build(name, 3)
    move_rows(model, build(name, 5), (None, 2, None, None, 0))
    rows = torch.tensor([[0, 4, 60.0, 60, 30, 30], [1, 0, 50, 50, 20, 20]])
    model.train()
    found = model(torch.rand(2, 3, 128, 128), rows) if model.takes_targets else model(torch.rand(2, 3, 128, 128))
    assert model.loss(found, rows).isfinite()
    old = build(name, 3).state_dict()
    assert {key for key, value in model.state_dict().items() if value.shape != old[key].shape} == {
        key for key in old if key.startswith(model.class_prefixes)
    }


def test_a_row_without_a_class_stays_the_last() -> None:
    model, fresh = Declared(), Declared()
    model.embed, fresh.embed = nn.Embedding(3, 2, padding_idx=2), nn.Embedding(4, 2, padding_idx=3)
    model.class_prefixes, model.num_classes = ("embed.",), 2  # type: ignore[assignment]
    before = model.embed.weight.detach().clone()
    new = fresh.embed.weight.detach().clone()
    move_rows(model, fresh, (1, None, 0))
    assert torch.equal(model.embed.weight, torch.stack([before[1], new[1], before[0], before[2]]))
    assert model.embed.padding_idx == 3


def test_what_has_no_row_for_each_class_is_refused() -> None:
    model = Declared(nn.Linear(4, 7))
    model.num_classes = 3  # type: ignore[assignment]
    with pytest.raises(InputError, match=r", the prefixes of the head's parameters\."):
        move_rows(model, deepcopy(model), (1, 0, 2))
    model.head_prefixes = ("0.",)  # type: ignore[assignment]
    with pytest.raises(
        InputError, match=r"0\.weight does not have one row per class \(3\)\. Create the model again, with classes"
    ):
        move_rows(model, nn.Sequential(nn.Linear(4, 5)), (1, 0, 2))
