import copy
import functools

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import zoo
from plan_nets import plan_lrs
from zoo._model import ModelInterface
from zoo.data.loader import lay_channels_last
from zoo.engine.frozen.backbone import BackboneEngine, choose_dtype, digest_backbone, find_patch
from zoo.engine.frozen.code_digest import UnreadableCodeError
from zoo.errors import InputError
from zoo.models.classifier import Classifier
from zoo.optim.freeze import apply_plan

pytestmark = [pytest.mark.numbers, pytest.mark.usefixtures("small_detector")]

TOLERANCE = 1e-5  # of fused features in float32, relative to the largest


def stir(model):
    """Give every norm statistics and weights that are far from those of a new one."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return model


def make(name="resnet18", classes=3):
    torch.manual_seed(0)
    return stir(zoo.get(name, num_classes=classes))


def plain_parts(model, images):
    """What the backbone gives in eval mode for images channels last."""
    with torch.no_grad():
        features = copy.deepcopy(model).eval().trunk(lay_channels_last(images))
    return features if isinstance(features, tuple) else (features,)


def distance(found, expected):
    pairs = zip(found, expected, strict=True)
    return max(((one.float() - other).abs().max() / other.abs().max()).item() for one, other in pairs)


@pytest.fixture(scope="module")
def resnet():
    with torch.inference_mode(False):
        return make()


@pytest.fixture(scope="module")
def images():
    return torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("setting", "precision", "device", "has_bf16", "expected"),
    [
        ("auto", "no", "cpu", True, torch.float32),
        ("auto", "bf16", "cpu", False, torch.bfloat16),
        ("auto", "no", "cuda", True, torch.bfloat16),
        ("auto", "fp16", "cuda", True, torch.bfloat16),
        ("auto", "no", "cuda", False, torch.float32),
        ("auto", "fp16", "cuda", False, torch.float16),
        ("auto", "fp16", "mps", True, torch.float16),
        ("auto", "no", "mps", True, torch.float32),
        ("no", "bf16", "cuda", True, torch.float32),
        ("bf16", "no", "cuda", False, torch.bfloat16),
        ("bf16", "no", "cpu", False, torch.bfloat16),
        ("fp16", "no", "cuda", True, torch.float16),
    ],
)
def test_the_type_follows_setting_precision_and_device(setting, precision, device, has_bf16, expected):
    assert choose_dtype(setting, precision, device, has_bf16=lambda: has_bf16) is expected


@pytest.mark.parametrize(("setting", "precision"), [("fp16", "no"), ("auto", "fp16")])
def test_half_precision_on_a_cpu_is_refused(setting, precision):
    with pytest.raises(InputError, match=r"'fp16' needs a GPU; the backbone runs on the CPU\. Use"):
        choose_dtype(setting, precision, "cpu")


@pytest.mark.parametrize(("setting", "precision"), [("half", "no"), ("auto", "float32")])
def test_unknown_settings_are_told(setting, precision):
    with pytest.raises(InputError, match=r"is '(half|float32)'; expected .*no, bf16, fp16\."):
        choose_dtype(setting, precision, "cpu")


def test_a_gpu_is_asked_only_where_it_matters():
    def fail():
        raise AssertionError("asked")

    assert choose_dtype("auto", "no", "cpu", has_bf16=fail) is torch.float32
    assert choose_dtype("no", "no", "cuda", has_bf16=fail) is torch.float32


EXACT = ["resnet18", "mobilenetv2_100", "timm/cspresnet50", "timm/mobilevit_xxs", "timm/convnext_atto", "yolo_nas_s"]


@pytest.mark.parametrize("name", EXACT)
def test_without_fusing_features_are_equal_bit_by_bit(name, images):
    model = make(name)
    expected = plain_parts(model, images)
    engine = BackboneEngine(model.train(), device="cpu", fuse=False)
    found = engine(images)
    assert len(found) == len(expected)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert engine.folded_norms == 0


@pytest.mark.parametrize(
    ("name", "folded"),
    [("resnet18", 20), ("resnet50", 53), ("mobilenetv2_100", 52), ("yolo_nas_s", 120)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_fused_features_agree(name, folded, dtype, images, record_property):
    model = make(name)
    expected = plain_parts(model, images)
    engine = BackboneEngine(model.train(), device="cpu", dtype=dtype)
    found = engine(images)
    off = distance(found, expected)
    record_property("distance", off)
    assert engine.folded_norms == folded
    assert {part.dtype for part in found} == {dtype}
    assert off < (TOLERANCE if dtype is torch.float32 else 0.1)
    assert (off > 1e-4) == (dtype is torch.bfloat16)
    joined = engine.join(found)
    assert isinstance(joined, tuple) == (name == "yolo_nas_s")
    assert all(part.dtype is torch.float32 for part in (joined if isinstance(joined, tuple) else [joined]))


def test_maps_stay_channels_last(images):
    parts = BackboneEngine(make("yolo_nas_s"), device="cpu")(images)
    assert [tuple(part.shape) for part in parts] == [(4, 24, 8, 8), (4, 48, 4, 4), (4, 96, 2, 2)]
    assert all(part.is_contiguous(memory_format=torch.channels_last) for part in parts)


def test_what_transformers_builds_runs_too():
    pytest.importorskip("scipy")
    pytest.importorskip("transformers")
    images = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(1)).sigmoid()
    model = make("dfine_n")
    expected = plain_parts(model, images)
    assert all(map(torch.equal, BackboneEngine(model, device="cpu", fuse=False)(images), expected))
    engine = BackboneEngine(model, device="cpu")
    joined = engine.join(engine(images))
    assert distance(joined, expected) < TOLERANCE
    assert torch.isfinite(model.eval().head(joined).boxes).all()


def train_head(model, features_of, steps=20):
    """Train the head by SGD; return its weights."""
    model = copy.deepcopy(model)
    apply_plan(model, plan_lrs(model, model.get_finetune_lr_dict(0.1), weight_decay=0.0))
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(3)
    for _ in range(steps):
        images = torch.randn(4, 3, 64, 64, generator=generator)
        targets = torch.randint(3, (4,), generator=generator)
        model.loss(model.head(features_of(model, images)), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.fc.weight.detach()


def test_a_head_learns_the_same_as_on_the_plain_backbone(resnet, record_property):
    plain = train_head(resnet, lambda model, images: model.trunk(lay_channels_last(images)))
    exact, fused = (BackboneEngine(resnet, device="cpu", fuse=fuse) for fuse in (False, True))
    assert not torch.equal(plain, resnet.fc.weight)
    assert torch.equal(train_head(resnet, lambda model, images: exact.join(exact(images))), plain)
    off = distance([train_head(resnet, lambda model, images: fused.join(fused(images)))], [plain])
    record_property("distance", off)
    assert 0 < off < 1e-5


@pytest.mark.parametrize("surroundings", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_features_are_ordinary_tensors_wherever_the_engine_is_made_and_called(surroundings, resnet, images):
    with surroundings():
        (features,) = BackboneEngine(resnet, device="cpu")(images)
    assert not features.is_inference()
    assert not features.requires_grad
    head = nn.Linear(512, 3)
    head(features).square().sum().backward()
    assert head.weight.grad.abs().sum() > 0


def test_gradients_reach_the_heads_of_a_detector(images):
    model = make("yolo_nas_s")
    apply_plan(model, plan_lrs(model, model.get_finetune_lr_dict(0.1), weight_decay=0.0))
    engine = BackboneEngine(model, device="cpu")
    outputs = model.train().head(engine.join(engine(images)))
    model.loss(outputs, torch.tensor([[0, 1, 20.0, 20, 16, 16]])).backward()
    assert all((p.grad is not None) == name.startswith("heads.") for name, p in model.named_parameters())


@pytest.mark.parametrize(
    ("name", "dtype", "fuse"),
    [
        ("resnet18", torch.float32, False),
        ("resnet18", torch.bfloat16, True),
        ("mobilenetv2_100", torch.bfloat16, False),
        ("yolo_nas_s", torch.float32, True),
    ],
)
def test_the_stored_model_stays_as_it_is(name, dtype, fuse, images):
    model = make(name).train()
    apply_plan(model, plan_lrs(model, model.get_finetune_lr_dict(0.1), weight_decay=0.0))

    def facts():
        tensors = [*model.named_parameters(), *model.named_buffers()]
        facts = [(n, t.data_ptr(), t.stride(), t.dtype, t.requires_grad, t._version) for n, t in tensors]
        return facts, {n: (type(m), m.training) for n, m in model.named_modules()}, torch.get_rng_state().tolist()

    before, state = facts(), copy.deepcopy(model.state_dict())
    engine = BackboneEngine(model, device="cpu", dtype=dtype, fuse=fuse)
    engine(images)
    assert engine.digest()
    assert engine.describe()
    assert facts() == before
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_the_engine_keeps_no_head_and_follows_no_later_change(images):
    model = make(classes=1000)
    engine = BackboneEngine(model, device="cpu")
    assert isinstance(engine._backbone.fc, nn.Identity)
    (before,) = engine(images)
    with torch.no_grad():
        model.conv1.weight.zero_()
    assert torch.equal(engine(images)[0], before)


def test_parts_named_like_the_head_that_have_no_weights_stay(images):
    class Net(nn.Module):
        """Its pooling is called like its classifier."""

        def __init__(self):
            super().__init__()
            self.conv, self.fc_pool, self.fc = nn.Conv2d(3, 4, 3), nn.AdaptiveMaxPool2d(1), nn.Linear(4, 3)

        def get_classifier(self):
            return self.fc

        def forward_features(self, images):
            return self.conv(images)

        def forward_head(self, features, pre_logits=False):
            return self.fc_pool(features).flatten(1)

    model = Classifier(Net())
    assert torch.equal(BackboneEngine(model, device="cpu", fuse=False)(images)[0], plain_parts(model, images)[0])


def test_autocast_around_it_changes_nothing(resnet, images):
    engine = BackboneEngine(resnet, device="cpu")
    (expected,) = engine(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (found,) = engine(images)
    assert torch.equal(found, expected)


def test_images_of_another_type_or_layout_are_the_same_images(resnet, images):
    engine = BackboneEngine(resnet, device="cpu")
    (expected,) = engine(images)
    assert torch.equal(engine(images.double())[0], expected)
    assert torch.equal(engine(lay_channels_last(images))[0], expected)


def test_what_is_no_float_tensor_or_has_no_backbone_is_refused(resnet):
    with pytest.raises(InputError, match=r"images are torch\.uint8; expected normalised floating-point values\."):
        BackboneEngine(resnet, device="cpu")(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"Linear has no separate backbone\. Add methods trunk\(images\)"):
        BackboneEngine(nn.Linear(2, 2), device="cpu")


class Odd(ModelInterface, nn.Module):
    """A model with a backbone that gives what it is told to."""

    def __init__(self, give):
        super().__init__()
        self.give, self.conv, self.last = give, nn.Conv2d(3, 3, 1), nn.Linear(3, 3)

    head_prefixes = ("last.",)

    def trunk(self, images):
        return self.give(images)

    def head(self, features):
        return self.last(features)


@pytest.mark.parametrize(
    "give", [lambda x: [x, x], lambda x: (x,), lambda x: (x, None), lambda x: {"x": x}], ids=["list", "1", "None", "{}"]
)
def test_other_things_than_tensors_are_refused(give, images):
    with pytest.raises(InputError, match=r"the backbone returns a (list|tuple|dict); expected a tensor, or a tuple"):
        BackboneEngine(Odd(give), device="cpu")(images)


def test_the_digest_is_that_of_the_backbone_alone():
    model = make()
    digest = digest_backbone(model)
    assert len(digest) == 64
    assert int(digest, 16)
    assert BackboneEngine(model, device="cpu").digest() == digest
    other = make(classes=7)
    other.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("fc")}, strict=False)
    other.classes, other.drop_rate = tuple("abcdefg"), 0.5
    assert digest_backbone(other.train().to(memory_format=torch.channels_last)) == digest
    apply_plan(model, plan_lrs(model, model.get_finetune_lr_dict(0.1), weight_decay=0.0))
    model.eval().reset_head()
    assert digest_backbone(model) == digest


@pytest.mark.parametrize("name", ["conv1.weight", "layer4.1.bn2.bias", "layer4.1.bn2.running_var"])
def test_any_tensor_of_the_backbone_changes_the_digest(name):
    model = make()
    before = digest_backbone(model)
    model.state_dict()[name].view(-1)[-1] += 1e-6
    assert digest_backbone(model) != before


@pytest.mark.parametrize(
    "change",
    [
        lambda model: setattr(model.conv1, "stride", (1, 1)),
        lambda model: setattr(model.bn1, "eps", 1e-3),
        lambda model: model._modules.update(act1=nn.SiLU()),
        lambda model: setattr(model, "config", {"model": "resnet18", "options": {"global_pool": "max"}}),
        lambda model: model._modules.update(global_pool=nn.AdaptiveMaxPool2d(1)),
        lambda model: setattr(model.__dict__["network"], "some_option", 2),
    ],
    ids=["stride", "epsilon", "activation", "options", "pooling", "setting"],
)
def test_any_change_of_structure_changes_the_digest(change):
    model = make()
    before = digest_backbone(model)
    change(model)
    assert digest_backbone(model) != before


def test_detectors_have_a_digest_without_their_heads():
    model = make("yolo_nas_s")
    before = digest_backbone(model)
    model.replace_classes(5)
    assert digest_backbone(model) == before
    with torch.no_grad():
        model.neck.neck4.conv.conv.weight[0, 0, 0, 0] += 1
    assert digest_backbone(model) != before


def test_what_it_does_is_described_in_plain_values(resnet):
    assert BackboneEngine(resnet, device="cpu", dtype=torch.bfloat16).describe() == {
        "fused": True,
        "folded_norms": 20,
        "dtype": "bfloat16",
        "compiled": False,
        "device": "cpu",
        "channels_last": True,
        "torch": torch.__version__,
    }


@pytest.fixture
def graphs(monkeypatch):
    """Compile without making machine code; return the images' shapes that were compiled for."""
    seen, compile_ = [], torch.compile

    def backend(graph, inputs):
        seen.append([tuple(value.shape) for value in inputs if value.ndim == 4 and value.shape[1] == 3][-1])
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda function, **options: compile_(function, backend=backend, **options))
    torch._dynamo.reset()
    yield seen
    torch._dynamo.reset()


def test_it_is_compiled_once_for_the_first_shape(graphs, images):
    model, said = make(), []
    plain = BackboneEngine(model, device="cpu")
    engine = BackboneEngine(model, device="cpu", compile=True, log=said.append)
    assert engine.describe()["compiled"]
    for batch in (images, images[:2], images, images[:3]):
        (found,) = engine(batch)
        assert not found.is_inference()
        assert torch.allclose(found, plain(batch)[0], rtol=1e-5, atol=1e-6)
    assert graphs == [(4, 3, 64, 64)]
    assert not said
    assert engine.describe()["compiled"]


def test_what_cannot_be_compiled_runs_as_without(monkeypatch, images):
    compile_ = torch.compile

    def backend(graph, inputs):
        raise RuntimeError("no compiler\nfound")

    monkeypatch.setattr(torch, "compile", lambda function, **options: compile_(function, backend=backend, **options))
    model, said = make(), []
    engine = BackboneEngine(model, device="cpu", compile=True, log=said.append)
    expected = BackboneEngine(model, device="cpu")(images)[0]
    assert torch.equal(engine(images)[0], expected)
    assert torch.equal(engine(images)[0], expected)
    assert said == ["running the backbone without compilation, with the same result: RuntimeError: no compiler"]
    assert not engine.describe()["compiled"]
    torch._dynamo.reset()

    def refuse(*args, **options):
        raise RuntimeError("torch.compile is not supported on Python 3.99")

    monkeypatch.setattr(torch, "compile", refuse)
    said = []
    engine = BackboneEngine(make(), device="cpu", compile=True, log=said.append)
    assert engine(images)[0].shape == (4, 512)
    assert len(said) == 1
    assert "not supported on Python 3.99" in said[0]


class Own(nn.Module):
    """A network of somebody's own."""

    head_prefixes = ("last.",)

    def __init__(self, act=torch.relu):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.last, self.act = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), act

    def trunk(self, images):
        return self.act(self.conv(images)).mean((2, 3))

    def head(self, features):
        return self.last(features)

    def forward(self, images):
        return self.head(self.trunk(images))


class Edited(Own):
    def trunk(self, images):
        return self.act(self.conv(images) * 2).mean((2, 3))


def test_code_of_ones_own_counts():
    before = digest_backbone(Own())
    Edited.__qualname__, name = "Own", Edited.__qualname__
    try:
        assert digest_backbone(Edited()) != before
    finally:
        Edited.__qualname__ = name
    assert digest_backbone(Own(torch.sin)) != before
    assert digest_backbone(Own(lambda x: x * 2)) != digest_backbone(Own(lambda x: x * 3))
    parts = functools.partial(torch.clamp, max=1), functools.partial(torch.clamp, max=2)
    assert len({digest_backbone(Own(part)) for part in parts}) == 2
    assert digest_backbone(Own()) == before


def test_a_method_of_a_class_that_was_replaced_counts(monkeypatch):
    from timm.models.resnet import BasicBlock

    model = make()
    before, original = digest_backbone(model), BasicBlock.forward
    monkeypatch.setattr(BasicBlock, "forward", lambda self, x: original(self, x) * 2)
    assert digest_backbone(model) != before


def test_parametrizations_count():
    class Halved(nn.Module):
        def forward(self, weight):
            return weight / 2

    class Doubled(nn.Module):
        def forward(self, weight):
            return weight * 2

    digests = {digest_backbone(make())}
    for part in (Halved(), Doubled()):
        model = make()
        nn.utils.parametrize.register_parametrization(model.conv1, "weight", part)
        assert find_patch(model) is None
        digests.add(digest_backbone(model))
    assert len(digests) == 3


def replace_forward(module):
    original = module.forward
    module.forward = lambda images: original(images) * 2


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        (
            lambda model: model.layer1.register_forward_hook(lambda *_: None),
            "'layer1' in the backbone has a forward hook",
        ),
        (
            lambda model: model.conv1.register_forward_pre_hook(lambda *_: None),
            "'conv1' in the backbone has a forward hook",
        ),
        (lambda model: model.register_forward_hook(lambda *_: None), "Classifier has a forward hook"),
        (lambda model: replace_forward(model.layer1), "forward() of 'layer1' in the backbone was replaced"),
        (lambda model: replace_forward(model.act1), "forward() of 'act1' in the backbone was replaced"),
        (lambda model: setattr(model, "trunk", lambda images: images), "run_backbone() of Classifier was replaced"),
        (
            lambda model: setattr(model.network, "forward_features", lambda images: images),
            "forward_features() of ResNet was replaced",
        ),
        (
            lambda model: setattr(model.layer1, "extra", functools.partial(torch.add, model.conv1)),
            "the function 'extra' of 'layer1' in the backbone refers to a module",
        ),
        (lambda model: nn.utils.weight_norm(model.conv1), "'conv1' in the backbone has a forward hook"),
        (lambda model: setattr(model, "loss", lambda outputs, targets: 0), None),
        (lambda model: model.fc.register_forward_hook(lambda *_: None), None),
        (lambda model: apply_plan(model, plan_lrs(model, {"fc": 0.1, "default": 0}, weight_decay=0.0)), None),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_was_put_onto_a_model_is_found(patch, reason):
    model = make()
    assert find_patch(model) is None
    patch(model)
    assert find_patch(model) == reason


def test_hooks_of_all_modules_are_found():
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert find_patch(make()).startswith("all modules have a forward hook")
    finally:
        handle.remove()
    with pytest.raises(UnreadableCodeError, match=r"^Own.act is a Generator, whose state cannot be read$"):
        digest_backbone(Own(torch.Generator()))
