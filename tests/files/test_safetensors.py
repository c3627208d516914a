import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from zoo.errors import WeightsError
from zoo.files import safetensors as safetensors_file
from zoo.files.safetensors import read_in_parts, read_shapes, read_slots, read_tensors, save_tensors, sha256_file

TENSORS = {
    "conv.weight": torch.arange(24, dtype=torch.float32).reshape(2, 3, 4),
    "half": torch.tensor([0.5, -2.0], dtype=torch.float16),
    "counter": torch.tensor(7),
    "empty": torch.zeros(0, 3),
}


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor.cpu()), name


def with_header(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def test_what_is_saved_is_read_here_and_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    digest = save_tensors(TENSORS, path, {"model": "tiny"})
    assert digest == sha256_file(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert_equal(read_tensors(path), TENSORS)
    assert_equal(load_file(path), TENSORS)
    assert read_shapes(path) == {name: tuple(tensor.shape) for name, tensor in TENSORS.items()}
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt", "model": "tiny"}
    assert os.listdir(tmp_path) == ["a.safetensors"], "no draft stays behind"


def test_saved_bytes_depend_on_the_content_alone_and_are_aligned(tmp_path: Path) -> None:
    metadata = {f"key{number}": "x" * number for number in range(10)}  # the library itself shuffles them
    digests = {save_tensors(TENSORS, tmp_path / "a.safetensors", metadata) for _ in range(5)}
    backwards = dict(reversed(TENSORS.items()))
    digests.add(save_tensors(backwards, tmp_path / "b.safetensors", dict(reversed(metadata.items()))))
    assert len(digests) == 1
    for length in range(9):
        save_tensors(TENSORS, tmp_path / "a.safetensors", {"k": "ü" * length})
        assert int.from_bytes((tmp_path / "a.safetensors").read_bytes()[:8], "little") % 8 == 0
        assert_equal(load_file(tmp_path / "a.safetensors"), TENSORS)


def test_shared_and_non_contiguous_tensors(tmp_path: Path) -> None:
    base = torch.randn(4, 6, requires_grad=True)
    tensors = {
        "base": base,
        "tied": base,
        "row": base[1],
        "transposed": base.t(),
        "step": base.detach()[::2, ::3],
        "expanded": torch.ones(1).expand(5),
        "last": torch.randn(10)[8:],  # a view of memory that is not saved otherwise
        "last_channels": torch.randn(1, 2, 3, 3).to(memory_format=torch.channels_last),
    }
    save_tensors(tensors, tmp_path / "a.safetensors", {})
    assert_equal(read_tensors(tmp_path / "a.safetensors"), tensors)
    assert tensors["tied"] is base, "the caller's mapping is left alone"


def test_a_file_is_replaced_in_one_step_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors({"old": torch.ones(2)}, path, {})

    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(WeightsError, match=r"a\.safetensors cannot be written: No space left on device"):
        save_tensors(TENSORS, path, {})
    assert list(read_tensors(path)) == ["old"]
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_there_has_to_be_a_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be written: No such file"):
        save_tensors(TENSORS, tmp_path / "absent" / "a.safetensors", {})
    with pytest.raises(WeightsError, match="cannot be read: No such file"):
        read_tensors(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty; expected a safetensors file"),
        (b"abc", "an unknown format"),
        (b"<!DOCTYPE html><html><body>Not found</body></html>", "a web page"),
        (b"\n\n<html lang='en'>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        (b"PK\x03\x04\x00\x00\x08\x08archive/data.pkl", "a zip file, as torch.save writes it"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "a pickle"),
        (b'{"error": "Repository not found"}', "JSON text"),
        (bytes(100), "an unknown format"),
        (b"\xff" * 100, "an unknown format"),
    ],
)
def test_the_usual_wrong_files_are_named(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    for read in (read_tensors, read_shapes):
        with pytest.raises(WeightsError, match=what):
            read(path)


def test_a_header_of_640_bytes_is_not_taken_for_a_pickle(tmp_path: Path) -> None:
    header = json.dumps({"__metadata__": {"pad": ""}, "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})
    header = header.replace('"pad": ""', '"pad": "' + "x" * (640 - len(header)) + '"')
    (tmp_path / "a.safetensors").write_bytes(with_header(header.encode(), bytes(4)))
    assert (tmp_path / "a.safetensors").read_bytes().startswith(b"\x80\x02")
    assert read_shapes(tmp_path / "a.safetensors") == {"a": (1,)}
    assert_equal(read_tensors(tmp_path / "a.safetensors"), {"a": torch.zeros(1)})


def test_files_cut_or_with_more_bytes_are_refused(tmp_path: Path) -> None:
    content = save(TENSORS)
    path = tmp_path / "a.safetensors"
    path.write_bytes(content[:-1])
    with pytest.raises(WeightsError, match=f"is truncated: {len(content) - 1:,} of {len(content):,} bytes"):
        read_tensors(path)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError, match=r"truncated|empty|an unknown"):
            read_tensors(path)
    path = tmp_path / "a.safetensors"
    path.write_bytes(save(TENSORS) + b"more")
    with pytest.raises(WeightsError, match=r"a\.safetensors has 4 extra bytes that belong to no tensor"):
        read_shapes(path)


FOUR = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def entry(**changes: object) -> bytes:
    return json.dumps({"a": FOUR | changes}).encode()


@pytest.mark.parametrize(
    ("header", "what"),
    [
        (b"{", "Expecting property name"),
        (b'{"a": 1}', "tensor 'a' is 1; expected dtype, shape and data_offsets"),
        (b'{"a": {"dtype": "F32", "shape": [1]}}', "data_offsets of 'a' is None; expected whole numbers, 0 or more"),
        (entry(shape=1), "shape of 'a' is 1; expected whole numbers, 0 or more"),
        (entry(shape=["x"]), r"shape of 'a' is \['x'\]; expected whole numbers"),
        (entry(shape=[float("nan")]), r"shape of 'a' is \[nan\]; expected whole numbers"),
        (entry(shape=[float("inf")]), r"shape of 'a' is \[inf\]; expected whole numbers"),
        (entry(shape=[1.0]), r"shape of 'a' is \[1\.0\]; expected whole numbers"),
        (entry(shape=[-1]), r"shape of 'a' is \[-1\]; expected whole numbers"),
        (entry(shape=[True]), r"shape of 'a' is \[True\]; expected whole numbers"),
        (entry(data_offsets=[0]), r"data_offsets of 'a' is \[0\]; expected \[start, end\]"),
        (entry(data_offsets=[4, 0]), r"data_offsets of 'a' is \[4, 0\]; expected \[start, end\]"),
        (entry(data_offsets={}), r"data_offsets of 'a' is \{\}; expected whole numbers"),
        (entry(data_offsets=[-4, 0]), r"data_offsets of 'a' is \[-4, 0\]; expected whole numbers"),
        (entry(data_offsets=[float("nan"), 4]), r"data_offsets of 'a' is \[nan, 4\]; expected whole numbers"),
        (entry(dtype="F33"), "tensor 'a' has type 'F33'; expected one of BOOL, U8"),
        (entry(dtype=["F32"]), r"tensor 'a' has type \['F32'\]; expected one of"),
        (entry(shape=[2]), r"'a' has 4 bytes; type F32 and shape \[2\] need 8"),
        (entry(shape=[2**62, 2**62]), r"'a' has 4 bytes; type F32 and shape .* need 85,070,591,730,234,6"),
        (entry(shape=[0], data_offsets=[4, 4]), "bytes 0 to 4 belong to no tensor"),
        (json.dumps({"a": FOUR, "b": FOUR}).encode(), "tensors 'a' and 'b' overlap"),
        (
            json.dumps({"a": FOUR, "b": FOUR | {"data_offsets": [2, 6]}}).encode(),
            "tensors 'a' and 'b' overlap",
        ),
        (
            json.dumps({"a": FOUR, "b": FOUR | {"data_offsets": [8, 12]}}).encode(),
            "bytes 4 to 8 belong to no tensor",
        ),
        (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "a": {}}', "duplicate key 'a'"),
        (b'{"__metadata__": {"k": "1", "k": "2"}}', "duplicate key 'k'"),
        (b'{"a": {"dtype": "F32", "dtype": "F16"}}', "duplicate key 'dtype'"),
        (b'{"a": ' * 10_000, "nested too deeply"),
        (b'{"a": "\xff"}', "can't decode byte 0xff"),
    ],
)
def test_a_damaged_header_is_refused(tmp_path: Path, header: bytes, what: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(with_header(header, bytes(4)))
    for read in (read_tensors, read_shapes, read_slots, lambda path: list(read_in_parts(path))):
        with pytest.raises(
            WeightsError, match=rf"^{path} has a damaged safetensors header \(.*{what}.*\)\. Download it"
        ):
            read(path)


@pytest.mark.parametrize("length", [100_000_001, 2**63, 2**64 - 1])
def test_a_header_that_would_be_too_long_is_not_read(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b"{" + bytes(100))
    with pytest.raises(WeightsError, match=f"its header would be {length:,} bytes long, more than the 100,000,000"):
        read_tensors(path)


def test_metadata_that_the_format_does_not_allow_is_refused_by_its_own_reader(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(with_header(json.dumps({"__metadata__": {"k": 1}, "a": FOUR}).encode(), bytes(4)))
    with pytest.raises(WeightsError, match="is not a valid safetensors file:"):
        read_tensors(path)


def test_types_and_shapes_are_read_without_the_data(tmp_path: Path) -> None:
    names = ["bool", "uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "bfloat16"]
    names += ["float32", "float64", "complex64", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu"]
    tensors = {name: torch.zeros(2, 3).to(getattr(torch, name)) for name in names}
    save_tensors(tensors, tmp_path / "a.safetensors", {})
    found = read_slots(tmp_path / "a.safetensors")
    assert {name: tuple(slot) for name, slot in found.items()} == {
        name: ((2, 3), tensor.dtype) for name, tensor in tensors.items()
    }
    assert {name: tensor.dtype for name, tensor in read_tensors(tmp_path / "a.safetensors").items()} == {
        name: tensor.dtype for name, tensor in tensors.items()
    }


def test_a_large_file_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors_file, "_LEAST_PART_BYTES", 0)
    tensors = {f"t{number:02}": torch.full((10,), float(number)) for number in range(16)} | {"none": torch.zeros(0)}
    save_tensors(tensors, tmp_path / "a.safetensors", {})
    parts = list(read_in_parts(tmp_path / "a.safetensors"))
    assert max(map(len, parts)) <= 3
    assert len(parts) == 8
    assert_equal({name: tensor for part in parts for name, tensor in part.items()}, tensors)
    save_tensors({}, tmp_path / "empty.safetensors", {})
    assert list(read_in_parts(tmp_path / "empty.safetensors")) == []
