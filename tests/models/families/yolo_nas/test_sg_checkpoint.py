import collections
import datetime
import enum
import io
import os
import pathlib
import pickle
import subprocess
import sys
import types
import zipfile
from typing import Any

import numpy as np
import pytest
import torch

from zoo.data.letterbox import Letterbox
from zoo.errors import WeightsError
from zoo.files.safetensors import save_tensors
from zoo.models.families.yolo_nas.sg_checkpoint import read_sg_checkpoint

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2), "n": torch.tensor(5)}
ROBOFLOW = [
    "ReverseImageChannels",
    {"DetectionLongestMaxSizeRescale": {"output_shape": [640, 640]}},
    {"DetectionBottomRightPadding": {"output_shape": [640, 640], "pad_value": 114}},
    {"ImagePermute": {"permutation": [2, 0, 1]}},
    {"StandardizeImage": {"max_value": 255.0}},
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ckpt_best.pth"


def save(path, content, **options):
    torch.save(content, path, **options)
    return path


def trained(steps, **settings):
    processing = {"class_names": ["ant", "bee"], "image_processor": {"ComposeProcessing": {"processings": steps}}}
    return {"net": STATE, "processing_params": processing | settings}


def refusal(path):
    with pytest.raises(WeightsError) as caught:
        read_sg_checkpoint(path)
    return str(caught.value)


def same(tensors):
    return tensors.keys() == STATE.keys() and all(torch.equal(tensors[name], STATE[name]) for name in STATE)


def test_averaged_weights_come_before_the_last_ones(path):
    other = {name: torch.ones_like(tensor) for name, tensor in STATE.items()}
    found = read_sg_checkpoint(save(path, {"net": other, "ema_net": STATE, "epoch": 3, "acc": 0.5}))
    assert same(found.tensors)
    assert found.notes[0] == "weights taken from ema_net"
    found = read_sg_checkpoint(save(path, {"net": STATE, "ema_net": None, "optimizer_state_dict": {"state": {}}}))
    assert same(found.tensors)
    assert found.notes[0] == "weights taken from net"


def test_a_state_dict_alone_in_any_form_of_torch(path):
    found = read_sg_checkpoint(save(path, collections.OrderedDict(STATE)))
    assert same(found.tensors)
    assert found.config == {}
    assert found.notes == ("the file has no preprocessing; that of the published weights is used",)
    wrapped = {f"module.{name}": tensor for name, tensor in STATE.items()}
    assert same(read_sg_checkpoint(save(path, {"net": wrapped})).tensors)
    mixed = wrapped | {"b": torch.zeros(1)}
    assert read_sg_checkpoint(save(path, {"net": mixed})).tensors.keys() == mixed.keys()
    assert same(read_sg_checkpoint(save(path, {"net": STATE}, _use_new_zipfile_serialization=False)).tensors)


def add_module(monkeypatch, name):
    """Make a module of a package that is not installed, so that its classes can be pickled."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        path = ".".join(parts[:end])
        monkeypatch.setitem(sys.modules, path, sys.modules.get(path) or types.ModuleType(path))
    return sys.modules[name]


def test_what_a_trainer_leaves_behind_is_left_out(path, monkeypatch):
    module = add_module(monkeypatch, "super_gradients.common.data_types.enum")

    class Mode(enum.Enum):
        LAST = "last"

    class Recipe:
        def __init__(self):
            self.name = "coco"

    for kind in (Mode, Recipe):
        kind.__module__, kind.__qualname__ = module.__name__, kind.__name__
        setattr(module, kind.__name__, kind)
    model = torch.nn.Linear(2, 3)
    odd = {
        "acc": np.float64(0.5),
        "metrics": {"map": np.float32(0.25), "table": np.zeros((2, 2)), "names": np.array(["a", "b"])},
        "best": collections.defaultdict(list, {"a": [1]}),
        "where": pathlib.PurePosixPath("/a/b"),
        "when": datetime.datetime(2023, 5, 3),
        "mode": Mode.LAST,
        "recipe": Recipe(),
        "optimizer_state_dict": torch.optim.AdamW(model.parameters()).state_dict(),
        "scaler_state_dict": {},
        "counted": collections.Counter("abc"),
    }
    found = read_sg_checkpoint(save(path, {"net": STATE} | odd))
    assert same(found.tensors)


def omegaconf(monkeypatch):
    """Classes that are pickled as those of OmegaConf: content and values are in attributes of these names."""

    def make(module, name, attribute):
        def __init__(self, value):
            self.__dict__[attribute] = value

        kind = type(name, (), {"__init__": __init__, "__module__": module})
        setattr(add_module(monkeypatch, module), name, kind)
        return kind

    return (
        make("omegaconf.listconfig", "ListConfig", "_content"),
        make("omegaconf.dictconfig", "DictConfig", "_content"),
        make("omegaconf.nodes", "AnyNode", "_val"),
    )


def test_settings_that_came_through_hydra_are_read(path, monkeypatch):
    list_config, dict_config, node = omegaconf(monkeypatch)
    names = list_config([node("ant"), node("bee")])
    steps = list_config([*ROBOFLOW[:1], dict_config({node("x"): None}), *ROBOFLOW[2:]])
    steps._content[1] = {"DetectionLongestMaxSizeRescale": dict_config({"output_shape": list_config([node(640), 320])})}
    steps._content[2] = {"DetectionBottomRightPadding": {"output_shape": (640, 320), "pad_value": node(114)}}
    content = trained(steps, class_names=names, conf=np.float64(0.5), iou=np.float32(0.75), edge_links=np.zeros((2, 2)))
    found = read_sg_checkpoint(save(path, content))
    assert found.config["classes"] == ["ant", "bee"]
    assert found.config["postprocess"] == {"conf": 0.5, "iou": 0.75}
    read = Letterbox.from_dict(found.config["preprocess"])
    assert (read.canvas_size, read.content_size, read.channels) == ((640, 320), (640, 320), "bgr")


SHARES = [np.float16(0.5), np.float64(0.5), np.float32(0.5), np.array(0.5), 0.5]
NO_SHARES = [True, "x", "high", np.zeros(3), 7, -1, float("nan"), [0.5], 10**400]


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(("number", "kept"), [(x, {"conf": 0.5}) for x in SHARES] + [(x, {}) for x in NO_SHARES])
def test_thresholds_are_numbers_of_any_kind_or_left_out_and_told(path, number, kept, legacy):
    content = trained(ROBOFLOW, conf=number, iou=np.float64(0.65))
    found = read_sg_checkpoint(save(path, content, _use_new_zipfile_serialization=not legacy))
    assert found.config["postprocess"] == kept | {"iou": 0.65}
    assert any("its confidence threshold" in note for note in found.notes) != bool(kept)


def test_class_names_of_bytes_and_thresholds_are_read(path):
    found = read_sg_checkpoint(save(path, trained(ROBOFLOW, conf=0.5, iou=0.65)))
    assert found.config["postprocess"] == {"conf": 0.5, "iou": 0.65}
    assert found.notes == ("weights taken from net",)
    assert read_sg_checkpoint(save(path, trained(ROBOFLOW, class_names=np.array([b"ant", b"bee"])))).config[
        "classes"
    ] == ["ant", "bee"]


def test_settings_can_be_left_out_or_be_there_in_part(path):
    found = read_sg_checkpoint(save(path, trained([{"Strange": {}}])), with_processing=False)
    assert same(found.tensors)
    assert found.config == {}
    assert found.notes[1] == "the file's classes and preprocessing were ignored"
    found = read_sg_checkpoint(save(path, {"net": STATE, "processing_params": {"class_names": ["ant"]}}))
    assert found.config == {"classes": ["ant"]}
    assert found.notes[1].startswith("the file has no preprocessing; that of the published")
    found = read_sg_checkpoint(save(path, trained(ROBOFLOW, conf=0.65, iou=0.65)))
    assert found.config["postprocess"] == {"iou": 0.65}
    assert found.notes[1] == "its confidence threshold equals its IoU threshold, 0.65: the default is used"


def test_steps_become_preprocessing_or_are_named_with_a_way_on(path):
    found = read_sg_checkpoint(save(path, trained(ROBOFLOW)))
    expected = Letterbox(content_size=(640, 640), position="top-left", channels="bgr")
    assert Letterbox.from_dict(found.config["preprocess"]) == expected
    found = refusal(save(path, trained(["Strange"])))
    assert found.startswith(f"{path}, processing_params: unsupported step Strange. ")
    assert found.endswith(f"zoo convert {path} -o FOLDER --weights-only.")
    assert "it is list; expected a dictionary" in refusal(save(path, {"net": STATE, "processing_params": [1]}))


class Call:
    """Asks to call a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.asked = function, arguments

    def __reduce__(self):
        return self.asked


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("form", ["zip", "old", "pickle"])
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, "posix.system"),
        (eval, "eval"),
        (subprocess.check_call, ".check_call"),
        (exec, "exec"),
    ],
)
def test_a_file_that_wants_to_run_something_is_refused_unread(path, tmp_path, protocol, form, function, name):
    proof = tmp_path / "proof"
    code = f"open({str(proof)!r}, 'w')" if function in (eval, exec) else f"touch {proof}"
    content = {"net": STATE, "epoch": Call(function, code)}
    if form == "pickle":
        path.write_bytes(pickle.dumps({"net": Call(function, code)}, protocol))
    else:
        save(path, content, pickle_protocol=protocol, _use_new_zipfile_serialization=form == "zip")
    found = refusal(path)
    assert found.startswith(f"{path} is rejected: a pickle can run code when it is loaded, and this one imports ")
    assert name in found
    assert "Nothing was run." in found
    assert not proof.exists()


def test_what_allows_one_name_allows_no_other(path):
    content = {"net": STATE, "acc": np.float64(1), "x": Call(os.system, "true")}
    assert "posix.system. Nothing was run" in refusal(save(path, content))
    save(path, {"net": STATE, "acc": np.float64(1)})
    before = torch.serialization.get_safe_globals()
    read_sg_checkpoint(path)
    assert torch.serialization.get_safe_globals() == before


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is not a torch.save file: it is empty. Download it again."),
        (b"<html>", "is not a torch.save file: it starts with b'<html>'."),
        (b"version https://git-lfs", "is not a torch.save file: it starts with b'version https://git-lfs'."),
        (b"PK\x03\x04 and so on", "is not a torch.save file: it is truncated. Download"),
        (b"\x80\x02}", "is damaged, truncated, or not a torch.save file ("),
    ],
)
def test_what_a_download_leaves_is_named(path, content, text):
    path.write_bytes(content)
    assert refusal(path).startswith(f"{path} {text}")


def test_files_that_are_cut_compressed_or_missing(path):
    assert refusal(path) == f"{path} cannot be read: No such file or directory."
    content = save(path, {"net": STATE}).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "it is truncated" in refusal(path)
    buffer = io.BytesIO()
    torch.save({"net": STATE}, buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert refusal(path) == f"{path} is compressed, unlike torch.save files. It is not read."
    save_tensors(STATE, path, {})
    assert "contains safetensors data. Rename it to ckpt_best.safetensors" in refusal(path)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (torch.nn.Linear(2, 2), r"contains a whole object (torch.nn.modules.linear.Linear)"),
        ([STATE], "contains a whole object (list)"),
        (
            {"net": torch.nn.Linear(2, 2)},
            "net is a whole object (torch.nn.modules.linear.Linear); expected a state dict",
        ),
        (
            {"epoch": 3, "acc": 0.5},
            "contains no weights: expected 'ema_net', 'net', or named tensors; its keys are epoch",
        ),
        ({}, "contains no weights: expected 'ema_net', 'net', or named tensors; its keys are none."),
        ({"net": {"a": 3}}, "'a' is int; expected a dense tensor"),
        ({"net": {3: torch.zeros(1)}}, "3 is a torch.strided tensor on cpu; expected a dense tensor"),
        ({"net": {"a": torch.zeros(3, device="meta")}}, "'a' is a torch.strided tensor on meta"),
        ({"net": {"a": torch.zeros(3).to_sparse()}}, "'a' is a torch.sparse_coo tensor on cpu"),
    ],
)
def test_what_holds_no_state_dict_is_told(path, content, text):
    assert text in refusal(save(path, content))


def test_nests_and_copies_end_in_one_sentence(path):
    many: Any = ["a"] * 100
    for _ in range(12):
        many = [many] * 100
    save(path, trained(ROBOFLOW) | {"processing_params": {"class_names": many}})
    assert "class_names is nested deeper than 40, or has more than 100,000 values" in refusal(path)
    assert same(read_sg_checkpoint(path, with_processing=False).tensors)
    deep: Any = "a"
    for _ in range(200):
        deep = [deep]
    assert "class_names is nested deeper than 40" in refusal(save(path, trained(ROBOFLOW, class_names=deep)))


NAMES = ["ant", "Biene", "狗"]


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "names",
    [
        list(np.array(NAMES)),
        list(np.unique(NAMES)),
        np.array(NAMES),
        np.array(NAMES).astype(">U5"),
        np.array(NAMES, dtype=object),
        dict(enumerate(NAMES)),
        tuple(NAMES),
    ],
    ids=["scalars", "unique", "array", "big-endian", "objects", "mapping", "tuple"],
)
def test_class_names_of_every_form_are_read_as_they_are(path, names, legacy):
    save(path, trained(ROBOFLOW, class_names=names), _use_new_zipfile_serialization=not legacy)
    expected = sorted(NAMES) if isinstance(names, list) and list(names) == sorted(NAMES) else NAMES
    assert read_sg_checkpoint(path).config["classes"] == expected


@pytest.mark.parametrize(
    "names",
    [
        *([datetime.datetime(2026, 1, 1)], np.array([["a", "b"]]), "ant", {"ant": 0}, [["ant"]], [None], 3),
        *(["ant", float("nan")], np.array([1.0, np.nan]), frozenset({"ant", "bee"})),
    ],
)
def test_class_names_that_cannot_be_read_are_an_error_and_never_none(path, names):
    text = refusal(save(path, trained(ROBOFLOW, class_names=names)))
    assert "class_names" in text
    assert "--weights-only" in text


@pytest.mark.parametrize("wrapper", ["_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module.", "net."])
def test_wrappers_around_the_network_are_taken_off(path, wrapper):
    assert same(read_sg_checkpoint(save(path, {f"{wrapper}{name}": value for name, value in STATE.items()})).tensors)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_other_keys_of_weights_are_known(path, key):
    found = read_sg_checkpoint(save(path, {key: STATE, "epoch": 3}))
    assert same(found.tensors)
    assert found.notes[0] == f"weights taken from {key}"


def test_any_flipped_bit_in_a_record_is_noticed(path):
    content = bytearray(save(path, trained(ROBOFLOW)).read_bytes())
    with zipfile.ZipFile(path) as archive:
        records = [(member.header_offset, member.file_size, member.filename) for member in archive.infolist()]
    for offset, size, name in records:
        start = content.index(name.encode(), offset) + len(name)
        start += int.from_bytes(content[offset + 28 : offset + 30], "little")  # of the extra field that aligns records
        for place in {start, start + size // 2, start + size - 1} if size else ():
            damaged = bytearray(content)
            damaged[place] ^= 4
            path.write_bytes(damaged)
            assert "is damaged: the checksum of its record" in refusal(path)


@pytest.mark.parametrize("protocol", [4, 5])
def test_a_newer_pickle_of_plain_data_is_not_called_dangerous(path, protocol):
    text = refusal(save(path, {"net": STATE}, pickle_protocol=protocol))
    assert "torch.load(weights_only=True) does not support its pickle format, such as pickle_protocol=4" in text


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.bool, torch.complex64])
def test_tensors_of_any_type_are_read(path, kind):
    tensor = torch.ones(3).to(kind)
    found = read_sg_checkpoint(save(path, {"net": {"a": tensor}})).tensors["a"]
    assert found.dtype == kind
    assert torch.equal(found.to(torch.complex64), torch.ones(3, dtype=torch.complex64))


@pytest.mark.parametrize("kind", [torch.float32, torch.float8_e5m2, torch.complex64, torch.bfloat16])
def test_weights_of_a_run_that_diverged_are_refused(path, kind):
    broken = STATE | {"a.bias": torch.tensor([1.0, float("nan")]).to(kind)}
    assert "'a.bias' has NaN or infinite values: training had diverged when" in refusal(save(path, {"net": broken}))


def test_a_tensor_with_more_values_than_the_file_has_is_refused(path):
    save(path, {"net": {"a": torch.ones(1).expand(10**12)}})
    assert "has 1,000,000,000,000 values, but the file has only 4 bytes of it" in refusal(path)
