"""What a search has found: as a table, as JSON, as a plot, and as a preset that a run takes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from zoo.analysis.search_plot import draw_search
from zoo.analysis.study import Study, Trial
from zoo.errors import InputError
from zoo.files import dump_json, write_file
from zoo.progress import format_rate
from zoo.settings import Preset, parse_preset
from zoo.training import RunSummary

RESULT, PLOT, BEST = "search.json", "search.png", "best.yaml"
MOST_SHOWN = 12  # trials in the table


@dataclass(frozen=True)
class Search:
    """What a search has found.

    Attributes:
        folder: Where everything of it is.
        metric: What was maximised, a key of the records of a run.
        folds: Of the cross-validation within the training images.
        images: Training images.
        trials: In the order of their numbers.
        importance: Share of the variance of the scores that each setting explains, by the trials that have it.
        seconds: That this call took for its trials.
        run: What is known of the run of the best; None if there was none.
    """

    folder: Path
    metric: str
    folds: int
    images: int
    trials: tuple[Trial, ...]
    importance: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    seconds: float = 0.0
    run: RunSummary | None = None

    @classmethod
    def of(cls, study: Study, done: list[Trial], base: Preset, folds: int, images: int, folder: Path) -> "Search":
        """Return the result of the trials that are done.

        Raises:
            InputError: None of them has a score.
        """
        if not any(trial.state == "complete" for trial in done):
            why = next((trial.error for trial in done if trial.error), "they were stopped")
            raise InputError(f"no trial was scored: {why}")
        key = base.monitor or "top1"
        return cls(folder, key, folds, images, tuple(done), _measure_importance(study, done))

    @property
    def best(self) -> Trial:
        """The trial with the highest score; of equal ones, the first."""
        return max((trial for trial in self.trials if trial.state == "complete"), key=lambda trial: trial.score or 0.0)

    @property
    def preset(self) -> Preset:
        """The preset of the best trial."""
        return parse_preset(self.best.preset, str(self.best_path))

    @property
    def best_path(self) -> Path:
        """The file of that preset."""
        return self.folder / BEST

    @property
    def notes(self) -> tuple[str, ...]:
        """What is odd about the trials: settings without an effect, and failures."""
        own = [trial for trial in self.trials if trial.outputs and trial.same_as is None and trial.state == "complete"]
        notes = []
        for _, group in groupby(sorted(own, key=lambda trial: trial.outputs), key=lambda trial: trial.outputs):
            alike = list(group)
            if len(alike) > 1:
                names = ", ".join(str(trial.number) for trial in alike)
                differing = sorted(_find_differing([trial.settings for trial in alike]))
                notes.append(f"trials {names} gave the same answers: {', '.join(differing) or 'nothing'} had no effect")
        repeated = sum(trial.same_as is not None for trial in self.trials)
        notes += [f"{repeated} trials repeated the settings of an earlier one, whose score was taken"] * bool(repeated)
        failed = [trial for trial in self.trials if trial.state == "failed"]
        notes += [f"trial {trial.number} failed: {trial.error}" for trial in failed]
        return tuple(notes)

    def table(self) -> list[dict[str, str]]:
        """Return the best trials as rows of a table."""
        done = [trial for trial in self.trials if trial.score is not None]
        ordered = sorted(done, key=lambda trial: (trial.state != "complete", -(trial.score or 0.0)))[:MOST_SHOWN]
        names = list(dict.fromkeys(name for trial in ordered for name in trial.settings))
        return [
            {"trial": str(trial.number), f"{self.metric} (cross-validated)": f"{trial.score:.4f}"}
            | {"folds": f"{min(trial.folds):.3f} to {max(trial.folds):.3f}" if trial.folds else "-"}
            | {name: _show(trial.settings[name]) if name in trial.settings else "-" for name in names}
            | {"note": _describe(trial)}
            for trial in ordered
        ]

    def caption(self) -> str:
        """Return what the scores are, as a sentence."""
        told = (
            f"score: {self.metric} of {self.images:,} training images, {self.folds} folds; validation images were not "
            "looked at"
        )
        if self.run is None:
            return told
        value = self.run.scores.get(self.metric)
        score = "none in the data" if value is None else f"{self.metric} {value:.4f}"
        return f"{told} until the run of the best: {score}, once, at the end"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "folder": str(self.folder),
            "metric": self.metric,
            "folds": self.folds,
            "images": self.images,
            "seconds": round(self.seconds, 3),
            "best": self.best.number,
            "trials": [asdict(trial) for trial in self.trials],
            "importance": {group: dict(shares) for group, shares in self.importance.items()},
            "notes": list(self.notes),
            "run": None if self.run is None else {"folder": str(self.run.folder), "scores": dict(self.run.scores)},
        }


def write_search(found: Search) -> None:
    """Write table, plot and the best preset into the folder of a search."""
    best = found.best
    head = (
        f"# The best of {len(found.trials)} trials of zoo search: {found.metric} {best.score:.4f}, cross-validated in "
        f"{found.folds} folds of\n# {found.images:,} training images. Run it: zoo finetune DATA --preset {BEST}\n"
    )
    write_file(found.best_path, head + best.preset)
    write_file(found.folder / RESULT, dump_json(found.to_dict(), indent=1) + "\n")
    scored = [trial for trial in found.trials if trial.score is not None]
    draw_search(scored, found.importance, found.folder / PLOT, metric=found.metric)


def _measure_importance(study: Study, done: list[Trial]) -> dict[str, dict[str, float]]:
    """Return the importance of settings, apart for those of all trials and those of trials with a solver or steps."""
    groups: dict[str, set[str]] = {}
    for trial in done:
        kind = f"solver={trial.settings['solver'] or 'steps'}" if "solver" in trial.settings else "all trials"
        groups.setdefault(kind, set()).update(trial.settings)
    common = set.intersection(*groups.values()) if groups else set()
    found = {"all trials": study.measure_importance(sorted(common))}
    found |= {
        kind: study.measure_importance(sorted(names - common)) for kind, names in groups.items() if names - common
    }
    return {kind: shares for kind, shares in found.items() if shares}


def _find_differing(settings: list[Mapping[str, Any]]) -> set[str]:
    names = {name for one in settings for name in one}
    return {name for name in names if len({repr(one.get(name)) for one in settings}) > 1}


def _describe(trial: Trial) -> str:
    same = "" if trial.same_as is None else f"as trial {trial.same_as}"
    return same or (f"pruned after {len(trial.folds)}" if trial.state == "pruned" else "")


def _show(value: Any) -> str:
    return format_rate(value) if isinstance(value, float) else "steps" if value is None else str(value)
