from pathlib import Path

import pytest
import torch

from zoo.engine.frozen.shard_file import CODES, read_shard, write_shard

MARK = {"key": "k", "samples": "0 to 3 of 4"}


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    numbers = torch.arange(12).reshape(4, 3)
    return {str(dtype): numbers.to(dtype) for dtype in sorted(CODES, key=lambda dtype: -dtype.itemsize)}


def test_every_type_comes_back_bit_for_bit(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "new" / "a.safetensors"
    write_shard(path, tensors, MARK)
    found = read_shard(path, MARK)
    assert found is not None
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_what_is_something_else_is_as_if_it_were_not_there(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "a.safetensors"
    assert read_shard(path, MARK) is None
    write_shard(path, tensors, MARK)
    assert read_shard(path, MARK | {"key": "other"}) is None
    path.write_bytes(path.read_bytes()[:-1])
    assert read_shard(path, MARK) is None
