import pytest
from PIL import Image

from zoo.training.report import draw_course
from zoo.training.run_folder import RunFolder

RATES = {"head": [0.01, 0.1, 0.05, 0.0], "trunk": [0.0, 0.0, 0.0, 0.0]}


@pytest.mark.parametrize("evaluated", [True, False])
@pytest.mark.parametrize("scores", [{"top1": "top-1", "top5": "top-5"}, {"map": "mAP", "map50": "mAP50"}])
def test_a_run_leaves_its_curves_and_rates(tmp_path, scores, evaluated):
    folder = RunFolder.create(tmp_path / "run", "run")
    first, second = scores
    records = [{"epoch": 1, "loss": 1.2}, {"epoch": 2, "loss": 0.8}]
    if evaluated:
        records = [record | {"val_loss": 1.0, first: 0.5, second: 0.9} for record in records]
    draw_course(folder, records, RATES, scores=scores, steps_per_epoch=2)
    assert {path.name for path in folder.pictures.iterdir()} == {"curves.png", "rates.png"}
    for path in folder.pictures.iterdir():
        with Image.open(path) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert len(picture.convert("L").getcolors()) > 10  # something is drawn
