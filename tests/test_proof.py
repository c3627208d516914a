import pytest
import torch
from torch import nn

from zoo.errors import FrozenError
from zoo.proof import Proof, digest_tensor


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
    with pytest.raises(
        FrozenError, match=r"changed after the first step: running_mean, running_var, num_batches_tracked"
    ):
        proof.check("after the first step")


def test_one_changed_bit_is_seen():
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


def test_scalars_and_empty_tensors_have_digests():
    assert len({digest_tensor(torch.tensor(1)), digest_tensor(torch.tensor(2)), digest_tensor(torch.zeros(0))}) == 3


def test_a_resumed_run_goes_on_with_its_proof():
    weight = torch.ones(3)
    first = Proof({"weight": weight})
    first.check("after epoch 1")
    second = Proof({"weight": weight.clone()})
    second.continue_from({"digests": first.digests, "moments": first.moments})
    assert [moment["when"] for moment in second.moments][-1] == "when the run was resumed"
    third = Proof({"weight": weight + 1})
    with pytest.raises(FrozenError, match="when the run was resumed"):
        third.continue_from({"digests": first.digests, "moments": first.moments})
