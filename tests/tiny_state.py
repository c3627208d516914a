"""The state of an unfinished run of a tiny network, made by hand: one epoch of two batches is done, of three."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

CLOCK = {"epochs": 3, "batches": 2, "accumulate": 1, "processes": 1}
WRONG = (None, True, -1, 3, 10**9, 0.5, float("nan"), "x", [], {}, [1], {"a": 1}, torch.ones(3), b"x")


def make_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def make_optimizer(network: nn.Module) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    optimizer.param_groups[0]["name"] = "default"
    return optimizer


def make_state() -> dict[str, Any]:
    network = make_network()
    optimizer = make_optimizer(network)
    for _ in range(2):
        network(torch.randn(5, 3)).sum().backward()
        optimizer.step()
    record = {"epoch": 1, "epochs": 3, "step": 2, "loss": 0.5, "lr": {"default": 0.1}, "seconds": 1.0, "top1": 0.5}
    position = {"epoch": 1, "batch": 0, "step": 2, "images": 0, "loss_sum": 0.0, "seconds": 0.0, "waiting": 0.0}
    return {
        "version": 2,
        "model": copy.deepcopy(network.state_dict()),
        "ema": copy.deepcopy(network.state_dict()),
        "optimizer": optimizer.state_dict(),
        "scaler": None,
        "position": position,
        "micro_batch_size": None,
        "clock": dict(CLOCK),
        "rates": {"assigned": {}, "changes": [], "history": {"default": [0.1, 0.1]}, "plateaus": {}},
        "records": [record],
        "best": None,
        "best_score": -1.0,
        "optimizer_class": "AdamW",
        "plan": "digest",
        "proof": {"digests": {}, "moments": [{"when": "before the first step", "sha256": "0"}]},
        "run": {"files": {}, "versions": {}},
    }


def mutate(state: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield copies of a state, each with one value missing, or of another type or range, wherever it stands."""
    for path in list(_paths(state)):
        for wrong in ("missing", *WRONG):
            changed = copy.deepcopy(state)
            place = changed
            for key in path[:-1]:
                place = place[key]
            if isinstance(wrong, str) and wrong == "missing":
                del place[path[-1]]
            else:
                place[path[-1]] = wrong
            yield f"{'.'.join(map(str, path))} = {wrong!r}", changed


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield (*path, key)
        yield from _paths(each, (*path, key))
