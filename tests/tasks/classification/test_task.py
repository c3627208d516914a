import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import zoo
from coloured_folder import write_coloured
from image_files import write_tree
from tasks.contract import TaskContract
from zoo.errors import InputError, PresetError
from zoo.progress import Progress
from zoo.settings.preset import Preset
from zoo.tasks.classification.data import Data, open_data
from zoo.tasks.classification.evaluator import Miss
from zoo.tasks.classification.metrics import Evaluation
from zoo.tasks.classification.task import MOST_TILES, Classification

EVALUATION = Evaluation(0.75, 1.0, 0.9, 4, ("cat", "dog"), ((1, 1), (0, 2)))
MISSES = [Miss(1, 0, 1, 0.9), Miss(2, 1, 0, 0.6)]
TASK = Classification()


@pytest.fixture
def images(tmp_path):
    return open_data(write_tree(tmp_path / "data", {"train/cat": 1, "train/dog": 1, "val/cat": 2, "val/dog": 2})).val


@pytest.fixture
def shown(monkeypatch):
    """What the sheet of mistakes was asked to show."""
    sheet = []
    monkeypatch.setattr(
        "zoo.tasks.classification.task.draw_mistakes", lambda mistakes, path, total: sheet.extend(mistakes)
    )
    return sheet


def draw(misses, images, folder):
    """Draw every plot, and return the names of the files."""
    for name, plot in TASK.make_plots(EVALUATION, misses, images).items():
        plot(folder / name)
    return {path.name for path in folder.glob("*.png")}


def test_runs_without_images_or_mistakes_are_drawn_too(tmp_path, images):
    assert draw(MISSES, images, tmp_path) == {"confusion.png", "mistakes.png"}


def test_without_images_there_are_no_mistakes_to_show(tmp_path):
    assert draw(MISSES, None, tmp_path) == {"confusion.png"}


def test_a_run_without_mistakes_says_so(tmp_path, images):
    assert "mistakes.png" in draw([], images, tmp_path)


def test_mistakes_carry_their_names(tmp_path, images, shown):
    draw(MISSES, images, tmp_path)
    assert [(mistake.truth, mistake.predicted, mistake.confidence, mistake.name) for mistake in shown] == [
        ("cat", "dog", 0.9, "val/cat/1.png"),
        ("dog", "cat", 0.6, "val/dog/0.png"),
    ]
    for miss, mistake in zip(MISSES, shown, strict=True):
        assert mistake.image.tobytes() == images.read(miss.index)[0].tobytes()


def test_no_more_images_are_read_than_are_shown(tmp_path, images, shown):
    misses = [Miss(0, 0, 1, 1.0)] * MOST_TILES + [Miss(99, 0, 1, 0.1)] * 5  # there is no image 99
    draw(misses, images, tmp_path)
    assert len(shown) == MOST_TILES


def test_misses_are_the_wrong_ones_and_the_most_confident_come_first():
    logits = torch.tensor([[4.0, 0, 0], [0, 3, 0], [0, 9, 0], [0, 0, 1], [2, 0, 0]])
    targets = torch.tensor([0, 0, 2, 1, 2])
    batches = [(logits[:2], targets[:2]), (logits[2:], targets[2:])]
    evaluator = TASK.make_evaluator(None, ("a", "b", "c"), None, device="cpu")
    for outputs, truth in batches:
        evaluator.update(evaluator.observe(outputs, truth))
    result, misses = evaluator.compute(), evaluator.examples
    found = [(miss.index, miss.target, miss.predicted) for miss in misses]
    assert found == [(2, 2, 1), (1, 0, 1), (4, 2, 0), (3, 1, 2)]
    assert [miss.confidence for miss in misses] == pytest.approx(logits[[2, 1, 4, 3]].softmax(1).amax(1).tolist())
    assert (result.top1, result.images) == (pytest.approx(0.2), 5)
    assert result.loss == pytest.approx(float(nn.functional.cross_entropy(logits, targets)))


def test_fields_of_detectors_are_refused(tmp_path):
    model = zoo.get("timm/test_resnet", num_classes=2)
    with pytest.raises(PresetError, match=r"2 errors.\n  mosaic is 0\.5, which does not apply to a classifier"):
        zoo.finetune(model, tmp_path, mosaic=0.5, plain_epochs=3, progress=False)


def of_classes(*names):
    return Data(None, None, None, names, "nowhere")


def test_the_loss_is_the_models_own_with_the_presets_smoothing():
    logits, targets = torch.tensor([[2.0, 0.0], [1.0, 3.0]]), torch.tensor([0, 0])
    plain, model = nn.Identity(), zoo.get("timm/test_resnet", num_classes=2)
    expected = nn.functional.cross_entropy(logits, targets, label_smoothing=0.2)
    for network in (plain, model):
        loss = TASK.make_loss(network, of_classes("a", "b"), Preset(label_smoothing=0.2))
        assert loss(logits, targets) == expected
    with pytest.raises(InputError, match=r"outputs of shape \(2, 2\) for 2 images; expected \(2, 3\)"):
        TASK.make_loss(plain, of_classes("a", "b", "c"), Preset())(logits, targets)


def test_images_that_are_almost_black_are_told_before_a_training(tmp_path, capsys):
    write_tree(tmp_path, {"cat": 3, "dog": 3})
    for number in range(2):
        Image.fromarray(np.full((9, 7), 4095, np.uint16)).save(tmp_path / f"cat/{number}.png")
    TASK.report(TASK.open_data(tmp_path), Preset(), Progress())
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("warning: 2 images are almost black. cat/0.png: its largest value is 4,095 of 65,535, which")
    TASK.report(TASK.open_data(write_tree(tmp_path.with_name("fine"), {"cat": 3, "dog": 3})), Preset(), Progress())
    assert not capsys.readouterr().out


class TestContract(TaskContract):
    name = "classification"

    @pytest.fixture
    def prepared(self, tmp_path):
        data = open_data(write_coloured(tmp_path / "data", train=3, val=2))
        return data, zoo.get("timm/test_resnet", num_classes=3)
