"""`zoo weights`: fetch published weights, check them, and carry them to a machine without a network."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo._text import echo

from .command_line import Command, Group
from .completion import complete_model
from .listing import AsJson, print_json, print_table

if TYPE_CHECKING:
    from zoo.models import CachedWeights, Verdict

app = typer.Typer(name="weights", cls=Group, help="Download, verify and copy pretrained weights.", no_args_is_help=True)

Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[MODEL]...",
        help="Models of zoo weights list.",
        show_default="all that are on this machine",
        autocompletion=complete_model,
    ),
]


@app.command("list", cls=Command)
def list_(
    pattern: Annotated[
        str, typer.Argument(metavar="[PATTERN]", help="Names to list, such as 'resnet*'.", show_default="all")
    ] = "*",
    as_json: AsJson = False,
) -> None:
    """List pretrained weights: which are downloaded, size, licence.

    Pinned: the SHA-256 of the file is known beforehand, and on the Hub its commit, so it can never change unnoticed.

    \b
    Examples:
      zoo weights list
      zoo weights list 'resnet*'
      zoo weights list --json
    """  # noqa: D301
    from zoo.errors import InputError
    from zoo.models import list_stored

    found = list_stored(pattern)
    if not found:
        raise InputError(f"no model with weights fits {pattern!r}. zoo weights list names all.")
    if as_json:
        print_json(list(map(_describe, found)))
        return
    rows = [
        {
            "model": stored.model,
            "here": "yes" if stored.path else "no",
            "size": _size(stored),
            "licence": stored.weights.licence,
            "pinned": "yes" if stored.pinned else "no",
            "from": stored.origin,
        }
        for stored in found
    ]
    print_table(rows, "weights", secondary=("from", "pinned", "licence"), in_full="zoo weights list --json")
    if caveats := {stored.weights.caveat for stored in found if stored.weights.caveat}:
        echo(f"Beside the licences: {'; '.join(sorted(caveats))}.")


@app.command(cls=Command)
def pull(
    names: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Models of zoo weights list.", autocompletion=complete_model),
    ],
) -> None:
    """Download weights and verify them.

    Files that are already here are only verified.

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


@app.command(cls=Command)
def verify(
    names: Names = None,
    online: Annotated[
        bool, typer.Option("--online", help="Ask the Hub for commits and checksums instead; downloads nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Verify the checksums of downloaded weights.

    The exit code is 1 if a file is not as it was published. With --online, the commits and checksums that this
    version of zoo knows are compared with those on the Hub.

    \b
    Examples:
      zoo weights verify
      zoo weights verify resnet18 --online
    """  # noqa: D301
    from zoo.models import verify_online, verify_stored

    verdicts = verify_online(names or ()) if online else verify_stored(names or ())
    if as_json:
        found = list(verdicts)
        print_json([verdict._asdict() | {"on_hub": dict(verdict.on_hub)} for verdict in found])
    else:
        if online:
            echo("asking the Hub and other publishers ...")
        found = list(_echo(verdicts))
        if not found:
            echo("no weights are on this machine yet: zoo weights pull MODEL")
        if online:
            _print_pins(found)
    if wrong := [verdict.model for verdict in found if not verdict.ok]:
        if not as_json:
            echo(f"wrong: {', '.join(wrong)}")
        raise typer.Exit(1)


@app.command(cls=Command)
def where(names: Names = None) -> None:
    """Show where weights come from and where they are stored.

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


@app.command("export", cls=Command)
def export_(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to copy them.")], names: Names = None
) -> None:
    """Copy weights into a folder, for a machine without a network.

    Weights that are not on this machine are downloaded first.

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


@app.command("import", cls=Command)
def import_(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder that zoo weights export wrote.")],
) -> None:
    """Copy weights from a folder, after verifying all of them.

    Every command then finds them without a network.

    Example: zoo weights import usb/weights
    """
    from zoo.models import import_weights

    taken = import_weights(folder)
    for stored in taken:
        echo(f"{stored.model}: {stored.path}")
    if unpinned := [stored.model for stored in taken if not stored.weights.pinned]:
        echo(f"set HF_HUB_OFFLINE=1, or these look for news on the Hub first: {', '.join(unpinned)}")


def _describe(stored: "CachedWeights") -> dict[str, Any]:
    """Return what is known of weights, and where they are, as plain values."""
    here = {"path": stored.path and str(stored.path), "size": stored.size, "origin": stored.origin}
    return {"model": stored.model} | stored.weights.describe() | here


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
