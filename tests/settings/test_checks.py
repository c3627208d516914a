import builtins

import pytest
import torch

from zoo.errors import InputError, PlanError, PresetError, WeightsError
from zoo.models import get
from zoo.settings import Findings, Preset, check_preset, find_missing, parse_preset

WRONG = """\
model: resnet18
lr: {default: 0, layer44: 0.1}
unfreeze:
  99: layer4
  3: layer5
optimizer: SDG
mixup: 0.5
"""


def refusal(text, **options):
    with pytest.raises(InputError) as caught:
        check_preset(parse_preset(text, "my.yaml"), **options)
    return str(caught.value).splitlines()


def test_all_that_is_wrong_is_told_at_once_with_its_line():
    first, *lines = refusal(WRONG)
    assert first == "preset 'my.yaml': 5 errors."
    keys = ["lr plan: key 'layer44' matches no", "unfreeze: key 'layer5' matches no", "'layer4' (after 99) would never"]
    keys += ["unknown optimizer 'SDG'. Did you mean 'SGD'", "mixup is 0.5, which does not apply to a classifier"]
    assert [line.split()[1] for line in lines] == ["2:", "3:", "4:", "6:", "7:"]
    assert all(key in line for key, line in zip(keys, lines, strict=True))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("model: resnet81\n", "line 1: unknown model 'resnet81'. Did you mean 'resnet18'"),
        ("optimizer_params: {momentm: 0.9}\n", "line 1: optimizer_params: SGD has no argument 'momentm'"),
        ("optimizer: Rprop\nweight_decay: 0.1\nmodel: resnet18\n", "Rprop has no weight decay"),
        (
            "epochs: 3\nunfreeze: {3: fc}\n",
            "line 2: unfreeze: in a run of 3 epochs 'fc' (after 3) would never be trained",
        ),
        ("model: yolo_nas_s\nresizer: torch\n", "line 2: resizer is 'torch', which does not apply to a detector"),
        ("model: yolo_nas_s\naugment: trivial\n", "augment is 'trivial', which is for classifiers"),
        ("model: yolo_nas_s\nloss_params: {assigner: none}\n", "assigner"),
        ("model: resnet18\nlr: {default: 0, fc: {lr: 0.1, optimizer_params: {nestrov: true}}}\n", "nestrov"),
    ],
)
def test_what_a_preset_says_that_cannot_be(text, key):
    assert key in " ".join(refusal(text))


def test_a_single_error_that_stands_in_no_file_is_raised_as_it_is():
    with pytest.raises(PlanError, match=r"^lr plan: key 'heds' matches no parameter"):
        check_preset(Preset(lr={"heds": 0.1, "default": 0}), get("timm/test_resnet", num_classes=2))
    with pytest.raises(PresetError, match=r"^options: 2 errors\.\n  mosaic is 1\.0"):
        check_preset(Preset(mosaic=1, mixup=1), get("timm/test_resnet", num_classes=2))


def test_what_is_right_gives_the_plan():
    model = get("timm/test_resnet", num_classes=2)
    plan = check_preset(Preset(unfreeze={"3": "layer4"}), model)
    assert plan is not None
    assert plan.unfreeze_epochs == (3,)
    assert check_preset(Preset(model="resnet18", pretrained=True)) is not None
    assert check_preset(Preset()) is None
    assert check_preset(Preset(model="some/repository")) is None  # the Hub is not asked
    own = torch.optim.SGD([{"params": list(model.parameters()), "lr": 0.1}])
    assert check_preset(Preset(), model, optimizer=own) is not None


def test_weights_that_nobody_has_published():
    with pytest.raises(WeightsError, match="no pretrained weights are published for timm/convnext_atto_rms"):
        check_preset(Preset(model="timm/convnext_atto_rms", pretrained=True))


def missing(preset):
    findings = Findings(preset)
    find_missing(findings)
    return [str(error) for _, error in findings.errors]


def test_what_this_machine_lacks(monkeypatch):
    assert missing(Preset(model="yolo_nas_s", device="cpu")) == []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    real = builtins.__import__

    def without(name, *args, **options):
        if name == "supervision":
            raise ImportError("hidden")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    device, library = missing(Preset(model="yolo_nas_s", device="cuda"))
    assert "device 'cuda' is not available" in device
    assert "boxes needs supervision" in library
    assert missing(Preset(precision="fp16", device="cpu")) == [
        "precision 'fp16' is not supported on this device: fp16 needs a GPU. Use 'no' or 'bf16'."
    ]
