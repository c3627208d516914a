"""Programs of torch that would run code when torch reads them."""

import io
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

import zoo
from zoo.data import Preprocess
from zoo.errors import InputError
from zoo.exporters import torch as programs

EXPORT = {"input": "bytes", "outputs": ["logits"], "files": {"torch": "model.pt2"}}
FACTS = {"task": "classification", "classes": ["a", "b"], "preprocess": Preprocess(image_size=8).to_dict()}


class Mean(nn.Module):
    """Says what the mean colour is."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, images):
        return (self.layer(images.float().mean((1, 2))),)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    sample = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    program = torch.export.export(Mean(), (sample,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    facts = {f"zoo.{key}": json.dumps(value) for key, value in (FACTS | {"export": EXPORT}).items()}
    path = tmp_path_factory.mktemp("program") / "model.pt2"
    programs.write(program, ("logits",), path, facts)
    return path


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def change(whole, target, name, edit):
    """Write a program with one part changed."""
    with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(target, "w") as changed:
        for entry in archive.infolist():
            content = archive.read(entry)
            is_meant = entry.filename.endswith(name)
            changed.writestr(entry.filename, edit(content) if is_meant else content)


def replace(old, new):
    def edit(content):
        assert old.encode() in content
        return content.replace(old.encode(), new.encode())

    return edit


def test_a_program_comes_back(whole):
    model = zoo.load(whole)
    assert model.classes == ("a", "b")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    with torch.inference_mode():
        (expected,) = torch.export.load(whole).module()(torch.from_numpy(pixels[None]))
    (answer,) = model.predict(pixels)
    assert answer.probability == pytest.approx(expected.softmax(-1).max().item(), abs=1e-5)
    assert "/zoo/" not in whole.read_bytes().decode("latin1")


def test_what_could_run_code_is_refused_and_does_not_run(whole, tmp_path):
    made = tmp_path / "made"
    pickled = io.BytesIO()
    torch.save(Touch(made), pickled)
    evil = f"__import__('os').mkdir('{made}')"
    symbol = "Symbol('s"
    cases = [
        ("data/sample_inputs/model.pt", lambda _: pickled.getvalue(), "its sample inputs are pickled"),
        ("model_weights_config.json", replace('"use_pickle": false', '"use_pickle": true'), "is pickled"),
        ("models/model.json", replace(symbol, f"{evil} or {symbol}"), "the expression"),
        ("models/model.json", replace(symbol, f"().__class__ or {symbol}"), "the expression"),
        ("models/model.json", replace("torch.ops.aten.linear.default", "torch.hub.load"), "the operator 'torch.hub"),
        ("models/model.json", replace('"images"', '"images=print(1)"'), "the name 'images=print(1)'"),
        ("archive_version", lambda content: content, "it has a part 'data/aotinductor/x.so'"),
    ]
    for number, (name, edit, text) in enumerate(cases):
        path = tmp_path / f"{number}.pt2"
        change(whole, path, name, edit)
        if ".so" in text:
            with zipfile.ZipFile(path, "a") as archive:
                archive.writestr("archive/data/aotinductor/x.so", b"x")
        with pytest.raises(InputError, match=r"could run code\. Only graphs of torch's own") as caught:
            zoo.load(path)
        assert text in str(caught.value)
    assert not made.exists()


def test_what_is_no_program(whole, tmp_path):
    path, other = tmp_path / "model.pt2", io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("word/document.xml", "<a/>")
    torch.save({"a": torch.zeros(2)}, tmp_path / "tensors")
    content = whole.read_bytes()
    for wrong in (content[:-100], pickle.dumps(Touch(tmp_path / "made")), b"text", other.getvalue()):
        path.write_bytes(wrong)
        with pytest.raises(InputError, match=r"is not a whole program of torch\.export|is refused: it has a part"):
            zoo.load(path)
    path.write_bytes((tmp_path / "tensors").read_bytes())
    with pytest.raises(InputError, match=r"it has a part .data\.pkl"):
        zoo.load(path)
    assert not (tmp_path / "made").exists()
