"""The trials of a search, kept in a file of Optuna's, from which it goes on and which several processes share."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from zoo.data import mix_seeds
from zoo.errors import InputError
from zoo.files import Process

FILE = "study.db"
WAIT_SECONDS = 60  # for another process that writes
STARTUP = 8  # trials at random, before the scores guide the choice
IDENTITY = "identity"


@dataclass(frozen=True)
class Trial:
    """One choice of settings, and what came of it.

    Attributes:
        number: From 0.
        state: `complete`; `pruned`: it was clearly worse after some of the folds; `failed`; `running`.
        score: Cross-validated within the training images, higher is better; of a pruned one, that of its folds so far.
        folds: The score of each fold.
        settings: What was chosen, by field; those without an effect are left out.
        preset: The effective preset, as YAML; empty before it is known.
        digest: SHA-256 of that without its seed: equal settings have equal digests.
        outputs: SHA-256 of what the heads answered; equal answers are equal heads.
        seconds: It took.
        same_as: The earlier trial with the same settings, whose score was taken.
        error: Why it failed.
    """

    number: int
    state: str
    score: float | None = None
    folds: tuple[float, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    preset: str = ""
    digest: str = ""
    outputs: str = ""
    seconds: float = 0.0
    same_as: int | None = None
    error: str = ""

    @property
    def is_done(self) -> bool:
        """Whether it counts among those that were asked for."""
        return self.state != "running"


class Study:
    """Optuna's study in the folder of a search.

    Args:
        folder: Of the search.
        identity: What all trials have in common, in words and digests: a search with another one does not go on here.
        seed: Of the choices.

    Raises:
        InputError: Optuna is not installed, or the trials in the folder are of another search.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], seed: int) -> None:
        optuna = load_optuna()
        url = f"sqlite:///{(folder / FILE).absolute()}"
        storage = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": WAIT_SECONDS}})
        pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP // 2)
        self.seed, self.process = seed, asdict(Process.current())
        self.inner = optuna.create_study(
            storage=storage, study_name="zoo", direction="maximize", load_if_exists=True, pruner=pruner
        )
        self._check(folder, identity)

    def _check(self, folder: Path, identity: Mapping[str, Any]) -> None:
        known = self.inner.user_attrs.get(IDENTITY)
        if known is None:
            self.inner.set_user_attr(IDENTITY, dict(identity))
            return
        if differing := [name for name in identity if known.get(name) != identity[name]]:
            words = f"{', '.join(differing)} differ{'s' * (len(differing) == 1)}"
            raise InputError(
                f"{folder} holds the trials of another search: {words}. "
                "Scores would not be comparable. Repeat that search's options to go on with it, or choose another "
                "folder (--out, out=)."
            )

    def ask(self) -> Any:
        """Begin a trial, and return Optuna's; its choices depend on the seed, its number and the trials before it."""
        optuna = load_optuna()
        trial = self.inner.ask()
        trial.set_user_attr("process", self.process)
        self.inner.sampler = optuna.samplers.TPESampler(
            seed=mix_seeds(self.seed, trial.number) % 2**32, n_startup_trials=STARTUP, multivariate=False
        )
        return trial

    def tell(self, trial: Any, state: str, score: float | None = None, **facts: Any) -> None:
        """End a trial."""
        optuna = load_optuna()
        for name, value in facts.items():
            trial.set_user_attr(name, value)
        if state != "complete" and score is not None:
            trial.set_user_attr("score", score)
        states = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
        self.inner.tell(trial, score if state == "complete" else None, state=optuna.trial.TrialState[states[state]])

    def list_trials(self) -> list[Trial]:
        """Return all trials that ended, or that run in a process that is alive."""
        return [trial for frozen in self.inner.get_trials(deepcopy=False) if (trial := self._read(frozen)) is not None]

    def measure_importance(self, names: Sequence[str]) -> dict[str, float]:
        """Return how much of the scores' variance each of some settings explains, over the trials that have them all.

        Returns:
            Shares that add up to 1 (fANOVA); empty if there are too few trials, or all have the same score.
        """
        optuna = load_optuna()
        having = [one for one in self.inner.get_trials(deepcopy=False) if set(names) <= one.params.keys()]
        scores = {one.value for one in having if one.state.name == "COMPLETE"}
        varied = [name for name in names if len({one.params[name] for one in having}) > 1]
        if len(scores) < 2 or not varied:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=self.seed % 2**32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = optuna.importance.get_param_importances(self.inner, params=varied, evaluator=evaluator)
        return {name: float(share) for name, share in found.items()}

    def _read(self, frozen: Any) -> Trial | None:
        facts, state = frozen.user_attrs, frozen.state.name
        process = facts.get("process")
        if state == "RUNNING":
            is_alive = process is not None and Process(**process).is_running() is not False
            return Trial(frozen.number, "running") if is_alive else None
        if state == "FAIL" and not facts.get("error"):  # it was stopped
            return None
        names = ("settings", "preset", "digest", "outputs", "seconds", "same_as", "error")
        words = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
        known = {name: facts[name] for name in names if name in facts}
        score = frozen.value if state == "COMPLETE" else facts.get("score")
        return Trial(frozen.number, words[state], score, tuple(facts.get("folds", ())), **known)


def load_optuna() -> Any:
    """Return the module.

    Raises:
        InputError: It is not installed.
    """
    if missing := [name for name in ("optuna", "sklearn") if find_spec(name) is None]:
        raise InputError(f"a search needs {' and '.join(missing)}. Install: pip install 'zoo-finetune[search]'")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
