"""The command `zoo predict`: what a model says of images, printed, as data, and drawn."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo._text import warn
from zoo.errors import InputError, did_you_mean

from .completion import complete_run
from .given_options import refuse_unused
from .listing import AsJson
from .places import check_order, load_model

if TYPE_CHECKING:
    from zoo.tasks import Task

FLAGS = {
    "out",
    "save",
    "coco_ids",
    "conf",
    "iou",
    "top_k",
    "tiles",
    "overlap",
}  # which of them mean something, the task says
STOPPED = 130  # exit code after Ctrl-C
MOST_NAMED = 20  # of images that were left out
DEFAULT_WAYS = ("images", "json")


# Long: an option takes several lines.
def predict(
    context: typer.Context,
    model_or_run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="A run, a model's name, or an export.", autocompletion=complete_run),
    ],
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Images, folders, or patterns such as 'photos/*.jpg'; videos; a camera (0) or stream (rtsp://...).",
        ),
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
    save: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="What to write to --out: images, json, csv; detectors also coco (results), yolo (labels) and crops.",
            show_default="images,json",
        ),
    ] = None,
    coco_ids: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --save coco: use the ids of images and categories of this COCO file.",
            show_default="ids from the file names, and class numbers from 1",
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
    tiles: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS",
            help="Detectors: look at larger images in overlapping tiles of this side.",
            show_default="resize the whole image",
        ),
    ] = None,
    overlap: Annotated[
        float, typer.Option(metavar="0-0.9", help="Overlap of neighbouring tiles, as a share of their side.")
    ] = 0.2,
    tta: Annotated[
        bool,
        typer.Option("--tta", help="Test-time augmentation: look at mirrored images, too; detectors also smaller."),
    ] = False,
    batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Images per forward pass; halved when memory runs out.",
            show_default="32 for classifiers, 8 for detectors",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", help="Images that are read at the same time.", show_default="one per CPU, at most 8"),
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or mps.")] = "auto",
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out images that cannot be read, and list them at the end.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="As --skip-bad, but exit with 1 if an image was left out.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Predict classes or boxes for images, folders or videos.

    Prints one line per image. Videos are for detectors only. Ctrl-C ends with what was done.

    \b
    Examples:
      zoo predict runs/flowers photo.jpg
      zoo predict mobilenetv2_100 photos/ --top-k 5
      zoo predict runs/cells photos/ -o found --conf 0.4 --skip-bad
      zoo predict runs/cells 'photos/*.png' clip.mp4 -o found
      zoo predict runs/cells photos/ -o found --save csv,yolo
      zoo predict runs/cells scans/ --tiles 640 --overlap 0.2
      zoo predict runs/cells 0 -o found
    """  # noqa: D301
    from zoo.tasks import PredictFlags, task_of

    check_order("predict", model_or_run, sources[0])
    model = load_model(model_or_run, device=device)
    task = task_of(model)
    refuse_unused(context, FLAGS - task.flags, f"for a {task.card.noun}.")
    if tiles is None:
        refuse_unused(context, {"overlap"}, "without --tiles.")
    ways = _list_ways(save, coco_ids, task, out)
    from zoo.data import StopRequest, UnreadableError, has_stream, is_video
    from zoo.engine import make_accelerator

    model.to(make_accelerator(device).device)
    count = _count_sources(sources)
    left_out = LeftOut()
    is_live = has_stream(sources)
    goes_on = skip_bad or strict or is_live  # what a stream gave before it broke off is kept, and the video of it
    options: dict[str, Any] = {"image_size": image_size, "tta": tta, "workers": workers, "stream": True}
    options["skip_bad"] = left_out if goes_on else False
    options |= {} if batch_size is None else {"batch_size": batch_size}
    options |= {} if tiles is None else {"tiles": tiles, "overlap": overlap}
    stop = StopRequest()
    flags = PredictFlags(
        out=out,
        save=ways,
        coco_ids=coco_ids,
        conf=conf,
        iou=iou,
        top_k=top_k,
        as_json=as_json,
        total=0 if is_live or any(map(is_video, sources)) else count,
        is_stopped=lambda: stop.asked,
        options=options,
    )
    try:
        with stop:
            task.predict_command(model, sources, flags)
    except UnreadableError as error:
        hint = " --skip-bad leaves out what cannot be read." if count > 1 else ""
        raise InputError(f"{error}.{hint}" if hint else str(error)) from error
    finally:
        if not is_live:
            left_out.report(count)
    if is_live and left_out.count:
        raise InputError(left_out.errors[0])
    if left_out.count == count:
        raise InputError("no image could be read.")
    if stop.asked:
        warn("stopped")
    return STOPPED if stop.asked else int(strict and left_out.count > 0)


@dataclass
class LeftOut:
    """The images that could not be read.

    Attributes:
        count: How many.
        errors: What the first of them are called, and what is wrong with them.
    """

    count: int = 0
    errors: list[str] = field(default_factory=list)

    def __call__(self, error: InputError) -> None:
        """Note one."""
        self.count += 1
        if self.count <= MOST_NAMED:
            self.errors.append(str(error))

    def report(self, count: int) -> None:
        """Name them on standard error.

        Args:
            count: Of all that was given.
        """
        if not self.count:
            return
        warn(f"left out {self.count:,} of {count:,}:")
        for error in self.errors:
            warn(f"  {error}")
        if self.count > len(self.errors):
            warn(f"  and {self.count - len(self.errors):,} more")


def _list_ways(save: str | None, coco_ids: Path | None, task: "Task", out: Path | None) -> tuple[str, ...]:
    """Return what is to be written, each once."""
    if save is not None and out is None:
        raise InputError("--save needs a folder to write to. Add --out FOLDER.")
    ways = tuple(dict.fromkeys(way.strip() for way in save.split(","))) if save is not None else DEFAULT_WAYS
    for way in ways:
        if way not in task.saves:
            expected = ", ".join(task.saves)
            hint = did_you_mean(way, task.saves)
            raise InputError(f"--save {way!r} is not written for a {task.card.noun}; expected {expected}.{hint}")
    if coco_ids is not None and "coco" not in ways:
        raise InputError("--coco-ids has no effect without --save coco. Leave it out, or add coco to --save.")
    return ways


def _count_sources(words: list[str]) -> int:
    """Return how many images and videos were given, and tell what of their folders is passed over."""
    from zoo.data import count_sources, is_video

    videos, foreign = (0, ""), (0, "")

    def note(file: Path) -> None:
        nonlocal videos, foreign
        if is_video(file):
            videos = videos[0] + 1, videos[1] or str(file)
        else:
            foreign = foreign[0] + 1, foreign[1] or str(file)

    count = count_sources(words, note)
    if videos[0]:
        warn(f"videos passed over: {videos[0]:,}, such as {videos[1]!r}. Pass them by their paths or a pattern.")
    if foreign[0]:
        warn(f"files passed over, as they are no images: {foreign[0]:,}, such as {foreign[1]!r}")
    return count
