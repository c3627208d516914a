"""The command `zoo push`: a run becomes a repository on the Hub, after it was shown what goes."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from zoo._text import echo
from zoo.errors import InputError


def push(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME", help="The repository; made if it is not there.")],
    public: Annotated[bool, typer.Option("--public", help="To be seen by everybody; else it is private.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Send without asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go, and send nothing.")] = False,
    no_plots: Annotated[
        bool, typer.Option("--no-pictures", help="Keep the plots here; some show images of the data.")
    ] = False,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Of the commit.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch; made if it is not there.")] = None,
) -> None:
    """Publish a run with its settings, scores and plots, and a page that tells how to use it.

    What goes is listed first. The state of the optimizer, the environment and paths of this machine stay here. The
    token is the one of `hf auth login`, or the environment variable HF_TOKEN; it needs the right to write.

    \b
    Examples:
      zoo push runs/flowers my-org/flowers --dry-run
      zoo push runs/flowers my-org/flowers --public -m 'trained for longer'
    """  # noqa: D301
    from zoo.exporters import push as send

    done = send(
        run,
        repo,
        private=not public,
        message=message,
        dry_run=dry_run,
        revision=revision,
        pictures=not no_plots,
        log=echo,
        confirm=None if yes else _ask,
    )
    if done.commit is None:
        echo(str(done))


def _ask() -> bool:
    if not _has_terminal():
        raise InputError("nobody is there to say whether to send this. Pass --yes to send it, or --dry-run to look.")
    return typer.confirm("Send this?")


def _has_terminal() -> bool:
    return sys.stdin.isatty()
