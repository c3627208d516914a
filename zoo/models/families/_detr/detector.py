"""Detectors with queries (DETR) of transformers as models of this package.

The network, its loss and the names of its parameters are transformers'. Its second names for the tensors of the heads
are left out, so that every tensor has one name. Boxes come and go in pixels of the network's input, class numbers
begin at 0 and have no background among them.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from zoo.errors import InputError, did_you_mean
from zoo.models.detector import Detector, check_loss_weight
from zoo.models.families._detr.library import Architecture, import_transformers
from zoo.tasks.detection import VALIDATION, Postprocess, Predictions

COLUMNS = ("image", "class", "centre x", "centre y", "width", "height")


class DetrOutputs(NamedTuple):
    """What the network gives for a batch, by which the boxes are found and the loss is computed.

    Attributes:
        logits: `(B, Q, C)`; in training, queries that start from noisy true boxes may come before the others.
        boxes: `(B, Q, 4)` centre x, centre y, width, height as shares of the image, 0 to 1.
        parts: What else the loss takes, by the names of its arguments.
        size: Height and width of the image in pixels.
    """

    logits: Tensor
    boxes: Tensor
    parts: dict[str, Any]
    size: tuple[int, int]


class DetrDetector(Detector):
    """What the families have in common: decoding, loss, and the attributes that every model has.

    Args:
        architecture: The network.
        num_classes: Number of classes.

    Attributes:
        takes_targets: Whether training calls the network with the targets, too: `model(images, targets)`.
        head_prefixes: Prefixes of all parameters outside of the backbone.
        class_prefixes: Prefixes of the parameters that depend on the classes.
        loss_settings: Settings of the loss, and the fields of transformers' configuration that they are.
        scoring: Which boxes count in an evaluation: no box suppresses another.
    """

    in_channels = 3
    takes_targets = False
    head_prefixes: tuple[str, ...]
    class_prefixes: tuple[str, ...]
    loss_settings: Mapping[str, str]
    model: Any  # of transformers, which has no types
    scoring = VALIDATION.replace(iou=1.0, nms_top_k=300)

    def __init__(self, architecture: Architecture, *, num_classes: int = 80) -> None:
        super().__init__()
        library = import_transformers(architecture.model_type)
        network = architecture.make_network(num_classes)
        self.architecture, self.numbers = architecture, network.config
        self._loss = library.loss.loss_utils.LOSS_MAPPING[type(network).__name__]
        for name, child in network.named_children():
            if not f"{name}.".startswith(architecture.second_names):
                self.add_module(name, child)
        self.postprocess = Postprocess(iou=1.0, nms_top_k=300)

    @property
    def num_classes(self) -> int:
        """Number of classes, `C`."""
        return int(self.numbers.num_labels)

    def set_num_classes(self, count: int) -> None:
        """Take note that the layers of the classes have been replaced by ones for so many."""
        self.numbers.num_labels = count

    def forward(self, images: Tensor, targets: Any = None) -> DetrOutputs:
        """Find objects.

        Args:
            images: `(B, 3, H, W)`; both sides are multiples of `size_step`.
            targets: In training, what is there: rows as `loss` takes them, or anything with such `rows`.

        Raises:
            InputError: The images have another number of channels or a size that does not fit, or the rows do not.
        """
        raise NotImplementedError

    def decode(self, outputs: Any) -> Predictions:
        """Return the boxes and scores of the queries that count after training, of what `forward` gave."""
        count = self.numbers.num_queries
        counting = slice(-count, None) if self.takes_targets else slice(count)  # true boxes come first, groups later
        logits, boxes = outputs.logits[:, counting].float(), outputs.boxes[:, counting].float()
        height, width = outputs.size
        corners = box_convert(boxes, "cxcywh", "xyxy")
        return Predictions(corners * corners.new_tensor([width, height, width, height]), logits.sigmoid())

    def loss(self, outputs: DetrOutputs, rows: Tensor, **settings: float) -> Tensor:
        """Return the loss of a batch, a scalar in float32.

        Args:
            outputs: Of `forward`.
            rows: `(N, 6)` image index, class, centre x, centre y, width, height in pixels of the network's input.
            settings: Weights of the terms, 0 or more: the names in `loss_settings`.

        Raises:
            InputError: A setting is unknown or out of range, or the rows do not fit the batch.
        """
        numbers = self._set(settings)
        labels = self._label(rows, outputs)
        arguments = {name: _to_float(value) for name, value in outputs.parts.items()}
        logits, boxes = outputs.logits.float(), outputs.boxes.float()
        try:
            value, _, _ = self._loss(logits, labels, logits.device, boxes, numbers, **arguments)
        except ValueError:  # boxes that are no numbers: the training has diverged, which is for the loop to tell
            if boxes.isfinite().all() and logits.isfinite().all():
                raise
            value = (logits.sum() + boxes.sum()) * torch.nan
        total: Tensor = torch.as_tensor(value).float()
        return total

    def check_loss_params(self, params: Mapping[str, Any]) -> None:
        """Refuse settings that `loss` does not take.

        Raises:
            InputError: One is unknown or out of range.
        """
        self._set(params)

    def _set(self, settings: Mapping[str, float]) -> Any:
        """Return the numbers of the network with other weights of the loss."""
        numbers = copy.copy(self.numbers)
        for name, value in settings.items():
            if name not in self.loss_settings:
                raise InputError(
                    f"the loss of {self.architecture.model_type} has no setting {name!r}; expected "
                    f"{', '.join(self.loss_settings)}.{did_you_mean(name, self.loss_settings)}"
                )
            check_loss_weight(name, value)
            setattr(numbers, self.loss_settings[name], float(value))
        return numbers

    def _label(self, rows: Tensor, outputs: DetrOutputs) -> list[dict[str, Tensor]]:
        return to_labels(rows.to(outputs.logits.device), len(outputs.logits), self.num_classes, outputs.size)

    def _check_images(self, images: Tensor, cells: int) -> None:
        """Refuse images that the network would fail on in the depths; `cells` are the places that it looks at."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise InputError(f"images are {tuple(images.shape)}; expected (B, 3, H, W).")
        height, width = images.shape[2:]
        step = self.size_step
        if height % step or width % step:
            better = [max(1, -(-side // step)) * step for side in (height, width)]
            raise InputError(
                f"images are {height}x{width} pixels; {self.architecture.model_type} needs multiples of {step}. Use "
                f"{better[0]}x{better[1]}."
            )
        if cells < self.numbers.num_queries:
            least = math.ceil(math.sqrt(height * width * self.numbers.num_queries / cells) / step) * step
            raise InputError(
                f"images of {height}x{width} pixels are too small for the {self.numbers.num_queries} queries of "
                f"{self.architecture.model_type}. Use at least {least}x{least} pixels."
            )


class HybridDetr(DetrDetector):
    """D-FINE or RT-DETRv2: a convolutional backbone, a hybrid encoder, and a decoder with queries.

    In training, the queries of noisy true boxes (denoising) come in where `forward` is given the targets. The norms of
    the backbone are frozen in all sizes, as transformers builds them: their numbers are buffers.
    """

    takes_targets = True
    head_prefixes = ("model.encoder", "model.decoder", "model.enc_", "model.denoising_class_embed.")
    class_prefixes = ("model.enc_score_head.", "model.decoder.class_embed.", "model.denoising_class_embed.")

    def __init__(self, architecture: Architecture, *, num_classes: int = 80) -> None:
        super().__init__(architecture, num_classes=num_classes)
        _fix_constants(self)
        terms = {"class_weight": "vfl", "box_weight": "bbox", "giou_weight": "giou", "fgl_weight": "fgl"}
        terms["ddf_weight"] = "ddf"
        fields = {name: f"weight_loss_{term}" for name, term in terms.items()}
        self.loss_settings = {name: field for name, field in fields.items() if hasattr(self.numbers, field)}
        self.size_step = int(self.numbers.feat_strides[-1])

    def forward(self, images: Tensor, targets: Any = None) -> DetrOutputs:
        """Find objects; see `DetrDetector.forward`."""
        return self.head(self.trunk(images), targets)

    def trunk(self, images: Tensor) -> tuple[Tensor, ...]:
        """Turn images `(B, 3, H, W)` into the maps of the backbone."""
        area = images.shape[-2] * images.shape[-1]
        self._check_images(images, sum(area // int(stride) ** 2 for stride in self.numbers.feat_strides))
        mask = images.new_ones((images.shape[0], *images.shape[2:]))
        return tuple(features for features, _ in self.model.backbone(images, mask))

    def head(self, features: tuple[Tensor, ...], targets: Any = None) -> DetrOutputs:
        """Turn the maps of the backbone into outputs."""
        stride = int(self.numbers.feat_strides[0])
        height, width = features[0].shape[-2] * stride, features[0].shape[-1] * stride
        maps = [project(level) for project, level in zip(self.model.encoder_input_proj, features, strict=True)]
        labels = None
        if self.training and targets is not None:
            rows = getattr(targets, "rows", targets).to(maps[0].device)
            labels = to_labels(rows, len(maps[0]), self.num_classes, (height, width))
        found = self.model(None, inputs_embeds=maps[0], encoder_outputs=self.model.encoder(maps), labels=labels)
        logits = found.intermediate_logits[:, -1]
        if self.training and found.denoising_meta_values is None:
            logits = logits + 0 * self.model.denoising_class_embed.weight.sum()  # unused, it still has a gradient
        parts = {
            "outputs_class": found.intermediate_logits,
            "outputs_coord": found.intermediate_reference_points,
            "enc_topk_logits": found.enc_topk_logits,
            "enc_topk_bboxes": found.enc_topk_bboxes,
            "denoising_meta_values": found.denoising_meta_values if self.training else None,
            "predicted_corners": found.intermediate_predicted_corners,
            "initial_reference_points": found.initial_reference_points,
        }
        return DetrOutputs(logits, found.intermediate_reference_points[:, -1], parts, (height, width))

    def get_finetune_lr_dict(self, lr: float) -> dict[str, float]:
        """Return the rates of a fine-tune: the backbone is frozen, encoder, decoder and heads learn at `lr`."""
        parts = (
            "model.encoder", "model.decoder_input_proj.", "model.decoder.layers.", "model.decoder.query_pos_head.",
            "model.decoder.pre_bbox_head.", "model.decoder.lqe_layers.", "model.decoder.bbox_embed.",
            "model.decoder.class_embed.", "model.enc_output.", "model.enc_bbox_head.", "model.enc_score_head.",
            "model.denoising_class_embed.",
        )  # fmt: skip
        names = [name for name, _ in self.named_parameters()]
        present = [part for part in parts if any(name.startswith(part) for name in names)]
        return {"model.backbone.": 0.0} | dict.fromkeys(present, lr) | {"default": 0.0}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return patterns that order the parameters from the image to the boxes, for rates that fall with depth.

        Args:
            coarse: No difference here; timm's callers pass it.
        """
        return {
            "stem": r"^model\.backbone\.model\.embedder",
            "stages": r"^model\.backbone\.model\.encoder\.stages\.(\d+)",
            "encoder": r"^model\.encoder",
            "decoder": r"^model\.(?:decoder|enc_|denoising_class_embed)",
        }


class RfDetr(DetrDetector):
    """RF-DETR: DINOv2 with attention inside of windows, one map, and a decoder with several groups of queries.

    The groups help in training only. Both sides of the input are multiples of patch size times windows per side.
    """

    head_prefixes = (
        "model.backbone.projector.", "model.reference_point_embed.", "model.query_feat.", "model.decoder.",
        "model.enc_output", "model.enc_out_bbox_embed.", "model.enc_out_class_embed.", "bbox_embed.", "class_embed.",
    )  # fmt: skip
    class_prefixes = ("class_embed.", "model.enc_out_class_embed.")
    class_embed: Any
    bbox_embed: Any

    def __init__(self, architecture: Architecture, *, num_classes: int = 80) -> None:
        super().__init__(architecture, num_classes=num_classes)
        terms = {"class_weight": "class", "box_weight": "bbox", "giou_weight": "giou"}
        self.loss_settings = {name: f"{term}_loss_coefficient" for name, term in terms.items()}
        backbone = self.numbers.backbone_config
        self._patch = int(backbone.patch_size)
        self.size_step = self._patch * int(backbone.num_windows)

    def forward(self, images: Tensor, targets: Any = None) -> DetrOutputs:
        """Find objects; see `DetrDetector.forward`. The targets make no difference here."""
        height, width = images.shape[-2:]
        self._check_images(images, (height // self._patch) * (width // self._patch))
        found = self.model(images)
        logits, boxes = self._predict(found.intermediate_hidden_states, found.intermediate_reference_points)
        parts = {
            "outputs_class": logits,
            "outputs_coord": boxes,
            "enc_outputs_class": self._classify_proposals(found.enc_outputs_class),
            "enc_outputs_coord": found.enc_outputs_coord_logits,
        }
        return DetrOutputs(logits[-1], boxes[-1], parts, (height, width))

    def get_finetune_lr_dict(self, lr: float) -> dict[str, float]:
        """Return the rates of a fine-tune: the backbone is frozen, projector, decoder and heads learn at `lr`."""
        return {"model.backbone.backbone.": 0.0} | dict.fromkeys(self.head_prefixes, lr) | {"default": 0.0}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return patterns that order the parameters from the image to the boxes, for rates that fall with depth.

        Args:
            coarse: No difference here; timm's callers pass it.
        """
        return {
            "embeddings": r"^model\.backbone\.backbone\.embeddings",
            "layers": r"^model\.backbone\.backbone\.(?:encoder\.)?layers?\.(\d+)",
            "norm": r"^model\.backbone\.backbone\.layernorm",
            "projector": r"^model\.backbone\.projector",
            "decoder": r"^(?:model\.(?:decoder|enc_|reference_point_embed|query_feat)|class_embed|bbox_embed)",
        }

    def dormant_parameters(self) -> frozenset[str]:
        """Return the name of what no output depends on: a token that only the pretraining of DINOv2 needs."""
        return frozenset({"model.backbone.backbone.embeddings.mask_token"})

    def _set(self, settings: Mapping[str, float]) -> Any:
        numbers = super()._set(settings)
        if not self.training:
            numbers.group_detr = 1  # that many groups of queries there are outputs of
        return numbers

    def _predict(self, states: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and boxes of decoder states `(layers, B, Q, D)`; boxes refine those of before."""
        change = self.bbox_embed(states)
        centres = change[..., :2] * references[..., 2:] + references[..., :2]
        return self.class_embed(states), torch.cat([centres, change[..., 2:].exp() * references[..., 2:]], dim=-1)

    def _classify_proposals(self, states: Tensor) -> Tensor:
        """Return the logits of the encoder's proposals, by the head of each group of queries."""
        groups = states.reshape(states.shape[0], -1, self.numbers.num_queries, states.shape[-1]).unbind(1)
        heads = self.model.enc_out_class_embed
        return torch.cat([heads[number](group) for number, group in enumerate(groups)], dim=1)


def to_labels(rows: Tensor, images: int, classes: int, size: tuple[int, int]) -> list[dict[str, Tensor]]:
    """Return rows of boxes in the form that transformers takes, one entry for each image.

    Args:
        rows: `(N, 6)` image index, class, centre x, centre y, width, height in pixels.
        images: In the batch.
        classes: Number of classes.
        size: Height and width of the images in pixels.

    Returns:
        Dictionaries of `class_labels` `(n,)` int64 and `boxes` `(n, 4)` float32, as shares of the image.

    Raises:
        InputError: A row does not fit; the text names it.
    """
    if rows.ndim != 2 or rows.shape[1] != 6:
        raise InputError(f"targets are {tuple(rows.shape)}; expected (N, 6): {', '.join(COLUMNS)}.")
    _check_rows(rows, images, classes)
    height, width = size
    boxes = rows[:, 2:].float() / rows.new_tensor([width, height, width, height]).float()
    kept = (rows[:, 4:] > 0).all(dim=1)  # a box without an area has no IoU
    labels = []
    for image in range(images):
        own = kept & (rows[:, 0] == image)
        labels.append({"class_labels": rows[own, 1].long(), "boxes": boxes[own]})
    return labels


def _check_rows(rows: Tensor, images: int, classes: int) -> None:
    wrong = ~rows.isfinite()
    for column, count in ((0, images), (1, classes)):
        values = rows[:, column]
        wrong[:, column] |= (values < 0) | (values >= count) | (values != values.floor())
    wrong[:, 4:] |= rows[:, 4:] < 0
    if not wrong.any():
        return
    row, column = (int(index) for index in wrong.nonzero()[0])
    expected = {0: f"an integer from 0 to {images - 1}", 1: f"an integer from 0 to {classes - 1}"}
    raise InputError(
        f"targets: {COLUMNS[column]} of row {row} is {float(rows[row, column]):g}; expected "
        f"{expected.get(column, 'a number, 0 or more' if column > 3 else 'a number')}. The row is {rows[row].tolist()}."
    )


def _fix_constants(model: nn.Module) -> None:
    """Turn parameters that never learn into buffers of the same names, so that no plan takes them for parameters."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if not parameter.requires_grad:
                delattr(module, name)
                module.register_buffer(name, parameter.detach().clone())


def _to_float(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
