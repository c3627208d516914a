"""What every detector can do beside the network: find things on images and videos, in their own pixels."""

import copy
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Literal, NamedTuple, NoReturn, TypeAlias, overload

import torch
from PIL import Image
from torch import Tensor, nn

from zoo.data import (
    Halving,
    InputImage,
    Letterbox,
    OnBad,
    Placement,
    check_workers,
    decode_image,
    find_device,
    gather,
    has_stream,
    iterate_sources,
    normalize_canvas,
    read_ahead,
    read_sources,
    skipping,
)
from zoo.errors import InputError, WeightsError
from zoo.models.interface import Model
from zoo.models.prediction import NOWHERE
from zoo.tasks.detection import DetectionResult, Detections, Postprocess, Predictions, View, Views, select_detections
from zoo.weights import Licence

LARGEST_LOSS_WEIGHT = 1e6
FEW = 2  # images that are decoded ahead where they are large, to be cut into tiles
MOST_READY = 3  # looks at an image that are on their canvases before the first one is asked for

Marks: TypeAlias = tuple[list[Any], Tensor]


class FusedCopy:
    """A copy of a model for use, kept as long as no weight of the model changes.

    It belongs to one model object: a copy of the model, or a model read from a file, starts without one.
    """

    def __init__(self) -> None:
        self._copy: nn.Module | None = None
        self._marks: Marks | None = None

    def __reduce__(self) -> tuple[type["FusedCopy"], tuple[()]]:
        return FusedCopy, ()

    def of(self, model: nn.Module) -> nn.Module:
        """Return the copy in eval mode, fused if the model can do so, made anew if weights have changed."""
        marks = _mark(model)
        if self._copy is None or self._marks is None or not _equal(marks, self._marks):
            fuse = getattr(model, "fuse", None)
            fused: nn.Module = fuse() if fuse else copy.deepcopy(model).eval()
            self._copy, self._marks = fused.to(memory_format=torch.channels_last), marks
        return self._copy


class Detector(Model):
    """What a network needs to be a detector of this package; put it before the network among the bases.

    The class has to write `decode` and to have `num_classes`; the attributes have defaults. If it has `fuse`, a fused
    copy is used to predict.

    Args:
        args: Of the network.
        options: Of the network.

    Attributes:
        preprocess: How images come onto the network's canvas.
        postprocess: Which boxes are kept, if `predict` is not told otherwise.
        classes: Class names, in the order of the scores.
        licence: Of the code, and of the weights that were loaded.
        load_report: What was loaded from where; None for random weights.
        config: What a checkpoint needs to build this model again: registry name, options, origin.
        fused_copy: Used by `predict`.
        size_step: Both sides of a canvas are multiples of so many pixels.
    """

    # Long: type checkers want the options of `predict` three times.

    task = "detection"
    size_step = 32
    preprocess: Letterbox
    postprocess: Postprocess
    fused_copy: FusedCopy

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)  # of the network, which comes after this class among the bases
        self.preprocess, self.postprocess = Letterbox(), Postprocess()
        self.classes, self.load_report, self.config = (), None, {}
        self.licence = Licence("Apache-2.0")
        self.fused_copy = FusedCopy()

    def decode(self, outputs: Any) -> Predictions:
        """Return the boxes and scores of all places, of what `forward` gave."""
        raise NotImplementedError

    @overload
    def predict(
        self,
        source: Any,
        *,
        conf: float | None = None,
        iou: float | None = None,
        max_predictions: int | None = None,
        batch_size: int = 8,
        image_size: int | None = None,
        device: str | None = None,
        tiles: int | None = None,
        overlap: float = 0.2,
        tta: bool = False,
        workers: int | None = None,
        skip_bad: bool | OnBad = False,
        stream: Literal[False] = False,
    ) -> list[DetectionResult]: ...

    @overload
    def predict(
        self,
        source: Any,
        *,
        conf: float | None = None,
        iou: float | None = None,
        max_predictions: int | None = None,
        batch_size: int = 8,
        image_size: int | None = None,
        device: str | None = None,
        tiles: int | None = None,
        overlap: float = 0.2,
        tta: bool = False,
        workers: int | None = None,
        skip_bad: bool | OnBad = False,
        stream: Literal[True],
    ) -> Iterator[DetectionResult]: ...

    def predict(
        self,
        source: Any,
        *,
        conf: float | None = None,
        iou: float | None = None,
        max_predictions: int | None = None,
        batch_size: int = 8,
        image_size: int | None = None,
        device: str | None = None,
        tiles: int | None = None,
        overlap: float = 0.2,
        tta: bool = False,
        workers: int | None = None,
        skip_bad: bool | OnBad = False,
        stream: bool = False,
    ) -> list[DetectionResult] | Iterator[DetectionResult]:
        """Find things on images, with the preprocessing that belongs to the weights.

        Args:
            source: A path of an image or video (mp4, mov, mkv, webm, avi ...); a pattern such as `photos/*.jpg`; a
                folder, which stands for the images in it; an image (PIL, array `(H, W, 3)` uint8, tensor
                `(3, H, W)` uint8 or float 0 to 1; RGB); a batch of them as one array or tensor of four dimensions; the
                number of a camera or the URL of a stream (rtsp, http ...), with `stream=True`; or a list of any.
            conf: Least score, 0 to 1; None for the model's own.
            iou: Of two boxes of a class that overlap by more, 0 to 1, the surer one is kept; None for the model's own.
            max_predictions: Boxes per image at most; None for the model's own.
            batch_size: Images or tiles per forward pass; halved for good when memory runs out.
            image_size: Side of the network's canvas in pixels; None for the model's own.
            device: `auto`, `cpu`, `cuda` or `mps`, to which the model is moved; None: where it is.
            tiles: Side of the tiles in which larger images are looked at, in pixels of the image; None: the image is
                resized as a whole. Then `max_predictions` counts for each tile.
            overlap: Of neighbouring tiles, 0 to 0.9 of their side.
            tta: Also look at everything mirrored and smaller, and fuse the boxes (test-time augmentation): three times
                the work.
            workers: Images that are read at the same time; None for as many as there are processors, 8 at most.
            skip_bad: Leave out what cannot be read: True warns of it at the end, a function is given each error.
            stream: Return an iterator instead of a list, for videos and large folders: images are read as results
                are asked for, and only a few are in memory.

        Returns:
            One result per image or frame, in order.

        Raises:
            InputError: If a source cannot be read, or an option is out of range. With `stream`, options and names are
                checked at once, images when they are reached; the results of those before a bad one come first.
        """
        settings = _change(self.postprocess, conf=conf, iou=iou, max_predictions=max_predictions)
        views = Views(tiles=tiles, overlap=overlap, tta=tta)
        if type(batch_size) is not int or batch_size < 1:
            raise InputError(f"batch_size is {batch_size!r}; expected an integer, 1 or more.")
        check_workers(workers)
        _check_channels(self)
        if device is not None:
            self.to(find_device(device))
        letterbox = self.preprocess if image_size is None else self.preprocess.resized(image_size, step=self.size_step)
        is_live = has_stream(source)
        if is_live and not stream:
            raise InputError("a camera or stream has no end: pass stream=True, and take results one by one.")
        batch_size, ahead = (1, 0) if is_live else (batch_size, FEW if tiles else None)
        images = read_sources(iterate_sources(source))
        prepared = read_ahead(partial(_prepare, letterbox=letterbox, views=views), images, workers, ahead=ahead)
        batches = partial(gather, _list_looks(prepared), batch_size)
        results = self._find(batches, letterbox, views, settings, skip_bad, keep=stream)
        return results if stream else list(results)

    def _find(
        self,
        batches: "Callable[[OnBad | None], Iterator[list[_Look]]]",
        letterbox: Letterbox,
        views: Views,
        settings: Postprocess,
        skip_bad: bool | OnBad,
        *,
        keep: bool,
    ) -> Iterator[DetectionResult]:
        """Yield results; `keep` says whether they hold their images also where these can be read again."""
        network, classes = self.fused_copy.of(self), _name_classes(self)
        detect = partial(self._detect, network, letterbox=letterbox, settings=views.settings(settings))
        device, halving = next(network.parameters(), NOWHERE).device, Halving()
        located = list[tuple[View, Detections]]()
        with skipping(skip_bad) as on_bad:
            for batch in batches(on_bad):
                found = halving.call(detect, torch.stack([look.canvas for look in batch]), device)
                for look, detections in zip(batch, found, strict=True):
                    located.append((look.view, look.view.locate(detections, look.place)))
                    if look.is_last:
                        yield _conclude(look, views.unite(located, settings), classes, keep=keep)
                        located = []

    # Not around the generator: whoever asks for results would be in inference mode, too.
    @torch.inference_mode()
    def _detect(
        self, network: nn.Module, canvases: Tensor, *, letterbox: Letterbox, settings: Postprocess
    ) -> list[Detections]:
        """Return what is found on canvases `(B, 3, H, W)`, uint8, in pixels of the canvas; on the CPU."""
        weight = next(network.parameters(), NOWHERE)
        images = normalize_canvas(canvases.to(weight.device), letterbox).to(weight.dtype)
        boxes, scores = self.decode(network(images.contiguous(memory_format=torch.channels_last)))
        if not scores.isfinite().all():
            raise WeightsError(
                "the model's scores are NaN: its weights are damaged, or training has diverged. Load other weights, "
                "or those of an earlier epoch."
            )
        return [Detections(*(part.cpu() for part in found)) for found in select_detections(boxes, scores, settings)]


def check_loss_weight(name: str, value: object) -> None:
    """Refuse what is no weight of a term of a loss.

    Raises:
        InputError: It is no number from 0 to a million.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= LARGEST_LOSS_WEIGHT:
        raise InputError(f"{name} is {value!r}; expected a number from 0 to {LARGEST_LOSS_WEIGHT:g}.")


def _mark(model: nn.Module) -> Marks:
    """Return what tells whether weights have changed.

    Versions count changes in place, norms see what goes past them (`weight.data`, other tensors at the same place).
    """
    state = model.state_dict()
    versions = [
        (name, tensor.dtype, tensor.device, None if tensor.is_inference() else tensor._version)
        for name, tensor in state.items()
    ]
    with torch.no_grad():
        norms = torch._foreach_norm([tensor for tensor in state.values() if tensor.is_floating_point()])
    return versions, torch.stack([norm.float() for norm in norms])


def _equal(first: Marks, second: Marks) -> bool:
    return first[0] == second[0] and torch.equal(first[1], second[1])


def _change(postprocess: Postprocess, **changes: Any) -> Postprocess:
    return postprocess.replace(**{name: value for name, value in changes.items() if value is not None})


def _check_channels(model: nn.Module) -> None:
    channels = getattr(model, "in_channels", 3)
    if channels != 3:
        raise InputError(
            f"this model takes images with {channels} channels, but predict reads RGB images. Call the model with "
            "your own batch, then decode and zoo.tasks.detection.postprocess.select_detections."
        )


def _name_classes(model: Any) -> tuple[str, ...]:
    """Return the names of the classes; their numbers if there are no names."""
    names, count = tuple(model.classes), model.num_classes
    if names and len(names) != count:
        raise InputError(f"the model has {count} classes but {len(names)} names. Set model.classes to {count} names.")
    return names or tuple(map(str, range(count)))


class _Look(NamedTuple):
    """A look at an image that is ready for the network."""

    image: InputImage
    upright: Image.Image
    size: tuple[int, int]  # width and height of the image in its file, which may be more
    view: View
    canvas: Tensor
    place: Placement
    is_last: bool


def _prepare(image: InputImage, letterbox: Letterbox, views: Views) -> Iterable[_Look]:
    """Return the looks at an image; many of them are made as they are asked for."""
    upright, _, size = decode_image(image.item, None if views.tiles else letterbox.need)
    wanted = list(views.look_at(*size))
    looks = (
        _Look(image, upright, size, view, *view.draw(upright, letterbox, size), view is wanted[-1]) for view in wanted
    )
    return list(looks) if len(wanted) <= MOST_READY else looks


def _list_looks(prepared: Iterable[Callable[[], Iterable[_Look]]]) -> Iterator[Callable[[], _Look]]:
    """Yield what gives each look at each image, or raises why the image cannot be read."""
    for prepare in prepared:
        try:
            looks = prepare()
        except InputError as error:
            yield partial(_refuse, error)
        else:
            yield from (partial(_same, look) for look in looks)


def _same(look: _Look) -> _Look:
    return look


def _refuse(error: InputError) -> NoReturn:
    raise error


def _conclude(look: _Look, found: Detections, classes: tuple[str, ...], *, keep: bool) -> DetectionResult:
    """Make a result of what was found in an image; what lies beside the image is left out."""
    image, (width, height), boxes = look.image, look.size, found.boxes
    keep = keep and look.upright.size == look.size
    inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    again = image.place or (image.item if isinstance(image.item, (str, os.PathLike, bytes)) else None)
    return DetectionResult(
        source=image.label,
        boxes=boxes[inside].numpy(),
        scores=found.scores[inside].numpy(),
        labels=found.labels[inside].numpy(),
        classes=classes,
        size=(height, width),
        file=image.file,
        item=look.upright if keep or again is None else again,
        frame=image.frame,
        seconds=image.seconds,
    )
