"""Images in memory as a task would hand them over: noise whose class is its place, and a small model for them."""

from dataclasses import dataclass

import torch
from torch import nn

from image_files import make_image
from zoo._model import ModelInterface
from zoo.data.images import Images
from zoo.data.loader import Samples, collate, lay_channels_last
from zoo.data.split_source import SplitSource
from zoo.data.transforms import Preprocess, eval_transform, to_input, train_transform

PREPROCESS = Preprocess(image_size=16)


@dataclass(frozen=True)
class Noise:
    """Gives the image of a position; another `shift`, other images."""

    shift: int = 0

    def __call__(self, position):
        return make_image((16, 16), seed=position + self.shift), position


class Small(ModelInterface, nn.Module):
    """A backbone with what differs between train and eval mode, and a head."""

    head_prefixes = ("last.",)
    num_features = 4

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.drop, self.last = nn.Dropout(0.5), nn.Linear(4, 3)
        self.norm.running_mean += 0.3

    def trunk(self, images):
        return self.drop(self.norm(self.conv(images))).mean((2, 3))

    def head(self, features):
        return self.last(features)

    def forward(self, images):
        return self.head(self.trunk(images))


def make_images(count, *, shift=0):
    return Images(Noise(shift), tuple(f"{n}.png" for n in range(count)), tuple(range(count)), tuple(range(count)))


def make_feed(count, *, augment="none", seed=0, shift=0, changes=None):
    images = make_images(count, shift=shift)
    transform = (
        eval_transform(PREPROCESS, normalise=False)
        if augment == "none"
        else train_transform(PREPROCESS, augment=augment, normalise=False)
    )

    def prepare(inputs, targets, epoch, batch):
        return lay_channels_last(to_input(inputs, PREPROCESS)), targets

    return SplitSource(
        images=images,
        samples=Samples(images, transform, seed),
        collate=collate,
        prepare=prepare,
        cache_key={"preprocess": PREPROCESS.to_dict(), "augment": augment, "seed": seed},
        uncacheable_reason=changes,
        pack_targets=lambda targets: list(targets[:, None, None]),
        unpack_targets=lambda rows, counts, indices: rows.flatten(),
    )
