"""The boxes on images and videos, printed, drawn and written down by the command `zoo predict`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from zoo._text import echo, warn
from zoo.data import Source
from zoo.errors import InputError
from zoo.files import dump_json, make_folder, to_path, write_file
from zoo.tasks.answers import PredictFlags, printing_records
from zoo.tasks.detection.result import DetectionResult, save_video

PREDICTIONS = "predictions.json"


def print_boxes(model: Any, sources: Sequence[Source], flags: PredictFlags) -> None:
    """Print, draw and write down what is found, one image at a time: a video does not have to fit into memory."""
    results = model.predict(sources, conf=flags.conf, iou=flags.iou, **flags.options)
    out, as_json = None if flags.out is None else _open_folder(flags.out), flags.as_json
    with printing_records(as_json) as records, _writing(records, out, as_json):
        for _, same in groupby(results, key=lambda result: result.source):
            kept = _telling(same, records, as_json=as_json)
            if out is None:
                for _ in kept:
                    pass
            else:
                _draw(kept, out)


def _draw(results: Iterator[DetectionResult], out: Path) -> None:
    """Save the images of one source, or the video that they are the frames of."""
    first = next(results)
    if first.frame is None:
        for result in chain((first,), results):
            result.save(out)
        return
    video = out / f"{Path(first.file).parent}.mp4"
    video.parent.mkdir(parents=True, exist_ok=True)
    save_video(chain((first,), results), video)


def _telling(
    results: Iterator[DetectionResult], records: list[dict[str, Any]], *, as_json: bool
) -> Iterator[DetectionResult]:
    """Pass results on, and print and record each."""
    for result in results:
        records.append(result.to_dict())
        if not as_json:
            echo(str(result))
        yield result


def _open_folder(out: Path) -> Path:
    """Return the folder for images and predictions, made if need be; those of an earlier command are kept."""
    folder = make_folder(to_path(out))
    if (folder / PREDICTIONS).exists():
        raise InputError(f"{folder / PREDICTIONS} exists, of an earlier command. Choose another folder, or remove it.")
    return folder


@contextmanager
def _writing(records: list[dict[str, Any]], out: Path | None, as_json: bool) -> Iterator[None]:
    """Write the records into a folder when the block ends; if an error ends it, what there is until then."""
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
