"""What every size of a family of transformers has to be."""

from typing import Any

import pytest
import torch

import zoo


def check_size(family: Any, name: str, published: float, *, kind: str, owner: str) -> None:
    """Hold a size against its authors' table: millions of parameters, without those that stand in it twice."""
    facts, architecture = zoo.describe(name), family.open_size(name.rpartition("_")[2])
    assert name.rpartition("_")[2] in family.SIZES
    assert architecture.model_type == kind
    with torch.device("meta"):
        network = architecture.make_network(80)
    second = architecture.second_names or ("no second names",)
    learning = [p for key, p in network.named_parameters() if p.requires_grad and not key.startswith(second)]
    assert sum(p.numel() for p in learning) / 1e6 == pytest.approx(facts["parameters"], abs=0.006)
    assert facts["weights"]["repo"].startswith(owner)
    assert published == pytest.approx(facts["parameters"], abs=1)
