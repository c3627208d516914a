"""Draws the plots of a finished run that was stopped while they were drawn, or could not draw them then."""

from typing import Any, cast

from torch import nn

from zoo.models import Model
from zoo.progress import Progress
from zoo.rates import Plan
from zoo.settings import Preset
from zoo.tasks import task_of
from zoo.training.evaluation import score_split
from zoo.training.loggers import Loggers, Plots, Report, RunFacts, RunResult
from zoo.training.result import Run
from zoo.training.run_folder import RunFolder, make_caption
from zoo.training.run_stage import read_record


def redraw(folder: RunFolder, model: nn.Module, data: Any, preset: Preset, plan: Plan, show: Progress) -> Run:
    """Score a finished run again, and draw its plots.

    Args:
        folder: The run's.
        model: With the weights of the run.
        data: Opened data, the same as before.
        preset: The effective preset of the run.
        plan: Made of the model and the preset.
        show: Where it says how it goes.
    """
    task, evaluation, examples = task_of(model), None, ()
    if data.val is not None or data.loaders is not None:
        options: dict[str, Any] = {name: getattr(preset, name) for name in ("batch_size", "num_workers", "device")}
        evaluation, examples = score_split(model, task, data, "val", show, **options)
    records, rates, proof = folder.read_metrics(), folder.read_rates(), folder.read_json("proof.json")
    folder.caption = make_caption(model, data.source, folder.path)
    record = read_record(folder.path)
    steps = max(1, record.get("step", 1) // max(1, record.get("epoch", 1)))
    loggers = Loggers((Plots, Report), show.log)
    loggers.start(RunFacts(folder, show, preset, plan, task, steps, data.val, records))
    result = RunResult("finished", records, rates, proof=proof, evaluation=evaluation, examples=examples)
    loggers.finish(result, required=False)
    return Run(folder.path, cast(Model, model.eval()), plan, preset, records, evaluation, proof)
