"""The names of images, printed by the command `zoo predict`."""

from collections.abc import Sequence
from typing import Any

from zoo._text import echo
from zoo.data import Source
from zoo.tasks.answers import PredictFlags, printing_records

TOP = 3  # names per image, if the command does not say


def print_names(model: Any, sources: Sequence[Source], flags: PredictFlags) -> None:
    """Print what a classifier says of each image."""
    answers = model.predict(sources, top_k=TOP if flags.top is None else flags.top, **flags.options)
    with printing_records(flags.as_json) as records:
        for answer in answers:
            records.append(vars(answer))
            if not flags.as_json:
                echo(str(answer))
