import pytest
from PIL import Image

from image_files import write_tree
from zoo.checkpoint import RunFolder
from zoo.data import open_data
from zoo.evaluation import Miss
from zoo.metrics import Evaluation
from zoo.report import MOST_MISTAKES, draw_run

RECORDS = [
    {"epoch": 1, "loss": 1.2, "val_loss": 1.0, "top1": 0.5, "top5": 1.0},
    {"epoch": 2, "loss": 0.8, "val_loss": 0.9, "top1": 0.75, "top5": 1.0},
]
RATES = {"head": [0.01, 0.1, 0.05, 0.0], "trunk": [0.0, 0.0, 0.0, 0.0]}
EVALUATION = Evaluation(0.75, 1.0, 0.9, 4, ("cat", "dog"), ((1, 1), (0, 2)))
MISSES = [Miss(1, 0, 1, 0.9), Miss(2, 1, 0, 0.6)]


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "run", "run")


@pytest.fixture
def images(tmp_path):
    return open_data(write_tree(tmp_path / "data", {"train/cat": 1, "train/dog": 1, "val/cat": 2, "val/dog": 2})).val


@pytest.fixture
def shown(monkeypatch):
    """What the sheet of mistakes was asked to show."""
    sheet = []
    monkeypatch.setattr("zoo.report.draw_mistakes", lambda mistakes, path: sheet.extend(mistakes))
    return sheet


def names(folder):
    return {path.name for path in folder.pictures.iterdir()}


def test_a_run_leaves_all_its_pictures(folder, images):
    draw_run(folder, RECORDS, RATES, 2, EVALUATION, MISSES, images)
    assert names(folder) == {"curves.png", "rates.png", "confusion.png", "mistakes.png"}
    for path in folder.pictures.iterdir():
        with Image.open(path) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert len(picture.convert("L").getcolors()) > 10  # something is drawn


def test_a_run_without_validation_has_curves_and_rates(folder):
    records = [{"epoch": record["epoch"], "loss": record["loss"]} for record in RECORDS]
    draw_run(folder, records, RATES, 2, None, [], None)
    assert names(folder) == {"curves.png", "rates.png"}


def test_without_images_there_are_no_mistakes_to_show(folder):
    draw_run(folder, RECORDS, RATES, 2, EVALUATION, MISSES, None)
    assert names(folder) == {"curves.png", "rates.png", "confusion.png"}


def test_a_run_without_mistakes_says_so(folder, images):
    draw_run(folder, RECORDS, RATES, 2, EVALUATION, [], images)
    assert "mistakes.png" in names(folder)


def test_mistakes_carry_their_names(folder, images, shown):
    draw_run(folder, RECORDS, RATES, 2, EVALUATION, MISSES, images)
    assert [(mistake.truth, mistake.predicted, mistake.confidence, mistake.name) for mistake in shown] == [
        ("cat", "dog", 0.9, "val/cat/1.png"),
        ("dog", "cat", 0.6, "val/dog/0.png"),
    ]
    for miss, mistake in zip(MISSES, shown, strict=True):
        assert mistake.image.tobytes() == images.read(miss.index)[0].tobytes()


def test_no_more_images_are_read_than_are_shown(folder, images, shown):
    misses = [Miss(0, 0, 1, 1.0)] * MOST_MISTAKES + [Miss(99, 0, 1, 0.1)] * 5  # there is no image 99
    draw_run(folder, RECORDS, RATES, 2, EVALUATION, misses, images)
    assert len(shown) == MOST_MISTAKES
