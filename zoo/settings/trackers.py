"""Which experiment trackers a run may log to, and whether they are installed; nothing of them is imported here."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Annotated, NamedTuple, TypeAlias

from pydantic import AfterValidator, BeforeValidator

from zoo._fields import Words
from zoo.errors import InputError, did_you_mean


class Tracker(NamedTuple):
    """What a tracker needs.

    Attributes:
        title: Its name in prose.
        modules: One of these has to be there.
        install: What pip installs.
    """

    title: str
    modules: tuple[str, ...]
    install: str


TRACKERS = {
    "aim": Tracker("Aim", ("aim",), "aim"),
    "clearml": Tracker("ClearML", ("clearml",), "clearml"),
    "comet_ml": Tracker("Comet", ("comet_ml",), "comet-ml"),
    "dvclive": Tracker("DVCLive", ("dvclive",), "dvclive"),
    "mlflow": Tracker("MLflow", ("mlflow",), "mlflow"),
    "tensorboard": Tracker("TensorBoard", ("tensorboard", "tensorboardX"), "tensorboard"),
    "trackio": Tracker("Trackio", ("trackio",), "trackio"),
    "wandb": Tracker("Weights & Biases", ("wandb",), "wandb"),
}


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that are not installed.

    Raises:
        InputError: With the command that installs them.
    """
    missing = [TRACKERS[name] for name in names if not any(map(find_spec, TRACKERS[name].modules))]
    if missing:
        titles = " and ".join(tracker.title for tracker in missing)
        verb = "is" if len(missing) == 1 else "are"
        commands = " ".join(tracker.install for tracker in missing)
        raise InputError(f"log: {titles} {verb} not installed. Run: pip install {commands}")


def _parse_names(said: object) -> object:
    """Return names that are separated by commas as a list; anything else as it is."""
    if isinstance(said, str):
        return [name.strip() for name in said.split(",") if name.strip()]
    return list(said) if isinstance(said, tuple) else said


def _check_names(names: Sequence[str]) -> list[str]:
    """Return the names of trackers, each once.

    Raises:
        ValueError: One is unknown.
    """
    for name in names:
        if name not in TRACKERS:
            raise ValueError(f"unknown tracker {name!r}.{did_you_mean(name, TRACKERS)} Known: {', '.join(TRACKERS)}.")
    return list(dict.fromkeys(names))


TrackerNames: TypeAlias = Annotated[
    list[str],
    BeforeValidator(_parse_names),
    AfterValidator(_check_names),
    Words("a list of trackers, or their names with commas between them"),
]
