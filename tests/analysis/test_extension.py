import json
import re
import shutil

import pytest
import torch

import zoo
from coloured_folder import write_coloured
from tools.cli import main
from zoo.errors import InputError
from zoo.tasks import task_of

TINY = {"batch_size": 6, "image_size": 32, "num_workers": 0, "progress": False, "device": "cpu", "cache": "disk"}
ROWS = ("fc.weight", "fc.bias")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """`old` with two colours and a finished run of it, `new` with a third one, `both` with all."""
    root = tmp_path_factory.mktemp("extension")
    write_coloured(root / "both", train=8, val=5)
    for folder, colours in (("old", ("blue", "green")), ("new", ("red",))):
        for split in ("train", "val"):
            for colour in colours:
                shutil.copytree(root / "both" / split / colour, root / folder / split / colour)
    model = zoo.get("timm/test_resnet", num_classes=2, seed=3)
    zoo.finetune(model, root / "old", solver="exact", label_smoothing=0.1, out=root / "run", **TINY)
    return root


def extend(place, out, data="new", **options):
    options = {"max_drop": 100, "progress": False} | options
    return zoo.extend(place / "run", place / data, out=out, device="cpu", **options)


@pytest.mark.parametrize("keep_rows", [True, False])
def test_one_class_more_and_the_report_says_what_evaluate_says(place, tmp_path, keep_rows, capsys):
    found = extend(place, tmp_path / "more", keep_rows=keep_rows, progress=True)
    assert re.search("features of 16 images: .* reused from an earlier run", capsys.readouterr().out)
    model = zoo.load(found.folder)
    assert model.classes == ("blue", "green", "red")
    own, now = zoo.load(place / "run").state_dict(), model.state_dict()
    assert all(torch.equal(own[name], now[name]) for name in own if name not in ROWS)
    assert all(torch.equal(own[name], now[name][:2]) for name in ROWS) is keep_rows
    assert found.kept_rows is keep_rows
    before = zoo.evaluate(place / "run", place / "old", progress=False)
    old, new, both = (zoo.evaluate(found.folder, place / name, progress=False) for name in ("old", "new", "both"))
    told = json.loads((found.folder / "extension.json").read_text())
    names = ("old_top1_before", "old_top1_after", "new_top1", "top1")
    assert [told[name] for name in names] == pytest.approx([each.top1 for each in (before, old, new, both)])
    assert found.evaluation.confusion == both.confusion
    assert found.evaluation.loss == pytest.approx(both.loss, rel=1e-5)
    assert told["new_top1"] >= 0.6, "the new class is learnt"
    across = [both.confusion[0][2], both.confusion[1][2], sum(both.confusion[2][:2])]
    assert [sum(row["taken_for"].values()) for row in told["per_class"]] == across
    assert json.loads((found.folder / "config.json").read_text())["origin"]["extends"] == "run"


def test_new_rows_are_the_best_beside_old_ones(place, tmp_path):
    found = extend(place, tmp_path / "more", keep_rows=True)
    model, data = found.model, zoo.open_data(place / "both")
    source = task_of(model).make_scoring_source(model, data.train)
    images, targets = source.collate([source.samples[index] for index in range(len(data.train))])
    with torch.no_grad():
        features = model.run_backbone(source.prepare(images, targets, 0, 0)[0]).double()
    linear = model.get_head().double()
    cost = torch.nn.functional.cross_entropy(linear(features), torch.tensor(data.train.targets), label_smoothing=0.1)
    scale = features.std(0, unbiased=False)
    (cost + found.l2 / 2 * (linear.weight[2] * scale).square().sum()).backward()
    assert linear.weight.grad[2].norm() < 1e-4 < linear.weight.grad[:2].norm()
    assert abs(float(linear.bias.grad[2])) < 1e-5


def test_a_drop_above_the_guard_leaves_nothing(place, tmp_path):
    for split in ("train", "val"):  # a new class that looks like an old one
        for number in range(3):
            shutil.copytree(place / "old" / split / "green", tmp_path / "like" / split / f"green {number}")
    with pytest.raises(InputError, match=r"old classes drop from .* nothing was written"):
        zoo.extend(place / "run", tmp_path / "like", out=tmp_path / "lost", device="cpu", progress=False)
    assert not (tmp_path / "lost").exists()


def test_one_folder_of_old_and_new_images_keeps_their_splits(place, tmp_path):
    shutil.copytree(place / "both", tmp_path / "both")
    (tmp_path / "both" / "train" / "blue" / "00.png").rename(tmp_path / "both" / "val" / "blue" / "seen.png")
    gone = shutil.copytree(place / "run", tmp_path / "run")
    record = json.loads((gone / "data.json").read_text())
    for source, images in ((record["source"], 24), (str(tmp_path / "nowhere"), 23)):
        (gone / "data.json").write_text(json.dumps(record | {"source": source}))
        out = tmp_path / f"more-{images}"
        found = zoo.extend(gone, tmp_path / "both", out=out, max_drop=100, device="cpu", progress=False)
        assert found.evaluation.images == 15, "an image that the run has learnt judges nothing"
        assert json.loads((out / "extension.json").read_text())["images"] == images
        assert not found.kept_rows


def test_what_cannot_be_extended_is_refused(place, tmp_path):
    for options, text in (
        ({"data": "old"}, "has no new class"),
        ({"old_data": tmp_path / "gone"}, "gone"),
        ({"old_data": place / "both"}, "red"),
        ({"max_drop": -1}, "max_drop is -1"),
    ):
        with pytest.raises(InputError, match=text):
            extend(place, tmp_path / "out", **options)
    moved = shutil.copytree(place / "run", tmp_path / "moved")
    record = json.loads((moved / "data.json").read_text())
    (moved / "data.json").write_text(json.dumps(record | {"source": str(tmp_path / "nowhere")}))
    with pytest.raises(InputError, match="there are no training images of old classes"):
        zoo.extend(moved, place / "new", out=tmp_path / "out", progress=False)
    (moved / "run.json").unlink()
    with pytest.raises(InputError, match="is not a finished run"):
        zoo.extend(moved, place / "new", out=tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_the_command_prints_the_report(place, tmp_path, capsys):
    words = ["extend", str(place / "run"), str(place / "new"), "-o", str(tmp_path / "more"), "--json", "--keep-rows"]
    assert main([*words, "--max-drop", "100"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["new_classes"] == ["red"]
    assert told["kept_rows"] is True
    assert main(["extend", str(tmp_path / "more"), str(place / "new")]) == 2
    assert "is the result of an extension" in capsys.readouterr().err
