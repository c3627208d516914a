from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from torch import nn

from zoo.engine.accelerator import _check_launcher, _check_processes, count_unpadded, make_accelerator
from zoo.errors import InputError


@pytest.mark.parametrize("device", ["cuda", "mps", "tpu"])
def test_a_device_that_is_not_there_is_told(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match=rf"device '{device}' is not available \(torch .*\); available: cpu\."):
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


def test_what_the_device_or_the_launcher_cannot_do_is_told():
    with pytest.raises(
        InputError, match=r"precision 'fp16' is not supported on this device: fp16 needs a GPU\. Use 'no' or 'bf16'\."
    ):
        make_accelerator("cpu", "fp16")
    assert make_accelerator("cpu").mixed_precision == "no"
    with pytest.raises(InputError, match="2 processes were started, but on device mps each would"):
        _check_processes(2, 1, "mps", "NO")
    _check_processes(2, 2, "cuda", "MULTI_GPU")
    _check_processes(1, 1, "cuda", "NO")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_precision_that_only_the_launcher_knows_is_told(monkeypatch, precision):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", precision)
    with pytest.raises(InputError, match=rf"sets mixed_precision '{precision}', but the run has precision 'no'\. Set"):
        make_accelerator("cpu")
    _check_launcher(precision, precision)


def test_where_there_is_no_gpu_processes_still_work_together(monkeypatch):
    made = []
    monkeypatch.setattr(
        "zoo.engine.accelerator.Accelerator", lambda **options: made.append(options) or Accelerator(**options)
    )
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert make_accelerator().device.type == "cpu"
    assert [options["cpu"] for options in made] == [True]


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED"])
def test_a_launcher_that_splits_the_model_is_refused(kind):
    with pytest.raises(InputError, match=rf"accelerate is configured to use {kind}, which shards the model"):
        _check_processes(2, 2, "cuda", kind)


@pytest.mark.parametrize("batch_size", [1, 3, 4])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_image_is_some_process_s_own_once(processes, batch_size):
    state = make_accelerator("cpu").gradient_state
    for count in range(1, 14):
        own = []
        for process in range(processes):
            loader = torch.utils.data.DataLoader(range(count), batch_size=batch_size)
            shard = prepare_data_loader(loader, num_processes=processes, process_index=process, put_on_device=False)
            who = SimpleNamespace(gradient_state=state, num_processes=processes, process_index=process)
            own += [index for images in shard for index in images[: count_unpadded(who, len(images))].tolist()]
        assert sorted(own) == list(range(count))
