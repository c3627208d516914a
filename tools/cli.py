"""The command `zoo`: everything that the package does, from a terminal.

A `\\b` in the documentation of a command, the very character, keeps the lines after it as they are in its help.
"""  # noqa: D301

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer

from zoo._text import drop_unwritten, echo, indent
from zoo._version import VERSION
from zoo.errors import ZooError

from .average_command import average
from .benchmark_command import benchmark
from .cache_command import app as cache_app
from .command_line import USAGE_ERROR, Command, Group, explain_usage, speak_commands
from .compare_command import compare
from .convert_command import convert
from .crossvalidate_command import crossvalidate
from .data_commands import app as data_app
from .embed_command import embed
from .env_command import env
from .evaluate_command import evaluate
from .export_command import export
from .extend_command import extend
from .finetune_command import finetune
from .list_commands import optimizers, schedules
from .model_commands import describe, models
from .plan_command import plan
from .predict_command import predict
from .preset_commands import app as preset_app
from .push_command import push
from .report_command import report
from .runs_command import runs
from .search_command import search
from .suggest_command import suggest
from .weights_commands import app as weights_app

app = typer.Typer(
    name="zoo",
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(asked: bool) -> None:
    if asked:
        echo(f"zoo {VERSION}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the warnings of the Hub's client.")] = False,
) -> None:
    """Fine-tune pretrained vision models for classification and detection.

    \b
    First steps:
      zoo models                      which models there are
      zoo plan resnet18               what would be trained, and how fast
      zoo finetune resnet18 flowers   train the head on the images in flowers/<class>/
      zoo predict RUN photo.jpg       use the result
    """  # noqa: D301
    if not verbose:
        context.with_resource(_hiding_warnings())


@contextmanager
def _hiding_warnings() -> Iterator[None]:
    """Hide what the Hub's client logs of its retries: what became of them is told in one sentence."""
    loggers = [logging.getLogger(f"huggingface_hub.{name}") for name in ("utils._http", "file_download")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


for command in (
    finetune,
    predict,
    evaluate,
    crossvalidate,
    embed,
    plan,
    runs,
    compare,
    average,
    extend,
    suggest,
    search,
    report,
    models,
    describe,
    push,
    export,
    benchmark,
    convert,
    optimizers,
    schedules,
    env,
):
    app.command(cls=Command)(command)
for group in (data_app, preset_app, weights_app, cache_app):
    app.add_typer(group)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 1 for a check that failed, or if whoever read the output has gone; 2 for wrong input, or what the system
        refuses; 130 after Ctrl-C.
    """
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except OSError:  # standard error is lost, too
        return 2
    finally:
        drop_unwritten()


def _run(argv: list[str]) -> int:
    try:
        result = app(argv, prog_name="zoo", standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        echo("stopped", err=True)
        return 130
    except USAGE_ERROR as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # in older versions of click this is no error
            echo(str(error), lines=True)
            return 0
        return _refuse(explain_usage(error))
    except ZooError as error:
        return _refuse(speak_commands(str(error)))
    except BrokenPipeError:
        return 1
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _refuse(f"{place}{error.strerror or error}")
    return result if isinstance(result, int) else 0


def _refuse(text: str) -> int:
    echo(indent(f"error: {text}"), lines=True, err=True, colour="red")
    return 2


if __name__ == "__main__":
    sys.exit(main())
