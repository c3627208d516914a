import json
from dataclasses import asdict

import pytest
from torch import nn

from zoo._version import VERSION
from zoo.data.letterbox import Letterbox
from zoo.data.transforms import Preprocess
from zoo.errors import WeightsError
from zoo.models.config import ModelConfig, describe_model, make_postprocess
from zoo.models.registry import Entry
from zoo.tasks.detection.postprocess import Postprocess

ENTRY = Entry(
    name="tinynet",
    task="classification",
    build=print,
    summary="",
    parameters=None,
    preprocess=Preprocess(),
    weights=None,
    options={"pad_type": ("", "same")},
)
OWN = {
    "model": "tinynet",
    "task": "classification",
    "num_classes": 2,
    "classes": ["ant", "bee"],
    "options": {"pad_type": "same", "drop_rate": 0.1},
    "preprocess": Preprocess(image_size=64).to_dict(),
    "postprocess": None,
    "licence": "mit",
    "origin": {"weights": "/somewhere", "revision": None, "init_seed": 3, "pretrained": True},
    "zoo": "0.0.1",
}
TIMM = {
    "architecture": "tinynet",
    "num_classes": 2,
    "num_features": 96,
    "global_pool": "avg",
    "label_names": ["ant", "bee"],
    "label_descriptions": {"ant": "small", "bee": "loud"},
    "model_args": {"pad_type": "same", "num_classes": 2, "in_chans": 3},
    "pretrained_cfg": {
        "tag": "r160",
        "input_size": [3, 160, 160],
        "interpolation": "bilinear",
        "crop_pct": 0.95,
        "crop_mode": "squash",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "license": "cc-by-nc-4.0",
        "first_conv": "conv1",
    },
}


def parse(raw, origin="org/tiny"):
    return ModelConfig.parse(raw, origin)


def test_the_own_form_survives_a_round_trip():
    config = parse(OWN)
    assert config.model_dump() == OWN
    assert parse(json.loads(json.dumps(config.model_dump()))) == config
    assert config.names == ("ant", "bee")
    assert config.preprocess_value == Preprocess(image_size=64)
    assert config.init_seed == 3


def test_a_detector_has_a_letterbox_and_settings_of_its_boxes():
    letterbox = Letterbox(canvas_size=(320, 320), content_size=(320, 320), channels="bgr")
    config = parse({"preprocess": letterbox.to_dict(), "postprocess": {"conf": 0.5}})
    assert config.preprocess_value == letterbox
    assert make_postprocess(config.postprocess) == Postprocess(conf=0.5)


@pytest.mark.parametrize(
    ("postprocess", "text"),
    [
        ({"conf": 2}, r"conf is 2; expected a number from 0 to 1"),
        ({"cnf": 0.5}, r"postprocess: unknown key 'cnf'\. Did you mean 'conf'\? Expected conf, iou, "),
        ([0.5], r"postprocess: Input should be a valid dictionary"),
    ],
)
def test_settings_of_boxes_are_checked_where_they_are_read(postprocess, text):
    with pytest.raises(WeightsError, match=text):
        parse({"postprocess": postprocess})


def test_preprocessing_of_another_kind_is_refused():
    config = parse({"preprocess": Letterbox().to_dict()})
    with pytest.raises(WeightsError, match=r"preprocessing of type Letterbox; tinynet needs Preprocess\."):
        config.fitting(ENTRY)
    config = parse({})
    assert (config.model, config.names, config.preprocess_value, config.init_seed) == (None, None, None, 0)
    assert config.zoo == VERSION


def test_a_module_of_somebody_elses_is_described_by_what_it_has():
    module = nn.Linear(2, 3)
    assert describe_model(module) == ModelConfig()
    module.classes, module.preprocess, module.postprocess = ("ant",), Letterbox(fill=0), Postprocess(conf=0.5)
    found = describe_model(module)
    assert (found.names, found.num_classes, found.preprocess_value) == (("ant",), 1, Letterbox(fill=0))
    assert found.postprocess == asdict(Postprocess(conf=0.5))
    module.postprocess = "something else"
    assert describe_model(module).postprocess is None


def test_the_form_of_timm():
    config = parse(TIMM)
    assert config.preprocess_value == Preprocess(
        image_size=160,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        interpolation="bilinear",
        crop_pct=0.95,
        crop_mode="squash",
    )
    assert (config.model, config.num_classes, config.names) == ("tinynet", 2, ("ant", "bee"))
    assert config.licence == "cc-by-nc-4.0"
    assert config.options == {"pad_type": "same"}


@pytest.mark.parametrize("side", [160, [160, 160]])
def test_arguments_of_timm_that_repeat_the_rest_are_no_options(side):
    assert parse(TIMM | {"model_args": {"img_size": side, "num_classes": 2, "in_chans": 3}}).options == {}


def test_an_old_file_of_timm_has_its_facts_at_the_top():
    config = parse({"architecture": "tinynet", "input_size": [3, 96, 96], "mean": [0, 0, 0], "license": "mit"})
    assert config.preprocess_value == Preprocess(image_size=96, mean=(0.0, 0.0, 0.0))
    assert (config.licence, config.num_classes, config.options) == ("mit", None, {})
    assert parse({"classes": ["ant", "bee"]}).num_classes == 2


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"clases": [], "path": "x"}, "unknown key 'clases'; unknown key 'path'"),
        ({"num_classes": 10**30}, "num_classes: Input should be less than or equal to 100000"),
        ({"num_classes": "2"}, "num_classes: Input should be a valid integer"),
        ({"num_classes": True}, "num_classes: Input should be a valid integer"),
        ({"num_classes": 3}, "num_classes is 3, but there are 2 classes"),
        ({"classes": "ab"}, "classes: Input should be a valid list"),
        ({"classes": ["ant", 2]}, "classes.1: Input should be a valid string"),
        ({"classes": ["ant", ""]}, "classes.1: String should have at least 1 character"),
        ({"model": ["tinynet"]}, "model: Input should be a valid string"),
        ({"model": "x" * 1001}, "model: String should have at most 1000 characters"),
        ({"options": {"pad_type": ["same"]}}, "options.pad_type: Input should be a plain value"),
        ({"origin": {"weights": {}}}, "origin.weights: Input should be a plain value"),
        ({"origin": {"init_seed": "3"}}, "origin: init_seed is '3'; expected an integer of 64 bits"),
        ({"origin": {"init_seed": 2**64}}, "origin: init_seed is 18446744073709551616; expected an integer"),
        ({"preprocess": [224]}, "preprocess: Input should be a valid dictionary"),
        ({"preprocess": {"image_size": 64}}, "preprocess: mean, std, interpolation, crop_pct, crop_mode missing"),
        (
            {"preprocess": OWN["preprocess"] | {"crop_pct": 1e-6}},
            "crop_pct is 1e-06 with an image_size of 64; expected images resized to at most 8192 pixels",
        ),
        ({"preprocess": OWN["preprocess"] | {"mean": [0, 0, 10**400]}}, "mean is .*; expected three numbers"),
        ({"licence": 5}, "licence: Input should be a valid string"),
    ],
)
def test_hostile_files_of_the_own_form(change, text):
    with pytest.raises(WeightsError, match=rf"^config\.json of org/tiny: {text}") as error:
        parse(OWN | change)
    assert str(error.value).endswith(". Expected the config.json of a zoo run or a timm model.")
    assert ".. Expected" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"architecture": 5}, "model: Input should be a valid string"),
        ({"architecture": None, "num_classes": 1.5}, "num_classes: Input should be a valid integer"),
        ({"num_classes": 3}, "num_classes is 3, but there are 2 classes"),
        ({"label_names": {"0": "ant"}}, "classes: Input should be a valid list"),
        ({"model_args": [1]}, "model_args is a list; expected an object"),
        ({"model_args": {"layers": [1, 2]}}, "options.layers: Input should be a plain value"),
        ({"pretrained_cfg": "x"}, "pretrained_cfg is a str; expected an object"),
        ({"pretrained_cfg": {"input_size": 224}}, r"input_size is 224; expected \[3, side, side\]"),
        ({"pretrained_cfg": {"input_size": [1, 28, 28]}}, r"input_size is \[1, 28, 28\]; expected \[3, side, side\]"),
        ({"pretrained_cfg": {"input_size": [3, 224, 192]}}, "input_size is .*expected"),
        ({"pretrained_cfg": {"input_size": {"a": 3, "b": 9, "c": 9}}}, "input_size is .*expected"),
        ({"pretrained_cfg": {"input_size": [3, "9", "9"]}}, "image_size is '9'; expected an integer from 8 to 4096"),
        ({"pretrained_cfg": {"crop_pct": 10**400}}, "crop_pct is .*; expected a number above 0, at most 1"),
        ({"pretrained_cfg": {"license": ["mit"]}}, "licence: Input should be a valid string"),
    ],
)
def test_hostile_files_of_timms_form(change, text):
    with pytest.raises(WeightsError, match=rf"^config\.json of org/tiny: {text}"):
        parse(TIMM | change)


@pytest.mark.parametrize("raw", [[1], "architecture", 5, None], ids=repr)
def test_other_things_than_objects(raw):
    kind = type(raw).__name__
    with pytest.raises(WeightsError, match=rf"^config\.json of a file: it is a {kind}; expected an object\."):
        parse(raw, "a file")


@pytest.mark.parametrize("model", [None, "tinynet", "tinynet.some_tag", "timm/tinynet"])
def test_a_configuration_of_the_model_fits(model):
    config = parse(OWN | {"model": model})
    assert config.fitting(ENTRY) is config


@pytest.mark.parametrize("raw", [OWN | {"model": "bignet"}, TIMM | {"architecture": "bignet"}])
def test_a_configuration_of_another_model_does_not(raw):
    with pytest.raises(WeightsError, match=r"are for bignet, not for tinynet\. Use bignet instead"):
        parse(raw).fitting(ENTRY)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pad_type", "valid"),
        ("pad_type", True),
        ("pretrained", True),
        ("checkpoint_path", "/etc/passwd"),
        ("drop_rate", 1.0),
        ("drop_rate", -0.1),
        ("drop_rate", "0.1"),
        ("drop_rate", True),
        ("drop_rate", float("nan")),
        ("drop_rate", 10**400),
    ],
)
def test_options_that_the_entry_does_not_allow(key, value):
    with pytest.raises(WeightsError, match=rf"sets the option {key}={value!r}; tinynet supports .*pad_type.*'same'"):
        parse({"options": {key: value}}).fitting(ENTRY)


@pytest.mark.parametrize("key", ["num_classes", "in_chans", "img_size"])
def test_arguments_of_timm_that_contradict_the_rest_are_no_options_either(key):
    with pytest.raises(WeightsError, match=rf"sets the option {key}=9; tinynet supports"):
        parse(TIMM | {"model_args": {key: 9}}).fitting(ENTRY)


@pytest.mark.parametrize("options", [{}, {"drop_rate": 0}, {"drop_rate": 0.99}, {"pad_type": ""}])
def test_options_that_it_allows(options):
    config = parse({"options": options}).fitting(ENTRY)
    assert config.options == options


def test_a_derived_configuration_forgets_classes_and_keeps_where_it_came_from():
    derived = parse(OWN).derived(ENTRY, {"drop_rate": 0.5}, "apache-2.0", init_seed=7, sha256="0" * 64)
    assert (derived.classes, derived.num_classes, derived.preprocess) == (None, None, None)
    assert (derived.model, derived.options, derived.licence) == ("tinynet", {"drop_rate": 0.5}, "apache-2.0")
    assert derived.origin == OWN["origin"] | {"init_seed": 7, "sha256": "0" * 64}
    assert derived.zoo == VERSION
