"""A small network for the tests of plans, ways to make a plan of it, and to look at a plan by parameter."""

import functools

import torch
from torch import nn

from zoo.rates import assign
from zoo.rates.context import PlanContext
from zoo.rates.options import RateOptions


class Net(nn.Module):
    """Two convolutions with norms, dropouts, and a head of two layers whose names begin alike."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.bn1 = nn.BatchNorm2d(4)
        self.drop1 = nn.Dropout(0.5)
        self.conv2 = nn.Conv2d(4, 4, 3)
        self.bn2 = nn.BatchNorm2d(4, affine=False)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 2))
        self.head2 = nn.Linear(4, 2)

    def forward(self, images):
        x = self.drop1(self.bn1(self.conv1(images)))
        x = self.bn2(self.conv2(x)).mean((2, 3))
        return self.head(x) + self.head2(x)

    def get_finetune_lr_dict(self, lr):
        return {"head": lr, "default": 0}


class Stack(nn.Module):
    """So many blocks of a convolution and a norm, with four tensors each: `b00000.conv.weight` and so on."""

    def __init__(self, blocks):
        super().__init__()
        for index in range(blocks):
            block = nn.Module()
            block.conv, block.norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)
            self.add_module(f"b{index:05d}", block)


def make_context(*, schedule_defaults=(), **values):
    """What holds for all groups: constant rates, no warm-up and no decay, unless told."""
    of_context = {name: values.pop(name) for name in PlanContext.__dataclass_fields__.keys() & values.keys()}
    fields = {"schedule": "constant", **values, **dict(schedule_defaults)}
    return PlanContext(options=RateOptions(**fields), **of_context)


def plan_lrs(model, rates, **values):
    """The plan of rates by key; `values` are those of `make_context`."""
    return assign.plan_lrs(model, rates, make_context(**values))


@functools.cache
def make_large():
    """A network of 20,000 tensors; it takes two seconds to make."""
    return Stack(5000)


def backward(model):
    """Give a `Net` gradients."""
    model(torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))).sum().backward()


def groups_of(plan):
    """Groups by their name."""
    return {group.name: group for group in plan.groups}


def owners(plan):
    """Groups by parameter."""
    return {name: group for group in plan.groups for name in group.names}


def rates_of(plan):
    """Full rates by parameter."""
    return {name: group.full_lr for group in plan.groups for name in group.names}
