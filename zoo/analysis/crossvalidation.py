"""An honest score: repeated cross-validation of the head on features that the backbone gave once."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from zoo._model import known_config
from zoo._text import shorten
from zoo.analysis.embedding import embed_splits
from zoo.analysis.feature_data import check_model, open_images, open_model, read_fields, tell_trained_backbone
from zoo.analysis.held_out import HeadScorer, HeldOut
from zoo.analysis.resampling import Score, check_groups_installed, deal_folds, draw_subset
from zoo.data import mix_seeds, refuse_in_worker, stopping_at_once
from zoo.errors import DataError, InputError
from zoo.progress import Progress, is_main_process
from zoo.tasks.classification import find_groups

SCORES: Mapping[str, str] = {"top1": "top-1", "macro_f1": "macro F1"}
SPLITS = {"all": ("train", "val"), "train": ("train",), "val": ("val",), "test": ("test",)}
SIZES = 6  # points of a learning curve, each of twice the images of the one before
LEAST_PER_CLASS = 2.0  # images, of its first point
SMALL_GAIN = 0.01  # of top-1: less is not worth twice the labels


@dataclass(frozen=True)
class CurvePoint:
    """Scores of heads that learnt from a part of the training images.

    Attributes:
        images: That each head learnt from, mean.
        images_per_class: The same, by class.
        scores: `top1` and `macro_f1` on the held-out images.
    """

    images: float
    images_per_class: float
    scores: Mapping[str, Score]


@dataclass(frozen=True, repr=False)
class CrossValidation:
    """Scores of a head on images that it did not learn from, over several splits of all of them.

    Attributes:
        model: Its name.
        data: Where the images came from.
        split: `all` (train and val), `train`, `val` or `test`.
        images: How many.
        classes: Names.
        folds: Parts that the images were dealt into; each is held out once in every repeat.
        repeats: How often they were dealt.
        groups: Number of groups that were kept together; None: each image was dealt alone.
        solver: `exact` or `prototype`.
        l2: Penalty of each split; chosen inside its training part unless it was given. Empty for prototypes.
        scores: `top1` and `macro_f1`.
        curve: Scores over the number of training images, few to many; empty if it was not asked for.
        gain: What the last doubling of the training images added to top-1; None without a curve.
        notes: What to know before the score is believed.
        seed: Of the draws.
        seconds: That the solving took.
    """

    model: str
    data: str
    split: str
    images: int
    classes: tuple[str, ...]
    folds: int
    repeats: int
    groups: int | None
    solver: str
    l2: tuple[float, ...]
    scores: Mapping[str, Score]
    curve: tuple[CurvePoint, ...]
    gain: Score | None
    notes: tuple[str, ...] = ()
    seed: int = 0
    seconds: float = field(default=0.0, compare=False)

    @property
    def verdict(self) -> str:
        """Whether more labels would help, as a sentence; empty without a learning curve."""
        if self.gain is None:
            return ""
        gain, (before, last) = self.gain, self.curve[-2:]
        sizes = f"from {before.images_per_class:.3g} to {last.images_per_class:.3g} images per class"
        told = (
            f"{sizes} top-1 changed by {100 * gain.mean:+.1f} points "
            f"(95 % interval {100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
        )
        if gain.low > 0:
            return f"More labels would help: {told}."
        if gain.high < SMALL_GAIN:
            return f"More labels would hardly help: {told}."
        return f"Whether more labels would help is not clear: {told}."

    def rows(self) -> list[dict[str, str]]:
        """Return the table of scores as text."""
        return [
            {
                "score": name,
                "mean": f"{score.mean:.2%}",
                "standard deviation": f"{score.deviation:.2%}",
                "95 % interval": f"{score.low:.2%} to {score.high:.2%}",
            }
            for key, name in SCORES.items()
            for score in [self.scores[key]]
        ]

    def curve_rows(self) -> list[dict[str, str]]:
        """Return the learning curve as text."""
        return [
            {"images per class": f"{point.images_per_class:.3g}", "images": f"{point.images:,.0f}"}
            | {name: f"{point.scores[key].mean:.2%}" for key, name in SCORES.items()}
            | {"deviation of top-1": f"{point.scores['top1'].deviation:.2%}"}
            for point in self.curve
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        plain = {key: value for key, value in vars(self).items() if key not in ("scores", "curve", "gain")}
        points = [vars(point) | {"scores": _to_dict(point.scores)} for point in self.curve]
        gain = None if self.gain is None else self.gain.to_dict()
        plain |= {"scores": _to_dict(self.scores), "curve": points, "gain": gain, "verdict": self.verdict}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}

    def plot(self, path: str | Path) -> Path:
        """Draw the scores of all splits and the learning curve, and return the path of the PNG."""
        from zoo.analysis.crossvalidation_plot import draw_crossvalidation

        return draw_crossvalidation(self, path)

    def __repr__(self) -> str:
        return f"<CrossValidation {self}>"

    def __str__(self) -> str:
        score, times = self.scores["top1"], f" x {self.repeats}" * (self.repeats > 1)
        interval = f"95 % interval {score.low:.2%} to {score.high:.2%}"
        return f"top-1 {score.mean:.2%}, {interval}, {self.folds} folds{times} of {self.images:,} images"


def _to_dict(scores: Mapping[str, Score]) -> dict[str, Any]:
    return {key: score.to_dict() for key, score in scores.items()}


def crossvalidate(
    model: Any,
    data: Any,
    *,
    folds: int = 5,
    repeats: int = 2,
    split: Literal["all", "train", "val", "test"] = "all",
    group_by: str | None = None,
    solver: Literal["exact", "prototype"] = "exact",
    l2: float | None = None,
    curve: bool = True,
    seed: int = 0,
    progress: bool = True,
    **overrides: Any,
) -> CrossValidation:
    """Score the solved head of a frozen backbone by repeated, stratified, nested cross-validation.

    Every image is read once. Each head is what `zoo.finetune(solver="exact")` finds on its training part: features are
    standardised by that part, and the penalty is chosen by another cross-validation inside it, so nothing of a held-out
    image is known to the head that is scored on it.

    Args:
        model: What `zoo.finetune` takes, or a run; a named model has its published weights.
        data: What `zoo.finetune` takes, but for loaders.
        folds: Parts of the images, each held out once; 2 or more.
        repeats: How often the images are dealt into folds anew.
        split: Which images: `all` are those of train and val together, as no choice depends on val here; test is left
            alone.
        group_by: A regular expression that finds the group of an image in its path, what its first parentheses match,
            or all of it; images of a group are in one fold. None: the column `group` of a table, if it has one.
        solver: `exact`, or `prototype` (class means).
        l2: Penalty of `exact`; None: chosen inside each training part.
        curve: Whether to score heads on fewer images, too.
        seed: Of all draws.
        progress: Whether to show what happens.
        overrides: Fields of a preset that decide what is opened and what the backbone sees, such as `image_size`,
            `device`, `skip_bad` or `pretrained`.

    Raises:
        InputError: An option is wrong, or the model is no classifier with one class per image; nothing was read then.
        DataError: The images cannot be used, or there are fewer groups than folds.
    """
    refuse_in_worker()
    preset = read_fields({"seed": seed} | overrides, "cross-validation")
    _check_options(folds, repeats, split, group_by, solver, l2)
    check_model(model, "cross-validation")
    with stopping_at_once(), Progress(enabled=progress and is_main_process()) as show:
        network = open_model(model, preset)
        opened = open_images(network, data, preset, show)
        images = _Images.of(opened, split, group_by)
        images.check(folds)
        splits = embed_splits(network, opened, preset, show, images.splits)
        notes = [tell_trained_backbone(model, network), *images.tell_rare(opened.classes, folds)]
        for note in filter(None, notes):
            show.log(f"note: {note}")
        vectors = torch.cat([splits[name].vectors for name in images.splits])
        vectors, labels, groups = _place(network, vectors, images.labels, images.groups)
        scorer = HeadScorer(vectors, labels, len(opened.classes), groups, solver, l2)
        work, began = _Resampling(scorer, folds, repeats, seed), time.perf_counter()
        scores, ratio = work.score_folds(show)
        points, gain = work.score_sizes(show, ratio) if curve else ((), None)
    return CrossValidation(
        model=str(known_config(network).get("model") or type(network).__name__),
        data=str(opened.source),
        split=split,
        images=len(images.labels),
        classes=tuple(opened.classes),
        folds=folds,
        repeats=repeats,
        groups=None if images.groups is None else int(images.groups.max()) + 1,
        solver=solver,
        l2=tuple(result.l2 for result in work.results if result.l2 is not None),
        scores=scores,
        curve=points,
        gain=gain,
        notes=tuple(filter(None, notes)),
        seed=seed,
        seconds=time.perf_counter() - began,
    )


def _check_options(folds: int, repeats: int, split: str, group_by: str | None, solver: str, l2: float | None) -> None:
    for name, value, least in (("folds", folds, 2), ("repeats", repeats, 1)):
        if type(value) is not int or value < least:
            raise InputError(f"{name} is {value!r}; expected a whole number, {least} or more.")
    for name, word, words in (("split", split, tuple(SPLITS)), ("solver", solver, ("exact", "prototype"))):
        if word not in words:
            raise InputError(f"{name} is {word!r}; expected one of {', '.join(words)}.")
    if l2 is not None and solver != "exact":
        raise InputError(f"l2 is {l2:g}, which has no effect with solver=prototype. Use solver=exact.")
    if l2 is not None and not 0 < l2 < float("inf"):
        raise InputError(f"l2 is {l2:g}; expected a number above 0.")
    if group_by is not None:
        find_groups((), group_by)
        check_groups_installed()


def _place(network: Any, *tensors: Tensor | None) -> list[Any]:
    """Return tensors where the network is, or on the CPU if that cannot compute in float64."""
    device = next(network.parameters()).device
    place = torch.device("cpu") if device.type == "mps" else device
    return [None if tensor is None else tensor.to(place) for tensor in tensors]


@dataclass(frozen=True)
class _Images:
    """The images of a cross-validation.

    Attributes:
        splits: That they are from, in this order.
        labels: Class of each, `(N,)`.
        groups: Number of the group of each, `(N,)`; None: each is its own.
    """

    splits: tuple[str, ...]
    labels: Tensor
    groups: Tensor | None

    @classmethod
    def of(cls, opened: Any, split: str, group_by: str | None) -> "_Images":
        has = [name for name in SPLITS if getattr(opened, name, None) is not None]
        splits = tuple(name for name in SPLITS[split] if name in has)
        if not splits:
            raise DataError(f"the data has no split {split!r}; it has {', '.join(has)}.")
        parts = [getattr(opened, name) for name in splits]
        labels = torch.tensor([target for part in parts for target in part.targets])
        if group_by is not None:
            named = find_groups([name for part in parts for name in part.names], group_by)
        elif all(part.groups is not None for part in parts):
            check_groups_installed()
            named = tuple(group for part in parts for group in part.groups)
        else:
            return cls(splits, labels, None)
        numbers = {group: number for number, group in enumerate(dict.fromkeys(named))}
        return cls(splits, labels, torch.tensor([numbers[group] for group in named]))

    def check(self, folds: int) -> None:
        """Refuse images that cannot be dealt into so many folds.

        Raises:
            DataError: Saying how many there are.
        """
        counts = self.labels.bincount()
        if int((counts > 0).sum()) < 2:
            raise DataError("the images are of one class; expected at least two classes.")
        if self.groups is not None and (groups := int(self.groups.max()) + 1) < folds:
            raise DataError(
                f"{folds} folds need {folds} groups or more; the {len(self.labels):,} images are in {groups}. Use "
                + (f"folds={groups} (--folds {groups})." if groups > 1 else "another expression for the groups.")
            )
        if int(counts.max()) < folds:
            raise DataError(
                f"{folds} folds need a class with {folds} images or more; the largest has {int(counts.max())}. Use "
                "fewer folds (--folds), or add images."
            )

    def tell_rare(self, classes: Sequence[str], folds: int) -> list[str]:
        """Return what to know of classes that some folds lack."""
        counts = self.labels.bincount(minlength=len(classes)).tolist()
        rare = [f"{name} ({count})" for name, count in zip(classes, counts, strict=True) if 0 < count < folds]
        notes = []
        if rare:
            notes.append(f"classes with fewer images than folds: {shorten(rare, 10)}. Some folds have none of them")
        if self.groups is not None:
            pairs = (
                torch.unique(torch.stack([self.labels, self.groups]), dim=1)[0]
                .bincount(minlength=len(classes))
                .tolist()
            )
            lone = [name for name, count in zip(classes, pairs, strict=True) if count == 1]
            if lone:
                notes.append(
                    f"classes with a single group: {shorten(lone, 10)}. When it is held out, no head knows the class, "
                    "so these images count as wrong"
                )
        return notes


class _Resampling:
    """Deals images into folds, and scores heads on those that are held out.

    Args:
        scorer: Has the features.
        folds: Of each repeat.
        repeats: How often images are dealt.
        seed: Of the draws.
    """

    def __init__(self, scorer: HeadScorer, folds: int, repeats: int, seed: int) -> None:
        self.scorer, self.seed = scorer, seed
        self.results: list[HeldOut] = []
        self.parts: list[tuple[Tensor, Tensor]] = []  # what is learnt from, and what is held out
        self.first = folds  # splits of the first repeat, by which the learning curve is drawn
        for repeat in range(repeats):
            dealt = deal_folds(scorer.labels, folds, seed=mix_seeds(seed, repeat), groups=scorer.groups)
            for fold in torch.unique(dealt):
                self.parts.append(((dealt != fold).nonzero()[:, 0], (dealt == fold).nonzero()[:, 0]))
            self.first = self.first if repeat else len(self.parts)

    def score_folds(self, show: Progress) -> tuple[dict[str, Score], float]:
        """Return the scores over all splits, and how many images are held out for each that is learnt from."""
        with show.counting("cross-validating", total=len(self.parts)) as count:
            for number, (learnt, held) in enumerate(self.parts):
                self.results.append(self.scorer.score(learnt, held, seed=mix_seeds(self.seed, 0, number)))
                count(number + 1, len(self.parts))
        ratio = sum(len(held) for _, held in self.parts) / sum(len(learnt) for learnt, _ in self.parts)
        return _sum_up(self.results, ratio), ratio

    def score_sizes(self, show: Progress, ratio: float) -> tuple[tuple[CurvePoint, ...], Score | None]:
        """Return the learning curve, and what the last doubling of the images added to top-1."""
        parts, sizes = self.parts[: self.first], self._list_shares()
        rounds, points, before = len(sizes) * len(parts), list[CurvePoint](), list[HeldOut]()
        with show.counting("learning curve", total=rounds) as count:
            for share in sizes:
                results, learnt_from = [], 0
                for number, (learnt, held) in enumerate(parts):
                    drawn = self._draw(learnt, share, number)
                    learnt_from += len(drawn)
                    results.append(self.scorer.score(drawn, held, seed=mix_seeds(self.seed, 2, number)))
                    count(len(points) * len(parts) + number + 1, rounds)
                points.append(self._point(results, learnt_from / len(parts), ratio))
                before = results
        last = self.results[: self.first]
        points.append(self._point(last, sum(len(learnt) for learnt, _ in parts) / len(parts), ratio))
        if not before:
            return (), None
        differences = [after.top1 - earlier.top1 for earlier, after in zip(before, last, strict=True)]
        return tuple(points), Score.of(differences, ratio, least=-1.0)

    def _list_shares(self) -> list[float]:
        """Return shares of the training part from small to large, each twice the one before; the whole is left out."""
        each = sum(len(learnt) for learnt, _ in self.parts) / len(self.parts) / self._count_classes()
        shares = [0.5**power for power in range(SIZES - 1, 0, -1)]
        return [share for share in shares if share * each >= LEAST_PER_CLASS]

    def _draw(self, learnt: Tensor, share: float, number: int) -> Tensor:
        seed = mix_seeds(self.seed, 1, number)
        return draw_subset(learnt, self.scorer.labels, share, seed=seed, groups=self.scorer.groups)

    def _point(self, results: Sequence[HeldOut], images: float, ratio: float) -> CurvePoint:
        return CurvePoint(images, images / self._count_classes(), _sum_up(results, ratio))

    def _count_classes(self) -> int:
        return len(torch.unique(self.scorer.labels))


def _sum_up(results: Sequence[HeldOut], ratio: float) -> dict[str, Score]:
    return {key: Score.of([getattr(result, key) for result in results], ratio) for key in SCORES}
