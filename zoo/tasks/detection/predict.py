"""The boxes on images and videos, printed, drawn and written down by the command `zoo predict`."""

from collections.abc import Iterator
from itertools import chain, groupby, takewhile
from pathlib import Path
from typing import Any

from zoo.tasks.answers import PredictFlags, printing_answers, saving_answers
from zoo.tasks.detection.result import DetectionResult, save_video
from zoo.tasks.detection.saving import make_savers


def print_boxes(model: Any, sources: Any, flags: PredictFlags) -> None:
    """Print, draw and write down what is found, one image at a time: a video does not have to fit into memory."""
    results = model.predict(sources, conf=flags.conf, iou=flags.iou, **flags.options)
    classes = tuple(model.classes) or tuple(map(str, range(model.num_classes)))
    savers = make_savers(classes, flags.coco_ids)
    with printing_answers(flags) as tell, saving_answers(flags, savers) as save:

        def keep(result: DetectionResult) -> DetectionResult:
            save(result)
            tell(result, result.to_dict())
            return result

        told = map(keep, takewhile(lambda _: not flags.is_stopped(), results))
        if flags.out is None or "images" not in flags.save:
            for _ in told:
                pass
        else:
            for _, same in groupby(told, key=lambda result: result.source):
                _draw(same, flags.out)


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
