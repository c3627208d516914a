"""The check of a GPU machine: does everything run there, is it right, and how fast is it.

    make gpu-wheels            # where there is a network: what the machine lacks, into wheels/
    make gpu-check             # on the machine, without a network: in less than eight minutes
    python benchmarks/gpu.py --cpu      # as far as a CPU goes

Images are made on the spot, weights are random: nothing is downloaded. Each check runs in a process of its own, under a
limit; one that fails is a row of the table. The exit code is 0 if all have passed, else 1.
"""

import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from _checks import Check, exit_code, run_checks, show_checks
from _gpu_parts import MODES, PARTS
from _measure import chosen_only, common_options, main_or_part, save

TOTAL = {"gpu": 465.0, "cpu": 900.0, "quick": 900.0}  # seconds of all checks together
PATIENCE = {"gpu": 1, "cpu": 4, "quick": 4}  # times the limits: a CPU may have other things to do
TASKS = ("classifier", "detector")  # ResNet-50, or a smaller one on a CPU; YOLO-NAS S
NOTES = (
    "by hand: a plain loop in the same process, in turns; with low_lr it has one rate for all",
    "head: the frozen backbone runs in every step; what keeping its features saves is a check of its own",
    "classifiers see one batch that lies on the device, detectors read files",
    "a ratio of 0.8 or more passes on a GPU; on a CPU every ratio does",
)


def main() -> None:
    parser = common_options(__doc__, runs=0)
    parser.add_argument("--cpu", action="store_true", help="as far as a CPU goes, with few and small images")
    parser.add_argument("--quick", action="store_true", help="likewise, with a tiny network: to test the checks")
    parser.add_argument("--total", type=float, default=None, help="seconds of all checks together; default: by scale")
    parser.add_argument("--out", type=Path, default=None, help="folder of the JSON; default: benchmarks/results")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the check that runs is ended, too
    scale = "quick" if chosen.quick else "cpu" if chosen.cpu else "gpu"
    checks = list_checks(scale)
    names = chosen_only([check.name for check in checks], chosen.only)
    with tempfile.TemporaryDirectory() as cache:
        results = run_checks(
            [check for check in checks if check.name in names],
            total=chosen.total or TOTAL[scale],
            threads=chosen.threads,
            cache=Path(cache),
        )
    show_checks(f"gpu-check, scale {scale}", results, NOTES)
    save(f"gpu-check-{scale}", chosen, results, folder=chosen.out, notes=NOTES)
    raise SystemExit(exit_code(results))


def list_checks(scale: str) -> list[Check]:
    """Return the checks of a scale: what has to be right first, then what is measured."""
    shared = {"scale": scale}
    checks = [
        Check("tests", "tests", 120, shared),
        Check("device", "device", 60, shared),
        Check("two runs, resume", "repeat", 90, shared),
        Check("kept features", "kept", 90, shared),
        Check("micro_batch_size='auto'", "micro-batches", 60, shared),
    ]
    checks += [Check(f"waits: {task}", "waits", 60, shared | {"task": task}) for task in TASKS]
    for task in TASKS:
        checks += [Check(f"{task}, {mode}", "speed", 75, shared | {"task": task, "mode": mode}) for mode in MODES]
    checks.append(Check("compile=True", "compiled", 120, shared))
    return [replace(check, limit=PATIENCE[scale] * check.limit) for check in checks]


if __name__ == "__main__":
    main_or_part(main, PARTS)
