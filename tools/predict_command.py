"""The command `zoo predict`: what a model says of images, printed, as data, and drawn."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import zoo
from zoo._text import warn
from zoo.errors import InputError
from zoo.files import to_path

from .given_options import refuse_unused

if TYPE_CHECKING:
    from zoo.data import Source

FLAGS = {"out", "conf", "iou", "top"}  # which of them mean something, the task says
MOST_NAMED = 20  # of images that were left out


def predict(
    context: typer.Context,
    model_or_run: Annotated[str, typer.Argument(help="The folder of a run, or a model's name.")],
    sources: Annotated[list[str], typer.Argument(help="Images, folders, patterns; for a detector also videos.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Detectors: a folder for drawn images and predictions.json.")
    ] = None,
    conf: Annotated[float | None, typer.Option(help="Detectors: least score, 0 to 1.")] = None,
    iou: Annotated[float | None, typer.Option(help="Detectors: overlap from which two boxes are one thing.")] = None,
    top: Annotated[int | None, typer.Option(help="Classifiers: names per image, by default 3.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the input in pixels; else the model's own.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out what cannot be read, and name it at the end.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answers as data.")] = False,
) -> None:
    """Say what is on images: names, or names and boxes.

    An image that cannot be read ends the command, after the answers for those before it; with --skip-bad it is left
    out.

    \b
    Examples:
      zoo predict runs/flowers photo.jpg
      zoo predict mobilenetv2_100 photos/ --top 5
      zoo predict runs/cells photos/ -o found --conf 0.4 --skip-bad
      zoo predict runs/cells 'photos/*.png' clip.mp4 -o found
    """  # noqa: D301
    from zoo.tasks import PredictFlags, task_of

    model = load_model(model_or_run)
    task = task_of(model)
    refuse_unused(context, FLAGS - task.flags, f"for a model of {task.name}.")
    from zoo.data import UnreadableError
    from zoo.engine import make_accelerator

    model.to(make_accelerator(device).device)
    found = _list_sources(sources)
    left_out = LeftOut()
    options = {"image_size": image_size, "stream": True, "skip_bad": left_out if skip_bad else False}
    flags = PredictFlags(out=out, conf=conf, iou=iou, top=top, as_json=as_json, options=options)
    try:
        task.predict_command(model, found, flags)
    except UnreadableError as error:
        hint = " --skip-bad leaves out what cannot be read." if len(found) > 1 else ""
        raise InputError(f"{error}.{hint}" if hint else str(error)) from error
    finally:
        left_out.report(len(found))
    if len(left_out.errors) == len(found):
        raise InputError("no image could be read.")


def load_model(model_or_run: str) -> Any:
    """Return the model of a run's folder or of a file of weights, or a pretrained one by its name."""
    from zoo.training import read_record

    path = to_path(model_or_run)
    if os.path.isfile(path):
        raise InputError(
            f"{path} is a file; expected the folder of a run, or a model's name. zoo convert {path} -o DIR makes a "
            "folder of a super-gradients checkpoint."
        )
    if not os.path.exists(path):
        return zoo.get(model_or_run, pretrained=True)
    if read_record(path).get("status") == "interrupted":
        warn(f"note: the run in {path} was interrupted; its weights are those of that moment")
    return zoo.load(path)


@dataclass
class LeftOut:
    """The images that could not be read.

    Attributes:
        errors: What each is called, and what is wrong with it.
    """

    errors: list[str] = field(default_factory=list)

    def __call__(self, error: InputError) -> None:
        """Note one."""
        self.errors.append(str(error))

    def report(self, count: int) -> None:
        """Name them on standard error.

        Args:
            count: Of all that was given.
        """
        if not self.errors:
            return
        warn(f"left out {len(self.errors):,} of {count:,}:")
        for error in self.errors[:MOST_NAMED]:
            warn(f"  {error}")
        if len(self.errors) > MOST_NAMED:
            warn(f"  and {len(self.errors) - MOST_NAMED:,} more")


def _list_sources(words: list[str]) -> "list[Source]":
    """Return what was given, and tell what of its folders is passed over."""
    from zoo.data import find_sources, is_video

    others: list[Path] = []
    found = find_sources(words, others.append)
    videos = [file for file in others if is_video(file)]
    foreign = [file for file in others if not is_video(file)]
    if videos:
        warn(f"videos passed over: {len(videos):,}, such as {str(videos[0])!r}. Pass them by their paths or a pattern.")
    if foreign:
        warn(f"files passed over, as they are no images: {len(foreign):,}, such as {str(foreign[0])!r}")
    return found
