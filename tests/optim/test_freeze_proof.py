import pytest
import torch
from torch import nn

from zoo.errors import FrozenError, InputError
from zoo.optim import freeze_proof as module
from zoo.optim.freeze_proof import Proof, digest_tensor


def test_tensors_that_do_not_move_pass_every_moment():
    model = nn.BatchNorm1d(3).eval()
    proof = Proof(dict(model.named_parameters()) | dict(model.named_buffers()))
    model(torch.randn(4, 3))
    proof.check("after epoch 1")
    data = proof.to_dict()
    assert data["tensors"] == 5
    assert [moment["when"] for moment in data["moments"]] == ["before the first step", "after epoch 1"]
    assert len({moment["sha256"] for moment in data["moments"]}) == 1


def test_norm_statistics_that_drift_are_named():
    model = nn.BatchNorm1d(3).train()
    proof = Proof(dict(model.named_buffers()))
    model(torch.randn(4, 3))
    with pytest.raises(FrozenError, match=r"changed after the first step: running_mean, running_var"):
        proof.check("after the first step")


@pytest.mark.parametrize("most", [0, 2**30])
def test_one_changed_bit_is_seen(most, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES_COPIED", most)
    weight = torch.zeros(1000)
    proof = Proof({"weight": weight})
    weight[500] = -0.0
    with pytest.raises(FrozenError, match="weight"):
        proof.check("now")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool])
def test_a_digest_depends_on_type_shape_and_content_only(dtype):
    tensor = torch.arange(24).reshape(1, 2, 3, 4).to(dtype)
    same = tensor.contiguous(memory_format=torch.channels_last)
    assert digest_tensor(tensor) == digest_tensor(same) == digest_tensor(tensor.clone())
    assert digest_tensor(tensor) != digest_tensor(tensor.reshape(2, 12))
    assert digest_tensor(tensor) != digest_tensor(tensor.to(torch.float64))


def test_a_resumed_run_goes_on_with_its_proof():
    weight = torch.ones(3)
    first = Proof({"weight": weight})
    first.check("after epoch 1")
    second = Proof({"weight": weight.clone()})
    second.continue_from({"digests": first.digests, "moments": first.moments})
    assert [moment["when"] for moment in second.moments][-1] == "when the run was resumed"
    third = Proof({"weight": weight + 1})
    with pytest.raises(InputError, match="frozen tensors differ from those the run started with: weight"):
        third.continue_from({"digests": first.digests, "moments": first.moments})


def test_tensors_that_did_not_move_are_not_digested_again(monkeypatch):
    tensors = {
        "number": torch.tensor(3),
        "nan": torch.tensor([float("nan"), 1.0]),
        "maps": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "half": torch.randn(7).to(torch.bfloat16),
        "mask": torch.tensor([True, False]),
        "none": torch.zeros(0),
        "pairs": torch.randn(3, dtype=torch.complex64),
        "part": torch.randn(6, 6)[::2, 1:4],
    }
    proof, counted = Proof(tensors), []
    monkeypatch.setattr(module, "digest_tensor", lambda tensor: counted.append(tensor) or digest_tensor(tensor))
    proof.check("now")
    assert counted == []
    tensors["maps"].data = tensors["maps"].contiguous()  # laid out in another way, with the same content
    proof.check("later")
    assert len({moment["sha256"] for moment in proof.moments}) == 1
    tensors["part"][2, 0] += 1
    with pytest.raises(FrozenError, match=r"changed at last: part\."):
        proof.check("at last")


def test_what_has_a_digest_has_changed_with_type_or_shape():
    for change in (lambda weight: weight.double(), lambda weight: weight.reshape(6, 2), lambda weight: weight[:2]):
        weight = torch.ones(3, 4)
        proof = Proof({"weight": weight})
        weight.data = change(weight)
        with pytest.raises(FrozenError, match="weight"):
            proof.check("now")
    assert len({digest_tensor(torch.tensor(1)), digest_tensor(torch.tensor(2)), digest_tensor(torch.zeros(0))}) == 3


def test_copies_are_few_and_do_not_follow_their_tensors(monkeypatch):
    weight = torch.ones(3)
    proof = Proof({"weight": weight, "other": torch.ones(3)})
    proof.release(["weight"], "before epoch 2")
    weight += 1
    proof.check("after epoch 2")
    assert proof.to_dict()["tensors"] == 1
    monkeypatch.setattr(module, "MOST_BYTES_COPIED", 11)
    counted = []
    proof = Proof({"weight": torch.ones(3)})
    monkeypatch.setattr(module, "digest_tensor", lambda tensor: counted.append(tensor) or digest_tensor(tensor))
    proof.check("now")
    assert len(counted) == 1
