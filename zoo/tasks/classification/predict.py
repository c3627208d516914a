"""The class names of images, printed and drawn by the command `zoo predict`."""

from collections.abc import Sequence
from typing import Any

from zoo._text import echo
from zoo.data import Source, read_image
from zoo.tasks.answers import PredictFlags, open_answers, printing_records, writing_records
from zoo.tasks.classification.plots import MOST_TILES, Tile, draw_predictions

TOP = 3  # names per image, if the command does not say
SHEET = "predictions.png"


def print_names(model: Any, sources: Sequence[Source], flags: PredictFlags) -> None:
    """Print the predicted classes of each image; with a folder, write them there and draw the first images."""
    out = None if flags.out is None else open_answers(flags.out)
    answers = model.predict(sources, top_k=TOP if flags.top_k is None else flags.top_k, **flags.options)
    items = {source.label: source.item for source in sources}
    tiles: list[Tile] = []
    with printing_records(flags.as_json) as records, writing_records(records, out, flags.as_json):
        for answer in answers:
            records.append(vars(answer))
            if not flags.as_json:
                echo(str(answer))
            if out is not None and len(tiles) < MOST_TILES:
                tiles.append(Tile(read_image(items[answer.source]), answer.name, answer.probability, answer.source))
        if out is not None:
            draw_predictions(tiles, out / SHEET, total=len(records))
