"""A timm classifier behind the one interface that every classifier of this package has.

Shapes: `B` images, `H` and `W` their sides in pixels, `D` features, `C` classes.
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal, overload

from torch import Tensor, nn
from torch.nn import functional

from zoo._model import plain_loss
from zoo.data import OnBad, Preprocess, find_device
from zoo.errors import InputError
from zoo.models.interface import Model
from zoo.models.prediction import Look, Prediction, embed_images, predict_classes
from zoo.models.structure import describe_structure, hooked_layers
from zoo.weights import Licence

OLDER_NAMES = {"trunk": "run_backbone", "head": "run_head"}
HEAD_STD = 0.01  # of a new head's weights, as torchvision's MobileNetV2 has it


class Classifier(Model):
    """A timm network as backbone and head, with its parameter names unchanged.

    The network's own modules are shared, not nested: `layer4.0.conv1.weight` is called so here too. `forward` is
    `run_head(run_backbone(images))`; exactly the parameters under `head_name` belong to the head. No name of this class
    hides a module of the network. `trunk` and `head` stand for `run_backbone` and `run_head` where the network has no
    module of that name: in a ViT, `model.head` is the layer, as in timm.

    Args:
        network: A model of timm whose classifier is one linear layer.
        drop_rate: Share of the features dropped before the classifier in training, 0 to 1.

    Attributes:
        preprocess: What the weights expect of an image.
        classes: Class names, in the order of the outputs.
        licence: Of the code, and of the weights that were loaded.
        load_report: What was loaded from where; None for random weights.
        config: What a checkpoint needs to build this model again: registry name, options, origin.
    """

    # Long: timm's interface and this package's are one object to its user; every method is short.

    task = "classification"
    preprocess: Preprocess

    def __init__(self, network: nn.Module, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.__dict__["network"] = network  # a plain attribute: its modules appear once, under their own names
        for registry in ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"):
            self.__dict__[registry] = network.__dict__[registry]
        self.head_name = _classifier_name(network)
        self.drop_rate = drop_rate
        self.preprocess, self.classes, self.load_report, self.config = Preprocess(), (), None, {}
        self.licence = Licence("Apache-2.0")
        self._built = describe_structure(self, [network], self.head_name)

    def __getattr__(self, name: str) -> Any:
        """Return a module, parameter or buffer, or else what one of two older names stands for."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name not in OLDER_NAMES:
                raise
        return getattr(self, OLDER_NAMES[name])

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; a function under an older name replaces what that name stands for."""
        if name == "classes":
            value = _class_names(value)
        is_older = name in OLDER_NAMES and name not in self._modules and not isinstance(value, nn.Module)
        super().__setattr__(OLDER_NAMES[name] if is_older else name, value)

    @property
    def num_classes(self) -> int:
        """Number of outputs."""
        sizes = [getattr(module, "out_features", None) for module in self.get_head().modules()]
        return next((size for size in reversed(sizes) if isinstance(size, int)), len(self.classes))

    def set_num_classes(self, count: int) -> None:
        """Take note that the head has been replaced by one for so many."""
        self.__dict__["network"].num_classes = count

    @property
    def num_features(self) -> int:
        """Number of features of the backbone, `D`."""
        sizes = (getattr(module, "in_features", None) for module in self.get_head().modules())
        first = next((size for size in sizes if isinstance(size, int)), None)
        return int(self.__dict__["network"].num_features) if first is None else first

    @property
    def is_altered(self) -> bool:
        """Whether the network is no longer the one that its registered builder makes, up to the number of classes."""
        return self._built != describe_structure(self, [self.__dict__["network"]], self.head_name)

    @property
    def hooked_layers(self) -> list[str]:
        """What to call the layers with a forward hook."""
        return hooked_layers(self, [self.__dict__["network"]])

    @property
    def head_prefixes(self) -> tuple[str, ...]:
        """Prefixes of the head's parameters; all others belong to the backbone."""
        inside = f"{self.head_name}."
        clash = any(n.startswith(self.head_name) and not n.startswith(inside) for n, _ in self.named_parameters())
        return (inside if clash else self.head_name,)

    def get_backbone(self) -> nn.Module:
        """Return a module that turns images into pooled features `(B, D)`; it shares the weights of this model."""
        return _Backbone(self)

    def get_head(self) -> nn.Module:
        """Return the module that turns pooled features into logits: a linear layer, or what was put in its place."""
        try:
            return self.get_submodule(self.head_name)
        except AttributeError:
            raise InputError(
                f"the network no longer has its head module {self.head_name!r}. Assign the new head to that name."
            ) from None

    def get_classifier(self) -> nn.Module:
        """Return what `get_head` returns, under timm's name for it."""
        return self.get_head()

    def reset_classifier(self, num_classes: int) -> None:
        """Make a new linear head for so many classes, as timm's method of this name; the classes have no names then."""
        if type(num_classes) is not int or num_classes < 1:
            raise InputError(f"num_classes is {num_classes!r}; expected a whole number, 1 or more.")
        self.__dict__["network"].reset_classifier(num_classes)
        self.classes = tuple(map(str, range(num_classes)))
        self.reset_head()

    def forward_features(self, images: Tensor) -> Tensor:
        """Turn images `(B, 3, H, W)` into features that are not pooled, as timm's method of this name."""
        features: Tensor = self.__dict__["network"].forward_features(images)
        return features

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Turn features that are not pooled into logits, or into pooled ones, as timm's method of this name."""
        pooled: Tensor = self.__dict__["network"].forward_head(features, pre_logits=True)
        return pooled if pre_logits else self.run_head(pooled)

    def run_backbone(self, images: Tensor) -> Tensor:
        """Turn images `(B, 3, H, W)`, float32 and normalised, into pooled features `(B, D)`."""
        network: Any = self.__dict__["network"]
        try:
            features: Tensor = network.forward_head(network.forward_features(images), pre_logits=True)
        except AssertionError as error:  # of networks with a fixed input size
            kind, size = type(network).__name__, f"{images.shape[-2]} x {images.shape[-1]} px"
            raise InputError(f"timm's {kind} does not support images of {size}: {error} Remove image_size.") from error
        return features

    def run_head(self, features: Tensor) -> Tensor:
        """Turn pooled features `(B, D)` into logits `(B, C)`."""
        logits: Tensor = self.get_head()(functional.dropout(features, self.drop_rate, self.training))
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Turn images `(B, 3, H, W)` into logits `(B, C)`."""
        return self.run_head(self.run_backbone(images))

    def reset_head(self) -> None:
        """Make the head anew: weights from a normal distribution of deviation 0.01, biases 0.

        timm's MobileNetV2 draws them by the number of classes instead, which for ten classes is thirty times as much
        and costs a fine-tune of the head many epochs to unlearn.
        """
        for layer in self.get_head().modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=HEAD_STD)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    @plain_loss
    def loss(self, outputs: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean cross-entropy of logits `(B, C)` and class indices `(B,)`, int64, in nats."""
        return functional.cross_entropy(outputs, targets, label_smoothing=label_smoothing)

    def get_finetune_lr_dict(self, lr: float) -> dict[str, float]:
        """Return the rates of a fine-tune: the head learns at `lr`, the rest is frozen."""
        return dict.fromkeys(self.head_prefixes, lr) | {"default": 0.0}

    def train(self, mode: bool = True) -> "Classifier":
        """Set train or eval mode, also of the network that shares these modules."""
        super().train(mode)
        self.__dict__["network"].training = mode
        return self

    @property
    def group_matcher(self) -> Callable[..., dict[str, Any]]:
        """Timm's method of patterns that order the parameters in layers; there is none where the network has none."""
        matcher: Callable[..., dict[str, Any]] = self.__dict__["network"].group_matcher
        return matcher

    @overload
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
        stream: Literal[False] = False,
    ) -> list[Prediction]: ...

    @overload
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
        stream: Literal[True],
    ) -> Iterator[Prediction]: ...

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
    ) -> list[Prediction] | Iterator[Prediction]:
        """Name what is on images, with the preprocessing that belongs to the weights.

        Args:
            sources: A path, an image (PIL, array `(H, W, 3)` uint8, tensor `(3, H, W)` uint8 or float 0 to 1), a batch
                of them as one array or tensor of four dimensions, or a sequence of any of these. A folder stands for
                the images in it, a pattern such as `photos/*.jpg` for those that fit.
            top_k: How many names each answer has at most; None: 5, or all labels of a model with several labels.
            batch_size: Images per forward pass; halved for good when memory runs out.
            image_size: Side in pixels; None for the model's own.
            device: `auto`, `cpu`, `cuda` or `mps`, to which the model is moved; None: where it is.
            tta: Also look at each image mirrored, and take the mean of the probabilities (test-time augmentation).
            workers: Images that are read at the same time; None for as many as there are processors, 8 at most.
            skip_bad: Leave out what cannot be read: True warns of it at the end, a function is given each error.
            stream: Return an iterator instead of a list, for large folders: images are read as answers are asked for.

        Returns:
            One `Prediction` per image, in order.

        Raises:
            InputError: If an image cannot be read, or an option is out of range. With `stream`, options and names are
                checked at once, images when they are reached; those before a bad one have been answered by then.
        """
        if device is not None:
            self.to(find_device(device))
        look = Look(top_k=top_k, batch_size=batch_size, image_size=image_size, tta=tta, workers=workers)
        return predict_classes(self, sources, look, skip_bad, stream)

    def embed(
        self,
        sources: Any,
        *,
        batch_size: int = 32,
        image_size: int | None = None,
        device: str | None = None,
        workers: int | None = None,
    ) -> Tensor:
        """Return the features that the head is shown of images, `(N, D)`, float32, on the CPU, in their order.

        The arguments are those of `predict`.

        Raises:
            InputError: If an image cannot be read, or an option is out of range.
        """
        if device is not None:
            self.to(find_device(device))
        look = Look(top_k=None, batch_size=batch_size, image_size=image_size, tta=False, workers=workers)
        return embed_images(self, sources, look)


class _Backbone(nn.Module):
    """The backbone of a classifier as a module of its own."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Turn images into pooled features."""
        return self.model.run_backbone(images)


def build_timm(name: str, *, num_classes: int, drop_rate: float = 0.0, **options: Any) -> Classifier:
    """Build one of timm's classifiers, randomly initialised.

    Args:
        name: Its name in timm.
        num_classes: Number of outputs.
        drop_rate: As in `Classifier`.
        options: Further arguments of timm's own builder.
    """
    import timm

    model = Classifier(timm.create_model(name, pretrained=False, num_classes=num_classes, **options), drop_rate)
    model.reset_head()
    return model


def _class_names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (tuple, list)) or not all(isinstance(name, str) for name in value):
        raise InputError(f"classes is {value!r:.80}; expected a list of names such as ['cat', 'dog'].")
    return tuple(map(str, value))


def _classifier_name(network: nn.Module) -> str:
    """Return where the one linear layer at the end of a timm network is."""
    get_classifier = getattr(network, "get_classifier", None)
    last = get_classifier() if callable(get_classifier) else None
    kind = type(network).__name__
    if not isinstance(last, nn.Linear):
        raise InputError(
            f"the classifier of timm's {kind} is not a single linear layer (it is a {type(last).__name__}), so "
            "features and head cannot be separated. Choose another model, or use at least one class."
        )
    name = next((name for name, module in network.named_modules() if module is last), None)
    if name is None:
        raise InputError(f"the classifier of timm's {kind} is not one of its modules. Choose another model.")
    return str(name)
