"""A transform of the user's own: named in a preset or handed over as an object, called with each decoded image.

It stands before all else: crops, flips and resizing get what it returns.
"""

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo.errors import DataError, InputError, ZooError, did_you_mean

if TYPE_CHECKING:  # names of presets are read without them
    from PIL import Image

NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*|<.+>")  # in angle brackets: of an object that is not saved
EXPECTED = "module:name, such as augmentation:make for the function make of augmentation.py"


@dataclass(frozen=True)
class UserTransform:
    """A transform that is ready to be called.

    Attributes:
        name: As a preset has it: `module:name`, or what kind of object it is in angle brackets.
        call: Takes an image of Pillow, RGB; with boxes a `tv_tensors.Image` and a dict of `boxes` and `labels`. One of
            albumentations takes keywords.
        place: The file that it was imported from; empty for an object.
    """

    name: str
    call: Callable[..., Any]
    place: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.place})" if self.place else self.name

    @property
    def is_albumentations(self) -> bool:
        """Whether it is called as those of albumentations are: with keywords, on arrays."""
        return type(self.call).__module__.partition(".")[0] == "albumentations"

    def apply(self, image_name: str, *args: Any, **keywords: Any) -> Any:
        """Call it within the random numbers of a sample; what goes wrong names the image.

        Raises:
            DataError: It failed.
        """
        import torch

        if callable(reseed := getattr(self.call, "set_random_seed", None)):  # albumentations has generators of its own
            reseed(int(torch.randint(2**31, ())))
        try:
            return self.call(*args, **keywords)
        except ZooError:
            raise
        except Exception as error:
            reason = (str(error).strip().splitlines() or [""])[0]
            raise self.refuse(image_name, f"fails with {type(error).__name__}: {reason}") from error

    def refuse(self, image_name: str, fault: str) -> DataError:
        """Return the error that what was made of an image cannot be used."""
        return DataError(f"the transform {self.name} {fault.rstrip('.')}. The image is {image_name!r}.")

    def change_image(self, image: "Image.Image", name: str) -> "Image.Image":
        """Return what becomes of an image, RGB.

        Raises:
            DataError: It failed, or returned something else than an RGB image of bytes.
        """
        import numpy as np
        from PIL import Image

        image = image.convert("RGB")
        if self.is_albumentations:
            return Image.fromarray(self.check_pixels(self.apply(name, image=np.asarray(image))["image"], name))
        made = self.apply(name, image)
        return Image.fromarray(self.check_pixels(made, name))

    def check_pixels(self, made: Any, name: str) -> Any:
        """Return an image as an array `(H, W, 3)` uint8.

        Args:
            made: An RGB image of Pillow, a tensor `(3, H, W)`, or an array `(H, W, 3)`; of bytes.
            name: Of the image.

        Raises:
            DataError: It is something else.
        """
        import numpy as np
        from PIL import Image
        from torch import Tensor

        expected = "expected an RGB image, uint8"
        if isinstance(made, Image.Image):
            if made.mode != "RGB":
                raise self.refuse(name, f"returned an image of mode {made.mode}; {expected}")
            pixels = np.asarray(made)
        elif isinstance(made, (Tensor, np.ndarray)):
            pixels = made.permute(1, 2, 0).numpy() if isinstance(made, Tensor) and made.ndim == 3 else np.asarray(made)
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
                form = f"{made.dtype} {tuple(made.shape)}".removeprefix("torch.")
                hint = "; zoo scales and normalizes the pixels itself" if pixels.dtype.kind == "f" else ""
                raise self.refuse(name, f"returned {form}; {expected}{hint}")
        else:
            raise self.refuse(name, f"returned a {type(made).__name__}; {expected}")
        if not pixels.size:
            raise self.refuse(name, f"returned an image of {pixels.shape[1]} x {pixels.shape[0]} pixels; {expected}")
        return np.ascontiguousarray(pixels)


def check_transform(given: Any) -> Any:
    """Return what a preset may say of a transform: None, a name, or what can be called.

    Raises:
        ValueError: It is something else.
    """
    if given is None or (callable(given) and not isinstance(given, str)):
        return given
    if not isinstance(given, str) or not NAME.fullmatch(given):
        raise ValueError(f"transform is {given!r:.60}; expected {EXPECTED}; or in Python an object that can be called.")
    return given


def name_transform(given: Any) -> str | None:
    """Return what a file says of a transform: `module:name` if it can be imported, else its kind in angle brackets."""
    if given is None or isinstance(given, str):
        return given
    name = getattr(given, "__qualname__", type(given).__qualname__)
    module = getattr(given, "__module__", None)
    if getattr(sys.modules.get(module or "__main__"), name, None) is given and module != "__main__":
        return f"{module}:{name}"
    return f"<{name.rpartition('.')[2].strip('<>')}>"


def load_transform(given: Any) -> UserTransform | None:
    """Import a transform that is named, and make it; None if none is wanted.

    A name leads to a transform, or to a class or function without arguments that makes one. Modules are looked for in
    the current folder, then on the Python path.

    Raises:
        InputError: It cannot be imported or made, or is no transform.
    """
    if given is None:
        return None
    if not isinstance(given, str):
        return UserTransform(name_transform(given) or "", _make(given, "the transform"))
    if given.startswith("<"):
        raise InputError(
            f"the transform {given} was a Python object, which is not saved. Pass it again: zoo.resume(folder, "
            "transform=...), or zoo.finetune(..., transform=...)."
        )
    module, _, name = given.partition(":")
    loaded = _import(module, given)
    if not hasattr(loaded, name):
        hint = did_you_mean(name, [one for one in vars(loaded) if not one.startswith("_")])
        raise InputError(f"transform is {given!r}, but {loaded.__name__} has no {name!r}.{hint}")
    return UserTransform(given, _make(getattr(loaded, name), given), getattr(loaded, "__file__", "") or "")


def _import(module: str, given: str) -> Any:
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)  # it stays: processes that load images find the module there, too
    try:
        return importlib.import_module(module)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            raise InputError(
                f"transform is {given!r}, but there is no module {module!r} in {folder} or on the Python path. "
                f"Expected {EXPECTED}."
            ) from error
        raise InputError(f"transform is {given!r}, but importing it fails: {type(error).__name__}: {error}") from error


def _make(value: Any, name: str) -> Callable[..., Any]:
    """Return a transform, or what a class or function without arguments makes."""
    if isinstance(value, type) or (inspect.isroutine(value) and not _takes_arguments(value)):
        try:
            value = value()
        except Exception as error:
            raise InputError(f"{name}() fails: {type(error).__name__}: {error}") from error
    if not callable(value):
        raise InputError(
            f"{name} is {value!r:.60}; expected a transform that is called with an image, or a function without "
            "arguments that makes one."
        )
    made: Callable[..., Any] = value
    return made


def _takes_arguments(function: Any) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return True
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    required = [one for one in parameters if one.default is inspect.Parameter.empty and one.kind not in kinds[1:]]
    return bool(required)
