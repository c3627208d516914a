"""What every way of bringing an image to the form that a network expects has in common."""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from zoo.data.decode import Need
from zoo.data.letterbox import Letterbox
from zoo.data.transforms import Preprocess


@runtime_checkable
class Preprocessing(Protocol):
    """What weights expect of an image.

    Attributes:
        kind: Tells it from other ways, in files too.
    """

    kind: ClassVar[str]

    @property
    def resized_side(self) -> float:
        """The longest side that an image of usual proportions is resized to, in pixels."""
        ...

    @property
    def need(self) -> Need | None:
        """What `decode_image` is told of the pixels that are needed; None: all."""
        ...

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some values changed."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        ...

    def describe(self) -> str:
        """Return what becomes of an image, in words."""
        ...


_KINDS: dict[str, type[Preprocess] | type[Letterbox]] = {kind.kind: kind for kind in (Preprocess, Letterbox)}


def read_preprocessing(values: Mapping[str, Any]) -> Preprocess | Letterbox:
    """Make preprocessing again of what `to_dict` gave; values that name no kind are those of `Preprocess`.

    Raises:
        InputError: If a key is missing or unknown, or a value is out of range.
    """
    return _KINDS.get(values.get("kind", Preprocess.kind), Preprocess).from_dict(values)
