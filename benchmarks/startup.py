"""Start-up: seconds and peak memory of an import, of commands, and of making each model without weights.

    python benchmarks/startup.py [--runs 5] [--full]

Every line is a fresh interpreter; the time is that of the whole process, from its start to its end, with byte code
compiled before. Memory is measured in a process of its own. `--full` makes every registered model, else a few.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from _measure import Result, chosen_only, common_options, in_turns, installed, save, show, spread, values_of

COMMANDS = ("--help", "preset list", "models")
FEW_MODELS = ("resnet18", "resnet50", "mobilenetv2_100", "yolo_nas_s", "yolo_nas_m", "yolo_nas_l", "dfine_s")
PEERS = {
    "fastai": "import fastai.vision.all",
    "lightning": "import lightning",
    "transformers": "from transformers import Trainer",
    "libreyolo": "import libreyolo",
}
TARGETS = {"import zoo": 0.1, "zoo preset list": 0.4}
AT_THE_END = (
    "import atexit; status = lambda: open('/proc/self/status').read(); "
    "atexit.register(lambda: print('peak', status().split('VmHWM:')[1].split()[0]))"
)
NOTES = (
    "python alone: an interpreter that does nothing, which all other lines contain",
    "zoo.get: random weights (pretrained=False), the size as registered, on the CPU",
    "memory is the resident set at its greatest, of Linux alone",
)


def main() -> None:
    parser = common_options(__doc__)
    chosen = parser.parse_args()
    lines = list_lines(chosen.full)
    names = chosen_only(lines, chosen.only)
    for name in names:  # byte code and the disk's cache
        time_process(lines[name], chosen.threads)
    memory = {name: measure_memory(lines[name], chosen.threads) for name in names}
    results = in_turns(
        [[name] for name in names], chosen.runs, lambda name, _: time_process(lines[name], chosen.threads)
    )
    rows = []
    for name in names:
        target, seconds = TARGETS.get(name), spread(values_of(results[name], "seconds"))
        met = "" if target is None else f"≤ {target} {'met' if seconds.median <= target else 'NOT met'}"
        rows.append((name, f"{seconds:.3f}", f"{memory[name]:,.0f}" if memory[name] else "–", met))
    show("start-up", ("what", "seconds", "peak, MB", "target"), rows, NOTES)
    save("startup", chosen, {name: {"peak_mb": memory[name], "runs": results[name]} for name in names}, notes=NOTES)


def list_lines(full: bool) -> dict[str, str]:
    """Return Python code by the name of its line."""
    lines = {"python alone": "pass", "import zoo": "import zoo"}
    for words in COMMANDS:
        call = f"sys.argv = {['zoo', *words.split()]!r}; from zoo.tools.cli import main; sys.exit(main())"
        lines[f"zoo {words}"] = f"import sys; {call}"  # what the installed command does
    lines["import torch"] = "import torch"
    for model in list_models() if full else FEW_MODELS:
        lines[f"zoo.get {model}"] = f"import zoo; zoo.get({model!r}, pretrained=False)"
    return lines | {f"import {peer}": PEERS[peer] for peer in installed(tuple(PEERS))}


def list_models() -> list[str]:
    """Return all registered names."""
    code = "import json, zoo; print(json.dumps(zoo.list_models()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names: list[str] = json.loads(done.stdout)
    return names


def time_process(code: str, threads: int) -> Result:
    """Run code in a fresh interpreter and return its seconds."""
    began = time.perf_counter()
    done = run(code, threads)
    seconds = time.perf_counter() - began
    return {"failed": done.stderr.strip().splitlines()[-1]} if done.returncode else {"seconds": seconds}


def measure_memory(code: str, threads: int) -> float | None:
    """Run code in a fresh interpreter and return its greatest resident set in MB; None where that is not known."""
    if not Path("/proc/self/status").exists():
        return None
    found = [line for line in run(f"{AT_THE_END}; {code}", threads).stdout.splitlines() if line.startswith("peak ")]
    return int(found[-1].split()[1]) * 1024 / 1e6 if found else None


def run(code: str, threads: int) -> "subprocess.CompletedProcess[str]":
    """Run code in a fresh interpreter, with the imports that the installation itself brings."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


if __name__ == "__main__":
    main()
