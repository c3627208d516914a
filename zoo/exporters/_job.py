"""What a smaller file is made of, and what making it has found."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zoo.files import dump_json
from zoo.progress import Progress
from zoo.tasks import Parity


@dataclass(frozen=True)
class Job:
    """A smaller file to make.

    Attributes:
        source: The float32 file.
        target: The file to write.
        program: What the source was made of.
        images: How many images there are to calibrate on.
        batch: Returns one of them by its number, as the file takes it.
        examples: How many images are scored.
        score: Runs an exported model on all of them, or those of some numbers; None: what stands in `target`.
        max_drop: Points of the metric that may be lost.
        keeps_any: Whether the file is kept whatever it loses, so that no layer is left in float.
        show: Says what happens.
    """

    source: Path
    target: Path
    program: Any
    images: int
    batch: Callable[[int], Any]
    examples: int
    score: Callable[[Callable[[Any], Any] | None, Sequence[int] | None], Parity]
    max_drop: float
    keeps_any: bool
    show: Progress


@dataclass(frozen=True)
class Found:
    """How a smaller file was made.

    Attributes:
        precision: `fp16` or `int8`.
        calibration_images: How many gave the ranges of its tensors.
        layers: How many layers could have 8 bits.
        left_in_float: Names of those that have not.
        curve: Layers left in float, and points of the metric lost with them, in the order of the tries.
    """

    precision: str
    calibration_images: int = 0
    layers: int = 0
    left_in_float: tuple[str, ...] = ()
    curve: tuple[tuple[int, float], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"precision": self.precision} if self.precision != "int8" else asdict(self)

    def summary(self) -> dict[str, Any]:
        """Return plain values that tell what the file is, without how it was found."""
        return {key: value for key, value in self.to_dict().items() if key != "curve"}

    def facts(self) -> dict[str, str]:
        """Return what stands in the metadata of the file."""
        return {"zoo.precision": dump_json(self.summary())}
