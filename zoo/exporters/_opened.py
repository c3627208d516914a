"""An exported file as a model: what it takes and gives is what every model of its task does, run by its runtime.

`forward` takes images as the network took them, and gives what the network gave, as far as the file tells: logits of a
classifier, boxes of a detector after suppression. So `predict` and `zoo.evaluate` need to know nothing of files.
"""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from zoo.data import Letterbox, OnBad, Preprocess
from zoo.errors import InputError
from zoo.exporters._facts import Facts
from zoo.exporters._graph_file import GraphFile
from zoo.models import Detector, FusedCopy, Look, Model, ModelConfig, predict_classes
from zoo.tasks.detection import VALIDATION, Postprocess, Predictions, Views
from zoo.weights import Licence

NEARLY = 0.05  # of 255: how far the pixels of a normalised image may be from bytes
TINY = torch.finfo(torch.float32).tiny  # of probabilities: their logarithm is finite


class Runner:
    """Runs a file on images as a network takes them: brings them into the form of the file first.

    Args:
        graph: The open file.
        facts: What is known of it.

    Attributes:
        path: Of the file.
        batch: Images that it takes at a time; None: any number.
    """

    def __init__(self, graph: GraphFile, facts: Facts) -> None:
        self.path, self.names, self._run = graph.path, facts.outputs, graph.run
        self.batch = graph.inputs[0].shape[0]
        self.takes_bytes, self.how = facts.takes_bytes, facts.config.preprocess_value

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Return the outputs by name for images `(B, 3, H, W)`, normalised; on the CPU, as float32 or int64."""
        values = images.detach().to("cpu", torch.float32)
        array = (self._to_bytes(values) if self.takes_bytes else values).contiguous().numpy()
        size = self.batch or max(1, len(array))
        parts = [self._run_part(array[start : start + size], size) for start in range(0, len(array), size)]
        return {name: torch.cat(_align([part[place] for part in parts])) for place, name in enumerate(self.names)}

    def _run_part(self, array: Any, size: int) -> list[Tensor]:
        """Run so many images; where the file takes a fixed number, the last ones are filled up."""
        count = len(array)
        if self.batch and count < size:
            array = np.concatenate([array, array[-1:].repeat(size - count, 0)])
        try:
            outputs = self._run(array)
        except Exception as error:  # each runtime has kinds of its own
            reason = str(error).strip().partition("\n")[0][:300] or type(error).__name__
            raise InputError(f"{self.path} failed on images {tuple(array.shape)}: {reason}") from error
        tensors = [torch.from_numpy(np.array(output)) for output in outputs]
        if any(tensor.ndim < 2 or len(tensor) != len(array) for tensor in tensors):
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
            raise InputError(f"{self.path} gives {shapes} for {len(array)} images; expected a row for each image.")
        return [tensor[:count].float() if tensor.is_floating_point() else tensor[:count].long() for tensor in tensors]

    def _to_bytes(self, values: Tensor) -> Tensor:
        """Undo the normalisation, which the file does itself: bytes come back as they were.

        Raises:
            InputError: The images were never bytes, and rounding them would change the answers.
        """
        how: Any = self.how
        mean, std = (values.new_tensor(numbers).view(1, 3, 1, 1) for numbers in (how.mean, how.std))
        exact = (values * std + mean) * getattr(how, "max_value", 255.0)
        pixels = exact.round()
        if len(pixels) and ((exact - pixels).abs().max() > NEARLY or pixels.min() < 0 or pixels.max() > 255):
            raise InputError(
                f"{self.path} takes 8-bit images, and these are not 8-bit pixels normalised by its preprocess. Pass "
                "files or images to predict, or export with --input float (takes='float')."
            )
        pixels = pixels.flip(1) if getattr(how, "channels", "rgb") == "bgr" else pixels
        return pixels.to(torch.uint8).permute(0, 2, 3, 1)


class FromFile(Model):
    """What both kinds have in common.

    Attributes:
        runner: Of the file.
        kind: Of the preprocessing.
    """

    runner: Runner
    kind: ClassVar[type]

    @property
    def folder(self) -> Path:
        """The folder of the file, which `zoo.push` takes."""
        return self.runner.path.parent

    def extra_repr(self) -> str:
        """Return which file it is, as `print` shows it."""
        return f"{self.runner.path}, {len(self.classes)} classes"


class ExportedClassifier(FromFile):
    """A classifier that a file holds; see `zoo.models.classifier.Classifier` for what it can do.

    Args:
        runner: Of the file.
        config: What is known of it.
    """

    task = "classification"
    kind = Preprocess

    def __init__(self, runner: Runner, config: ModelConfig) -> None:
        super().__init__()
        if runner.names not in (("probabilities",), ("logits",)):
            raise InputError(f"{runner.path} gives {', '.join(runner.names)}; expected probabilities or logits.")
        self.runner, self.num_classes = runner, len(config.classes or ())

    def forward(self, images: Tensor) -> Tensor:
        """Turn images `(B, 3, H, W)`, normalised, into logits `(B, C)`: of probabilities their logarithm."""
        ((name, values),) = self.runner(images).items()
        if values.shape != (len(images), self.num_classes):
            raise InputError(
                f"{self.runner.path} gives {tuple(values.shape)} for {len(images)} images; expected "
                f"{(len(images), self.num_classes)}, as its metadata names {self.num_classes} classes."
            )
        logits = values.clamp_min(TINY).log() if name == "probabilities" else values
        return logits.to(images.device)

    def predict(
        self,
        sources: Any,
        *,
        top_k: int | None = None,
        batch_size: int = 32,
        image_size: int | None = None,
        device: str | None = None,
        tta: bool = False,
        workers: int | None = None,
        skip_bad: bool | OnBad = False,
        stream: bool = False,
    ) -> Any:
        """Name what is on images; the arguments and what comes back are those of `Classifier.predict`.

        Raises:
            InputError: As there, and for another image size or device than that of the file.
        """
        _check_fixed(self.runner, image_size, device)
        look = Look(top_k=top_k, batch_size=batch_size, image_size=None, tta=tta, workers=workers)
        return predict_classes(self, sources, look, skip_bad, stream)


class Unfused(FusedCopy):
    """Stands for the copy that a detector predicts with: a file is what it is."""

    def of(self, model: Any) -> Any:
        """Return the model itself."""
        return model


class ExportedDetector(FromFile, Detector):
    """A detector that a file holds, with its thresholds and suppression; see `zoo.models.detector.Detector`.

    Args:
        runner: Of the file.
        config: What is known of it.
    """

    kind = Letterbox

    def __init__(self, runner: Runner, config: ModelConfig) -> None:
        super().__init__()
        if runner.names not in (("boxes", "scores", "labels"), ("boxes", "scores")):
            raise InputError(f"{runner.path} gives {', '.join(runner.names)}; expected boxes, scores and labels.")
        if config.postprocess is None:
            raise InputError(f"the metadata of {runner.path} is damaged: postprocess is missing. Export it again.")
        self.runner, self.num_classes, self.fused_copy = runner, len(config.classes or ()), Unfused()
        self.postprocess = Postprocess(**config.postprocess)

    @property
    def scoring(self) -> Any:
        """Which boxes count when it is scored: those of the file, if it has left out others."""
        return self.postprocess if self.is_selected else VALIDATION

    @property
    def is_selected(self) -> bool:
        """Whether thresholds and suppression are inside, so that they cannot be changed any more."""
        return "labels" in self.runner.names

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Turn images `(B, 3, H, W)`, normalised, into boxes `(B, K, 4)`, scores `(B, K)` and labels `(B, K)`.

        Of a raw file: boxes `(B, L, 4)` and scores `(B, L, C)` of all places.
        """
        found = self.runner(images)
        labels, columns = found.get("labels", torch.zeros(0)), found["scores"].shape[2:]
        fits = columns == (() if self.is_selected else (self.num_classes,))
        if not fits or (labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes):
            raise InputError(
                f"{self.runner.path} contradicts its metadata: it gives other classes than the {self.num_classes} that "
                "are named there. Export it again."
            )
        return {name: values.to(images.device) for name, values in found.items()}

    def decode(self, outputs: Any) -> Predictions:
        """Return the boxes, and their scores `(B, K, C)`: of those that are selected, 0 for all classes but one."""
        if not self.is_selected:
            return Predictions(outputs["boxes"], outputs["scores"])
        scores, labels = outputs["scores"], outputs["labels"]
        spread = scores.new_zeros(*scores.shape, self.num_classes).scatter_(2, labels[..., None], scores[..., None])
        return Predictions(outputs["boxes"], spread)

    def predict(
        self,
        source: Any,
        *,
        conf: float | None = None,
        iou: float | None = None,
        max_predictions: int | None = None,
        image_size: int | None = None,
        device: str | None = None,
        tta: bool = False,
        **options: Any,
    ) -> Any:
        """Find things on images; the arguments and what comes back are those of `Detector.predict`.

        Raises:
            InputError: As there, and for boxes that the file has left out.
        """
        _check_fixed(self.runner, image_size, device)
        if self.is_selected:
            self._check_selection(conf, iou, max_predictions, tta)
        return super().predict(source, conf=conf, iou=iou, max_predictions=max_predictions, tta=tta, **options)

    def _check_selection(self, conf: float | None, iou: float | None, max_predictions: int | None, tta: bool) -> None:
        """Refuse what needs boxes that the file has left out."""
        own, path = self.postprocess, self.runner.path
        wanted = own if conf is None else own.replace(conf=conf)
        if Views(tta=tta).settings(wanted).conf < own.conf:
            why = "tta needs a third of the confidence threshold" if tta else f"conf is {conf}"
            raise InputError(
                f"{path} leaves out boxes with a confidence below {own.conf:g}, and {why}. Raise conf"
                f"{', leave out tta' if tta else ''}, or export the model with a lower model.postprocess.conf or --raw."
            )
        if iou is not None and iou != own.iou:
            raise InputError(
                f"{path} suppresses boxes by an IoU of {own.iou:g} inside, and iou is {iou!r}. Leave it out, or export "
                "the model with another model.postprocess.iou."
            )
        if max_predictions is not None and max_predictions > own.max_predictions:
            raise InputError(
                f"{path} gives {own.max_predictions} boxes per image at most, and max_predictions is "
                f"{max_predictions}. Lower it, or export the model with a higher one in model.postprocess."
            )


TASKS: dict[str, type[FromFile]] = {
    "classification": ExportedClassifier,
    "detection": ExportedDetector,
}


def make_model(graph: GraphFile, facts: Facts, code_licence: str) -> Model:
    """Return the model of an open file, in eval mode.

    Raises:
        InputError: It is for a task that exported files are not run for.
    """
    config = facts.config
    if config.task not in TASKS or config.names is None:
        raise InputError(f"{graph.path} is for {config.task}; expected {' or '.join(TASKS)}, with class names.")
    make = TASKS[config.task]
    if not isinstance(config.preprocess_value, make.kind):
        raise InputError(
            f"the metadata of {graph.path} is damaged: preprocess is {config.preprocess!r:.100}, which is not for "
            f"{config.task}. Export it again."
        )
    model: Any = make(Runner(graph, facts), config)
    model.preprocess, model.classes = config.preprocess_value, config.names
    model.licence, model.load_report = Licence(code_licence, config.licence), None
    model.config = config.model_dump()
    model.why_fixed = (
        f"{graph.path} is an exported model: it predicts, and has no weights to train. Use the run or the model that "
        "it was exported from."
    )
    made: Model = model.eval()
    return made


def _align(parts: list[Tensor]) -> list[Tensor]:
    """Return parts with the same number of columns: a file may give as many boxes as it has found."""
    most = max(part.shape[1] for part in parts)
    filled = [part.new_zeros(len(part), most, *part.shape[2:]) for part in parts]
    for whole, part in zip(filled, parts, strict=True):
        whole[:, : part.shape[1]] = part
    return filled


def _check_fixed(runner: Runner, image_size: int | None, device: str | None) -> None:
    """Refuse what a file cannot change."""
    how: Any = runner.how
    side = how.canvas_size[0] if hasattr(how, "canvas_size") else how.image_size
    if image_size not in (None, side):
        raise InputError(
            f"{runner.path} takes images of {side} pixels, and image_size is {image_size!r}. Leave it out, or export "
            "the model with another image size."
        )
    if device not in (None, "auto", "cpu"):
        raise InputError(f"{runner.path} runs on the CPU, and device is {device!r}. Leave it out.")
