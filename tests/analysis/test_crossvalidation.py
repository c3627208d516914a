import csv
import json

import numpy as np
import pytest
import torch
from scipy import stats

import zoo
from figure_checks import build, texts
from tools.cli import main
from zoo.analysis.crossvalidation import _Images, _Resampling
from zoo.analysis.crossvalidation_plot import _draw
from zoo.analysis.held_out import HeadScorer
from zoo.analysis.resampling import Score, draw_subset
from zoo.errors import DataError, InputError, ZooError
from zoo.optim.solvers import make_folds
from zoo.progress import Progress

QUIET = Progress(enabled=False)
TINY = {"image_size": 32, "device": "cpu", "num_workers": 0, "progress": False}


def make_patients(patients=30, each=4):
    """Features of photos that tell the patient, and nothing of the class, which is drawn for each patient."""
    generator = torch.Generator().manual_seed(0)
    people = torch.randn(patients, 40, generator=generator) * 3
    vectors = people.repeat_interleave(each, 0) + 0.1 * torch.randn(patients * each, 40, generator=generator)
    labels = (torch.arange(patients) % 2).repeat_interleave(each)
    return vectors, labels, torch.arange(patients).repeat_interleave(each)


def test_photos_of_one_patient_do_not_stand_on_both_sides():
    vectors, labels, groups = make_patients()
    alone, _ = _Resampling(HeadScorer(vectors, labels, 2, l2=0.1), 5, 1, 0).score_folds(QUIET)
    scorer = HeadScorer(vectors, labels, 2, groups, l2=0.1)
    work = _Resampling(scorer, 5, 1, 0)
    together, _ = work.score_folds(QUIET)
    assert alone["top1"].mean > 0.95
    assert together["top1"].mean < 0.7, "chance is 0.5"
    for learnt, held in work.parts:
        assert not set(groups[learnt].tolist()) & set(groups[held].tolist())
        inner = scorer._deal_inner(learnt, labels[learnt], seed=0)
        assert all(len(inner[groups[learnt] == group].unique()) == 1 for group in groups[learnt].unique())
    drawn = draw_subset(work.parts[0][0], labels, 0.5, seed=0, groups=groups)
    assert {int((groups[drawn] == group).sum()) for group in groups[drawn].unique()} == {4}, "groups are whole"


def test_each_fold_is_scored_by_scikit_learns_head_of_the_rest():
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(120) % 3
    vectors = torch.randn(120, 12, generator=generator) + torch.randn(3, 12, generator=generator)[labels] * 0.7
    scorer = HeadScorer(vectors, labels, 3, l2=0.02)
    folds = make_folds(labels, 4)
    for fold in range(4):
        learnt, held = (folds != fold).nonzero()[:, 0], (folds == fold).nonzero()[:, 0]
        peer = make_pipeline(StandardScaler(), LogisticRegression(C=1 / (0.02 * len(learnt)), tol=1e-9, max_iter=1000))
        answers = peer.fit(vectors[learnt].double(), labels[learnt]).predict(vectors[held].double())
        found = scorer.score(learnt, held, seed=0)
        assert found.top1 == pytest.approx(float((answers == labels[held].numpy()).mean()))
        assert found.macro_f1 == pytest.approx(f1_score(labels[held], answers, average="macro"))


def test_the_interval_knows_that_heads_share_their_images():
    values = [0.7, 0.8, 0.75, 0.72, 0.78]
    score = Score.of(values, 0.25)
    reach = stats.t.ppf(0.975, 4) * np.std(values, ddof=1) * np.sqrt(1 / 5 + 0.25)
    assert (score.low, score.high) == pytest.approx((0.75 - reach, 0.75 + reach))


@pytest.fixture(scope="module")
def found(images):
    return zoo.crossvalidate(zoo.get("timm/test_resnet", num_classes=3, seed=3), images, folds=3, **TINY)


def test_all_images_are_held_out_once_in_each_repeat_and_the_curve_ends_at_the_score(found, images):
    again = zoo.crossvalidate(zoo.get("timm/test_resnet", num_classes=3, seed=3), images, folds=3, curve=False, **TINY)
    assert again.scores == found.scores
    assert found.images == 27, "train and val"
    assert len(found.scores["top1"].values) == len(found.l2) == 6
    assert [point.images for point in found.curve] == [9, 18]
    assert found.curve[-1].scores["top1"].values == found.scores["top1"].values[:3]
    first, last = (point.scores["top1"].values for point in found.curve)
    assert found.gain.values == pytest.approx(np.subtract(last, first))
    assert "more labels would" in found.verdict.lower()
    assert "3 folds × 2, 27 images" in texts(build(_draw, found))


def test_the_command_prints_tables_draws_and_gives_json(found, images, tmp_path, capsys):
    zoo_run = zoo.finetune(
        zoo.get("timm/test_resnet", num_classes=3, seed=3), images, out=tmp_path / "run", epochs=1, mode="full", **TINY
    )
    command = ["crossvalidate", str(zoo_run.folder), str(images), "--folds", "3", "--split", "train", "--device", "cpu"]
    assert main([*command, "--solver", "prototype", "-o", str(tmp_path / "scores.png")]) == 0
    told = capsys.readouterr().out
    assert "18 images" in told
    assert "learning curve" in told
    assert "was trained on labelled images" in told
    assert (tmp_path / "scores.png").stat().st_size > 10_000
    assert main([*command, "--solver", "prototype", "--no-curve", "--repeats", "1", "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert len(plain["scores"]["top1"]["values"]) == 3
    assert plain["notes"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"folds": 1}, "folds is 1"),
        ({"group_by": "("}, "no regular expression"),
        ({"lr": 0.1}, "lr has no effect"),
        ({"split": "trian"}, "expected one of"),
        ({"solver": "prototype", "l2": 1.0}, "no effect with solver=prototype"),
    ],
)
def test_wrong_options_are_told_before_anything_is_read(options, text):
    with pytest.raises(InputError, match=text):
        zoo.crossvalidate("timm/test_resnet", "nowhere", **options)


def test_detectors_and_groups_that_cannot_be_dealt_are_refused(images, tmp_path):
    with pytest.raises(InputError, match="this is a detector"):
        zoo.crossvalidate("yolo_nas_s", "nowhere")
    opened = zoo.open_data(images)
    with pytest.raises(ZooError, match="finds no group in"):
        _Images.of(opened, "all", "train")
    with pytest.raises(DataError, match="images are in 2"):
        _Images.of(opened, "all", "^(train|val)").check(5)
    with (tmp_path / "table.csv").open("w") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "label", "group"])
        rows.writerows(
            [name, name.split("/")[1], f"camera {place % 4}"] for place, name in enumerate(opened.train.names)
        )
    table = _Images.of(zoo.open_data(tmp_path / "table.csv", image_root=images), "all", None)
    assert int(table.groups.max()) == 3, "a table's own groups hold without being asked for"
