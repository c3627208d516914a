"""`zoo average`: the mean of the weights of several runs, scored beside each of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import zoo
from zoo._text import echo, warn

from .completion import complete_run_folder
from .listing import AsJson, print_json, print_table

if TYPE_CHECKING:
    from zoo.training.soup import Average


def average(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN RUN...", help="Folders of finished runs.", autocompletion=complete_run_folder),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FOLDER", help="Where the model goes.", show_default="a new one in runs/"),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="The data of the runs, if it is not where the first run found it."),
    ] = None,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="Begin with the best run, and leave out runs that make the mean worse.")
    ] = False,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or mps.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Average the weights of several runs (a model soup).

    The runs are of one model on the same data. The mean costs no more to run than one of the models. It is scored on
    the validation images beside each run; it is not always the better one. Batch norms that trained get new statistics
    from the training images, frozen ones keep theirs.

    \b
    Examples:
      zoo average runs/seed0 runs/seed1 runs/seed2 -o runs/mean
      zoo average runs/seed* --greedy
      zoo average runs/a/last.safetensors runs/b/last.safetensors
    """  # noqa: D301
    options: dict[str, Any] = {"out": out, "data": data, "greedy": greedy, "device": device}
    found = zoo.average(runs, progress=not as_json, **options)
    rows = [
        {"run": str(member.run), "used": "yes" if member.is_used else "no"} | _scores(member.evaluation)
        for member in found.members
    ]
    rows.append({"run": "mean", "used": ""} | _scores(found.evaluation))
    if as_json:
        print_json({"folder": str(found.folder), "recomputed_norms": found.norms, "runs": rows})
        return
    print_table(rows, "scores on the validation images")
    _tell(found)


def _scores(evaluation: Any) -> dict[str, str]:
    """Return the scores as text, by their keys."""
    return {} if evaluation is None else {key: f"{value:.4g}" for key, value in evaluation.record().items()}


def _tell(found: "Average") -> None:
    """Say what became of the norms, whether the mean is better than the best run, and where it is."""
    same = "all batch norms have the same statistics in the runs that are used: nothing to recompute"
    echo(f"{found.norms} batch norms have new statistics from the training images" if found.norms else same)
    best = found.members[0].evaluation
    if found.evaluation is None or best is None:
        warn("note: there are no validation images; the mean was not scored")
    elif found.evaluation.score < best.score:
        warn(f"note: the mean scores worse than {found.members[0].run} alone; --greedy leaves out what makes it worse")
    echo(f"written to {found.folder}")
