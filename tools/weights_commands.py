"""`zoo weights`: fetch published weights, check them, and carry them to a machine without a network."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo._text import echo

if TYPE_CHECKING:
    from zoo.models import CachedWeights, Verdict

app = typer.Typer(
    name="weights", help="Published weights: fetch, check, carry to a machine without a network.", no_args_is_help=True
)

Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Models; none: all that are here.")]


@app.command("list")
def list_(
    pattern: Annotated[str, typer.Argument(help="Shell pattern, for example 'resnet*'.")] = "*",
) -> None:
    """List the models with published weights: what is on this machine, size, licence, whether they are pinned.

    Pinned weights have a fixed SHA-256, and on the Hub a fixed commit.

    \b
    Examples:
      zoo weights list
      zoo weights list 'resnet*'
    """  # noqa: D301
    from zoo.errors import InputError
    from zoo.models import list_stored

    found = list_stored(pattern)
    if not found:
        raise InputError(f"no model with weights fits {pattern!r}. zoo weights list names all.")
    rows = [
        {
            "model": stored.model,
            "here": "yes" if stored.path else "no",
            "size": _size(stored),
            "licence": stored.weights.licence,
            "pinned": "yes" if stored.weights.pinned else "no",
            "from": stored.origin,
        }
        for stored in found
    ]
    _table(rows, "weights")
    if caveats := {stored.weights.caveat for stored in found if stored.weights.caveat}:
        echo(f"Beside the licences: {'; '.join(sorted(caveats))}.")


@app.command()
def pull(names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Models of zoo weights list.")]) -> None:
    """Download the weights of models and check them; those that are here are only checked.

    \b
    Examples:
      zoo weights pull resnet18 resnet50
      HF_HOME=/data/huggingface zoo weights pull resnet18
    """  # noqa: D301
    from zoo.models import find_stored, pull_weights

    for name in names:  # an unknown name is told before the first download
        find_stored(name)
    _tell_terms([find_stored(name) for name in names])
    for name in names:
        found = pull_weights(name)
        stored = find_stored(name)
        state = "pinned" if found.pinned else f"not pinned, commit {found.revision}"
        echo(f"{stored.model}: {_size(stored)}, sha256 {found.sha256[:12]}, {state}, licence {found.licence}")


@app.command()
def verify(
    names: Names = None,
    online: Annotated[
        bool, typer.Option("--online", help="Compare the registry with the Hub instead; downloads nothing.")
    ] = False,
) -> None:
    """Hash the weights on this machine and hold them against the registry; the exit code is 1 if one differs.

    With --online the Hub is asked for commit, SHA-256 and size of every model, and what the registry lacks is printed
    so that it can be copied there.

    \b
    Examples:
      zoo weights verify
      zoo weights verify resnet18 --online
    """  # noqa: D301
    from zoo.models import verify_online, verify_stored

    if online:
        echo("asking the Hub and other publishers ...")
    found = list(_echo(verify_online(names or ()) if online else verify_stored(names or ())))
    if not found:
        echo("no weights of the registry are on this machine: zoo weights pull NAME")
    if online:
        _print_pins(found)
    if wrong := [verdict.model for verdict in found if not verdict.ok]:
        echo(f"wrong: {', '.join(wrong)}")
        raise typer.Exit(1)


@app.command()
def where(names: Names = None) -> None:
    """Tell where weights come from, and where they are on this machine.

    \b
    Examples:
      zoo weights where
      zoo weights where resnet18
    """  # noqa: D301
    from zoo.models import find_stored, list_stored, name_places

    if not names:
        for what, place in name_places().items():
            echo(f"{what:<36} {place}")
    chosen = [find_stored(name) for name in names] if names else [stored for stored in list_stored() if stored.path]
    for stored in chosen:
        echo(f"{stored.model:<36} {stored.path or 'not on this machine'}")


@app.command("export")
def export_(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder; made if need be.")], names: Names = None
) -> None:
    """Copy weights into a folder for a machine without a network; models that are not here are pulled first.

    \b
    Examples:
      zoo weights export usb/weights resnet18 resnet50
      zoo weights export usb/weights
    """  # noqa: D301
    from zoo.models import export_weights

    copied = export_weights(folder, names or ())
    for stored in copied:
        echo(f"{stored.model}: {_size(stored)}, licence {stored.weights.licence}")
    _tell_terms(copied)
    echo(f"{len(copied)} models in {folder}. There: zoo weights import {folder.name}")


@app.command("import")
def import_(folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of zoo weights export.")]) -> None:
    """Take weights from a folder, after all of them are checked; pretrained=True then finds them without a network.

    Example: zoo weights import usb/weights
    """
    from zoo.models import import_weights

    taken = import_weights(folder)
    for stored in taken:
        echo(f"{stored.model}: {stored.path}")
    if unpinned := [stored.model for stored in taken if not stored.weights.pinned]:
        echo(f"set HF_HUB_OFFLINE=1, or these look for news on the Hub first: {', '.join(unpinned)}")


def _echo(verdicts: "Iterator[Verdict]") -> "Iterator[Verdict]":
    """Print each as soon as it is known."""
    for verdict in verdicts:
        echo(f"{'ok   ' if verdict.ok else 'WRONG'} {verdict.model}: {verdict.text}")
        yield verdict


def _print_pins(found: "Sequence[Verdict]") -> None:
    """Print what the Hub has and the registry lacks, as lines for the registry."""
    lacking = [verdict for verdict in found if verdict.on_hub and "lacks" in verdict.text]
    if lacking:
        echo()
        echo("to copy into the registry:")
    for verdict in lacking:
        values = ", ".join(f"{key}={value!r}" for key, value in verdict.on_hub.items() if value is not None)
        echo(f"  {verdict.model}: {values}")


def _tell_terms(chosen: "Sequence[CachedWeights]") -> None:
    """Print the terms of weights that bind their user, each once."""
    for line in dict.fromkeys(line for stored in chosen for line in getattr(stored.weights, "notice", ())):
        echo(line, err=True)


def _size(stored: "CachedWeights") -> str:
    rounded = getattr(stored.weights, "megabytes", None)
    if stored.size is None:
        return f"{rounded:g} MB" if rounded else "-"
    return f"{stored.size / 1e6:.1f} MB"


def _table(rows: list[dict[str, str]], title: str) -> None:
    from zoo.progress import Progress

    Progress().table(rows, title=title)
