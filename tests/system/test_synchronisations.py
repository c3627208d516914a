"""How often a training step waits for the device: whatever brings a value to Python, or makes a shape of values."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import zoo
from coloured_folder import write_coloured
from zoo.training.step import REPORT_SECONDS

YOLO_NAS_WAITS = 8  # boxes checked, and boxes without a place, left out (3); places wanted (1), settled (4)
WAITING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::_unique2", "aten::bincount", "aten::masked_select"}


class Waits(TorchDispatchMode):
    """Counts what would make the processor wait for a GPU."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket._qualified_op_name
        by_mask = name.startswith("aten::index") and any(
            index is not None and index.dtype == torch.bool for index in (args[1] if isinstance(args[1], list) else ())
        )
        if name in WAITING or by_mask:
            self.counts[name.removeprefix("aten::")] += 1
        return func(*args, **(kwargs or {}))


class Watch(zoo.Callback):
    """Counts from the end of the second step to the end of the fourth."""

    def __init__(self):
        self.waits = Waits()

    def on_step_end(self, run):
        if run.step == 2:
            self.waits.__enter__()
        elif run.step == 4:
            self.waits.__exit__(None, None, None)


@pytest.mark.parametrize("options", [{"mode": "head"}, {"mode": "full"}, {"mode": "full", "ema_decay": 0.9}], ids=str)
def test_a_step_of_a_classifier_waits_for_its_loss_alone(options, tmp_path):
    """The loss is fetched in every step on the CPU; on a GPU, where fetching makes it wait, now and then."""
    assert REPORT_SECONDS > 0
    data, watch = write_coloured(tmp_path / "data", train=8, val=1, size=16), Watch()
    model = zoo.get("timm/test_resnet", num_classes=3)
    zoo.finetune(
        model, data, 0.01, epochs=1, batch_size=4, image_size=32, num_workers=0, augment="none", callbacks=watch,
        progress=False, out=tmp_path / "run", **options,
    )  # fmt: skip
    assert watch.waits.counts == {"_local_scalar_dense": 2}, watch.waits.counts


@pytest.mark.usefixtures("small_detector")
@pytest.mark.parametrize("assigner", ["task-aligned", "static"])
def test_how_often_a_step_of_yolo_nas_waits(assigner):
    model = zoo.get("yolo_nas_s", num_classes=3).train()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([[0, 1, 32.0, 32, 20, 20], [1, 0, 40, 30, 10, 30]])
    waits = Waits()
    with waits:
        model.loss(model(images), rows, assigner=assigner).backward()
    assert waits.counts.total() <= YOLO_NAS_WAITS, waits.counts
