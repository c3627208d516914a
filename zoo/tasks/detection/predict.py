"""The boxes on images and videos, printed, drawn and written down by the command `zoo predict`."""

from collections.abc import Iterator, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from zoo._text import echo
from zoo.data import Source
from zoo.tasks.answers import PredictFlags, open_answers, printing_records, writing_records
from zoo.tasks.detection.result import DetectionResult, save_video


def print_boxes(model: Any, sources: Sequence[Source], flags: PredictFlags) -> None:
    """Print, draw and write down what is found, one image at a time: a video does not have to fit into memory."""
    results = model.predict(sources, conf=flags.conf, iou=flags.iou, **flags.options)
    out, as_json = None if flags.out is None else open_answers(flags.out), flags.as_json
    with printing_records(as_json) as records, writing_records(records, out, as_json):
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
