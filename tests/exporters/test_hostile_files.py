"""Files that are broken, foreign or hostile: a sentence each, before anything of them is run."""

import json
import os
import pickle

import numpy as np
import pytest
from PIL import Image

import zoo
from tools.cli import main
from zoo.data import Preprocess
from zoo.errors import InputError, WeightsContentError
from zoo.files import write_checksums

onnx = pytest.importorskip("onnx", reason="the extra export is not installed")
pytest.importorskip("onnxruntime", reason="the extra export is not installed")
HOW = Preprocess(image_size=8, mean=(0.1, 0.2, 0.3)).to_dict()
EXPORT = {"files": {"onnx": "model.onnx"}, "input": "bytes", "outputs": ["probabilities"]}
WEIGHTS = np.random.default_rng(0).standard_normal((3, 3)).astype(np.float32)


def describe(**changes):
    """Return the metadata of a good file, with changes."""
    known = {
        "task": "classification",
        "model": None,
        "classes": ["a", "b", "c"],
        "preprocess": HOW,
        "postprocess": None,
    }
    return known | {"licence": "mit", "export": EXPORT} | changes


def write(folder, facts=None, *, side=8, classes=3, operator=("", "Softmax"), dims=None, place=None, bytes_in=True):
    """Write a classifier that looks at the mean colour, or one that is not as it should be."""
    make, kinds = onnx.helper, onnx.TensorProto
    weights = onnx.numpy_helper.from_array(np.resize(WEIGHTS, (3, classes)), "weights")
    if dims:
        del weights.dims[:]
        weights.dims.extend(dims)
    if place is not None:
        weights.ClearField("raw_data")
        weights.data_location = kinds.EXTERNAL
        weights.external_data.add(key="location", value=place)
    axes = onnx.numpy_helper.from_array(np.array([1, 2] if bytes_in else [2, 3]), "axes")
    nodes = [
        make.make_node("Cast", ["images"], ["numbers"], to=kinds.FLOAT),
        make.make_node("ReduceMean", ["numbers", "axes"], ["mean"], keepdims=0),
        make.make_node("MatMul", ["mean", "weights"], ["logits"]),
        make.make_node(operator[1], ["logits"], ["probabilities"], domain=operator[0]),
    ]
    shape = ["n", side, side, 3] if bytes_in else ["n", 3, side, side]
    taken = make.make_tensor_value_info("images", kinds.UINT8 if bytes_in else kinds.FLOAT, shape)
    given = make.make_tensor_value_info("probabilities", kinds.FLOAT, ["n", classes])
    opsets = [make.make_opsetid(domain, version) for domain, version in {"": 18, operator[0] or "": 18}.items()]
    graph = make.make_graph(nodes, "graph", [taken], [given], [weights, axes])
    model = make.make_model(graph, opset_imports=opsets, ir_version=9)
    for key, value in (describe() if facts is None else facts).items():
        model.metadata_props.add(key=f"zoo.{key}", value=value if key == "damaged" else json.dumps(value))
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def refusal(path):
    with pytest.raises((InputError, WeightsContentError)) as caught:
        zoo.load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_file_alone_says_enough_of_itself(tmp_path):
    model = zoo.load(write(tmp_path))
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    (answer,) = model.predict(Image.fromarray(pixels))
    logits = pixels.astype(np.float64).mean((0, 1)) @ WEIGHTS
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert answer.names == tuple("abc"[place] for place in np.argsort(-expected))
    assert answer.probabilities == pytest.approx(sorted(expected, reverse=True), abs=1e-5)
    assert model.licence.weights == "mit"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is empty"),
        (b"no model, but a text " * 40, "is not a whole ONNX file: it is cut short, or a file of another kind"),
        (pickle.dumps(os.system), "is not a whole ONNX file"),
        (0.2, "is not a whole ONNX file"),
        (0.99, "is not a whole ONNX file"),
    ],
)
def test_what_is_no_whole_file(tmp_path, content, text):
    path = write(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * content)] if isinstance(content, float) else content)
    assert text in refusal(path)


@pytest.mark.parametrize(
    ("facts", "options", "text"),
    [
        ({}, {"operator": ("evil.ops", "Run")}, "the custom operator 'Run' of the domain 'evil.ops', which is not"),
        ({}, {"operator": ("", "Evil")}, "the custom operator 'Evil', which is not one of ONNX"),
        ({}, {"classes": 4}, "it gives 4 classes, and the metadata names 3"),
        ({}, {"side": 16}, r"it takes images uint8 (N, 16, 16, 3); expected one input of uint8 (N, 8, 8, 3)"),
        ({}, {"side": 10**9}, "contradicts its metadata: it takes images uint8 (N, 1000000000, 1000000000, 3)"),
        ({}, {"bytes_in": False}, "contradicts its metadata: it takes images float32"),
        ({}, {"dims": (3, 10**12)}, "its tensor 'weights' claims the shape (3, 1000000000000), but there are only"),
        ({"damaged": "[1,"}, {}, "is damaged: it is no JSON"),
        ({"classes": 7}, {}, "is damaged: classes: Input should be a valid list"),
        ({"preprocess": HOW | {"image_size": 10**9}}, {}, "is damaged: image_size is 1000000000"),
        ({"preprocess": None}, {}, "is damaged: preprocess is missing"),
        ({"preprocess": HOW | {"kind": "letterbox"}}, {}, "is damaged: preprocess"),
        ({"export": {"input": "text", "outputs": []}}, {}, "is damaged: export is"),
        ({"export": EXPORT | {"outputs": ["boxes"]}}, {}, "gives boxes; expected probabilities or logits"),
        ({"task": "segmentation"}, {}, "is for segmentation; expected classification or detection"),
        ({"task": "detection"}, {}, "which is not for detection"),
    ],
)
def test_what_contradicts_itself(tmp_path, facts, options, text):
    path = write(tmp_path, describe(**facts), **options)
    assert text in refusal(path)


@pytest.mark.parametrize("place", ["/etc/passwd", "../outside.bin", "link.bin", "missing.bin", ""])
def test_values_outside_of_the_folder_are_not_read(tmp_path, place):
    (tmp_path / "outside.bin").write_bytes(WEIGHTS.tobytes())
    path = write(tmp_path / "model", place=place)
    (path.parent / "link.bin").symlink_to(tmp_path / "outside.bin")
    assert f"has values in the file {place!r}, which is not read" in refusal(path)
    path = write(tmp_path / "model", place="inside.bin")
    (path.parent / "inside.bin").write_bytes(WEIGHTS.tobytes())
    assert zoo.load(path).num_classes == 3


def test_a_foreign_file_is_opened_once_it_is_told_what_is_missing(tmp_path, capsys):
    path = write(tmp_path, {}, bytes_in=False)
    found = refusal(path)
    assert "By its shapes it is a classifier of 3 classes for images of 8 x 8 pixels, but not how" in found
    assert main(["predict", str(path), str(path)]) == 2
    assert "has no metadata of zoo export" in capsys.readouterr().err
    told = json.loads(found[found.index("{") : found.rindex("}") + 1])
    (tmp_path / "config.json").write_text(json.dumps(told | {"export": {"outputs": ["probabilities"]}}))
    model = zoo.load(path)
    assert (model.classes, model.preprocess.image_size) == (("0", "1", "2"), 8)
    assert sum(model.predict(np.full((9, 9, 3), 200, np.uint8))[0].probabilities) == pytest.approx(1)
    assert "is no classifier by its shapes: it takes images uint8 (N, N, N, 3)" in refusal(
        write(tmp_path / "b", {}, side="s")
    )


def test_a_folder_that_was_changed(tmp_path):
    path = write(tmp_path / "a")
    config = path.with_name("config.json")
    config.write_text(json.dumps(describe(classes=["a", "c", "b"])))
    assert "contradict each other: classes differs" in refusal(path)
    config.write_text(json.dumps(describe()))
    assert zoo.load(path.parent).classes == ("a", "b", "c")
    write_checksums(path.parent, ["config.json", "model.onnx"])
    path.write_bytes(path.read_bytes() + b"\x00")
    assert "does not match its checksum" in refusal(path)
    write_checksums(path.parent, [])
    config.write_text(json.dumps(describe(export=EXPORT | {"files": {"onnx": "../a/model.onnx"}})))
    with pytest.raises(InputError, match="export names no files in its folder"):
        zoo.load(path.parent)
    (tmp_path / "model.onnx").mkdir()
    for place, text in (
        ("model.onnx", "config.json"),
        ("other.bin", "is a file; expected"),
        ("no.onnx", "there is no"),
    ):
        (tmp_path / "other.bin").touch()
        assert text in refusal(tmp_path / place)
