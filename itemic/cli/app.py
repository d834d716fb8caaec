"""The application: its groups of commands, and what becomes of errors."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from itemic.cli import (
    advise,
    analyze,
    compare,
    control,
    data,
    evaluate,
    init,
    model,
    profile,
    recipe,
    rl,
    run,
    sid_report,
    state,
    tasks,
    teacher,
    train,
)
from itemic.cli.common import say
from itemic.cli.help import Command, Group, add_examples
from itemic.errors import ItemicError
from itemic.interrupt import handling, stop

app = typer.Typer(
    name="itemic",
    help="Turns a catalogue and an interaction log into a language model that recommends.",
    no_args_is_help=True,
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
RUNS, ROOMS = "A run of a recipe", "Room by room"
OF_RUNS = (
    init.init,
    run.run,
    run.check,
    run.recommend,
    run.report,
    analyze.analyze,
    compare.compare,
    advise.advise,
    advise.improve,
)
for command in OF_RUNS:
    app.command(command.__name__, rich_help_panel=RUNS, cls=Command)(command)
app.command("train", epilog=train.KEYS, rich_help_panel=ROOMS)(train.train)
app.add_typer(recipe.app, name="recipe", cls=Group, rich_help_panel=RUNS)
app.add_typer(data.app, name="data", cls=Group, rich_help_panel=ROOMS)
# sid.app, and the commands that sid_report.py adds to it
app.add_typer(sid_report.app, name="sid", cls=Group, rich_help_panel=ROOMS)
app.add_typer(tasks.app, name="tasks", cls=Group, rich_help_panel=ROOMS)
app.add_typer(model.app, name="model", cls=Group, rich_help_panel=ROOMS)
app.add_typer(teacher.app, name="teacher", cls=Group, rich_help_panel=ROOMS)
app.add_typer(control.app, name="control", cls=Group, rich_help_panel=ROOMS)
app.add_typer(profile.app, name="profile", cls=Group, rich_help_panel=ROOMS)
app.add_typer(rl.app, name="rl", cls=Group, rich_help_panel=ROOMS)
app.add_typer(evaluate.app, name="evaluate", cls=Group, rich_help_panel=ROOMS)
add_examples(app)

FAULT = 2
INTERRUPTED = 130


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"itemic {version('itemic')}")
        raise typer.Exit


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="More log lines, and tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    local_rank: Annotated[  # deepspeed's launcher says it here as well as in LOCAL_RANK
        int | None, typer.Option("--local_rank", hidden=True)
    ] = None,
) -> None:
    state.verbose = verbose
    logging.getLogger("DeepSpeed").addFilter(_worth_reading)


def _worth_reading(record: logging.LogRecord) -> bool:
    """Not what DeepSpeed says where there is no GPU: transformers imports it wherever it is installed."""
    return record.levelno > logging.WARNING or "Setting accelerator to CPU" not in record.getMessage()


def main() -> None:
    """Run the command line; never returns."""
    sys.exit(call(sys.argv[1:]))


def call(arguments: list[str]) -> int:
    """Run one command line and give its exit status: 2 for what the user can mend, 130 for Ctrl-C, SIGTERM and
    SIGUSR1."""
    state.arguments = arguments
    try:
        with handling(stop):
            result = app(arguments, standalone_mode=False)
        status = result if isinstance(result, int) else 0
    except ItemicError as error:
        return _complain(error)
    except OSError as error:
        return _complain(_of_the_disk(error))
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except Exception as error:
        if "No space left on device" in str(error):  # libraries wrap it in errors of their own
            return _complain(_of_the_disk(error))
        return _usage(error)
    if status == INTERRUPTED:  # typer makes this of an interrupt before we see it
        _again(arguments)
    return status


def _usage(error: Exception) -> int:
    """Errors of the command line itself know how to show themselves; all others are bugs."""
    show, status = getattr(error, "show", None), getattr(error, "exit_code", None)
    if show is None or status is None:
        raise error
    show()
    return int(status)


def _complain(error: ItemicError) -> int:
    if state.verbose:
        import traceback

        say("".join(traceback.format_exception(error)), err=True)
        return FAULT
    say(f"error: {error.message}", fg="red", bold=True, err=True)
    if error.remedy:
        say(f"  → {error.remedy}", fg="red", err=True)
    return FAULT


def _of_the_disk(error: Exception) -> ItemicError:
    """What the operating system refused, as something to mend."""
    import errno

    full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
    remedy = "Free some space and start the same command again." if full else "Check the path and its rights."
    found = ItemicError(f"the disk is full: {error}" if full else str(error), remedy)
    found.__cause__ = error
    return found


def _again(arguments: list[str]) -> None:
    import shlex

    if arguments[:1] in (["run"], ["improve"]):
        line = shlex.join(["itemic", *arguments])
        typer.secho(f"interrupted; go on from where it stopped with: {line}", fg="yellow", err=True)
    else:
        typer.secho("interrupted", fg="yellow", err=True)
