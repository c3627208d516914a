"""What is a classifier's own in a run: how its data is opened, its loss, its scores and its pictures."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn

from zoo.batches import Supply, make_supply
from zoo.checkpoint import RunFolder
from zoo.data import Data, open_data
from zoo.errors import InputError
from zoo.images import Images
from zoo.loader import make_loader
from zoo.loop import run_batches
from zoo.lr_plan import Plan
from zoo.metrics import ClassificationMetrics, Evaluation
from zoo.pictures import Mistake, draw_confusion, draw_mistakes
from zoo.preprocess import Preprocess, eval_transform
from zoo.preset import Preset, refuse_fields
from zoo.progress import Progress

MOST_MISTAKES = 24
OF_DETECTORS = ("loss_params", "photometric", "zoom_out", "iou_crop", "scale_jitter", "multi_scale", "mosaic", "mixup")


@dataclass(frozen=True)
class Miss:
    """An image whose most probable class is wrong.

    Attributes:
        index: Its place in the data set.
        target: The true class.
        predicted: The most probable one.
        confidence: How probable, 0 to 1.
    """

    index: int
    target: int
    predicted: int
    confidence: float


class Classification:
    """The task of saying which of several classes an image is of; see `zoo.tasks.Task`."""

    name = "classification"
    columns: Mapping[str, str] = {"top1": "top-1"}
    curves: Mapping[str, str] = {"top1": "top-1", "top5": "top-5"}
    defaults: Mapping[str, Any] = {}
    scoring_batch = 64

    def open_data(self, source: Any, **options: Any) -> Data:
        """Open what `zoo.data.open_data` opens."""
        return open_data(source, **options)

    def tell(self, data: Data, show: Progress) -> None:
        """Say nothing more."""

    def check_preset(self, preset: Preset) -> None:
        """Refuse fields that only other tasks know."""
        refuse_fields(preset, (*OF_DETECTORS, "plain_epochs"), "a classifier")

    def choose_preprocess(self, model: Any, preset: Preset) -> Preprocess:
        """Return the weights' preprocessing with the preset's size and crop, and keep it with the model."""
        own = getattr(model, "preprocess", None)
        changes = {"image_size": preset.image_size, "crop_pct": preset.crop_pct}
        preprocess = own if isinstance(own, Preprocess) else Preprocess()
        preprocess = preprocess.replace(**{key: value for key, value in changes.items() if value is not None})
        if own is None or isinstance(own, Preprocess):
            model.preprocess = preprocess
        return preprocess

    def make_supply(
        self,
        model: nn.Module,
        data: Data,
        preset: Preset,
        plan: Plan,
        accelerator: Accelerator,
        show: Progress,
        folder: RunFolder,
    ) -> Supply:
        """Return where batches come from."""
        return make_supply(model, data, preset, plan, self.choose_preprocess(model, preset), accelerator, show)

    def make_loss(
        self, model: nn.Module, classes: Sequence[str], preset: Preset, compile: Callable[[Any], Any] | None = None
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the model's own loss, or cross-entropy for a module that has none."""
        own: Callable[..., Tensor] = getattr(model, "loss", nn.functional.cross_entropy)
        own = own if compile is None else compile(own)

        def loss(outputs: Tensor, targets: Tensor) -> Tensor:
            expected = (len(targets), len(classes))
            if outputs.shape != expected:
                raise InputError(
                    f"the model gives outputs of shape {tuple(outputs.shape)} for {len(targets)} images; expected "
                    f"{expected}: one number for each of the {len(classes)} classes."
                )
            return own(outputs, targets, label_smoothing=preset.label_smoothing)

        return loss

    def load_for_scoring(self, model: Any, images: Images, **options: Any) -> Any:
        """Return batches of images that are not augmented."""
        return make_loader(images, eval_transform(model.preprocess), **options)

    def score(
        self,
        network: nn.Module,
        batches: Iterable[Any],
        accelerator: Accelerator,
        *,
        model: Any,
        classes: Sequence[str],
        images: Images | None,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> tuple[Evaluation, list[Miss]]:
        """Return the scores over all batches, and the misses, the most confident first."""
        return score(network, batches, accelerator, tuple(classes))

    def draw(self, folder: RunFolder, evaluation: Evaluation, misses: Sequence[Miss], images: Images | None) -> None:
        """Draw the confusion matrix and the most confident mistakes."""
        draw_confusion(evaluation.confusion, evaluation.classes, folder.pictures / "confusion.png")
        if images is not None:
            sheet = [_show(miss, images, evaluation.classes) for miss in misses[:MOST_MISTAKES]]
            draw_mistakes(sheet, folder.pictures / "mistakes.png")


def score(
    network: nn.Module, batches: Iterable[Any], accelerator: Accelerator, classes: tuple[str, ...]
) -> tuple[Evaluation, list[Miss]]:
    """Return the scores over all batches, and the misses, the most confident first."""
    metrics = ClassificationMetrics(classes, accelerator.device)
    misses: list[Miss] = []
    seen = 0
    for outputs, targets in run_batches(network, batches, accelerator):
        if outputs.ndim != 2 or outputs.shape[1] != len(classes):
            raise InputError(f"the model gives outputs of shape {tuple(outputs.shape)}; expected (B, {len(classes)}).")
        metrics.update(outputs, targets)
        best = outputs.float().softmax(-1).max(-1)
        wrong = (best.indices != targets).nonzero().flatten()
        columns = (wrong + seen, targets[wrong], best.indices[wrong], best.values[wrong])
        misses += [Miss(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]
        seen += len(targets)
    return metrics.compute(), sorted(misses, key=lambda miss: -miss.confidence)


def _show(miss: Miss, images: Images, classes: Sequence[str]) -> Mistake:
    picture, _ = images.read(miss.index)
    return Mistake(
        image=picture,
        truth=classes[miss.target],
        predicted=classes[miss.predicted],
        confidence=miss.confidence,
        name=images.names[miss.index],
    )
