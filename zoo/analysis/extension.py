"""A finished classifier is given more classes: its head is solved for them, and what it forgets is counted."""

import math
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from zoo._model import head_prefixes, known_config
from zoo.analysis.embedding import embed_splits
from zoo.analysis.extension_data import ExtensionData, open_both
from zoo.analysis.forgetting import Forgetting
from zoo.data import mix_seeds
from zoo.engine.frozen import HeadOnly
from zoo.errors import InputError
from zoo.files import digest_file
from zoo.models import Model, match_classes, names_of
from zoo.optim import find_linear
from zoo.optim.solvers import Basis, FeatureRows, Head, choose_l2, make_folds, solve_head
from zoo.progress import Progress, is_main_process
from zoo.settings import Preset
from zoo.tasks import AnyEvaluation, Task, task_of
from zoo.training import (
    RunFolder,
    adopt_weights,
    claimed,
    find_costs,
    find_stage,
    leaving_nothing,
    load_model,
    new_folder,
    open_folder,
    save_made,
    score_split,
    seen_by,
    split_run,
)

EXTENSION = "extension.json"
MAX_DROP = 1.0  # points of top-1 on old classes
FOLDS = 5
NO_CHOICE = 1.0  # penalty where no image can be held out
ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Extension:
    """A classifier with the classes of a run, and more.

    Attributes:
        folder: Where its model is; `zoo.load` opens it.
        model: In eval mode.
        evaluation: Scores on the validation images of old and new classes.
        forgetting: The old classes before and after, the new ones, and what is taken for what.
        kept_rows: Whether the rows of old classes in the head are those of the run, bit for bit.
        l2: Penalty of the rows that were solved.
    """

    folder: Path
    model: Model
    evaluation: AnyEvaluation
    forgetting: Forgetting
    kept_rows: bool
    l2: float


def extend(
    run: Any,
    data: Any,
    *,
    old_data: Any = None,
    keep_rows: bool = False,
    max_drop: float = MAX_DROP,
    out: str | os.PathLike[str] | None = None,
    device: str = "auto",
    progress: bool = True,
) -> Extension:
    """Give the classifier of a finished run more classes, and count what it forgets of the old ones.

    The backbone stays as it is. The rows of the linear head are solved again for all classes together, with the cached
    features of the run's data; or, where that data is gone or `keep_rows` is set, only the new rows are solved, as well
    as they can be beside the old ones.

    Args:
        run: Its folder, one of its files of weights, or what `zoo.finetune` returned.
        data: Images of the new classes, as `zoo.finetune` takes them; and of old ones, if there are more, which are
            used beside the run's. An image that the run has seen stays in the split that it was in.
        old_data: The data of the run, if it is no longer where the run found it.
        keep_rows: Keep the rows of old classes as they are, also if the data of the run is there.
        max_drop: Points of top-1 that old classes may lose on their validation images.
        out: The new folder, with `model.safetensors`, `config.json`, `evaluation.json` and `extension.json`; None: one
            in `runs`.
        device: `auto`, `cpu`, `cuda` or `mps`.
        progress: Whether to show what happens.

    Raises:
        InputError: The run is not finished or has no linear head, the data has no new class, or old classes lose more
            than `max_drop`; nothing has been written then.
    """
    place = getattr(run, "folder", run)
    if isinstance(max_drop, bool) or not isinstance(max_drop, (int, float)) or not max_drop >= 0:
        raise InputError(f"max_drop is {max_drop!r}; expected points of top-1, 0 or more.")
    with Progress(enabled=progress and is_main_process()) as show:
        folder = open_folder(split_run(place)[0])
        _check_finished(folder)
        network = load_model(place)
        task, linear = task_of(network), _find_head(network, folder)
        preset = _settle(folder.load_preset(), device, show)
        with claimed(new_folder(out, network, "extended"), show.log, is_new=True) as target, leaving_nothing(target):
            found = open_both(folder, names_of(network), data, old_data, task, preset, show)
            seen = _read(network, linear, found, preset, show)  # first: what prepares a model to score alters the key
            before = _score(network, task, [found.old, found.seen], show, device)
            loss = task.make_loss(network.cpu(), found.counted(seen[1]), preset)
            head, facts = _solve(linear, seen, found, loss, preset, show, keep_rows=keep_rows)
            _put(network, head, found, show)
            after = _score(network, task, [found.old, found.new], show, device)
            forgetting = Forgetting(found.classes, found.count, before, after)
            show.table(forgetting.rows(), title="forgetting report: validation images", totals=forgetting.totals())
            _guard(forgetting, max_drop, facts["kept_rows"])
            told = _tell_origin(network, folder, place, found) | facts | {"max_drop": max_drop} | forgetting.to_dict()
            save_made(target, network, after, {EXTENSION: told})
        adopt_weights(network, target)
        model = cast(Model, network.eval())
        return Extension(target.path, model, after, forgetting, facts["kept_rows"], facts["l2"])


def _check_finished(folder: RunFolder) -> None:
    if find_stage(folder.path) in ("finished", "undrawn"):
        return
    if folder.file(EXTENSION).is_file():
        raise InputError(
            f"{folder.path} is the result of an extension, not a run. Extend the run that it was made of by all new "
            "classes together."
        )
    raise InputError(
        f"{folder.path} is not a finished run. Resume the run first; the mean of several runs cannot be extended."
    )


def _find_head(network: nn.Module, folder: RunFolder) -> nn.Linear:
    """Return the layer that gives the logits of one class per image.

    Raises:
        InputError: There is no such layer, or its outputs have no names.
    """
    task = task_of(network)
    if not task.solves:
        name = known_config(network).get("model") or "MODEL"
        raise InputError(
            f"{folder.path} is a {task.card.noun}; only a classifier with one class per image can be extended. Train "
            f"it on data with old and new classes, which keeps the weights of old classes by name: zoo finetune {name} "
            f"DATA --weights {shlex.quote(str(folder.path))} --set match_outputs=true."
        )
    if not names_of(network):
        raise InputError(
            f"the classes of {folder.path} have no names, so new classes cannot be told from old ones. Give the data "
            "of the run class names, and train it again."
        )
    if not known_config(network).get("model"):
        raise InputError(f"the network of {folder.path} is not a registered model, so it cannot be given more outputs.")
    prefixes = head_prefixes(network)
    linear = find_linear(network, (name for name, _ in network.named_parameters() if name.startswith(prefixes)))
    if linear.bias is None:
        raise InputError(f"the head of {folder.path} has no bias, so new classes cannot be balanced with old ones.")
    return linear


def _settle(preset: Any, device: str, show: Progress) -> Preset:
    """Return the preset of the run with what can be solved: drawing classes alike is weighting them."""
    changes: dict[str, Any] = {"device": device}
    if preset.cache == "off":
        changes["cache"] = "memory"
    if preset.focal_gamma is not None:
        show.log("note: the run's focal_gamma is left out; a head is solved for the cross-entropy")
        changes["focal_gamma"] = None
    if preset.sampler == "balanced":
        changes |= {"sampler": "shuffle"} | ({"class_weights": "balanced"} if preset.class_weights == "none" else {})
    return cast(Preset, preset.replace(**changes))


def _score(network: nn.Module, task: Task, parts: Sequence[Any], show: Progress, device: str) -> AnyEvaluation:
    """Return the scores on the validation images of all parts together; `open_both` has seen to it that there are."""
    scored = [
        score_split(network, task, part, "val", show, device=device)[0]
        for part in parts
        if part is not None and part.val is not None
    ]
    return cast(AnyEvaluation, sum(scored[1:], start=scored[0]))


def _solve(
    linear: nn.Linear,
    seen: tuple[Tensor, Tensor],
    found: ExtensionData,
    loss: Callable[[Tensor, Tensor], Tensor],
    preset: Preset,
    show: Progress,
    *,
    keep_rows: bool,
) -> tuple[Head, dict[str, Any]]:
    """Return the head of all classes, and what is written of how it was found."""
    features, labels = seen
    own = Head(linear.weight.detach().double().cpu(), linear.bias.detach().double().cpu())
    rare = [name for name, count in zip(found.classes, labels.bincount(), strict=True) if not count]
    keeps = keep_rows or bool(rare)
    if rare and not keep_rows:
        show.log(f"rows of old classes are kept: {', '.join(map(repr, rare[:5]))} has no training image any more")
    costs, rows = find_costs(loss, len(found.classes), torch.device("cpu")), FeatureRows.of(features, labels)
    how: dict[str, Any] = {"basis": Basis.of(rows), "fixed": own(features) if keeps else None}
    l2, start, most = preset.l2 or NO_CHOICE, None, int(labels.bincount().max())
    if preset.l2 is None and most > 1:
        folds = make_folds(labels, min(FOLDS, most), seed=mix_seeds(preset.seed, 0))
        with show.counting("choosing the L2 penalty") as advance:
            choice = choose_l2(rows, costs, folds, on_progress=advance, **how)
        l2, start = choice.l2, choice.start
    solution = solve_head(rows, costs, l2, start=start, **how)
    head, what = solution.head, "all rows of the head are solved"
    if keeps:
        head = Head(torch.cat([own.weight, head.weight]), torch.cat([own.bias, head.bias]))
        what = "the rows of new classes are solved beside those of old ones"
    show.log(f"{what}: {len(rows):,} images, L2 penalty {l2:.3g}")
    return head, {"kept_rows": keeps, "images": len(rows), "l2": l2, "gradient": solution.gradient}


def _read(
    network: nn.Module, linear: nn.Linear, found: ExtensionData, preset: Preset, show: Progress
) -> tuple[Tensor, Tensor]:
    """Return what the head is shown of all training images, `(N, D)`, and their classes, `(N,)`."""
    vectors, labels = [], []
    for part in (found.old, found.new):
        if part is None or part.train is None:
            continue
        seen = embed_splits(network, replace(part, val=None, test=None), preset, show)["train"]
        head = HeadOnly(network).eval()
        for piece in torch.split(seen.vectors, ROWS_AT_ONCE):
            vectors.append(seen_by(linear, partial(head, piece.to(linear.weight))).cpu())
        labels.append(seen.labels)
    return torch.cat(vectors), torch.cat(labels)


@torch.no_grad()
def _put(network: nn.Module, head: Head, found: ExtensionData, show: Progress) -> None:
    """Give the network all classes, and the rows of a head."""
    match_classes(network, found.new, show.log)
    prefixes = head_prefixes(network)
    linear = find_linear(network, (name for name, _ in network.named_parameters() if name.startswith(prefixes)))
    if not bool(head.weight.isfinite().all() & head.bias.isfinite().all()):
        raise InputError("the head cannot be solved: its weights are no finite numbers. Are the features?")
    linear.weight.copy_(head.weight)
    linear.bias.copy_(head.bias)


def _guard(forgetting: Forgetting, max_drop: float, kept: bool) -> None:
    """Refuse a model that has forgotten more than is allowed."""
    if forgetting.drop <= max_drop + 1e-9:
        return
    allowed = math.ceil(10 * forgetting.drop) / 10
    other = "" if kept else " keep the rows of old classes, keep_rows=True (--keep-rows),"
    raise InputError(
        f"old classes drop from {forgetting.old_before:.2%} to {forgetting.old_after:.2%} top-1 on their validation "
        f"images, {forgetting.drop:.2f} points, where {max_drop:g} are allowed; nothing was written. Add images,"
        f"{other} or allow more with max_drop={allowed:g}."
    )


def _tell_origin(network: nn.Module, folder: RunFolder, place: Any, found: ExtensionData) -> dict[str, Any]:
    """Say in the configuration which run is extended, and return what the record has of that."""
    known_config(network)["origin"] |= {"extends": folder.path.absolute().name}
    return {
        "run": str(place),
        "sha256": digest_file(Path(*split_run(place))),
        "data": found.new.source,
        "old_data": None if found.old is None else found.old.source,
    }
