"""One place that turns whatever goes wrong into a message on stderr and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click

from fusionbench_core.errors import FusionError

INTERRUPTED = 130


def guarded(call: Callable[[], Any]) -> NoReturn:
    """Run a command and leave the process with the documented status.

    A command may return an exit status; anything else it returns means success.
    """
    try:
        answer = call()
    except FusionError as error:
        _say(f"error: {error}")
        status = error.exit_code
    except click.exceptions.Exit as error:
        status = error.exit_code
    except (click.exceptions.Abort, KeyboardInterrupt):
        _say("interrupted")
        status = INTERRUPTED
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
            # A group without a command, as click >= 8.2 tells it: the message is the help.
            click.echo(error.format_message(), err=True)
        else:
            if context is not None:
                click.echo(context.get_usage(), err=True)
            _say(f"error: {error.format_message()}")
        status = error.exit_code
    except BrokenPipeError:
        # `fb list methods | head` is no failure; keep the interpreter from flushing into the closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except Exception as error:
        _say(f"error: unexpected {type(error).__name__}: {error}")
        if not _debugging():
            click.echo(
                "  fix   set FB_DEBUG=1 for the traceback; `fb doctor` checks the installation", err=True
            )
        status = 1
    else:
        status = answer if isinstance(answer, int) else 0
    sys.exit(status)


def _say(message: str) -> None:
    if _debugging() and sys.exc_info()[0] is not None:
        import traceback

        click.echo(traceback.format_exc(), err=True)
    click.echo(message, err=True)


def _debugging() -> bool:
    return os.environ.get("FB_DEBUG", "") not in ("", "0")
