"""How checkpoints of super-gradients say that images are prepared: a list of steps, which become one letterbox.

Steps and their settings as in super-gradients 3.7.1 (Deci-AI/super-gradients, commit e0ccacf). They are applied in
order to an RGB image. A data set there reads BGR, so the first step is `ReverseImageChannels`; whether a second one
follows decides which order the network takes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.data import Letterbox, Position
from zoo.errors import InputError

LONGEST_NAME = 1000  # letters
MAX_DEPTH = 20  # of steps within steps


def read_processing(found: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Read the `processing_params` of a checkpoint.

    Resizing comes first here and works on whole pixel values. Where the steps scale values before they resize, results
    differ by up to half a pixel value.

    Args:
        found: Plain values, with lists for tuples.

    Returns:
        Class names, preprocessing and thresholds, as `config.json` has them, each only if it is there; and what has to
        be known of how they were read.

    Raises:
        InputError: A step is unknown, or cannot be had with `Letterbox`.
    """
    config: dict[str, Any] = {}
    notes: list[str] = []
    names, steps = found.get("class_names"), found.get("image_processor")
    if isinstance(names, dict) and names.keys() == {str(number) for number in range(len(names))}:
        names = [names[str(number)] for number in range(len(names))]
    if names not in (None, []) and not isinstance(names, list):
        raise InputError(f"class_names is {names!r:.80}; expected a list of names.")
    if names:
        classes = [str(name) for name in names]
        if not all(isinstance(name, (str, int, float)) and name == name for name in names):  # NaN is no name
            raise InputError(f"class_names is {names!r:.80}; expected a list of names.")
        if all(0 < len(name) <= LONGEST_NAME for name in classes):
            config["classes"] = classes
        else:
            notes.append(f"its class names were ignored: one is empty, or longer than {LONGEST_NAME} characters")
    if steps is None:
        notes.append("the file has no preprocessing; that of the published weights is used")
    else:
        config["preprocess"] = _read_steps(steps).to_dict()
    limits = {key: float(found[key]) for key in ("conf", "iou") if _is_number(found.get(key)) and 0 <= found[key] <= 1}
    for key, what in (("conf", "confidence"), ("iou", "IoU")):
        if key not in limits and found.get(key) is not None:
            notes.append(f"its {what} threshold, {found[key]!r:.40}, is not between 0 and 1: the default is used")
    if "conf" in limits and limits.get("conf") == limits.get("iou"):
        # A getter of the original returns the IoU for both, and what was read by it was saved again.
        limits.pop("conf")
        notes.append(f"its confidence threshold equals its IoU threshold, {limits['iou']:g}: the default is used")
    if limits:
        config["postprocess"] = limits
    return config, notes


@dataclass
class _Chain:
    """What the steps so far amount to: a pixel value `x` has become `(x / max_value - mean) / std`."""

    content: tuple[int, int] | None = None
    keep_ratio: bool = True
    canvas: tuple[int, int] | None = None
    position: Position = "center"
    fill: int = 114
    reversed: bool = False
    planar: bool = False
    max_value: float = 1.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)


def _read_steps(steps: Any) -> Letterbox:
    """Turn the steps, which work on an RGB image, into one letterbox."""
    chain = _Chain()
    for name, settings in _list_steps(steps):
        take = _STEPS.get(name)
        if take is None:
            raise InputError(f"unsupported step {name}. Known: {', '.join(_STEPS)}.")
        if chain.planar and name != "StandardizeImage":
            raise InputError(f"the step {name} comes after ImagePermute, where it does not apply to images.")
        take(chain, name, settings)
    if chain.content is None:
        raise InputError("no step resizes images. Expected one, because the input size is fixed.")
    if chain.canvas is None and chain.keep_ratio:
        raise InputError("no step pads images. Expected one, because the input size is fixed.")
    return Letterbox(
        canvas_size=chain.canvas or chain.content,
        content_size=chain.content,
        keep_ratio=chain.keep_ratio,
        position=chain.position,
        fill=chain.fill,
        channels="bgr" if chain.reversed else "rgb",
        max_value=chain.max_value,
        mean=(chain.mean[0], chain.mean[1], chain.mean[2]),
        std=(chain.std[0], chain.std[1], chain.std[2]),
    )


def _list_steps(steps: Any, depth: int = 0) -> list[tuple[str, dict[str, Any]]]:
    """Return name and settings of each step, those of a composed one in its place."""
    if isinstance(steps, str):
        return [(steps, {})]
    if isinstance(steps, list) and depth <= MAX_DEPTH:
        return [pair for step in steps for pair in _list_steps(step, depth + 1)]
    if not isinstance(steps, dict) or len(steps) != 1:
        raise InputError(f"a step is {steps!r}; expected a name, or one name with its settings.")
    ((name, settings),) = steps.items()
    settings = {} if settings is None else settings
    if not isinstance(settings, dict):
        raise InputError(f"the step {name} has the settings {settings!r}; expected a mapping.")
    return (
        _list_steps(settings.get("processings", []), depth + 1) if name == "ComposeProcessing" else [(name, settings)]
    )


def _reverse(chain: _Chain, name: str, settings: Mapping[str, Any]) -> None:
    chain.reversed = not chain.reversed
    chain.mean, chain.std = chain.mean[::-1], chain.std[::-1]


def _rescale(chain: _Chain, name: str, settings: Mapping[str, Any]) -> None:
    if chain.content or chain.canvas:
        raise InputError(f"the step {name} comes after one that resizes or pads. Expected it once, before that.")
    chain.content = _two_sides(name, settings)
    chain.keep_ratio = name != "DetectionRescale"


def _pad(chain: _Chain, name: str, settings: Mapping[str, Any]) -> None:
    if chain.canvas:
        raise InputError(f"the step {name} comes after another that pads. Expected one.")
    chain.canvas = _two_sides(name, settings)
    chain.position = "center" if name == "DetectionCenterPadding" else "top-left"
    stated = settings.get("pad_value", 114)
    values = stated if isinstance(stated, list) else [stated] * 3
    if len(values) != 3 or not all(map(_is_number, values)):
        raise InputError(f"the step {name} has the pad_value {stated!r}; expected a number.")
    numbers = zip(values, chain.mean, chain.std, strict=True)
    pixels = {round((value * std + mean) * chain.max_value, 3) for value, mean, std in numbers}
    fill = pixels.pop()
    if pixels or fill != round(fill) or not 0 <= fill <= 255:
        raise InputError(f"the step {name} has the pad_value {stated!r}; expected a single grey value from 0 to 255.")
    chain.fill = round(fill)


def _standardize(chain: _Chain, name: str, settings: Mapping[str, Any]) -> None:
    value = settings.get("max_value", 255.0)
    if not _is_number(value) or value <= 0:
        raise InputError(f"the step {name} has the max_value {value!r}; expected a number above 0.")
    chain.max_value *= value
    chain.mean = tuple(mean / value for mean in chain.mean)


def _normalize(chain: _Chain, name: str, settings: Mapping[str, Any]) -> None:
    means, stds = settings.get("mean"), settings.get("std")
    for numbers in (means, stds):
        if not isinstance(numbers, list) or len(numbers) != 3 or not all(map(_is_number, numbers)):
            raise InputError(f"the step {name} has mean {means!r} and std {stds!r}; expected three numbers each.")
    assert isinstance(means, list)
    assert isinstance(stds, list)
    if min(stds) <= 0:
        raise InputError(f"the step {name} has the std {stds!r}; expected numbers above 0.")
    chain.mean = tuple(old + mean * scale for old, mean, scale in zip(chain.mean, means, chain.std, strict=True))
    chain.std = tuple(scale * std for scale, std in zip(chain.std, stds, strict=True))


def _permute(chain: _Chain, name: str, settings: Mapping[str, Any]) -> None:
    order = settings.get("permutation", [2, 0, 1])
    if order != [2, 0, 1]:
        raise InputError(f"the step {name} has the permutation {order!r}; expected [2, 0, 1].")
    chain.planar = True


_STEPS: dict[str, Callable[[_Chain, str, Mapping[str, Any]], None]] = {
    "ReverseImageChannels": _reverse,
    "DetectionLongestMaxSizeRescale": _rescale,
    "DetectionRescale": _rescale,
    "DetectionCenterPadding": _pad,
    "DetectionBottomRightPadding": _pad,
    "StandardizeImage": _standardize,
    "NormalizeImage": _normalize,
    "ImagePermute": _permute,
}


def _two_sides(name: str, settings: Mapping[str, Any]) -> tuple[int, int]:
    sides = settings.get("output_shape")
    if not isinstance(sides, Sequence) or len(sides) != 2 or not all(_is_number(side) for side in sides):
        raise InputError(f"the step {name} has the output_shape {sides!r}; expected height and width in pixels.")
    if any(side != int(side) for side in sides):
        raise InputError(f"the step {name} has the output_shape {sides!r}; expected whole pixels.")
    return int(sides[0]), int(sides[1])


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9
