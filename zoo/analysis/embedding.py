"""The features of labelled images, one row each, from the same cache that training uses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo._model import known_config
from zoo.engine import cache_features, make_accelerator
from zoo.errors import InputError
from zoo.progress import Progress
from zoo.settings import Preset
from zoo.tasks import task_of

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Embedding:
    """The features of one split.

    Attributes:
        vectors: What the head is shown of each image, `(N, D)`, float32, on the CPU.
        labels: Class of each image, `(N,)`, int64.
        names: Of the images, in the same order.
        key: Under which the features are cached; empty if they are in memory alone.
    """

    vectors: Tensor
    labels: Tensor
    names: tuple[str, ...]
    key: str = ""

    def __len__(self) -> int:
        return len(self.labels)


def embed_splits(
    model: Any, opened: Any, preset: Preset, show: Progress, splits: Sequence[str] = SPLITS
) -> Mapping[str, Embedding]:
    """Return the features of each split of opened data, without random changes, and cache them.

    A later `zoo.finetune` of the same head-only model on the same data with the same preset finds them.

    Args:
        model: A classifier that is cut into backbone and head; its weights are not changed.
        opened: Data of `zoo.open_data`, of images.
        preset: Image size, batch size, device, where and in which numbers features are cached.
        show: Where a pass over all images is shown.
        splits: Those that are wanted, where the data has them.

    Raises:
        InputError: The model gives no vectors, or the data are loaders.
    """
    task = task_of(model)
    if opened.loaders:
        raise InputError("features of images need a folder, a table or data sets; the data are loaders.")
    task.choose_preprocess(model, preset)
    accelerator = make_accelerator(preset.device, preset.precision)
    model.to(accelerator.device).eval()
    found = {name: images for name in splits if (images := getattr(opened, name, None)) is not None}
    sources = [task.make_scoring_source(model, images, preset.seed) for images in found.values()]
    name = known_config(model).get("model") or type(model).__name__
    cached = cache_features(model, sources, preset, accelerator, show, name=name)
    embeddings = {}
    for number, (split, images) in enumerate(found.items()):
        kept, source = cached.kept[number], sources[number]
        every = torch.arange(kept.count)
        parts, rows = kept.take(every)
        if len(parts) != 1 or parts[0].ndim != 2:
            raise InputError(f"the backbone of {name} gives maps, not one vector for each image; use a classifier's.")
        labels = torch.as_tensor(source.unpack_targets(rows.values, rows.counts, every)).long()
        key = cached.keys[number] if cached.keys else ""
        embeddings[split] = Embedding(parts[0].float(), labels, tuple(images.names), key)
    return embeddings
