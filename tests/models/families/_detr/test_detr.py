import pytest
import torch

import zoo
from models.contract import assert_seeded
from small_detr import NAMES, shrink
from zoo.errors import InputError
from zoo.models.catalog import find_entry
from zoo.models.families._coco import COCO_CLASSES
from zoo.models.families._detr import POSTPROCESS, STRETCHED
from zoo.tasks.detection.postprocess import Postprocess
from zoo.training.run_folder import RunFolder
from zoo.training.run_model import load_model

ALL = [
    *("dfine_n", "dfine_s", "dfine_m", "dfine_l", "dfine_x"),
    *("rtdetr_v2_r18", "rtdetr_v2_r34", "rtdetr_v2_r50", "rtdetr_v2_r101"),
    *("rfdetr_n", "rfdetr_s", "rfdetr_m", "rfdetr_l"),
]


@pytest.fixture
def small(monkeypatch):
    pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")
    shrink(monkeypatch)


def test_the_models_and_what_is_known_of_each():
    listed = [name for name in zoo.list_models(task="detection") if not name.startswith("yolo")]
    assert set(listed) == set(ALL)
    for name in ALL:
        facts = zoo.describe(name)
        assert facts["classes"] == list(COCO_CLASSES)
        assert facts["postprocess"] == dict(POSTPROCESS)
        assert facts["postprocess"]["iou"] == 1.0
        assert facts["code_licence"] == "Apache-2.0"
        weights = facts["weights"]
        assert (weights["licence"], weights["pinned"], weights["revision"]) == ("apache-2.0", False, None)
        assert 40 < weights["mean_ap"] < 60
    assert set(ALL) <= set(zoo.list_models(commercial=True))
    assert len({find_entry(name).weights.repo for name in ALL}) == len(ALL)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_has_the_attributes_of_a_detector(small, name):
    model = zoo.get(name, num_classes=3)
    assert (model.task, model.num_classes, model.training) == ("detection", 3, False)
    assert model.classes == ("0", "1", "2")
    assert model.preprocess == find_entry(name).preprocess
    assert model.preprocess.keep_ratio is False
    assert model.postprocess == Postprocess(**POSTPROCESS)
    assert model.licence.code == "Apache-2.0"


@pytest.mark.parametrize("name", NAMES)
def test_the_same_call_gives_the_same_weights_and_leaves_the_random_state_alone(small, name):
    assert_seeded(name, 3)


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_it_gives_the_same_boxes(small, name, tmp_path):
    model, images = zoo.get(name, classes=["ant", "bee"]), torch.rand(1, 3, 128, 128)
    model.preprocess = STRETCHED.resized(128)
    RunFolder(tmp_path).save_model(model, model.state_dict())
    for loaded in (load_model(tmp_path), zoo.get(name, pretrained=tmp_path)):
        assert list(loaded.state_dict()) == list(model.state_dict())
        with torch.inference_mode():
            for ours, theirs in zip(loaded.decode(loaded(images)), model.decode(model(images)), strict=True):
                assert torch.equal(ours, theirs)
        assert (loaded.classes, loaded.preprocess) == (("ant", "bee"), STRETCHED.resized(128))


@pytest.mark.parametrize("name", NAMES)
def test_for_other_classes_what_depends_on_them_is_new_and_the_rest_is_kept(small, name, tmp_path):
    model = zoo.get(name, classes=["ant", "bee"])
    RunFolder(tmp_path).save_model(model, model.state_dict())
    other = zoo.get(name, pretrained=tmp_path, num_classes=5, seed=4)
    old, new = model.state_dict(), other.state_dict()
    assert set(other.load_report.reinitialised) == {key for key in new if key.startswith(model.class_prefixes)}
    assert all(torch.equal(old[key], new[key]) for key in new if not key.startswith(model.class_prefixes))
    with torch.inference_mode():
        assert other(torch.rand(1, 3, 128, 128)).logits.shape[2] == 5


@pytest.mark.parametrize("name", NAMES)
def test_options_of_other_models_are_refused(small, name):
    with pytest.raises(InputError, match="three-channel images only; in_channels is"):
        zoo.get(name, in_channels=4)
    with pytest.raises(InputError, match=r"does not support drop_rate"):
        zoo.get(name, drop_rate=0.1)
