"""What every classifier has to do; a family's test file subclasses this and names a small one."""

import copy
import functools

import pytest
import torch

import zoo
from stopping import equal
from zoo.optim.freeze import apply_plan, frozen_tensors
from zoo.training.run_folder import RunFolder
from zoo.training.run_model import load_model


@functools.cache
def build(name, classes):
    return zoo.get(name, num_classes=classes)


def assert_seeded(name, classes):
    """The same call gives the same weights, and the random state is left alone; return weights of two seeds."""
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second, other = (zoo.get(name, num_classes=classes, seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert equal(first, second)
    assert not equal(first, other)
    return first, other


def assert_head_learns(model, lr, loss_of):
    """The loss falls at each of four steps, and what is frozen does not move."""
    plan = zoo.plan(model, lr)
    apply_plan(model, plan)
    before = {name: tensor.clone() for name, tensor in frozen_tensors(model, plan).items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr)
    losses = []
    for _ in range(4):
        loss = loss_of(model.train())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert equal(before, frozen_tensors(model, plan))


class ClassifierContract:
    name: str
    classes = 5
    size = 64

    @pytest.fixture
    def model(self):
        return copy.deepcopy(build(self.name, self.classes))

    @pytest.fixture
    def images(self):
        return torch.randn(4, 3, self.size, self.size, generator=torch.Generator().manual_seed(0))

    def test_shapes(self, model, images):
        features = model.trunk(images)
        assert features.shape == (4, model.num_features)
        assert model(images).shape == (4, self.classes)
        assert model.num_classes == self.classes == len(model.classes)
        assert not model.training

    def test_forward_is_head_of_backbone(self, model, images):
        assert torch.equal(model(images), model.run_head(model.run_backbone(images)))
        assert torch.equal(model(images), model.get_head()(model.get_backbone()(images)))

    def test_it_is_the_network_of_timm(self, model, images):
        network = model.__dict__["network"]
        assert torch.equal(model(images), network(images))
        assert list(model.state_dict()) == list(network.state_dict())

    def test_exactly_the_parameters_outside_the_head_belong_to_the_backbone(self, model, images):
        model.trunk(images).sum().backward()
        for name, parameter in model.named_parameters():
            assert (parameter.grad is None) == name.startswith(model.head_prefixes), name

    def test_the_finetune_mapping_covers_the_head_and_freezes_the_rest(self, model):
        rates = model.get_finetune_lr_dict(0.1)
        assert rates == dict.fromkeys(model.head_prefixes, 0.1) | {"default": 0}
        assert rates is not model.get_finetune_lr_dict(0.1)
        plan = zoo.plan(model, 0.1)
        learning = {name for group in plan.trained for name in group.names}
        assert learning == {name for name, _ in model.named_parameters() if name.startswith(model.head_prefixes)}
        assert plan == zoo.plan(model, 0.1, mode="head")

    def test_the_hooks_give_the_head_and_leave_scheduled_rates(self, model):
        (group,) = model.initialize_param_groups(0.1, {})
        assert group["lr"] == 0.1
        assert {name for name, _ in group["named_params"]} == {
            name for name, _ in model.named_parameters() if name.startswith(model.head_prefixes)
        }
        groups = [{"name": "a", "lr": 0.05, "initial_lr": 0.1}]
        assert model.update_param_groups(groups, 0.05, 0, 0, {}, 10) == groups

    def test_frozen_parts_do_not_move_and_the_loss_falls(self, model, images):
        targets = torch.arange(4) % self.classes
        assert_head_learns(model, 0.001, lambda model: model.loss(model(images), targets))

    def test_the_same_call_gives_the_same_weights_and_leaves_the_random_state_alone(self):
        assert_seeded(self.name, self.classes)

    def test_saved_and_loaded_it_gives_the_same_logits(self, model, images, tmp_path):
        model.classes = tuple("abcde")
        RunFolder(tmp_path).save_model(model, model.state_dict())
        loaded = load_model(tmp_path)
        assert torch.equal(loaded(images), model(images))
        assert loaded.classes == model.classes
        assert loaded.preprocess == model.preprocess
        assert loaded.config | {"origin": None} == model.config | {"origin": None}
        assert loaded.config["origin"]["pretrained"] == str(tmp_path)

    def test_a_new_class_count_makes_a_new_head_and_keeps_the_backbone(self, model, images, tmp_path):
        RunFolder(tmp_path).save_model(model, model.state_dict())
        other = zoo.get(self.name, pretrained=tmp_path, num_classes=self.classes + 2)
        assert other.num_classes == self.classes + 2
        assert torch.equal(other.trunk(images), model.trunk(images))
        assert {name.removeprefix(model.head_name) for name in other.load_report.reinitialised} == {".weight", ".bias"}
        assert len(other.load_report.loaded) == len(model.state_dict()) - 2

    def test_predict_names_classes(self, model):
        model.classes = tuple("abcde")
        image = (torch.rand(3, 80, 60, generator=torch.Generator().manual_seed(0)) * 255).to(torch.uint8)
        (answer,) = model.predict(image, image_size=self.size)
        assert set(answer.names) == set("abcde")
        assert sum(answer.probabilities) == pytest.approx(1, abs=1e-5)
        assert list(answer.probabilities) == sorted(answer.probabilities, reverse=True)
