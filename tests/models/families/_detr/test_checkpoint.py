import json

import pytest
import torch

from small_detr import NAMES, SMALL, build_small, save_as_transformers
from zoo.errors import WeightsError
from zoo.files.safetensors import read_tensors, save_tensors
from zoo.models.families._coco import COCO_CATEGORIES, COCO_CLASSES
from zoo.models.families._detr.checkpoint import read_detr_file

pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")

PUBLISHED = {  # the names of COCO's classes in a label file of the Hub that differ from those of the data set
    "motorcycle": "motorbike", "airplane": "aeroplane", "couch": "sofa", "potted plant": "pottedplant",
    "dining table": "diningtable", "tv": "tvmonitor",
}  # fmt: skip


def read(name, folder):
    return read_detr_file(folder / "model.safetensors", SMALL[name], COCO_CLASSES)


def label(names):
    return {"id2label": {str(number): name for number, name in enumerate(names)}}


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_has_the_name_and_the_value_that_it_has_in_memory(tmp_path, name):
    network = save_as_transformers(name, tmp_path, num_classes=3)
    found = read(name, tmp_path)
    model = build_small(name, num_classes=3)
    assert found.tensors.keys() == model.state_dict().keys()
    theirs = network.state_dict()
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in found.tensors.items())
    on_disk = set(read_tensors(tmp_path / "model.safetensors"))
    assert on_disk != set(found.tensors)  # else nothing was renamed, and this test would prove nothing
    assert found.config == {"num_classes": 3}
    assert found.notes == ()


@pytest.mark.parametrize("name", NAMES)
def test_halves_are_read_as_float32(tmp_path, name):
    save_as_transformers(name, tmp_path, num_classes=3)
    file = tmp_path / "model.safetensors"
    tensors = {key: t.half() if t.is_floating_point() else t for key, t in read_tensors(file).items()}
    save_tensors(tensors, file, {})
    kinds = {tensor.dtype for tensor in read(name, tmp_path).tensors.values() if tensor.is_floating_point()}
    assert kinds == {torch.float32}


def test_the_caller_s_random_numbers_stay_as_they_are(tmp_path):
    save_as_transformers("dfine_n", tmp_path, num_classes=3)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    read("dfine_n", tmp_path)
    assert torch.equal(torch.rand(1), expected)


def test_class_names_are_read(tmp_path):
    save_as_transformers("dfine_n", tmp_path, num_classes=3, **label(["ant", "bee", "cow"]))
    assert read("dfine_n", tmp_path).config == {"classes": ["ant", "bee", "cow"]}
    names = [PUBLISHED.get(name, name) for name in COCO_CLASSES]
    assert sum(name not in COCO_CLASSES for name in names) == 6
    save_as_transformers("rtdetr_v2_r18", tmp_path, num_classes=80, **label(names))
    assert read("rtdetr_v2_r18", tmp_path).config == {"classes": list(COCO_CLASSES)}


@pytest.mark.parametrize("names", [["ant", "ant", "cow"], ["ant", "bee"], ["ant", "", "cow"], ["ant", 5, "cow"]])
def test_names_that_cannot_be_used_are_left_out(tmp_path, names):
    save_as_transformers("dfine_n", tmp_path, num_classes=3, **label(names))
    assert read("dfine_n", tmp_path).config == {"num_classes": 3}


@pytest.mark.parametrize("is_named", [False, True])
def test_of_91_category_numbers_the_80_in_use_are_kept(tmp_path, is_named):
    names = ["N/A"] * 91
    for slot, name in zip(COCO_CATEGORIES, COCO_CLASSES, strict=True):
        names[slot] = name
    network = save_as_transformers("rfdetr_n", tmp_path, num_classes=91, **(label(names) if is_named else {}))
    found = read("rfdetr_n", tmp_path)
    assert found.config == {"classes": list(COCO_CLASSES)}
    assert found.notes == ("kept the 80 used rows of COCO's 91 category ids",)
    assert torch.equal(found.tensors["class_embed.weight"][0], network.class_embed.weight[1])  # person is number 1
    assert torch.equal(found.tensors["class_embed.bias"][79], network.class_embed.bias[90])  # toothbrush is number 90
    proposals = [tensor.shape[0] for key, tensor in found.tensors.items() if "enc_out_class_embed" in key]
    assert set(proposals) == {80}
    assert len(proposals) == 2 * 3


def test_91_classes_of_somebody_else_stay(tmp_path):
    names = [f"thing {number}" for number in range(91)]
    save_as_transformers("rfdetr_n", tmp_path, num_classes=91, **label(names))
    found = read("rfdetr_n", tmp_path)
    assert found.config == {"classes": names}
    assert found.tensors["class_embed.weight"].shape[0] == 91


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model_type": "bert"},
            r"has model_type 'bert'; expected 'd_fine'",
        ),
        (
            {"decoder_layers": 6},
            r"has a different size or "
            r"variant: decoder_layers is 6, expected 2\. Use the",
        ),
        ({"num_queries": 10**12}, r"num_queries is 1000000000000, expected 50"),
        ({"decoder_activation_function": "gelu"}, r"decoder_activation_function is 'gelu', expected 'relu'"),
        ({"decoder_method": "\x1b[2J"}, r"decoder_method is '\\x1b\[2J', expected 'default'"),
        ({"backbone_config": {"stage_num_blocks": [9] * 4}}, r"backbone_config\.stage_num_blocks is \[9, 9, 9, 9\]"),
    ],
)
def test_a_configuration_of_another_network_is_refused(tmp_path, changes, message):
    save_as_transformers("dfine_n", tmp_path, num_classes=3, **changes)
    with pytest.raises(WeightsError, match=message):
        read("dfine_n", tmp_path)


@pytest.mark.parametrize(
    "extra",
    [
        {"auto_map": {"AutoModel": "other/repo--code.Evil"}},
        {"_name_or_path": "/etc/passwd"},
        {"architectures": ["os.system"]},
        {"torch_dtype": "float64"},
        {"quantization_config": {"quant_method": "bitsandbytes"}},
    ],
)
def test_whatever_else_a_configuration_says_does_not_matter(tmp_path, extra):
    network = save_as_transformers("dfine_n", tmp_path, num_classes=3, **extra)
    found = read("dfine_n", tmp_path)
    theirs = network.state_dict()
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in found.tensors.items())


def test_configurations_and_indexes_that_are_none_are_refused(tmp_path):
    save_as_transformers("dfine_n", tmp_path, num_classes=3)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"config\.json cannot be used: .*Repair or remove it"):
        read("dfine_n", tmp_path)
    save_as_transformers("dfine_n", tmp_path, num_classes=3)
    index = {"metadata": {}, "weight_map": {"model.enc_score_head.weight": "../../elsewhere.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "adapter_config.json").write_text("{}")
    assert read("dfine_n", tmp_path).config == {"num_classes": 3}


def drop(tensors):
    del tensors["model.enc_output.0.weight"]


def add(tensors):
    tensors["model.extra.weight"] = torch.zeros(2)


def resize(tensors):
    tensors["model.enc_output.0.weight"] = torch.zeros(3, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, r"1 missing: model\.enc_output\.0\.weight\. Expected"),
        (add, r"1 not expected: model\.extra\.weight\. Expected"),
        (
            resize,
            r"1 with a different shape: model\.enc_output\.0\.weight \(file \[3, 3\], model \[32, 32\]\)\. Expected",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, capfd, change, message):
    save_as_transformers("dfine_n", tmp_path, num_classes=3)
    file = tmp_path / "model.safetensors"
    tensors = dict(read_tensors(file))
    change(tensors)
    save_tensors(tensors, file, {})
    capfd.readouterr()
    with pytest.raises(WeightsError, match=message):
        read("dfine_n", tmp_path)
    assert capfd.readouterr() == ("", "")  # no table of the library's own


def test_files_of_other_kinds_are_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"x\.pth cannot be used: d_fine needs a safetensors file"):
        read_detr_file(tmp_path / "x.pth", SMALL["dfine_n"], COCO_CLASSES)
    save_tensors({"a": torch.zeros(1)}, tmp_path / "model.safetensors", {})
    with pytest.raises(WeightsError, match=r"has no classification tensors"):
        read("dfine_n", tmp_path)
