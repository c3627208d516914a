import copy
import functools
from dataclasses import replace

import pytest
import torch

import zoo
from loopback import Answer, Loopback
from models.contract import assert_head_learns, assert_seeded
from yolo_nas_fill import fill, image
from zoo.data.letterbox import Letterbox
from zoo.errors import InputError, LicenceError, WeightsError
from zoo.files.safetensors import read_shapes, save_tensors, sha256_file
from zoo.models import build as models
from zoo.models import registry
from zoo.models.catalog import find_entry
from zoo.models.families.yolo_nas import COCO_CLASSES, LICENCE, NOTICE, _facts, find_name
from zoo.models.families.yolo_nas.blocks import QARep
from zoo.models.families.yolo_nas.model import YoloNAS
from zoo.models.families.yolo_nas.network import SIZES
from zoo.tasks.detection.postprocess import Postprocess
from zoo.training.run_claim import create_folder
from zoo.training.run_folder import RunFolder
from zoo.training.run_model import load_model
from zoo.weights.load import load_into
from zoo.weights.places import UNVERIFIED
from zoo.weights.spec import ResolvedWeights

pytestmark = pytest.mark.usefixtures("small_detector")

NAME = "yolo_nas_s"
CLASSES = ("ant", "bee", "cow")
STEPS = [
    "ReverseImageChannels",
    {"DetectionLongestMaxSizeRescale": {"output_shape": [320, 320]}},
    {"DetectionBottomRightPadding": {"output_shape": [320, 320], "pad_value": 114}},
    {"StandardizeImage": {"max_value": 255.0}},
    {"ImagePermute": {"permutation": [2, 0, 1]}},
]
PROCESSING = {
    "class_names": list(CLASSES),
    "conf": 0.5,
    "iou": 0.65,
    "image_processor": {"ComposeProcessing": {"processings": STEPS}},
}
LETTERBOX = Letterbox(canvas_size=(320, 320), content_size=(320, 320), position="top-left", channels="bgr")


@functools.cache
def build(classes=3):
    with torch.inference_mode(False):
        return fill(zoo.get(NAME, num_classes=classes))


@pytest.fixture
def model():
    return copy.deepcopy(build())


@pytest.fixture(scope="module")
def images():
    return image("input", 1, 64, 96).float() / 255


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """As super-gradients writes it after a fine-tune: 3 classes, in the form of training."""
    path = tmp_path_factory.mktemp("sg") / "ckpt_best.pth"
    state = {f"module.{name}": value for name, value in build().state_dict().items()}
    torch.save({"ema_net": state, "net": {}, "epoch": 3, "processing_params": PROCESSING}, path)
    return path


@pytest.fixture(autouse=True)
def _untold(monkeypatch):
    monkeypatch.setattr(models, "_TOLD", set())


def boxes(network, images):
    with torch.inference_mode():
        return network(images).predictions


def same(network, other, images):
    ours, theirs = boxes(network, images), boxes(other, images)
    return torch.equal(ours.boxes, theirs.boxes) and torch.equal(ours.scores, theirs.scores)


def merge(network):
    for module in network.modules():
        if isinstance(module, QARep):
            module.merge()
    return network


FORMS = {"training": lambda network: network, "merged": merge, "fused": lambda network: network.fuse()}


@pytest.mark.parametrize("name", ["yolo_nas_s", "yolo_nas_m", "yolo_nas_l"])
def test_facts(name):
    facts = zoo.describe(name)
    network = zoo.get(name)
    assert facts["classes"] == list(COCO_CLASSES)
    assert (facts["num_classes"], facts["task"], network.task) == (80, "detection", "detection")
    assert facts["weights"]["filename"] == f"{name}_coco.pth"
    assert [url.rpartition("/")[2] for url in facts["weights"]["locations"]] == [f"{name}_coco.pth"] * 3
    assert (network.preprocess, network.postprocess) == (Letterbox(), Postprocess())
    assert find_name({key: tuple(value.shape) for key, value in network.state_dict().items()}) == name
    assert not network.training


def test_the_classes_are_those_of_coco():
    assert len(set(COCO_CLASSES)) == 80
    assert (COCO_CLASSES[0], COCO_CLASSES[11], COCO_CLASSES[-1]) == ("person", "stop sign", "toothbrush")
    assert find_entry("YOLO-NAS-S") is find_entry("yolo_nas_s")


def test_forward_is_head_of_backbone_with_the_parameters_outside_the_head(model, images):
    ours, theirs = model(images), model.head(model.trunk(images))
    assert torch.equal(ours.raw.class_logits, theirs.raw.class_logits)
    assert ours.predictions.scores.shape == (1, 8 * 12 + 4 * 6 + 2 * 3, 3)
    sum(features.sum() for features in model.trunk(images)).backward()
    dormant = model.dormant_parameters()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (name.startswith(model.head_prefixes) or name in dormant), name


def test_the_finetune_mapping_covers_the_head_and_freezes_the_rest(model):
    assert model.get_finetune_lr_dict(0.1) == {"heads": 0.1, "default": 0}
    plan = zoo.plan(model, 0.1)
    learning = {name for group in plan.trained for name in group.names}
    assert learning == {name for name, _ in model.named_parameters() if name.startswith("heads.")}


def test_frozen_parts_do_not_move_and_the_loss_falls(model, images):
    rows = torch.tensor([[0, 1, 30.0, 30, 40, 40], [0, 2, 70, 40, 30, 30]])
    assert_head_learns(model, 0.002, lambda model: model.loss(model(images), rows, assigner="static"))


def test_the_same_call_gives_the_same_weights_and_leaves_the_random_state_alone():
    first, other = assert_seeded(NAME, 3)
    for name in ("backbone.stem.conv.branch_3x3.conv.weight", "heads.head3.cls_pred.weight"):
        assert not torch.equal(first[name], other[name])


@pytest.mark.parametrize("form", FORMS)
def test_saved_and_loaded_it_gives_the_same_boxes_in_the_same_form(model, images, tmp_path, form):
    given = FORMS[form](model)
    given.classes, given.preprocess, given.postprocess = CLASSES, LETTERBOX, Postprocess(conf=0.5)
    RunFolder(tmp_path).save_model(given, given.state_dict())
    for loaded in (load_model(tmp_path), zoo.get(NAME, pretrained=tmp_path)):
        assert list(loaded.state_dict()) == list(given.state_dict())
        assert same(loaded, given, images)
        assert (loaded.classes, loaded.preprocess, loaded.postprocess) == (CLASSES, LETTERBOX, Postprocess(conf=0.5))
    assert load_model(tmp_path).config["options"] == {"in_channels": 3}


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels(model, images, tmp_path, channels):
    folder = RunFolder(tmp_path)
    folder.save_model(model, model.state_dict())
    other = zoo.get(NAME, pretrained=tmp_path, in_channels=channels)
    grey = images[:, :1]
    with torch.inference_mode():
        ours = other(grey.expand(-1, channels, -1, -1)).predictions.scores
        theirs = model(grey.expand(-1, 3, -1, -1)).predictions.scores
    assert (ours - theirs).abs().max() < 1e-5  # the same value in every channel gives the same features
    folder.save_model(other, other.state_dict())
    for loaded in (load_model(tmp_path), zoo.get(NAME, pretrained=tmp_path)):
        assert loaded.in_channels == channels
        assert same(loaded, other, grey.expand(-1, channels, -1, -1))
    bare = tmp_path / "bare.safetensors"
    save_tensors(other.fuse().state_dict(), bare, {})
    assert zoo.get(NAME, pretrained=bare).in_channels == channels
    assert zoo.get(NAME, in_channels=channels).config["options"] == {"in_channels": channels}


def test_channels_that_were_replaced_afterwards_are_saved(model, images, tmp_path):
    model.replace_in_channels(2)
    RunFolder(tmp_path).save_model(model, model.state_dict())
    assert same(load_model(tmp_path), model, images[:, :2])


@pytest.mark.parametrize("theirs", [3, 1])
def test_another_number_of_classes_makes_new_predictors_of_classes_only(images, tmp_path, theirs):
    given = build(theirs)
    RunFolder(tmp_path).save_model(given, given.state_dict())
    other = zoo.get(NAME, pretrained=tmp_path, num_classes=5)
    assert other.num_classes == 5
    assert boxes(other, images).scores.shape[-1] == 5
    assert torch.equal(boxes(other, images).boxes, boxes(given, images).boxes)
    made = {f"heads.head{head}.cls_pred.{kind}" for head in (1, 2, 3) for kind in ("weight", "bias")}
    assert set(other.load_report.reinitialised) == set(other.load_report.unused) == made
    bias = other.get_parameter("heads.head2.cls_pred.bias")
    assert bias.tolist() == pytest.approx([-4.59512] * 5, abs=1e-5)


def test_other_names_make_new_predictors_and_the_same_names_keep_them(checkpoint):
    kept = zoo.get(NAME, pretrained=checkpoint, classes=CLASSES)
    assert kept.load_report.reinitialised == ()
    assert zoo.get(NAME, pretrained=checkpoint, classes=("x", "y", "z")).load_report.reinitialised


def test_a_checkpoint_brings_its_classes_preprocessing_and_thresholds(checkpoint, images):
    network = zoo.get(NAME, pretrained=checkpoint)
    assert same(network, build(), images)
    assert network.classes == CLASSES
    assert network.preprocess == LETTERBOX
    assert network.postprocess == Postprocess(conf=0.5, iou=0.65)
    assert len(network.load_report.loaded) == 921
    assert network.load_report.notes == ("weights taken from ema_net",)
    assert (network.licence.weights, network.licence.commercial) == ("unknown", False)
    assert network.config["origin"]["sha256"] == sha256_file(checkpoint)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_checkpoint_may_be_in_any_form(model, images, tmp_path, form, wrapped):
    given = FORMS[form](model)
    state = {("module." if wrapped else "") + name: value for name, value in given.state_dict().items()}
    torch.save(state, tmp_path / "a.pt")
    network = zoo.get(NAME, pretrained=str(tmp_path / "a.pt"))
    assert list(network.state_dict()) == list(given.state_dict())
    assert same(network, given, images)
    assert network.classes == ("0", "1", "2")
    changed = zoo.get(NAME, pretrained=tmp_path / "a.pt", num_classes=2, in_channels=1)
    assert (changed.num_classes, changed.in_channels) == (2, 1)


def test_blocks_may_be_in_different_forms(model, images, tmp_path):
    model.backbone.stem.conv.merge()
    model.neck.neck1.blocks.bottlenecks[0].cv2.fuse()
    model.neck.neck3.conv.fuse()
    torch.save({"net": model.state_dict()}, tmp_path / "a.pth")
    assert same(zoo.get(NAME, pretrained=tmp_path / "a.pth"), model, images)


def test_eighty_classes_without_names_are_those_of_coco(tmp_path):
    network = build(80)
    torch.save({"net": network.state_dict()}, tmp_path / "a.pth")
    assert zoo.get(NAME, pretrained=tmp_path / "a.pth").classes == COCO_CLASSES
    kept = zoo.get(NAME, pretrained=tmp_path / "a.pth", classes=COCO_CLASSES)
    assert kept.load_report.reinitialised == ()


def test_class_names_that_do_not_fit_are_left_out_and_told(model, tmp_path):
    torch.save({"net": model.state_dict(), "processing_params": {"class_names": ["a", "b"]}}, tmp_path / "a.pth")
    network = zoo.get(NAME, pretrained=tmp_path / "a.pth")
    assert network.classes == ("0", "1", "2")
    assert network.load_report.notes[-1] == "its 2 class names were ignored: the weights have 3 classes"


def found(tensors):
    return ResolvedWeights(None, None, "a.pth", None, "0" * 64, None, False, tensors)


def test_dormant_parameters_and_counters_may_be_missing(model, images):
    tensors = {
        name: value
        for name, value in model.state_dict().items()
        if "rbr_reparam" not in name and not name.endswith("num_batches_tracked")
    }
    loaded = zoo.get(NAME, num_classes=3)
    report = load_into(loaded, found(tensors), head=loaded.class_prefixes, keep_head=True)
    assert len(loaded.dormant_parameters()) == 74
    assert len(report.spare) == 74 + 129
    assert same(loaded, model, images)


def test_another_size_or_no_yolo_nas_at_all_is_told(checkpoint, tmp_path):
    with pytest.raises(WeightsError, match=r"these weights are for yolo_nas_s, not for yolo_nas_m\. Use yolo_nas_s"):
        zoo.get("yolo_nas_m", pretrained=checkpoint)
    torch.save({"net": {"fc.weight": torch.zeros(3, 4)}}, tmp_path / "a.pth")
    with pytest.raises(
        WeightsError, match=r"a\.pth does not fit YoloNAS: 718 missing: backbone\.stem\.conv\.branch_3x3"
    ):
        zoo.get(NAME, pretrained=tmp_path / "a.pth")


def test_channels_and_rates_out_of_range(tmp_path):
    for value in (0, 300, True, "3"):
        with pytest.raises(InputError, match=r"in_channels is .*; expected a whole number in range\(1, 257\)"):
            zoo.get(NAME, in_channels=value)
    with pytest.raises(InputError, match=r"resnet18 supports three-channel images only; in_channels is 1\. Remove it"):
        zoo.get("resnet18", in_channels=1)
    with pytest.raises(InputError, match=r"yolo_nas_s does not support drop_rate\. Remove it"):
        zoo.get(NAME, drop_rate=0.5)
    stem = "backbone.stem.conv.branch_3x3.conv.weight"
    save_tensors({stem: torch.zeros(48, 1000, 3, 3)}, tmp_path / "model.safetensors", {})
    with pytest.raises(
        WeightsError, match=r"model\.safetensors has in_channels=1000; yolo_nas_s supports range\(1, 257\)"
    ):
        zoo.get(NAME, pretrained=tmp_path)


def registered_mirror():
    """The repository that the registry has, whatever a test has put there."""
    return _facts(NAME, sha256="0" * 64, mean_ap=1.0)["weights"].mirror


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A published file, on a server of its own, with the digest that the registry has; and the folder for downloads."""
    path = tmp_path / "yolo_nas_s_coco.pth"
    torch.save({"net": build().state_dict()}, path)
    with Loopback() as site:
        site.answers["/models/yolo_nas_s_coco.pth"] = Answer(path.read_bytes())
        entry = find_entry(NAME)
        places = tuple(site.url(f"{folder}/yolo_nas_s_coco.pth") for folder in ("/gone", "/models"))
        weights = replace(entry.weights, sha256=sha256_file(path), locations=places, mirror=None)
        monkeypatch.setitem(registry._ENTRIES, NAME, replace(entry, weights=weights))
        yield site, path, str(tmp_path / "cache")


def test_published_weights_are_downloaded_and_their_terms_told_once(published, images, capsys, tmp_path):
    site, path, cache = published
    network = zoo.get(NAME, pretrained=True, cache_dir=cache)
    assert same(network, build(), images)
    assert network.load_report.notes[0] == f"downloaded from {site.url('/models/yolo_nas_s_coco.pth')}"
    assert network.load_report.pinned
    assert capsys.readouterr().err.splitlines() == list(NOTICE)
    assert (network.licence.weights, network.licence.commercial) == (LICENCE, False)
    again = zoo.get(NAME, pretrained=path)  # the same file from this machine
    assert again.licence.weights == LICENCE
    assert capsys.readouterr().err == ""
    assert site.requests == ["/gone/yolo_nas_s_coco.pth", "/models/yolo_nas_s_coco.pth"]
    folder = create_folder(tmp_path / "run", "")
    folder.save_model(again, again.state_dict())
    assert folder.read_json("config.json")["licence"] == LICENCE
    header = (tmp_path / "run" / "model.safetensors").read_bytes()[8:400].decode()
    assert f'"licence":"{LICENCE}"' in header
    derived = zoo.get(NAME, pretrained=tmp_path / "run", num_classes=2)
    assert derived.licence.weights == load_model(tmp_path / "run").licence.weights == LICENCE
    with pytest.raises(LicenceError, match=f"have the licence {LICENCE}, which is not known to allow commercial use"):
        zoo.get(NAME, pretrained=tmp_path / "run", commercial=True)


def test_commercial_use_is_refused_before_anything_is_asked(published, monkeypatch, capsys):
    site, path, cache = published
    with pytest.raises(LicenceError, match=r"not known to allow commercial use"):
        zoo.get(NAME, pretrained=True, commercial=True, cache_dir=cache)
    monkeypatch.setenv("ZOO_COMMERCIAL_ONLY", "1")
    with pytest.raises(LicenceError, match=r"not known to allow commercial use"):
        zoo.get(NAME, pretrained=True, cache_dir=cache)
    with pytest.raises(LicenceError, match=r"not known to allow commercial use"):
        zoo.get(NAME, pretrained=path)
    assert site.requests == []
    assert capsys.readouterr().err == ""
    assert zoo.get(NAME).licence.commercial


def test_the_mirror_is_asked_before_the_addresses(published, hub, images, capsys, tmp_path):
    site, _, cache = published
    entry = find_entry(NAME)
    mirror = registered_mirror()
    assert (mirror.repo, mirror.filename, mirror.pinned) == ("CondadosAI/detectors", "yolo-nas-s.safetensors", False)
    save_tensors(build(80).state_dict(), tmp_path / "copy.safetensors", {})
    commit = hub.add(mirror.repo, {mirror.filename: (tmp_path / "copy.safetensors").read_bytes()})
    registry._ENTRIES[NAME] = replace(entry, weights=replace(entry.weights, mirror=mirror))
    network = zoo.get(NAME, pretrained=True, cache_dir=cache)
    assert same(network, build(80), images)
    assert capsys.readouterr().err.splitlines() == list(NOTICE)
    report = network.load_report
    assert (report.origin, report.revision, report.pinned) == (f"{hub.endpoint}/{mirror.repo}", commit, False)
    assert (report.licence, network.licence.weights) == (LICENCE, LICENCE)
    assert report.notes == (UNVERIFIED,)
    assert network.classes == COCO_CLASSES
    assert site.requests == []
    few = zoo.get(NAME, pretrained=True, num_classes=2, cache_dir=cache)
    assert few.num_classes == 2
    assert len(few.load_report.reinitialised) == 6


def test_a_mirror_with_another_size_is_refused(published, hub, tmp_path):
    _, _, cache = published
    entry, mirror = find_entry(NAME), registered_mirror()
    save_tensors(YoloNAS(SIZES["m"]).state_dict(), tmp_path / "copy.safetensors", {})
    hub.add(mirror.repo, {mirror.filename: (tmp_path / "copy.safetensors").read_bytes()})
    registry._ENTRIES[NAME] = replace(entry, weights=replace(entry.weights, mirror=mirror))
    with pytest.raises(WeightsError, match="these weights are for yolo_nas_m, not for yolo_nas_s"):
        zoo.get(NAME, pretrained=True, cache_dir=cache)


def test_the_user_s_repository_is_asked_first(published, hub, images, monkeypatch, tmp_path):
    site, path, cache = published
    commit = hub.add("me/mine", {"yolo_nas_s_coco.pth": path.read_bytes()})
    monkeypatch.setenv("ZOO_YOLO_NAS_REPO", "me/mine")
    network = zoo.get(NAME, pretrained=True, cache_dir=cache)
    assert same(network, build(), images)
    assert (network.load_report.origin, network.load_report.revision) == (f"{hub.endpoint}/me/mine", commit)
    folder = create_folder(tmp_path / "run", "")
    network.config["licence"] = "apache-2.0"  # as a wrong card may say
    folder.save_model(network, network.state_dict())
    files = {name: (tmp_path / "run" / name).read_bytes() for name in ("model.safetensors", "config.json")}
    hub.add("me/converted", files)
    monkeypatch.setattr(zoo.weights.user_config.config, "yolo_nas_repo", "me/converted")
    monkeypatch.delenv("ZOO_YOLO_NAS_REPO")
    network = zoo.get(NAME, pretrained=True, cache_dir=cache)
    assert same(network, build(), images)
    assert network.licence.weights == LICENCE
    assert site.requests == []


def test_shapes_tell_the_model(checkpoint, tmp_path):
    save_tensors(build().state_dict(), tmp_path / "a.safetensors", {})
    assert find_name(read_shapes(tmp_path / "a.safetensors")) == NAME
    assert find_name({}) is None
    assert find_name({"heads.head1.cls_pred.weight": (3, 65, 1, 1)}) is None
    assert find_name({"heads.head1.cls_pred.weight": (3,)}) is None
