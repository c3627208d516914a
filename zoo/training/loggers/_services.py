"""One class per experiment tracker: what accelerate's tracker of that name does not do, or does in its own way.

Project and run get the same names everywhere, unless the tracker's own environment variables say otherwise. A run that
is resumed goes on in the tracker's run that it began, found by `key`. A tracker's run that is open already is the
user's: it is logged to, and left open.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from accelerate.tracking import LOGGER_TYPE_TO_CLASS
from PIL import Image

from zoo.errors import TrainingError

PROJECT = "zoo"


class Service:
    """A tracker that follows one run.

    Args:
        folder: Of the run; its name is that of the tracker's run.
        key: What the tracker knows its run by, if this one goes on with it; else None.

    Attributes:
        attribute: Of accelerate's tracker, which holds the tracker's own object.
    """

    name: ClassVar[str]
    attribute: ClassVar[str] = "run"

    def __init__(self, folder: Path, key: str | None) -> None:
        self.folder, self.key = folder, key
        if self.name not in LOGGER_TYPE_TO_CLASS:
            raise TrainingError("this version of accelerate does not know it. Run: pip install -U accelerate")
        opened = self.find_open()
        self.is_users = opened is not None
        self.tracker: Any = LOGGER_TYPE_TO_CLASS[self.name](self.project, **self.options())
        if self.is_users:
            setattr(self.tracker, self.attribute, opened)
        else:
            self.tracker.start()

    @property
    def project(self) -> str:
        """What accelerate calls the name of the run, and all trackers but some the project."""
        return PROJECT

    @property
    def run_name(self) -> str:
        """The name of the run."""
        return self.folder.absolute().name

    @property
    def run(self) -> Any:
        """The tracker's own object."""
        return self.tracker.tracker

    def find_open(self) -> Any:
        """Return a run of the tracker that the user has opened; None if there is none."""
        return None

    def options(self) -> dict[str, Any]:
        """Return arguments of accelerate's tracker besides the project."""
        return {}

    def find_key(self) -> str | None:
        """Return what this run is found by when it is resumed; None: by its name or its folder."""
        return None

    def configure(self, values: Mapping[str, str]) -> None:
        """Log settings and plan."""
        self.tracker.store_init_configuration(dict(values))

    def log(self, values: Mapping[str, float], epoch: int) -> None:
        """Log metrics after an epoch."""
        self.tracker.log(dict(values), step=epoch)

    def log_image(self, name: str, path: Path, epoch: int) -> None:
        """Log a plot."""
        with Image.open(path) as image:
            self.tracker.log_images({name: [image.convert("RGB")]}, step=epoch)

    def log_files(self, paths: Sequence[Path]) -> None:
        """Store files of the run."""

    def finish(self) -> None:
        """Close the tracker's run, unless the user has opened it."""
        if not self.is_users:
            self.tracker.finish()


class TensorBoard(Service):
    """Writes event files into the run's folder; a resumed run adds to them."""

    name = "tensorboard"

    @property
    def project(self) -> str:
        """The last folder of the event files."""
        return self.run_name if "TENSORBOARD_LOGGING_DIR" in os.environ else self.name

    def options(self) -> dict[str, Any]:
        """Return the folder above."""
        return {"logging_dir": os.environ.get("TENSORBOARD_LOGGING_DIR", str(self.folder))}

    def find_key(self) -> str | None:
        """Return that there is something to go on with."""
        return self.name

    def configure(self, values: Mapping[str, str]) -> None:
        """Log settings as text: hyperparameters of TensorBoard would be a run of their own."""
        rows = [f"| {name} | {str(value).replace('|', '/')} |" for name, value in values.items()]
        self.run.add_text("settings", "\n".join(["| setting | value |", "|---|---|", *rows]))

    def log_image(self, name: str, path: Path, epoch: int) -> None:
        """Log a plot as pixels."""
        with Image.open(path) as image:
            self.run.add_image(name, np.asarray(image.convert("RGB")), epoch, dataformats="HWC")


class MLflow(Service):
    """Logs to the store that MLflow is set up for."""

    name = "mlflow"
    attribute = "active_run"

    def find_open(self) -> Any:
        """Return the active run."""
        import mlflow

        return mlflow.active_run()

    def options(self) -> dict[str, Any]:
        """Return the run, new or resumed."""
        return {"run_name": self.run_name, "run_id": self.key}

    def find_key(self) -> str | None:
        """Return the identifier of the run."""
        return str(self.run.info.run_id)

    def log_image(self, name: str, path: Path, epoch: int) -> None:
        """Store a plot."""
        self.tracker.log_artifact(str(path), "plots")

    def log_files(self, paths: Sequence[Path]) -> None:
        """Store them one by one."""
        for path in paths:
            self.tracker.log_artifact(str(path))


class Trackio(Service):
    """Logs to a local Trackio project, or to the Space that it is set up for."""

    name = "trackio"

    def options(self) -> dict[str, Any]:
        """Return the run by its name."""
        return {"name": self.run_name, "resume": "allow" if self.key else "never"}

    def find_key(self) -> str | None:
        """Return the name of the run."""
        return str(self.run.name)

    def log_image(self, name: str, path: Path, epoch: int) -> None:
        """Log a plot."""
        import trackio

        self.tracker.log({name: trackio.Image(path)}, step=epoch)


class WeightsAndBiases(Service):
    """Logs online or offline, as `WANDB_MODE` says."""

    name = "wandb"

    @property
    def project(self) -> str:
        """The project of the environment, or ours."""
        return os.environ.get("WANDB_PROJECT", PROJECT)

    def find_open(self) -> Any:
        """Return the current run."""
        import wandb

        return wandb.run

    def options(self) -> dict[str, Any]:
        """Return the run, new or resumed."""
        options = {"name": os.environ.get("WANDB_NAME", self.run_name)}
        return options | ({"id": self.key, "resume": "allow"} if self.key else {})

    def find_key(self) -> str | None:
        """Return the identifier of the run."""
        return str(self.run.id)

    def log_files(self, paths: Sequence[Path]) -> None:
        """Store them as one artifact."""
        import wandb

        artifact = wandb.Artifact(f"run-{self.run.id}", type="run")
        for path in paths:
            artifact.add_file(str(path))
        self.run.log_artifact(artifact)


class Comet(Service):
    """Logs to comet.com."""

    name = "comet_ml"

    @property
    def project(self) -> str:
        """The project of the environment, or ours."""
        return os.environ.get("COMET_PROJECT_NAME", PROJECT)

    def options(self) -> dict[str, Any]:
        """Return the experiment to go on with."""
        return {"experiment_key": self.key} if self.key else {}

    def find_key(self) -> str | None:
        """Return the key of the experiment, which gets its name here."""
        self.run.set_name(self.run_name)
        return str(self.run.get_key())

    def log_image(self, name: str, path: Path, epoch: int) -> None:
        """Log a plot."""
        self.run.log_image(str(path), name=name, step=epoch)

    def log_files(self, paths: Sequence[Path]) -> None:
        """Store them one by one."""
        for path in paths:
            self.run.log_asset(str(path), file_name=path.name)


class ClearML(Service):
    """Logs to the server that ClearML is set up for."""

    name = "clearml"

    def options(self) -> dict[str, Any]:
        """Return project and task, new or resumed."""
        names = {
            "project_name": os.environ.get("CLEARML_PROJECT", PROJECT),
            "task_name": os.environ.get("CLEARML_TASK", self.run_name),
        }
        return names | ({"continue_last_task": self.key} if self.key else {})

    def find_key(self) -> str | None:
        """Return the identifier of the task."""
        return str(self.run.id)

    def log_image(self, name: str, path: Path, epoch: int) -> None:
        """Log a plot."""
        self.run.get_logger().report_image("plots", name, iteration=epoch, local_path=str(path))

    def log_files(self, paths: Sequence[Path]) -> None:
        """Store them one by one."""
        for path in paths:
            self.run.upload_artifact(path.name, str(path))


class DVCLive(Service):
    """Writes into the run's folder; a resumed run adds to it."""

    name = "dvclive"

    def options(self) -> dict[str, Any]:
        """Return the folder."""
        return {"dir": str(self.folder / self.name), "resume": self.key is not None}

    def find_key(self) -> str | None:
        """Return that there is something to go on with."""
        return self.name

    def log_image(self, name: str, path: Path, epoch: int) -> None:
        """Log a plot."""
        self.run.log_image(f"{name}.png", str(path))


class Aim(Service):
    """Logs to the Aim repository of the working folder, or to that of `AIM_REPO`."""

    name = "aim"

    @property
    def project(self) -> str:
        """What accelerate gives to the run as its name."""
        return self.run_name

    def options(self) -> dict[str, Any]:
        """Return where it goes, and the run to go on with."""
        where = {"logging_dir": os.environ.get("AIM_REPO", "."), "experiment": PROJECT}
        return where | ({"run_hash": self.key} if self.key else {})

    def find_key(self) -> str | None:
        """Return the hash of the run."""
        return str(self.run.hash)

    def log_image(self, name: str, path: Path, epoch: int) -> None:
        """Log a plot."""
        with Image.open(path) as image:
            self.tracker.log_images({name: image.convert("RGB")}, step=epoch)


SERVICES: Mapping[str, type[Service]] = {
    kind.name: kind for kind in (TensorBoard, MLflow, Trackio, WeightsAndBiases, Comet, ClearML, DVCLive, Aim)
}
