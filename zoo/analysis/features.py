"""Features as data: written to a file, and the images that are most like one."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from zoo._model import get_fact, known_config
from zoo.analysis.embedding import SPLITS, embed_splits
from zoo.analysis.feature_data import check_model, open_images, open_model, read_fields
from zoo.data import Images, check_splits, iterate_sources, number_images, read_image, split_of_files, stopping_at_once
from zoo.errors import DataError, InputError
from zoo.files import open_whole, to_path
from zoo.models import Look, embed_images
from zoo.progress import Progress, is_main_process
from zoo.settings import Preset
from zoo.tasks.classification import MOST_TILES, Tile, draw_neighbours

ENDINGS = (".npz", ".parquet")
_NO_SPLIT: tuple[str, ...] = ("",)


class Neighbour(NamedTuple):
    """An image that is like another.

    Attributes:
        row: Its place among the features.
        name: Its path below the data's folder.
        class_name: Its class; empty if it is unknown.
        split: `train`, `val` or `test`; empty for images without classes.
        similarity: Cosine of the angle between the features, at most 1.
    """

    row: int
    name: str
    class_name: str
    split: str
    similarity: float


@dataclass(frozen=True)
class Features:
    """The features of images, one row each.

    Attributes:
        vectors: What the head is shown, `(N, D)`, float32.
        names: Paths below the data's folder.
        classes: Class name of each; empty if it is unknown.
        splits: `train`, `val` or `test`; empty for images without classes.
        facts: `model`, `data`, `preprocess`, `licence` of the weights and of the `code`, and the `keys` of the cached
            features by split.
        images: By split, to read them.
        network: The model that made them.
    """

    vectors: NDArray[np.float32] = field(repr=False)
    names: tuple[str, ...] = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)
    splits: tuple[str, ...] = field(repr=False)
    facts: Mapping[str, Any]
    images: Mapping[str, Images] = field(repr=False)
    network: Any = field(repr=False)

    def __len__(self) -> int:
        return len(self.names)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write `.npz` (arrays `features`, `name`, `class`, `split`, `facts` as JSON) or `.parquet` (the same columns).

        Raises:
            InputError: The file has another ending, or Parquet is not installed.
        """
        target = check_ending(path)
        facts = json.dumps(self.facts)
        with open_whole(target) as file:
            if target.suffix.lower() == ".npz":
                columns = {"name": self.names, "class": self.classes, "split": self.splits}
                arrays: dict[str, Any] = {key: np.array(column, dtype=np.str_) for key, column in columns.items()}
                np.savez(file, features=self.vectors, **arrays, facts=np.array(facts))
            else:
                _write_parquet(self, facts, file)
        return target

    def nearest(self, image: Any, top: int = 10) -> tuple[Neighbour, ...]:
        """Return the images whose features have the smallest angle to those of an image, the nearest first.

        Args:
            image: A path, or an image as `predict` takes it; if it is one of these files, it is left out.
            top: How many.
        """
        if type(top) is not int or top < 1:
            raise InputError(f"top is {top!r}; expected a whole number, 1 or more.")
        look = Look(top_k=None, batch_size=1, image_size=None, tta=False, workers=1)
        query = embed_images(self.network, image, look).numpy()
        if len(query) != 1:
            raise InputError(f"expected one image, and there are {len(query):,}.")
        lengths = np.linalg.norm(self.vectors, axis=1) * np.linalg.norm(query)
        cosines = (self.vectors @ query[0]) / np.maximum(lengths, np.finfo(np.float32).tiny)
        found: list[Neighbour] = []
        for index in np.argsort(-cosines, kind="stable").tolist():
            if len(found) == top:
                break
            if not _is_same(self._find_source(index), image):
                own = (self.names[index], self.classes[index], self.splits[index])
                found.append(Neighbour(index, *own, float(min(cosines[index], 1.0))))
        return tuple(found)

    def plot_nearest(self, image: Any, path: str | Path, top: int = 10) -> Path:
        """Draw an image and those that are nearest to it, at most 23, and return the path of the PNG."""
        shown = image if isinstance(image, Image.Image) else read_image(image)
        name = Path(image).name if isinstance(image, (str, os.PathLike)) else ""
        tiles = [
            Tile(self._read(near.row), near.class_name or "similarity", near.similarity, near.name)
            for near in self.nearest(image, min(top, MOST_TILES - 1))
        ]
        return draw_neighbours(Tile(shown, "searched for", name=name), tiles, path)

    def _read(self, index: int) -> Image.Image:
        images, place = self._locate(index)
        return images.read(place)[0]

    def _find_source(self, index: int) -> Any:
        images, place = self._locate(index)
        return images.find_source(place)

    def _locate(self, index: int) -> tuple[Images, int]:
        split = self.splits[index]
        return self.images[split], index - self.splits.index(split)


def embed(model: Any, data: Any, *, unlabelled: bool = False, progress: bool = True, **overrides: Any) -> Features:
    """Return the features of images, with their names, classes and splits; a later call finds them in the cache.

    Args:
        model: What `zoo.finetune` takes, or a run; a named model has its published weights.
        data: What `zoo.finetune` takes, but for loaders; or a folder of images without classes.
        unlabelled: The folder has no classes, whatever its folders are called. A folder in which images lie and no
            other folder is such a one in any case.
        progress: Whether to show what happens.
        overrides: Fields of a preset that decide what is opened and what the backbone sees, such as `image_size`,
            `device`, `skip_bad` or `pretrained`.

    Raises:
        InputError: An option is wrong, or the model is no classifier with one class per image; nothing was read then.
        DataError: The images cannot be used.
    """
    preset = read_fields(overrides, "features")
    check_model(model, "embed")
    with stopping_at_once(), Progress(enabled=progress and is_main_process()) as show:
        network = open_model(model, preset)
        if unlabelled or _is_flat(data):
            opened: Any = _open_unlabelled(data, preset, show)
            names, classes = _NO_SPLIT, ("",)
        else:
            opened = open_images(network, data, preset, show)
            names, classes = tuple(name for name in SPLITS if getattr(opened, name) is not None), opened.classes
        parts = embed_splits(network, opened, preset, show, names)
    licence = get_fact(network, "licence")
    facts = {
        "model": known_config(network).get("model") or type(network).__name__,
        "data": str(opened.source),
        "keys": {name: parts[name].key for name in names},
        "preprocess": get_fact(network, "preprocess").to_dict(),
        "licence": getattr(licence, "weights", None),
        "code": getattr(licence, "code", None),
    }
    return Features(
        torch.cat([parts[name].vectors for name in names]).numpy(),
        tuple(name for split in names for name in parts[split].names),
        tuple(classes[number] for split in names for number in parts[split].labels.tolist()),
        tuple(split for split in names for _ in range(len(parts[split]))),
        facts,
        {name: getattr(opened, name) for name in names},
        network,
    )


def check_ending(path: str | os.PathLike[str]) -> Path:
    """Refuse a file that is neither .npz nor .parquet, and Parquet without what writes it."""
    target = to_path(path)
    if target.suffix.lower() not in ENDINGS:
        raise InputError(f"features are written as {' or '.join(ENDINGS)}, and {str(target)!r} has another ending.")
    if target.suffix.lower() == ".parquet":
        try:
            import pyarrow  # type: ignore[import-untyped, unused-ignore]  # noqa: F401
        except ImportError:
            raise InputError(
                "Parquet needs pyarrow. Install it: pip install 'zoo-finetune[parquet]', or write .npz."
            ) from None
    return target


def _is_flat(data: Any) -> bool:
    """Whether images lie in a folder, and no other folder does."""
    if not isinstance(data, (str, os.PathLike)) or not to_path(data).is_dir():
        return False
    entries = [entry for entry in os.scandir(to_path(data)) if not entry.name.startswith(".")]
    return bool(entries) and not any(entry.is_dir() or entry.name.endswith((".csv", ".parquet")) for entry in entries)


def _open_unlabelled(data: Any, preset: Preset, show: Progress) -> Any:
    if not isinstance(data, (str, os.PathLike)) or not to_path(data).is_dir():
        raise InputError("images without classes are a folder. Pass one, or use model.embed(images) for images.")
    root = to_path(data).absolute()
    files = [os.path.relpath(source.item, root) for source in iterate_sources(root)]
    split = split_of_files(root, {"": files}, str(data))
    with show.counting("checking images") as count:
        check = check_splits({"": split}, check=True, on_progress=count)[""]
    if check.problems and not (preset.skip_bad and check.good):
        first = check.problems[0]
        raise DataError(
            f"{len(check.problems):,} of {len(files):,} images are unusable; the first: {first.name}: {first.reason}. "
            "Repair or remove them, or pass skip_bad=True (--skip-bad) to skip them."
        )
    images = number_images(split, check, ("",), str(data))
    show.log(f"data: {data}: {len(images):,} images without classes")
    opened = SimpleNamespace(loaders=None, source=root)
    setattr(opened, "", images)
    return opened


def _is_same(source: Any, image: Any) -> bool:
    paths = (source, image)
    return all(isinstance(path, (str, os.PathLike)) for path in paths) and os.path.samefile(*paths)


def _write_parquet(features: Features, facts: str, file: Any) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    flat = pa.array(features.vectors.reshape(-1))
    columns = {
        "name": pa.array(features.names),
        "class": pa.array(features.classes),
        "split": pa.array(features.splits),
        "features": pa.FixedSizeListArray.from_arrays(flat, features.vectors.shape[1]),
    }
    parquet.write_table(pa.table(columns).replace_schema_metadata({"zoo": facts}), file)
