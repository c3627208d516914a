"""Which settings are best: many presets scored on cached features within the training images, one of them run."""

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from zoo.analysis.search_result import Search, write_search
from zoo.analysis.space import SEARCHABLE, Space, is_seen, read_space
from zoo.analysis.study import Study, Trial, load_optuna
from zoo.api import finetune, resume
from zoo.data import stopping_at_once
from zoo.errors import InputError, Interrupted, ZooError
from zoo.files import make_folder, to_path
from zoo.models import look_up
from zoo.optim.solvers import make_folds
from zoo.progress import Progress
from zoo.rates import GivenRates, Mode
from zoo.settings import STEPPING, Preset, check_preset, resolve_preset
from zoo.tasks import task_of
from zoo.training import (
    HeldOut,
    RunSummary,
    default_fields,
    fetch_named,
    find_stage,
    make_model,
    open_for_run,
    summarize_run,
)

FOLDS = 5
MOST_HELD = 4  # backbones and image sizes whose features are in memory
MOST_FAILED = 5  # trials one after the other: then something is wrong with all of them
# What a head on cached features cannot have, or what would make the score of an epoch choose.
_REFUSED = ("unfreeze", "layer_decay", "first_lr", "ema_decay", "swa_epochs", "patience", "head_init", "compile")


def search(
    model: str | os.PathLike[str],
    data: Any,
    lr: GivenRates | None = None,
    *,
    trials: int = 50,
    space: str | os.PathLike[str] | None = None,
    folds: int = FOLDS,
    preset: str | os.PathLike[str] | Preset | Mapping[str, Any] | None = None,
    out: str | os.PathLike[str] | None = None,
    run: bool = True,
    progress: bool = True,
    mode: Mode | None = None,
    **overrides: Any,
) -> Search:
    """Search the settings of a head on a frozen backbone, and run the best.

    Every trial is a full preset with a seed of its own. Its score is cross-validated within the training images, on the
    cached features that all trials share. The validation images are looked at once, by the run of the best at the end.

    Args:
        model: A name of `zoo.list_models()`, or a saved model; the space may name others (`model`).
        data: As for `zoo.finetune`: a folder, a table, or data sets.
        lr: As in `zoo.finetune`; of trials whose space does not choose it.
        trials: How many there are to be, those of earlier calls on the same folder among them.
        space: A YAML file of fields with values or ranges; None: `zoo search --show-space` prints the default.
        folds: Of the cross-validation, 2 or more.
        preset: What the settings change; a name, a YAML file, a mapping or a `Preset`.
        out: The folder; None: `runs/search-MODEL-DATA`. A search that is there already goes on.
        run: Whether to run the best at the end.
        progress: Whether to show what happens.
        mode: `head`, or None.
        overrides: Other fields of the preset, for all trials.

    Returns:
        The trials, the best of them, and its run.

    Raises:
        InputError: The options, the space, the data, or a folder of another search; told before images are read.
        Interrupted: After Ctrl-C; the same call goes on.
    """
    load_optuna()
    if not isinstance(model, (str, os.PathLike)):
        raise InputError(f"model is a {type(model).__name__}; a search needs a name or a saved model.")
    fields = overrides | {"model": os.fspath(model)}
    base = resolve_preset(preset, lr, mode, fields, defaults=default_fields(model, None)).preset
    base = base.replace(
        pretrained=True if base.pretrained is None else base.pretrained,
        split_seed=base.seed if base.split_seed is None else base.split_seed,
    )
    _check(base, trials, folds)
    chosen = read_space(space, base)
    check_preset(base, asks_hub=True)
    name = re.sub(r"[^\w.-]+", "-", f"search-{Path(os.fspath(model)).name}-{_name(data)}")
    folder = to_path(out if out is not None else Path("runs") / name)
    with stopping_at_once(), Progress(enabled=progress) as show:
        searcher = _Searcher.begin(base, chosen, data, folder, folds, show)
        return searcher.run(trials, data if run else None)


def _check(base: Preset, trials: int, folds: int) -> None:
    if trials < 1 or folds < 2:
        raise InputError(f"trials is {trials} and folds {folds}; expected trials of 1 or more, and folds of 2 or more.")
    usual = {name: Preset.model_fields[name].default for name in _REFUSED}
    odd = [name for name in _REFUSED if getattr(base, name) != usual[name]]
    odd += ["mode"] * (base.mode not in (None, "head")) + ["lr"] * isinstance(base.lr, Mapping)
    odd += ["labels"] * (getattr(base, "labels", "single") != "single")
    if odd:
        raise InputError(
            f"a search trains heads of one class per image on cached features: {', '.join(odd)} cannot be set. Remove "
            + ("it." if len(odd) == 1 else "them.")
        )


def _name(data: Any) -> str:
    if isinstance(data, (str, os.PathLike)):
        return to_path(data).absolute().stem
    return type(data).__name__


@dataclass
class _Searcher:
    """Runs the trials of a search.

    Attributes:
        base: The preset that they change.
        space: What they choose from.
        opened: Data.
        study: Where they are kept.
        folds: Fold of each training image, `(N,)`.
        folder: Of the search.
        show: Where they are shown.
        ran: Numbers of the trials of this process.
    """

    base: Preset
    space: Space
    opened: Any
    study: Study
    folds: torch.Tensor
    folder: Path
    show: Progress
    ran: list[int] = field(default_factory=list)
    _heads: dict[str, HeldOut] = field(default_factory=dict)

    @classmethod
    def begin(cls, base: Preset, space: Space, data: Any, folder: Path, folds: int, show: Progress) -> "_Searcher":
        """Open the data and the study."""
        task = task_of(look_up(base.model or "")).choose(base)
        if not task.solves:
            raise InputError(f"a search compares heads of classifiers; {base.model} is a {task.card.noun}.")
        opened = open_for_run(data, task, base, show, like=base.classes)
        if opened.train is None:
            raise InputError("a search needs images, and the data are loaders. Pass a folder, a table or data sets.")
        labels = torch.tensor(opened.train.targets)
        make_folder(folder)
        identity = {
            "data": opened.describe()["digest"],
            "model and preset": _digest(base.to_yaml(full=True)),
            "space": _digest(space.text),
            "folds": folds,
        }
        study = Study(folder, identity, base.seed)
        return cls(base, space, opened, study, make_folds(labels, folds, seed=base.seed), folder, show)

    def run(self, wanted: int, data: Any) -> Search:
        """Run trials until there are so many, and then the best of them on the data, unless that is None."""
        began = time.perf_counter()
        done = self._try_all(wanted)
        found = Search.of(self.study, done, self.base, int(self.folds.max()) + 1, len(self.folds), self.folder)
        found = replace(found, seconds=time.perf_counter() - began)
        if len(done) < wanted or (self.ran and done[-1].number not in self.ran and max(self.ran) < done[-1].number):
            self.show.log("another process runs the last trials, and ends the search")
            return found
        write_search(found)
        if data is not None:
            found = replace(found, run=self._run_best(found, data))
            write_search(found)
        return found

    def _try_all(self, wanted: int) -> list[Trial]:
        """Run trials until so many are done or run elsewhere, and return those that are done."""
        before = [trial for trial in self.study.list_trials() if trial.is_done]
        if before:
            self.show.log(f"going on with {len(before)} trials in {self.folder}")
        while True:
            known = self.study.list_trials()
            if len(known) >= wanted:
                return [trial for trial in known if trial.is_done]
            ended = self._try(known)
            done = len([trial for trial in known if trial.is_done]) + 1
            self.show.log(f"trial {done} of {wanted}: {ended}")
            last = [trial for trial in self.study.list_trials() if trial.is_done][-MOST_FAILED:]
            if len(last) == MOST_FAILED and all(trial.state == "failed" for trial in last):
                raise InputError(f"the last {MOST_FAILED} trials failed: {last[-1].error}")

    def _try(self, known: list[Trial]) -> str:
        """Run one trial, and return what came of it, in words."""
        trial = self.study.ask()
        began = time.perf_counter()
        chosen = self.space.draw(trial, self.base)
        self.ran.append(trial.number)
        try:
            preset = make_preset(self.base, chosen, trial.number)
            heads = self._find_heads(preset)
            preset = preset.replace(backbone_precision=heads.precision)
            facts: dict[str, Any] = {
                "settings": {name: getattr(preset, name) for name in chosen if _matters(preset, name)},
                "preset": preset.to_yaml(),
                "digest": digest_settings(preset),
            }
            twin = next((one for one in known if one.digest == facts["digest"] and one.state != "failed"), None)
            if twin is not None:
                facts |= {"folds": list(twin.folds), "outputs": twin.outputs, "same_as": twin.number}
                self.study.tell(trial, twin.state, twin.score, **facts)
                return f"the settings of trial {twin.number} again, whose score is taken"
            return self._score(trial, preset, heads, facts, began)
        except KeyboardInterrupt as error:
            self.study.tell(trial, "failed")
            raise Interrupted(
                f"stopped; {len([one for one in known if one.is_done])} trials are kept in {self.folder}. Run the same "
                "search again to go on."
            ) from error
        except ZooError as error:
            self.study.tell(trial, "failed", error=str(error), settings=chosen)
            return f"failed: {error}"
        except BaseException:
            self.study.tell(trial, "failed")
            raise

    def _score(self, trial: Any, preset: Preset, heads: HeldOut, facts: dict[str, Any], began: float) -> str:
        scores: list[float] = []

        def after_fold(fold: int, logits: torch.Tensor) -> bool:
            scores.append(heads.score(preset, logits, (self.folds == fold).nonzero()[:, 0]))
            trial.report(sum(scores) / len(scores), fold)
            stops: bool = trial.should_prune()
            return stops

        logits = heads.predict(preset, self.folds, after_fold)
        answered = logits.isfinite().all(1)
        count = int(self.folds.max()) + 1
        if len(scores) < count and bool(answered.all()):  # all folds were solved at the same time
            for fold in range(count):
                after_fold(fold, logits)
        state = "complete" if len(scores) == count else "pruned"
        score = heads.score(preset, logits, self.folds.lt(len(scores)).nonzero()[:, 0])
        outputs = hashlib.sha256(logits.contiguous().numpy().tobytes()).hexdigest()
        facts |= {"folds": scores, "outputs": outputs, "seconds": round(time.perf_counter() - began, 3)}
        self.study.tell(trial, state, score, **facts)
        settings = ", ".join(f"{name}={_short(value)}" for name, value in facts["settings"].items())
        return f"{'pruned, ' * (state == 'pruned')}{score:.4f} ({settings})"

    def _find_heads(self, preset: Preset) -> HeldOut:
        """Return what trains heads on the features of a preset, which trials with the same features share."""
        seen = {name: getattr(preset, name) for name in SEARCHABLE if is_seen(name)}
        key = json.dumps([seen, preset.seed if preset.views > 1 else None], sort_keys=True)
        if key not in self._heads:
            while len(self._heads) >= MOST_HELD:
                del self._heads[next(iter(self._heads))]
            fetch_named(preset)
            model = make_model(preset, self.opened, self.show.log)
            precision = self.study.inner.user_attrs.get(f"precision of {_digest(key)}", preset.backbone_precision)
            heads = HeldOut(model, self.opened, preset.replace(backbone_precision=precision), self.show)
            self.study.inner.set_user_attr(f"precision of {_digest(key)}", heads.precision)
            self._heads[key] = heads
        return self._heads[key]

    def _run_best(self, found: Search, data: Any) -> RunSummary | None:
        """Run the best preset, or go on with that run, or return it."""
        folder = self.folder / f"run-{found.best.number}"
        stage = find_stage(folder) if folder.is_dir() else "empty"
        if stage == "training":
            resume(folder, data, progress=self.show.enabled)
        elif stage not in ("finished", "undrawn"):
            self.show.log(f"running the best, trial {found.best.number}")
            named = found.preset.model or ""
            finetune(named, data, preset=found.best_path, out=folder, progress=self.show.enabled)
        return summarize_run(folder)


def make_preset(base: Preset, chosen: Mapping[str, Any], number: int) -> Preset:
    """Return the preset of a trial: what has no effect beside the rest is as in the base, whatever was chosen.

    Args:
        base: What the settings change.
        chosen: Values by field.
        number: Of the trial, which has a seed of its own; where views are drawn by the seed, trials share it.

    Raises:
        PresetError: The settings contradict each other.
    """
    fields = dict(chosen)
    solver, views = fields.get("solver", base.solver), fields.get("views", base.views)
    if solver:
        usual = {name: Preset.model_fields[name].default for name in (*STEPPING, "lr", "epochs")}
        kept = {name: value for name, value in fields.items() if name not in usual and name != "batch_size"}
        fields = usual | kept | {"epochs": 1}
    if solver != "exact":
        fields["l2"] = None
    epochs = fields.get("epochs", base.epochs)
    fields |= {"keep": "last", "evaluate_every": epochs}  # validation images are looked at once
    return base.replace(**fields, seed=base.seed + (number if views == 1 else 0))


def digest_settings(preset: Preset) -> str:
    """Return the SHA-256 of all of a preset but its seed."""
    return _digest(preset.replace(seed=0).to_yaml(full=True))


def _matters(preset: Preset, name: str) -> bool:
    """Whether a setting has an effect in a preset."""
    if preset.solver:
        return name not in (*STEPPING, "lr", "epochs", "batch_size") and (name != "l2" or preset.solver == "exact")
    return name != "l2"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "steps" if value is None else str(value)
