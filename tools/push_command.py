"""The command `zoo push`: a run becomes a repository on the Hub, after it was shown what goes."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from zoo._text import echo
from zoo.errors import InputError

from .completion import complete_run_folder


def push(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="The folder of a finished run or an export.", autocompletion=complete_run_folder
        ),
    ],
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME", help="The Hub repository; created if needed.")],
    public: Annotated[
        bool, typer.Option("--public", help="Make a new repository public.", show_default="private")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Upload without asking.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be uploaded, and upload nothing.")
    ] = False,
    no_plots: Annotated[
        bool, typer.Option("--no-pictures", help="Leave out the plots; some show images of the data.")
    ] = False,
    message: Annotated[
        str | None,
        typer.Option("--message", "-m", metavar="TEXT", help="Commit message.", show_default="names the model"),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="Branch; created if needed.", show_default="main")
    ] = None,
) -> None:
    """Upload a finished run to the Hugging Face Hub.

    Uploads the model, its settings, scores and plots, and a model card; of an export its files and how exact they are.
    All files are listed first. Paths of this machine are not uploaded. Log in with hf auth login, or set HF_TOKEN to a
    token that may write.

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
        raise InputError(
            "not a terminal, so nobody can be asked for confirmation. Pass --yes to upload, or --dry-run to preview."
        )
    return typer.confirm("Upload this?")


def _has_terminal() -> bool:
    return sys.stdin.isatty()
