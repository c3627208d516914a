import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data.letterbox import Letterbox
from zoo.errors import InputError
from zoo.tasks.detection.postprocess import Detections, Postprocess
from zoo.tasks.detection.views import Views, fuse

LETTERBOX = Letterbox(canvas_size=(64, 96), content_size=(60, 90))


def detections(*rows):
    """Boxes with score and class."""
    values = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Detections(values[:, :4], values[:, 4], values[:, 5].long())


def areas(views, width, height):
    return [view.area for view in views.look_at(width, height)]


def test_tiles_cover_the_image_and_keep_their_size():
    found = areas(Views(tiles=100, overlap=0.2), 250, 100)
    assert found == [(0, 0, 250, 100), (0, 0, 100, 100), (80, 0, 180, 100), (150, 0, 250, 100)]
    assert areas(Views(tiles=100), 100, 100) == [(0, 0, 100, 100)]
    assert areas(Views(), 5000, 5000) == [(0, 0, 5000, 5000)]
    for overlap in (0, 0.33, 0.9):
        seen = np.zeros((130, 333), int)
        for left, top, right, bottom in areas(Views(tiles=64, overlap=overlap), 333, 130)[1:]:
            assert (right - left, bottom - top) == (64, 64)
            seen[top:bottom, left:right] += 1
        assert seen.min() > 0


@pytest.mark.parametrize(
    "wrong", [{"tiles": 8}, {"tiles": 64.0}, {"overlap": 0.95}, {"overlap": -0.1}, {"overlap": True}]
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))} is .*; expected"):
        Views(**wrong)


def test_boxes_come_back_from_every_look():
    image = Image.new("RGB", (300, 200))
    image.paste("white", (40, 50, 70, 90))
    for view in Views(tiles=150, tta=True).look_at(*image.size):
        canvas, place = view.draw(image, LETTERBOX)
        rows, columns = (canvas[0] > 200).nonzero(as_tuple=True)
        if len(rows):
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            (found,) = view.locate(detections([*map(float, box), 1, 0]), place).boxes.tolist()
            assert found == pytest.approx([40, 50, 70, 90], abs=5)  # a pixel of the smaller canvas


def unite(views, found, width=200, height=100, **settings):
    looks = list(views.look_at(width, height))
    return views.unite(list(zip(looks, found, strict=True)), Postprocess(**settings))


def test_a_single_look_is_not_touched():
    own = detections([0, 0, 50, 50, 0.9, 0], [1, 1, 50, 50, 0.8, 0])
    assert unite(Views(tiles=200), [own]) is own


def test_things_in_tiles_are_counted_once_and_without_pieces():
    views = Views(tiles=120, overlap=0.25)  # from 0 to 120 and from 80 to 200
    whole = detections([10, 20, 190, 80, 0.6, 0], [30, 30, 50, 50, 0.9, 1])
    left = detections([10, 20, 120, 80, 0.9, 0], [85, 5, 105, 25, 0.7, 1], [31, 30, 51, 50, 0.8, 1])
    right = detections([80, 20, 190, 80, 0.9, 0], [86, 5, 106, 25, 0.75, 1], [80, 85, 92, 95, 0.5, 2])
    found = unite(views, [whole, left, right])
    rows = [(round(score, 2), label, box) for box, score, label in zip(*(part.tolist() for part in found), strict=True)]
    assert rows == [
        (0.8, 1, [31, 30, 51, 50]),  # of the tile; the whole image does not count for small things
        (0.75, 1, [86, 5, 106, 25]),  # in both tiles
        (0.6, 0, [10, 20, 190, 80]),  # longer than the overlap: the whole image has it, and the pieces are gone
        (0.5, 2, [80, 85, 92, 95]),  # cut, but the only one
    ]


def test_boxes_of_several_looks_become_their_mean():
    """By hand: weights are the scores; a look that missed the thing counts as 0."""
    first = detections([0, 0, 10, 10, 0.8, 0], [50, 50, 60, 60, 0.6, 1], [0, 0, 10, 10, 0.5, 1])
    second = detections([0, 0, 12, 10, 0.4, 0], [80, 80, 90, 90, 0.3, 0])
    found = fuse([first, second], Postprocess(conf=0.2, iou=0.5))
    assert found.labels.tolist() == [0, 1, 1]
    assert found.scores.tolist() == pytest.approx([0.6, 0.3, 0.25])  # 0.15 is below the threshold
    assert found.boxes[0].tolist() == pytest.approx([0, 0, (0.8 * 10 + 0.4 * 12) / 1.2, 10])
    assert len(fuse([detections(), detections()], Postprocess()).scores) == 0
