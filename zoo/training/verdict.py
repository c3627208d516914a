"""What speaks against the result of a run: a loss that has exploded, scores that are not numbers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from zoo.training.position import Position

EXPLODED = 100.0  # times the first loss, or 1 if that is less


def find_trouble(evaluation: Any) -> str | None:
    """Return what is wrong with an evaluation: outputs or a loss that are not numbers; None if nothing is."""
    loss = evaluation.loss
    no_number = "the validation loss is not a number" if loss is not None and math.isnan(loss) else None
    return getattr(evaluation, "warning", None) or no_number


def list_warnings(position: Position, records: Sequence[Mapping[str, Any]], evaluation: Any) -> list[str]:
    """Return what speaks against a run, as sentences without a full stop.

    Args:
        position: Knows the first loss and the highest that was seen.
        records: One per epoch, with `loss`.
        evaluation: Of the model at the end; None: it was not scored.
    """
    found = []
    first, losses = position.first_loss, [record["loss"] for record in records]
    scored = getattr(evaluation, "loss", None)
    highest = max([*losses, position.highest_loss or 0.0, *([scored] if scored and math.isfinite(scored) else [])])
    if first is not None and highest > EXPLODED * max(first, 1.0):
        found.append(
            f"the loss rose from {first:.4g} to {highest:.4g} and is now {(losses or [highest])[-1]:.4g}: training "
            "has diverged, and the pretrained weights are probably ruined. Start a new run with a tenth of the "
            "learning rate"
        )
    doubts = (None if evaluation is None else find_trouble(evaluation), getattr(evaluation, "doubt", None))
    return [*found, *filter(None, doubts)]
