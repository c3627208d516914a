"""The wrapper hides none of a network's own modules: each is fetched by its name, and every family is exported."""

import pytest
import timm
import torch
from torch import nn

import zoo
from zoo.models.classifier import Classifier

SMALL = {  # one small network of each large family of timm; random weights
    "vit": ("test_vit", {}, 160),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"embed_dim": 12, "depths": (1, 1), "num_heads": (1, 2), "img_size": 56},
        56,
    ),
    "convnext": ("test_convnext", {}, 64),
    "regnet": ("regnetx_002", {}, 64),
    "efficientnet": ("test_efficientnet", {}, 64),
    "mobilenetv3": ("mobilenetv3_small_050", {}, 64),
    "resnet": ("test_resnet", {}, 64),
    "densenet": ("densenet121", {"growth_rate": 4, "block_config": (1, 1)}, 64),
    "mixer": ("mixer_s32_224", {"img_size": 64}, 64),
    "byobnet": ("test_byobnet", {}, 64),
    "vgg": ("vgg11", {"num_classes": 3}, None),
}
EXPORTED = [name for name in SMALL if name != "vgg"]  # its classifier is 120 million numbers


def make(family):
    name, options, _ = SMALL[family]
    with torch.device("meta" if family == "vgg" else "cpu"):
        return Classifier(timm.create_model(name, **({"num_classes": 3} | options))).eval()


@pytest.mark.parametrize("family", SMALL)
def test_every_module_is_fetched_by_its_name(family):
    model = make(family)
    for name, module in model.named_modules():
        assert model.get_submodule(name) is module, name
    for name, parameter in model.named_parameters():
        assert model.get_parameter(name) is parameter, name
    for name, buffer in model.named_buffers():
        assert model.get_buffer(name) is buffer, name
    assert model.get_head() is model.get_classifier() is model.get_submodule(model.head_name)


@pytest.mark.parametrize("family", EXPORTED)
def test_it_is_exported_and_its_parts_make_the_whole(family):
    model, side = make(family), SMALL[family][2]
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(images)
        assert torch.equal(model.get_head()(model.get_backbone()(images)), expected)
        assert torch.equal(model.forward_head(model.forward_features(images)), expected)
        assert torch.equal(model.run_head(model.trunk(images)), expected)
        exported = torch.export.export(model, (images,)).module()(images)
    assert torch.allclose(exported, expected, atol=1e-5)


@pytest.mark.parametrize("family", ["vit", "swin", "convnext", "resnet"])
def test_a_layer_is_replaced_from_outside_as_other_libraries_do(family):
    """LoRA and the like walk the names, and put a module of their own in the place of another."""
    model, side = make(family), SMALL[family][2]
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    name = next(name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d))
    expected = model(images)
    for place in (name, model.head_name):
        parent, _, own = place.rpartition(".")
        setattr(model.get_submodule(parent), own, nn.Sequential(model.get_submodule(place)))
    assert torch.equal(model(images), expected)
    assert model.num_classes == 3
    assert model.is_altered


def test_older_names_stand_for_the_new_ones_where_they_hide_nothing():
    plain, hidden = make("resnet"), make("vit")
    images = torch.zeros(1, 3, 160, 160)
    assert torch.equal(plain.head(plain.trunk(images)), plain(images))
    assert isinstance(hidden.head, nn.Linear)
    assert torch.equal(hidden.head(hidden.trunk(images)), hidden(images))
    with pytest.raises(AttributeError, match="has no attribute 'nose'"):
        _ = plain.nose


def test_a_classifier_is_reset_as_timm_does_it():
    for family in ("resnet", "vit"):
        model, side = make(family), SMALL[family][2]
        model.reset_classifier(5)
        assert (model.num_classes, len(model.classes)) == (5, 5)
        assert model(torch.zeros(1, 3, side, side)).shape == (1, 5)
        assert not model.is_altered


@pytest.mark.parametrize("name", ["timm/poolformer_s12"])
def test_layers_without_an_order_of_timm_are_taken_as_they_stand(name):
    with torch.device("meta"):
        model = zoo.get(name, num_classes=3)
    assert not hasattr(model, "group_matcher")
    plan = zoo.plan(model, 0.1, layer_decay=0.5, schedule="constant")
    scales = [group.lr_scale for group in plan.trained]
    assert max(scales) == 1
    assert min(scales) < 0.5
