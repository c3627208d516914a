import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from zoo.errors import WeightsError
from zoo.safetensors_file import read_shapes, read_tensors, save_tensors, sha256_file

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


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    metadata = {f"key{number}": "x" * number for number in range(10)}  # the library itself shuffles them
    digests = {save_tensors(TENSORS, tmp_path / "a.safetensors", metadata) for _ in range(5)}
    backwards = dict(reversed(TENSORS.items()))
    digests.add(save_tensors(backwards, tmp_path / "b.safetensors", dict(reversed(metadata.items()))))
    assert len(digests) == 1


def test_data_is_aligned_whatever_the_metadata(tmp_path: Path) -> None:
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


def test_saving_into_no_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be written: No such file"):
        save_tensors(TENSORS, tmp_path / "absent" / "a.safetensors", {})


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty; expected a safetensors file"),
        (b"abc", "something else"),
        (b"<!DOCTYPE html><html><body>Not found</body></html>", "a web page"),
        (b"\n\n<html lang='en'>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        (b"PK\x03\x04\x00\x00\x08\x08archive/data.pkl", "a zip file, as torch.save writes it"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "a pickle"),
        (b'{"error": "Repository not found"}', "JSON text"),
        (bytes(100), "something else"),
        (b"\xff" * 100, "something else"),
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


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    content = save(TENSORS)
    path = tmp_path / "a.safetensors"
    path.write_bytes(content[:-1])
    with pytest.raises(WeightsError, match=f"is cut short: {len(content) - 1:,} of {len(content):,} bytes"):
        read_tensors(path)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError, match=r"cut short|empty|something else"):
            read_tensors(path)


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b'{"a": 1}',
        b'{"a": {"dtype": "F32", "shape": [1]}}',
        b'{"a": {"dtype": "F32", "shape": 1, "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": {}}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "a": {}}',
        b'{"a": ' * 10_000,
    ],
)
def test_a_damaged_header_is_refused(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(with_header(header, bytes(4)))
    with pytest.raises(WeightsError, match=r"damaged safetensors header .* Get it anew"):
        read_tensors(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F33", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [0], "data_offsets": [4, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]},
    ],
)
def test_entries_that_contradict_themselves_are_refused(tmp_path: Path, entry: dict[str, object]) -> None:
    (tmp_path / "a.safetensors").write_bytes(with_header(json.dumps({"a": entry}).encode(), bytes(4)))
    with pytest.raises(WeightsError, match="not a sound safetensors file"):
        read_tensors(tmp_path / "a.safetensors")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be read: No such file"):
        read_tensors(tmp_path / "a.safetensors")
