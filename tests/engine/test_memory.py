import sys
import types

import pytest
import torch
from torch import nn

from plan_nets import Net, backward
from zoo.engine import memory
from zoo.engine.memory import (
    Peak,
    RunningStatistics,
    choose_size,
    find_micro_batch_size,
    is_out_of_memory,
    measure_free_memory,
    peak_memory,
    preserve_state,
    release_memory,
)
from zoo.errors import InputError, TrainingError
from zoo.models.build import get
from zoo.optim.freeze import apply_plan
from zoo.settings.preset import Preset
from zoo.settings.resolve import plan_rates

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
MIB = 2**20


def images(count):
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(3))


def test_the_allocator_of_the_machine_is_understood():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
        RuntimeError("MPS backend out of memory (MPS allocated: 18.00 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("unable to mmap 8 bytes from file </torch_1>: Cannot allocate memory (12)"),
    ],
)
def test_lack_of_memory_has_many_names(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: device-side assert triggered"),
        TrainingError("CUDA out of memory, says another"),
        ValueError("std::bad_alloc"),
        KeyboardInterrupt(),
    ],
)
def test_other_errors_are_not_lack_of_memory(error):
    assert not is_out_of_memory(error)


def test_running_statistics_are_put_back():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), nn.BatchNorm1d(3))
    model[2].eval()
    model(torch.randn(8, 3))
    statistics = RunningStatistics(model)
    model(torch.randn(8, 3))
    statistics.keep()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(torch.randn(8, 3) + 5)
    model[2].running_mean += 1  # of a norm that does not train: not looked after
    assert model[0].num_batches_tracked == 3
    statistics.restore()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) is (name != "2.running_mean")


def test_a_model_can_be_tried_without_a_trace():
    torch.manual_seed(0)
    model = Net()
    backward(model)
    model.bn1.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    modes = {name: module.training for name, module in model.named_modules()}
    state = torch.get_rng_state()
    with preserve_state(model):
        assert all(parameter.grad is None for parameter in model.parameters())
        model.train()
        model(images(4)).sum().backward()
        model.eval()
        torch.rand(3)
        assert not torch.equal(model.bn2.running_mean, before["bn2.running_mean"])
    assert torch.equal(torch.get_rng_state(), state)
    assert {name: module.training for name, module in model.named_modules()} == modes
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.grad, gradients[name])


def test_a_model_is_put_back_after_an_error():
    model = Net()

    def fail():
        with preserve_state(model):
            model(images(4)).sum().backward()
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        fail()
    assert model.bn1.num_batches_tracked == 0
    assert model.conv1.weight.grad is None


@pytest.mark.parametrize(
    ("batch", "most", "size"),
    [(32, 40, 32), (32, 32, 32), (32, 31, 16), (32, 11, 8), (32, 1, 1), (31, 30, 16), (31, 11, 11), (34, 11, 9)],
)
def test_sizes_are_alike_where_that_costs_little(batch, most, size):
    assert choose_size(batch, most) == size


def test_every_choice_fits_and_more_memory_never_makes_it_less():
    for batch in range(1, 70):
        sizes = [choose_size(batch, most) for most in range(1, batch + 1)]
        assert all(1 <= size <= most for most, size in enumerate(sizes, 1))
        assert sizes == sorted(sizes)


def hold(mib_per_image, fixed=0, log=None):
    """Return a step that takes so much of the machine's memory."""

    def step(count):
        if log is not None:
            log.append(count)
        block = torch.ones((fixed + mib_per_image * count) * MIB, dtype=torch.uint8)
        del block

    return step


def test_on_the_cpu_a_line_through_two_small_sizes_decides():
    log = []
    found = find_micro_batch_size(hold(8, 24, log), 32, device=CPU, free_memory=200 * MIB, margin=0.1)
    assert set(log) == {2, 8}  # and never more, which the system might not survive
    assert found.size == 16  # (180 - 24) / 8 = 19.5, and 16 divides 32
    assert found.text.startswith("micro-batches of 16 of 32 images: 0.0")
    assert found.text.endswith("; 0.20 GiB are free")


def test_a_batch_that_fits_stays_whole():
    found = find_micro_batch_size(hold(1), 16, device=CPU)
    assert found.size == 16
    assert found.text.startswith("the whole batch of 16 images: ")
    assert find_micro_batch_size(hold(1), 1, device=CPU).size == 1
    assert find_micro_batch_size(lambda count: None, 3, device=CPU).size == 3
    log = []
    assert find_micro_batch_size(hold(16, log=log), 32, device=CPU, free_memory=80 * MIB).size == 4
    assert set(log) == {2}
    with pytest.raises(
        TrainingError, match=r"not even one image fits in memory \(0\.00 GiB \+ 0\.03 GiB each; 0\.01 GiB are free\)"
    ):
        find_micro_batch_size(hold(30), 8, device=CPU, free_memory=10 * MIB)
    found = find_micro_batch_size(hold(8, 24), 24, device=CPU, free_memory=260 * MIB, reserve=60 * MIB)
    assert found.size == 12  # (234 - 60 - 24) / 8 = 18.75; without the 60 all 24 fit
    assert " + 0.06 GiB for the optimizer; " in found.text


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"margin": 1.0}, {"margin": -0.1}, {"reserve": -1}])
def test_settings_out_of_range_are_told(options):
    settings = {"batch_size": 4, **options}
    with pytest.raises(InputError, match=r"expected 1 or more, a number from 0 to below 1, and 0 or more"):
        find_micro_batch_size(hold(1), device=CPU, **settings)


class Card:
    """Stands in for `torch.cuda`: a card of `size` bytes, on which a step takes `each` per image."""

    def __init__(self, monkeypatch, size, each):
        self.size, self.each, self.peak, self.log = size, each, 0, []
        for name in ("memory_allocated", "empty_cache", "reset_peak_memory_stats", "synchronize"):
            monkeypatch.setattr(torch.cuda, name, lambda *_: 100)
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 300)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (size - 300, size))
        monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: self.peak)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: self.peak)

    def step(self, count):
        self.log.append(count)
        self.peak = 100 + self.each * count
        if self.peak > self.size:
            raise torch.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.parametrize(
    ("batch", "size"),
    [(16, 16), (32, 16), (64, 16), (48, 24), (30, 15), (31, 16), (1, 1)],
)
def test_on_a_gpu_sizes_are_tried(monkeypatch, batch, size):
    card = Card(monkeypatch, size=3000, each=100)  # 0.9 of the 2900 that are not taken: 26 images
    found = find_micro_batch_size(card.step, batch, device=CUDA)
    assert found.size == size
    assert card.log[0] == batch
    assert len(card.log) <= 6
    assert found.text.endswith("0.00 GiB are free")


def test_a_gpu_too_small_or_with_room_kept_for_the_optimizer(monkeypatch):
    with pytest.raises(TrainingError, match=r"not even one image fits .*Use a smaller"):
        find_micro_batch_size(Card(monkeypatch, size=3000, each=5000).step, 16, device=CUDA)
    card = Card(monkeypatch, size=3000, each=100)
    assert find_micro_batch_size(card.step, 32, device=CUDA, reserve=1500).size == 8
    assert find_micro_batch_size(card.step, 32, device=CUDA, free_memory=500, margin=0).size == 4


@pytest.mark.parametrize(("batch_size", "least"), [(1, 1), (2, 2), (3, 2), (16, 2)])
def test_on_the_cpu_a_single_image_is_tried_only_if_a_batch_has_no_more(batch_size, least):
    tried = []
    assert find_micro_batch_size(tried.append, batch_size, device=CPU, free_memory=2**40).size == batch_size
    assert min(tried) == least


def test_errors_of_a_step_that_is_tried_are_not_hidden(monkeypatch):
    card = Card(monkeypatch, size=3000, each=100)

    def fail(count):
        raise RuntimeError("shapes cannot be multiplied")

    for device in (CPU, CUDA):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            find_micro_batch_size(fail, 8, device=device)
    assert card.log == []


def test_free_memory_of_a_gpu_counts_what_torch_holds_unused(monkeypatch):
    Card(monkeypatch, size=3000, each=100)
    assert measure_free_memory(CUDA) == 2900


@pytest.fixture
def groups(monkeypatch, tmp_path):
    """An empty folder of control groups, and a machine with 1000 bytes free."""
    import psutil

    monkeypatch.setattr(memory, "CGROUPS", tmp_path)
    monkeypatch.setattr(memory, "_own_groups", lambda: [tmp_path, tmp_path / "memory"])
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=1000))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    return tmp_path


def write_group(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def test_free_memory_is_the_machines(groups, monkeypatch):
    assert measure_free_memory(CPU) == 1000
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert measure_free_memory(CPU) == 250


@pytest.mark.parametrize(("limit", "free"), [("max", 1000), ("700", 250), ("400", 0), ("9000", 1000)])
def test_a_control_group_limits_free_memory(groups, limit, free):
    write_group(groups, memory__max=limit, memory__current="500", memory__stat="anon 450\ninactive_file 50")
    assert measure_free_memory(CPU) == free


def test_control_groups_limit_free_memory(groups):
    stat = "inactive_file 1\ntotal_inactive_file 100"
    files = {"memory__limit_in_bytes": "700", "memory__usage_in_bytes": "500", "memory__stat": stat}
    write_group(groups / "memory", **files)
    assert measure_free_memory(CPU) == 300
    for folder in memory._own_groups():
        left = memory._left_in_group(folder)
        assert left is None or left >= 0


def test_a_peak_is_seen_though_it_is_over(monkeypatch):
    for reset in (memory._reset_high_water, lambda: False):
        monkeypatch.setattr(memory, "_reset_high_water", reset)
        release_memory(CPU)
        with peak_memory(CPU) as peak:
            for _ in range(5):  # long enough for whoever only looks now and then
                torch.ones(64 * MIB, dtype=torch.uint8)
        assert 60 * MIB < peak.bytes - peak.start < 200 * MIB
        with peak_memory(CPU) as later:
            pass
        assert later.bytes - later.start < 30 * MIB


def test_a_peak_on_a_gpu(monkeypatch):
    card = Card(monkeypatch, size=3000, each=100)
    with peak_memory(CUDA) as peak:
        card.step(4)
    assert peak == Peak(start=100, bytes=500)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such a mark")
def test_the_high_water_mark_is_read():
    assert memory._status("VmRSS") > 10 * MIB
    assert memory._status("VmNothing") is None


@pytest.mark.usefixtures("small_detector")
@pytest.mark.parametrize(
    ("name", "first", "learning"),
    [("resnet18", "layer4", ("layer4", "fc")), ("yolo_nas_s", "neck", ("neck", "heads"))],
)
def test_what_is_frozen_at_the_front_keeps_nothing_for_the_backward_pass(name, first, learning):
    model = get(name, pretrained=False, num_classes=3)
    kept, before = [], []
    module = dict(model.named_modules())[first]
    module.register_forward_pre_hook(lambda module, inputs: before.append(sum(kept)))

    def keep(tensor):
        kept.append(tensor.untyped_storage().nbytes())
        return tensor

    sums = []
    for rates in ({"default": 1e-3}, {"default": 0} | dict.fromkeys(learning, 1e-3)):
        apply_plan(model, plan_rates(model, Preset(lr=rates)))
        model.train()
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(torch.randn(2, 3, 64, 64))
        sums.append(sum(kept))
    assert before[0] > 0
    assert before[1] == 0  # its norms, too
    assert 0 < sums[1] <= sums[0] - before[0]
