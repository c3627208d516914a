"""Python hashes texts otherwise in each process, which changes the order of sets: no digest may depend on it."""

import os
import subprocess
import sys

SCRIPT = """
import torch
from plan_nets import Net, plan_lrs
from zoo.engine.frozen.code_digest import CodeDigest

class Part:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        return helper(x) * self.factor

def helper(x):
    return x in {"a", "b", "c"}

rates = {"conv": .1, "head.": .2, "head2": .3, "@norm": {"weight_decay": 0.1}, "conv2@bias": .5, "default": 0.4}
plan = plan_lrs(Net(), rates, schedule="cosine", unfreeze={1: ["conv", "head2.bias"], 2: ["bn", "head."]})
values = [Part(1.5), helper, lambda x: x in {"a", "b"}, {"x", "y", "z"}, torch.utils.data.SequentialSampler]
answers = plan.digest, [group.name for group in plan.groups], CodeDigest({}).of(values, "here")
"""


def test_digests_are_the_same_in_every_process():
    names = {"__name__": "script"}
    exec(SCRIPT, names)
    code = f"names = {{'__name__': 'script'}}; exec({SCRIPT!r}, names); print(names['answers'])"
    variables = {"PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=True)
    assert done.stdout == f"{names['answers']}\n"
    assert len(names["answers"][0]) == 64
