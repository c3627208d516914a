import copy
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import zoo
from image_files import make_image, write_image
from plan_nets import plan_lrs
from zoo.data.transforms import Preprocess, eval_transform
from zoo.engine.frozen.folding import fold_norms
from zoo.errors import InputError
from zoo.models.classifier import Classifier, build_timm
from zoo.models.prediction import Prediction
from zoo.optim.freeze import apply_plan


class Net(nn.Module):
    """The little of timm's interface that a classifier needs; `fc_norm` begins like the head `fc`."""

    def __init__(self, classes=3, last=None):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.fc_norm = nn.LayerNorm(4)
        self.fc = last or nn.Linear(4, classes)

    def get_classifier(self):
        return self.fc

    def forward_features(self, images):
        return self.norm(self.conv(images))

    def forward_head(self, features, pre_logits=False):
        pooled = self.fc_norm(features.mean((2, 3)))
        return pooled if pre_logits else self.fc(pooled)

    def forward(self, images):
        return self.forward_head(self.forward_features(images))


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = Classifier(Net())
    made.classes, made.preprocess = ("ant", "bee", "cat"), Preprocess(image_size=16, crop_pct=1.0)
    return made.eval()


IMAGE = make_image((20, 16))
PIXELS = np.asarray(IMAGE)
PLANES = torch.tensor(PIXELS).permute(2, 0, 1)


def test_all_forms_of_a_image_give_the_same_answer(model, tmp_path):
    path = write_image(tmp_path / "a.png", (20, 16))
    (expected,) = model.predict(IMAGE)
    assert expected.source == "image 0"
    for source in (PIXELS, PLANES, PLANES.float() / 255, path, str(path), path.read_bytes()):
        (answer,) = model.predict(source)
        assert answer.names == expected.names
        assert answer.probabilities == pytest.approx(expected.probabilities, abs=1e-6)
    assert model.predict(path)[0].source == str(path)


def test_the_answer_is_that_of_the_network_on_the_weights_preprocessing(model):
    logits = model(eval_transform(model.preprocess)(IMAGE)[None])[0]
    (answer,) = model.predict(IMAGE)
    assert dict(zip(answer.names, answer.probabilities, strict=True)) == pytest.approx(
        dict(zip(model.classes, logits.softmax(0).tolist(), strict=True))
    )
    (smaller,) = model.predict(IMAGE, image_size=8)
    assert smaller.probabilities != pytest.approx(answer.probabilities, abs=1e-6)
    assert model.preprocess.image_size == 16


@pytest.mark.parametrize("batch", [np.stack([PIXELS, PIXELS[::-1]]), torch.stack([PLANES, PLANES.flip(1)])], ids=type)
def test_four_dimensions_are_a_batch(model, batch):
    answers = model.predict(batch)
    assert [answer.source for answer in answers] == ["image 0", "image 1"]
    for answer, image in zip(answers, (PIXELS, PIXELS[::-1]), strict=True):
        assert answer.probabilities == pytest.approx(model.predict(image)[0].probabilities, abs=1e-6)


def test_a_list_or_a_folder_may_mix_files_of_any_kind(model, tmp_path):
    path = write_image(tmp_path / "folder" / "a.png", seed=1)
    sources = [IMAGE, path, torch.stack([PLANES, PLANES]), path.parent, PIXELS]
    answers = model.predict(sources, batch_size=4)
    assert [answer.source for answer in answers] == ["image 0", str(path), "image 2", "image 3", str(path), "image 5"]
    for answer, other in zip(answers, model.predict(tuple(sources), batch_size=1), strict=True):
        assert answer.probabilities == pytest.approx(other.probabilities, abs=1e-6)
    paths = [write_image(tmp_path / "all" / name) for name in ("a/1.png", "a/2.png", "b.png", ".hidden.png")]
    assert [answer.source for answer in model.predict(tmp_path / "all")] == list(map(str, paths[:3]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no files\. Expected images to predict"):
        model.predict(tmp_path / "empty")


@pytest.mark.parametrize("source", [IMAGE, "gone.png"])
def test_the_mode_of_every_module_is_restored(model, source):
    expected = model.predict(IMAGE)
    model.train()
    model.conv.eval()
    before = copy.deepcopy(model.state_dict())
    if source is IMAGE:
        assert model.predict(source) == expected  # in eval mode meanwhile
    else:
        with pytest.raises(InputError):
            model.predict(source)
    modes = {name: module.training for name, module in model.named_modules()}
    assert modes == {"": True, "conv": False, "norm": True, "fc_norm": True, "fc": True}
    assert model.__dict__["network"].training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_train_and_eval_reach_the_network(model):
    network = model.__dict__["network"]
    assert model.train() is model
    assert network.training
    assert network.norm.training
    assert not model.eval().__dict__["network"].training


def test_predictions_are_readable_and_as_many_as_asked(model):
    answer = Prediction("a.png", ("cat", "dog"), (0.75, 0.25))
    assert str(answer) == "a.png: cat 75.0%, dog 25.0%"
    assert (answer.name, answer.probability) == ("cat", 0.75)
    assert model.predict(IMAGE, top_k=2)[0].names == model.predict(IMAGE, top_k=9)[0].names[:2]


def test_counts_and_prefix_are_those_of_the_head(model):
    assert (model.num_features, model.num_classes, model.head_name) == (4, 3, "fc")
    assert model.head_prefixes == ("fc.",)
    apply_plan(model, plan_lrs(model, model.get_finetune_lr_dict(0.1), weight_decay=0.0))
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == ["fc.weight", "fc.bias"]
    del model.fc_norm
    assert model.head_prefixes == ("fc",)


@pytest.mark.parametrize(("last", "kind"), [(nn.Conv2d(4, 3, 1), "Conv2d"), (nn.Identity(), "Identity")])
def test_a_head_that_is_no_linear_layer_is_refused(last, kind):
    with pytest.raises(InputError, match=rf"Net is not a single linear layer \(it is a {kind}\).*Choose another model"):
        Classifier(Net(last=last))


def test_features_are_dropped_in_the_head_and_in_training_only():
    model, features = Classifier(Net(), drop_rate=0.5).eval(), torch.ones(1, 4)
    images = torch.randn(2, 3, 8, 8)
    whole, trunk = model.head(features), model.trunk(images)
    assert torch.equal(model.head(features), whole)
    model.train()
    assert any(not torch.equal(model.head(features), whole) for _ in range(20))
    model.norm.eval()
    assert torch.equal(model.trunk(images), trunk)


def test_a_deep_copy_is_whole_and_independent(model):
    images = torch.randn(2, 3, 8, 8)
    other = copy.deepcopy(model)
    assert torch.equal(other(images), model(images))
    network = other.__dict__["network"]
    assert network.fc is other.fc is not model.fc
    nn.init.zeros_(other.fc.weight)
    nn.init.zeros_(other.fc.bias)
    other.train()
    other.classes = ("x", "y", "z")
    assert not other.head(torch.ones(1, 4)).any()
    assert model.head(torch.ones(1, 4)).all()
    assert (model.training, model.__dict__["network"].training, network.training) == (False, False, True)
    assert model.classes == ("ant", "bee", "cat")


def fused(model):
    twin = copy.deepcopy(model).eval().requires_grad_(False)
    fold_norms(twin, method="run_backbone")
    return twin


def test_a_fused_copy_gives_the_same_and_shares_nothing(model):
    model.norm.running_mean.normal_()
    model.norm.running_var.uniform_(0.5, 2)
    model.train()
    model.fc.requires_grad_(False)
    before, images = copy.deepcopy(model.state_dict()), torch.randn(2, 3, 8, 8)
    other = fused(model)
    assert isinstance(other.norm, nn.Identity)
    assert other.__dict__["network"].norm is other.norm
    assert other.__dict__["network"].conv is other.conv is not model.conv
    assert (other.classes, other.head_prefixes) == (model.classes, model.head_prefixes)
    assert not any(module.training for module in (*other.modules(), other.__dict__["network"]))
    assert not any(tensor.requires_grad for tensor in other.parameters())
    assert model.training
    assert model.norm.training
    assert [name for name, tensor in model.named_parameters() if not tensor.requires_grad] == ["fc.weight", "fc.bias"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    mine = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert not mine & {tensor.data_ptr() for tensor in other.state_dict().values()}
    model.eval()
    assert torch.allclose(other(images), model(images), rtol=1e-5, atol=1e-6)
    assert torch.allclose(other.__dict__["network"](images), model(images), rtol=1e-5, atol=1e-6)
    assert other.predict(IMAGE)[0].names == model.predict(IMAGE)[0].names
    model, images = build_timm("convnext_atto", num_classes=2).eval(), torch.randn(1, 3, 32, 32)
    assert torch.equal(fused(model)(images), model(images))


def test_the_head_is_made_anew_with_the_known_deviation(model):
    before = copy.deepcopy(model.state_dict())
    nn.init.constant_(model.fc.weight, 5.0)
    torch.manual_seed(1)
    model.reset_head()
    assert not model.fc.bias.any()
    assert 0 < model.fc.weight.abs().max() < 0.05
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"fc.weight", "fc.bias"}
    model = Classifier(Net(last=nn.Linear(1000, 100, bias=False)))
    model.reset_head()
    assert model.fc.weight.std().item() == pytest.approx(0.01, rel=0.02)


def test_the_loss_is_the_mean_cross_entropy(model):
    targets = torch.tensor([0, 2])
    assert model.loss(torch.zeros(2, 3), targets).item() == pytest.approx(math.log(3))
    sure = 100 * nn.functional.one_hot(targets, 3).float()
    assert model.loss(sure, targets).item() == pytest.approx(0)
    assert model.loss(sure, targets, label_smoothing=0.3).item() == pytest.approx(0.2 * 100)  # two of three thirds
    with pytest.raises(InputError, match=r"Linear is not a single linear layer \(it is a NoneType\)"):
        Classifier(nn.Linear(3, 3))


def test_a_size_that_a_network_refuses_is_told():
    model = zoo.get("timm/vit_tiny_patch16_224", num_classes=2)
    with pytest.raises(
        InputError, match=r"VisionTransformer does not support images of 64 x 64 px: .* Remove image_size"
    ):
        model.predict(torch.zeros(3, 64, 64), image_size=64)


@pytest.mark.parametrize("options", [{"top_k": 0}, {"batch_size": 0}])
def test_counts_below_one_are_told(options):
    with pytest.raises(InputError, match="expected 1 or more of each"):
        zoo.get("timm/resnet10t", num_classes=2).predict(torch.zeros(3, 64, 64), **options)


@pytest.mark.parametrize("classes", [None, "ab", [1, 2, 3], {"a": 0}, np.array(["a"])])
def test_names_of_classes_are_texts(classes):
    model = Classifier(Net())
    with pytest.raises(InputError, match="expected a list of names such as"):
        model.classes = classes


@pytest.mark.parametrize("classes", [["a", "b"], ["a", "b", "c", "d"], ()])
def test_without_a_name_for_each_output_nothing_is_named(classes):
    model = Classifier(Net())
    model.classes = classes
    with pytest.raises(InputError, match=rf"3 outputs but {len(classes)} class names\. Set one name per"):
        model.predict(make_image(), image_size=32)
    model.classes = ["a", "b", "c"]
    assert model.classes == ("a", "b", "c")
    assert set(model.predict(make_image(), image_size=32)[0].names) == {"a", "b", "c"}


def test_the_order_of_layers_is_that_of_timm():
    model = build_timm("test_resnet", num_classes=5)
    network = model.__dict__["network"]
    assert model.group_matcher() == network.group_matcher()
    assert model.group_matcher(coarse=True) == network.group_matcher(coarse=True) != model.group_matcher()


def test_the_mirror_image_counts_half(model):
    (plain,), (mirrored,) = model.predict(IMAGE), model.predict(IMAGE.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    (both,) = model.predict(IMAGE, tta=True)
    chances = [dict(zip(answer.names, answer.probabilities, strict=True)) for answer in (plain, mirrored, both)]
    assert chances[2] != pytest.approx(chances[0], abs=1e-6)
    assert chances[2] == pytest.approx(
        {name: (chances[0][name] + chances[1][name]) / 2 for name in chances[0]}, abs=1e-6
    )
