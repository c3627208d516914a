"""The command `zoo predict`: what a model says of images, printed, as data, and drawn."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo._text import warn
from zoo.errors import InputError

from .completion import complete_run
from .given_options import refuse_unused
from .listing import AsJson
from .places import check_order, load_model

if TYPE_CHECKING:
    from zoo.data import Source

FLAGS = {"out", "conf", "iou", "top_k"}  # which of them mean something, the task says
MOST_NAMED = 20  # of images that were left out


# Long: an option takes several lines.
def predict(
    context: typer.Context,
    model_or_run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="The folder of a run, or a model's name.", autocompletion=complete_run),
    ],
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help="Images, folders, or patterns such as 'photos/*.jpg'; also videos."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FOLDER",
            help="Also draw the predictions, and write them to predictions.json, in this folder.",
            show_default="print only",
        ),
    ] = None,
    conf: Annotated[
        float | None,
        typer.Option(metavar="0-1", help="Detectors: confidence threshold.", show_default="the model's, mostly 0.25"),
    ] = None,
    iou: Annotated[
        float | None,
        typer.Option(
            metavar="0-1", help="Detectors: IoU threshold of non-maximum suppression.", show_default="the model's"
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option("--top-k", "--top", metavar="N", help="Classifiers: classes to show per image.", show_default="3"),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="Side of the input images.", show_default="the model's")
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or mps.")] = "auto",
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out images that cannot be read, and list them at the end.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Predict classes or boxes for images, folders or videos.

    Prints one line per image. Videos are for detectors only.

    \b
    Examples:
      zoo predict runs/flowers photo.jpg
      zoo predict mobilenetv2_100 photos/ --top-k 5
      zoo predict runs/cells photos/ -o found --conf 0.4 --skip-bad
      zoo predict runs/cells 'photos/*.png' clip.mp4 -o found
    """  # noqa: D301
    from zoo.tasks import PredictFlags, task_of

    check_order("predict", model_or_run, sources[0])
    model = load_model(model_or_run, device=device)
    task = task_of(model)
    refuse_unused(context, FLAGS - task.flags, f"for a {task.card.noun}.")
    from zoo.data import UnreadableError
    from zoo.engine import make_accelerator

    model.to(make_accelerator(device).device)
    found = _list_sources(sources)
    left_out = LeftOut()
    options = {"image_size": image_size, "stream": True, "skip_bad": left_out if skip_bad else False}
    flags = PredictFlags(out=out, conf=conf, iou=iou, top_k=top_k, as_json=as_json, options=options)
    try:
        task.predict_command(model, found, flags)
    except UnreadableError as error:
        hint = " --skip-bad leaves out what cannot be read." if len(found) > 1 else ""
        raise InputError(f"{error}.{hint}" if hint else str(error)) from error
    finally:
        left_out.report(len(found))
    if len(left_out.errors) == len(found):
        raise InputError("no image could be read.")


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
