"""The class names of images, printed, drawn and written down by the command `zoo predict`."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any

from zoo._model import get_fact
from zoo.data import read_image
from zoo.tasks.answers import Keep, PredictFlags, printing_answers, saving_answers, writing_json, writing_rows
from zoo.tasks.classification.plots import MOST_TILES, Tile, draw_predictions

TOP = 3  # names per image, if the command does not say
SHEET = "predictions.png"
COLUMNS = ("source", "rank", "class", "probability")


def print_names(model: Any, sources: Any, flags: PredictFlags) -> None:
    """Print the predicted classes of each image; with a folder, write them there and draw the first images."""
    has_several = get_fact(model, "thresholds") is not None  # then all labels above their thresholds are named
    most = TOP if flags.top_k is None and not has_several else flags.top_k
    answers = model.predict(sources, top_k=most, **flags.options)
    tiles, total = list[Tile](), 0
    is_drawn = flags.out is not None and "images" in flags.save
    savers = {"json": _writing_dicts, "csv": _writing_table}
    with printing_answers(flags) as tell, saving_answers(flags, savers) as save:
        for answer in takewhile(lambda _: not flags.is_stopped(), answers):
            save(answer)
            tell(answer, vars(answer))
            total += 1
            if is_drawn and len(tiles) < MOST_TILES:
                name = ", ".join(answer.names) or "none" if has_several else answer.name
                probability = None if has_several else answer.probability
                tiles.append(Tile(read_image(Path(answer.source)), name, probability, answer.source))
        if flags.out is not None and is_drawn:
            draw_predictions(tiles, flags.out / SHEET, total=total)


@contextmanager
def _writing_dicts(path: Path) -> Iterator[Keep]:
    with writing_json(path) as add:
        yield lambda answer: add(vars(answer))


@contextmanager
def _writing_table(path: Path) -> Iterator[Keep]:
    """Write a row for each name of an image, the most probable first; of an image without any one of rank 0."""
    with writing_rows(path, COLUMNS) as add:

        def keep(answer: Any) -> None:
            for rank, (name, probability) in enumerate(zip(answer.names, answer.probabilities, strict=True), 1):
                add([answer.source, rank, name, f"{probability:.6f}"])
            if not answer.names:  # no label is above its threshold
                add([answer.source, 0, "", ""])

        yield keep
