"""The plots of labels: which are named where another one is, and the images whose labels are most wrong."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from zoo.data import Images
from zoo.tasks.classification.mixing import Mixing
from zoo.tasks.classification.multi_label.evaluator import WrongLabels
from zoo.tasks.classification.multi_label.metrics import MultiLabelEvaluation
from zoo.tasks.classification.plots import Tile, draw_batch
from zoo.tasks.confusion_plot import draw_confusion

NONE = "none"  # what images without labels are called


def draw_cooccurrence(evaluation: MultiLabelEvaluation, path: Path) -> None:
    """Draw how often each label is named on the images of each label, as a matrix."""
    counts = [label.images for label in evaluation.labels]
    title = f"Labels named on the images of each label: mAP {evaluation.map:.1%} on {evaluation.images:,} images"
    draw_confusion(evaluation.cooccurrence, evaluation.classes, path, title=title, totals=counts)


def show_wrong(wrong: WrongLabels, images: Images, classes: Sequence[str]) -> Tile:
    """Return a tile with the named and the true labels of an image."""
    image, _ = images.read(wrong.index)
    return Tile(
        image=image,
        truth=join_names(wrong.true, classes),
        predicted=join_names(wrong.named, classes),
        confidence=None,
        name=images.names[wrong.index],
    )


def draw_training(batch: Tensor, targets: Tensor, path: Path, *, classes: Sequence[str], mix: Mixing | None) -> None:
    """Draw the first batch of a run, uint8 `(B, 3, H, W)` before it is mixed, with its labels."""
    if mix is not None:
        batch, targets = mix.on_bytes(batch, targets)
    names = [join_names(row.nonzero().flatten().tolist(), classes) for row in targets]
    draw_batch(batch.cpu(), names, path)


def join_names(numbers: Sequence[int], classes: Sequence[str]) -> str:
    """Return the names of some labels in one line."""
    return ", ".join(classes[number] for number in numbers) or NONE
