"""Digests of code: equal for equal code in any process, different for whatever changes what is computed."""

import functools
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from zoo.engine.frozen.code_digest import CodeDigest, UnreadableCodeError, closes_over_module, is_local, kind_of

SCALE = 2.0


def helper(x):
    return x * SCALE


def uses_a_global(x):
    return helper(x) + 1


class Part:
    """A plain object that a module may hold."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        return x * self.factor


def read(value):
    return CodeDigest({}).of(value, "here")


def close_over(value):
    return lambda x: x * value


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda x: x + 1, lambda x: x + 2),
        (lambda x: x in {"a", "b"}, lambda x: x in {"a", "c"}),
        (lambda x, y=1: x + y, lambda x, y=2: x + y),
        (lambda x, *, y=1: x + y, lambda x, *, y=2: x + y),
        (close_over(1), close_over(2)),
        (close_over(torch.ones(2)), close_over(torch.zeros(2))),
        (close_over(close_over(1)), close_over(close_over(2))),
        (torch.relu, torch.sin),
        (functional.relu, functional.silu),
        (functional.gelu, functional.softplus),
        (functools.partial(functional.leaky_relu, negative_slope=0.1), functools.partial(functional.leaky_relu)),
        (Part(1.0), Part(2.0)),
        (Part(1.0).__call__, Part(2.0).__call__),
        ({"a": 1}, {"a": 2}),
        ([Part(1)], [Part(2)]),
        (np.exp, np.log),
        (np.zeros(2), np.ones(2)),
        (nn.ReLU(), nn.SiLU()),
        (nn.Linear(2, 2, bias=False), nn.Linear(2, 3, bias=False)),
    ],
)
def test_other_code_and_other_values_have_other_digests(one, other):
    assert read(one) != read(other)
    assert read(one) == read(one)


def make_class(body):
    space = {"__name__": "script", "nn": nn, "torch": torch}
    exec(body, space)
    return space["Net"]


BODY = "class Net(nn.Module):\n    def forward(self, x):\n        return torch.relu(x)\n"


def test_where_code_stands_does_not_count(monkeypatch):
    assert read(make_class(BODY)) == read(make_class("\n\n# moved\n" + BODY))
    before = read(uses_a_global)
    monkeypatch.setattr(sys.modules[__name__], "SCALE", 3.0)
    after = read(uses_a_global)
    monkeypatch.setattr(sys.modules[__name__], "helper", lambda x: x)
    assert len({before, after, read(uses_a_global)}) == 3


@pytest.mark.parametrize(
    "body",
    [
        BODY.replace("relu", "sin"),
        BODY + "    factor = 2\n",
        BODY + "    @property\n    def half(self):\n        return 0.5\n",
        BODY + "    @staticmethod\n    def half():\n        return 0.5\n",
        BODY.replace("nn.Module", "nn.Sequential"),
    ],
)
def test_all_that_stands_in_a_class_counts(body):
    assert read(make_class(body)) != read(make_class(BODY))


def test_a_method_that_replaces_one_of_a_library_counts(monkeypatch):
    plain, base = read(nn.GELU), read(nn.SiLU)
    original = nn.GELU.forward

    @functools.wraps(original)
    def patched(self, x):
        return original(self, x) * 2

    monkeypatch.setattr(nn.GELU, "forward", patched)
    assert read(nn.GELU) != plain
    monkeypatch.setattr(nn.GELU, "forward", nn.ReLU.forward)
    assert read(nn.GELU) != plain
    assert read(nn.SiLU) == base
    monkeypatch.setattr(nn.GELU, "forward", torch.no_grad()(patched))
    assert read(nn.GELU) != plain


def test_a_function_of_a_library_that_was_replaced_counts(monkeypatch):
    def compute(x):
        return functional.relu(x)

    before = read(compute)
    monkeypatch.setattr(functional, "relu", lambda x: x)
    assert read(compute) != before


def opens(path):
    return open(path)


def imports(x):
    from image_files import make_image

    return make_image(x)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.random.default_rng(0), "here is a Generator, whose state cannot be read"),
        (opens, "opens() calls open()"),
        (imports, "imports() imports image_files while it runs"),
        (types.ModuleType("made_up"), "here is the module made_up, and any part of it may be used"),
        (torch.jit.ScriptFunction, None),
        ([close_over(torch.Generator())], "value in close_over.<locals>.<lambda>() is a Generator"),
    ],
)
def test_what_cannot_be_read_is_an_error(value, reason):
    if reason is None:
        assert read(value)
        return
    with pytest.raises(UnreadableCodeError) as caught:
        read(value)
    assert str(caught.value).startswith(reason)


def test_parts_of_others_are_named_and_cycles_end():
    first, second = Part(1), Part(2)
    first.factor, second.factor = second, first
    assert read(first) == read(first)
    other = Part(1)
    other.factor = other
    assert read(other) != read(first)
    module = nn.Linear(2, 2)
    assert CodeDigest({id(module): "block.0"}).of([module], "here") == CodeDigest({id(module): "block.0"}).of(
        [module], "there"
    )
    assert CodeDigest({id(module): "block.0"}).of(module, "here") == "module 'block.0'"
    assert CodeDigest({}).of(np.random.default_rng(0), "here", strict=False).startswith("a numpy.random")


def test_libraries_and_scripts_are_told_apart():
    assert is_local("__main__")
    assert is_local(None)
    assert is_local("coloured_folder")
    for name in ("torch.nn", "timm.models.resnet", "json", "numpy", "zoo.models.classifier"):
        assert not is_local(name)
    from zoo.models.classifier import Classifier

    assert kind_of(Classifier) == "zoo.Classifier"
    assert kind_of(nn.Linear) == "torch.nn.modules.linear.Linear"


def test_functions_that_refer_to_a_module_are_known():
    module = nn.ReLU()
    assert closes_over_module(close_over(module))
    assert closes_over_module(module.forward)
    assert closes_over_module(functools.partial(close_over(1), module))
    assert closes_over_module(close_over(close_over(module)))
    assert not closes_over_module(close_over(1))
    assert not closes_over_module(torch.relu)
