"""What is left of a run to look at: pictures in its folder and the last lines on the screen."""

from collections.abc import Mapping, Sequence
from typing import Any

from zoo.checkpoint import RunFolder
from zoo.evaluation import Miss
from zoo.images import Images
from zoo.metrics import Evaluation
from zoo.pictures import Mistake, draw_confusion, draw_curves, draw_mistakes, draw_rates

MOST_MISTAKES = 24


def draw_run(
    folder: RunFolder,
    records: Sequence[Mapping[str, Any]],
    rates: Mapping[str, Sequence[float]],
    steps_per_epoch: int,
    evaluation: Evaluation | None,
    misses: Sequence[Miss],
    images: Images | None,
) -> None:
    """Draw curves, rates, the confusion matrix and the most confident mistakes into the run's folder."""
    pictures = folder.pictures
    draw_curves(records, pictures / "curves.png")
    draw_rates(rates, pictures / "rates.png", steps_per_epoch=steps_per_epoch)
    if evaluation is None:
        return
    draw_confusion(evaluation.confusion, evaluation.classes, pictures / "confusion.png")
    if images is not None:
        sheet = [_show(miss, images, evaluation.classes) for miss in misses[:MOST_MISTAKES]]
        draw_mistakes(sheet, pictures / "mistakes.png")


def _show(miss: Miss, images: Images, classes: Sequence[str]) -> Mistake:
    picture, _ = images.read(miss.index)
    return Mistake(
        image=picture,
        truth=classes[miss.target],
        predicted=classes[miss.predicted],
        confidence=miss.confidence,
        name=images.names[miss.index],
    )
