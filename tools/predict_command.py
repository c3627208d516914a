"""The command `zoo predict`: what a model says of images, printed, as data, and drawn."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import zoo
from zoo._text import echo, warn
from zoo.errors import InputError
from zoo.files import dump_json, to_path

from .given_options import refuse_unused

if TYPE_CHECKING:
    from zoo.data import Source
    from zoo.tasks.detection import DetectionResult

PREDICTIONS = "predictions.json"
FOREIGN = {"classification": {"conf", "iou", "out"}, "detection": {"top"}}
MOST_NAMED = 20  # of images that were left out


def predict(
    context: typer.Context,
    model_or_run: Annotated[str, typer.Argument(help="The folder of a run, or a model's name.")],
    sources: Annotated[list[str], typer.Argument(help="Images, folders, patterns; for a detector also videos.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Detectors: a folder for drawn pictures and predictions.json.")
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
    from zoo.tasks import task_of

    model = load_model(model_or_run)
    task = task_of(model).name
    refuse_unused(context, FOREIGN[task], f"for a model of {task}.")
    from zoo.data import UnreadableError
    from zoo.engine import make_accelerator

    model.to(make_accelerator(device).device)
    found = _list_sources(sources)
    left_out = LeftOut()
    options = {"image_size": image_size, "stream": True, "skip_bad": left_out if skip_bad else False}
    try:
        if task == "detection":
            results = model.predict(found, conf=conf, iou=iou, **options)
            _find(results, None if out is None else _open_folder(out), as_json)
        else:
            _name(model.predict(found, top_k=3 if top is None else top, **options), as_json)
    except UnreadableError as error:
        hint = " --skip-bad leaves out what cannot be read." if len(found) > 1 else ""
        raise InputError(f"{error}.{hint}" if hint else str(error)) from error
    finally:
        left_out.tell(len(found))
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

    def tell(self, count: int) -> None:
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


def _open_folder(out: Path) -> Path:
    """Return the folder for pictures and predictions, made if need be; those of an earlier command are kept."""
    from zoo.files import make_folder

    folder = make_folder(to_path(out))
    if (folder / PREDICTIONS).exists():
        raise InputError(f"{folder / PREDICTIONS} exists, of an earlier command. Choose another folder, or remove it.")
    return folder


def _name(answers: Iterable[Any], as_json: bool) -> None:
    records: list[dict[str, Any]] = []
    with _printing(records, as_json):
        for answer in answers:
            records.append(vars(answer))
            if not as_json:
                echo(str(answer))


def _find(results: "Iterator[DetectionResult]", out: Path | None, as_json: bool) -> None:
    """Print, draw and write down what is found, one picture at a time: a video does not have to fit into memory."""
    records: list[dict[str, Any]] = []
    with _printing(records, as_json), _writing(records, out, as_json):
        for _, same in groupby(results, key=lambda result: result.source):
            kept = _telling(same, records, as_json=as_json)
            if out is None:
                for _ in kept:
                    pass
            else:
                _draw(kept, out)


def _draw(results: "Iterator[DetectionResult]", out: Path) -> None:
    """Save the pictures of one source, or the video that they are the frames of."""
    from zoo.tasks.detection import save_video

    first = next(results)
    if first.frame is None:
        for result in chain((first,), results):
            result.save(out)
        return
    video = out / f"{Path(first.file).parent}.mp4"
    video.parent.mkdir(parents=True, exist_ok=True)
    save_video(chain((first,), results), video)


def _telling(
    results: "Iterator[DetectionResult]", records: list[dict[str, Any]], *, as_json: bool
) -> "Iterator[DetectionResult]":
    """Pass results on, and print and record each."""
    for result in results:
        records.append(result.to_dict())
        if not as_json:
            echo(str(result))
        yield result


@contextmanager
def _printing(records: list[dict[str, Any]], as_json: bool) -> Iterator[None]:
    """Print the records as data when the block ends, also by an error: what was found is found."""
    try:
        yield
    finally:
        if as_json:
            echo(dump_json(records, indent=1), lines=True)


@contextmanager
def _writing(records: list[dict[str, Any]], out: Path | None, as_json: bool) -> Iterator[None]:
    """Write the records into a folder when the block ends; if an error ends it, what there is until then."""
    from zoo.files import write_file

    if out is None:
        yield
        return
    try:
        yield
    except BaseException:
        if records:
            write_file(out / PREDICTIONS, dump_json(records, indent=1) + "\n")
            warn(f"what was found before is kept: {len(records):,} records in {out / PREDICTIONS}")
        raise
    write_file(out / PREDICTIONS, dump_json(records, indent=1) + "\n")
    echo(f"drawn into {out}, with {PREDICTIONS}", err=as_json)
