"""What all commands share: user errors become one line and exit code 2."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated

import typer

from marec_env.errors import MarecError, PluginError, visible
from marec_env.registry import ALLOW_PLUGINS

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="section.key=value; may be repeated.", metavar="KEY=VALUE"),
]

_LONGEST_NAME = 200  # characters shown of a file's name
USER_ERROR = 2
"""Exit code for input that is at fault, as for wrong command-line usage."""


FLAG = "--allow-plugins"
"""Flag of every command: files outside the working directory may name code to run, too."""


def without_flags(arguments: list[str]) -> list[str]:
    """Return command-line arguments without the flags that every command has, which take effect."""
    if FLAG in arguments:
        os.environ[ALLOW_PLUGINS] = "1"  # also for the processes that this one starts
    return [argument for argument in arguments if argument != FLAG]


def run_command(action: Callable[[], int]) -> int:
    """Return the exit code of an action; a :class:`~marec_env.errors.MarecError` is told in a line.

    Configuration errors are one line each; what a plug-in raised is shown below its line. An
    interrupt before training began gives 130.
    """
    try:
        return action()
    except MarecError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        if isinstance(error, PluginError) and error.__cause__ is not None:
            traceback.print_exception(error.__cause__, file=sys.stderr)
        return USER_ERROR
    except BrokenPipeError:
        return 0  # the reader of our output has gone, for example `| head`
    except OSError as error:
        if error.filename is None:
            raise
        name = visible(str(error.filename))  # a name too long, a file without leave, a full disk
        shown = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
        print(f"error: {shown}: {(error.strerror or 'cannot be used').lower()}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
