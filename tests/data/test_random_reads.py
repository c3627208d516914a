"""Data sets that change their images at random are known, whatever they draw from, and are not disturbed."""

import random
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import Subset
from torchvision import transforms
from torchvision.transforms import v2

from feeds import make_images
from image_files import make_image
from zoo.data.random_reads import why_random
from zoo.tasks.classification.data import open_data


class Images:
    """Images of two classes, changed by a function."""

    classes = ("a", "b")

    def __init__(self, change=None, count=20):
        self.transform, self.count = change, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        image = make_image((16, 16), seed=index)
        return (image if self.transform is None else self.transform(image)), index % 2


class Held:
    """Turns one image in ten, by a generator of its own."""

    def __init__(self):
        self.generator = np.random.default_rng(0)

    def __call__(self, image):
        return image.rotate(180) if self.generator.random() < 0.1 else image


def images_of(dataset):
    return open_data((dataset, Images(count=4))).train


def shift(draw):
    return lambda image: image.rotate(180) if draw() < 0.5 else image


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (shift(random.random), r"train\[\d+\] differs between two reads"),
        (shift(np.random.random), r"train\[\d+\] differs between two reads"),
        (shift(lambda: torch.rand(()).item()), r"train\[\d+\] differs between two reads"),
        (shift(random.Random(0).random), r"train\[\d+\] differs between two reads"),
        (Held(), r"train\[\d+\] differs between two reads"),
        (transforms.RandomHorizontalFlip(0.1), "RandomHorizontalFlip"),
        (transforms.Compose([transforms.Resize(16), transforms.RandomApply([transforms.Grayscale()])]), "RandomApply"),
        (v2.Compose([v2.Resize(16), v2.ColorJitter(0.5)]), "ColorJitter"),
        (transforms.TrivialAugmentWide(), "TrivialAugmentWide"),
    ],
)
def test_random_changes_are_found(change, said):
    reason = why_random(images_of(Images(change)))
    assert re.fullmatch(rf"the data set transforms its images randomly \({said}\)", reason)


def test_changes_deep_inside_are_found_and_nothing_is_disturbed():
    dataset = Subset(Subset(Images(transforms.RandomCrop(12)), range(10)), range(8))
    assert why_random(images_of(dataset)) == "the data set transforms its images randomly (RandomCrop)"
    dataset = Images(Held())
    images = images_of(dataset)
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    expected = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    held = dataset.transform.generator.bit_generator.state
    assert why_random(images)
    assert random.getstate() == expected[0]
    assert np.array_equal(np.random.get_state()[1], expected[1])
    assert torch.equal(torch.get_rng_state(), expected[2])
    assert dataset.transform.generator.bit_generator.state == held
    assert why_random(replace(make_images(4), in_threads=True, reader=None)) is None


@pytest.mark.parametrize("count", [3, 5, 24, 60])
def test_a_rare_change_is_found_in_small_and_large_sets(count):
    rare = Images(lambda image: image.rotate(180) if random.random() < 0.1 else image, count)
    assert "randomly" in why_random(images_of(rare))


@pytest.mark.parametrize(
    "change",
    [None, transforms.Compose([transforms.Resize(8), transforms.CenterCrop(8)]), lambda image: image.rotate(9)],
)
def test_what_does_not_draw_is_not_accused(change):
    assert why_random(images_of(Images(change))) is None
