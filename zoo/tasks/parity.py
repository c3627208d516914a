"""How far the answers of an exported model are from those of the model itself, on the same images."""

from dataclasses import asdict, dataclass
from typing import Any

SCORE_BOUND = 1e-4  # of float32: below it two scores are the same
METRIC_BOUND = 1e-3


@dataclass(frozen=True)
class Parity:
    """What a comparison has found.

    Attributes:
        images: How many were compared.
        largest: The largest difference of a score, 0 to 1.
        mean: The mean difference of scores.
        agreement: Share of images (classifiers) or detections (detectors) with the same answer, 0 to 1; ties count as
            the same.
        metric: What `ours` and `theirs` are, such as `top-1`.
        ours: Metric of the model; None without labels.
        theirs: Metric of the exported one.
        first: Name of the first image whose answers differ; None if none do.
        max_drop: Points of the metric that may be lost; None: the answers have to be the same within float32.
        compared: How many detections were compared; None for classifiers, which answer for every image.
    """

    images: int
    largest: float
    mean: float
    agreement: float
    metric: str
    ours: float | None = None
    theirs: float | None = None
    first: str | None = None
    max_drop: float | None = None
    compared: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing to compare: neither side has found anything on any image."""
        return self.compared == 0

    @property
    def drop(self) -> float | None:
        """Points of the metric that are lost; below 0 if the exported one is better; None without labels."""
        return None if self.ours is None or self.theirs is None else round(100 * (self.ours - self.theirs), 6)

    @property
    def holds(self) -> bool:
        """Whether the answers are the same within float32; with `max_drop`, whether the metric is kept."""
        if self.max_drop is not None:
            return self.drop is not None and self.drop <= self.max_drop
        gap = 0.0 if self.ours is None or self.theirs is None else abs(self.ours - self.theirs)
        return self.largest <= SCORE_BOUND and self.agreement == 1.0 and gap <= METRIC_BOUND

    def row(self) -> dict[str, str]:
        """Return what a table shows."""
        shown = {
            "images": f"{self.images:,}",
            "largest difference": f"{self.largest:.1e}",
            "same answers": "nothing found" if self.is_empty else f"{self.agreement:.2%}",
        }
        if self.ours is None or self.theirs is None:
            return shown | {"metric": "no labels"}
        return shown | {f"{self.metric} of the model": f"{self.ours:.2%}", "of the file": f"{self.theirs:.2%}"}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {"drop": self.drop, "holds": self.holds}
