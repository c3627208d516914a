import pytest
import torch
from torch import nn

from zoo.engine import make_accelerator
from zoo.errors import InputError


@pytest.mark.parametrize("device", ["cuda", "mps", "tpu"])
def test_a_device_that_is_not_there_is_told(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match=rf"device '{device}' is not available to torch .*; this machine has: cpu\."):
        make_accelerator(device)


def test_runs_of_different_precision_follow_each_other():
    images = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    outputs = {}
    for precision in ("no", "bf16", "no"):
        accelerator = make_accelerator("cpu", precision)
        assert accelerator.mixed_precision == precision
        torch.manual_seed(0)
        network = accelerator.prepare(nn.Linear(16, 4))
        outputs[precision] = network(images)
        assert outputs[precision].dtype == torch.float32
        accelerator.backward(outputs[precision].sum())
        assert network.weight.grad.dtype == torch.float32
    difference = float((outputs["no"] - outputs["bf16"]).detach().abs().max())
    assert 1e-4 < difference < 0.05


def test_a_precision_that_the_device_cannot_do_is_told():
    with pytest.raises(InputError, match=r"precision 'fp16' does not work on this device: .* Try 'no' or 'bf16'\."):
        make_accelerator("cpu", "fp16")
    assert make_accelerator("cpu").mixed_precision == "no"
