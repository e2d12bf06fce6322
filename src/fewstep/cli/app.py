"""The application: commands are registered here; torch is imported only when one runs."""

from __future__ import annotations

import sys
from typing import NoReturn

from fewstep.errors import FewstepError, MissingPackageError

try:
    import typer
    from rich.console import Console
except ImportError as error:
    raise MissingPackageError("the command line needs typer and rich: pip install 'fewstep[cli]'.") from error

from fewstep.cli.calibrate import calibrate
from fewstep.cli.compare.command import compare
from fewstep.cli.evaluate import evaluate
from fewstep.cli.generate.command import generate
from fewstep.cli.grid import grid
from fewstep.cli.sample import sample
from fewstep.cli.skip import app as skip

__all__ = ["app", "run"]

app = typer.Typer(
    name="fewstep",
    help="Trained diffusion and flow-matching models at their best in few network calls, without training.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.command()(sample)
app.command()(grid)
app.command()(generate)
app.command()(evaluate)
app.command()(compare)
app.command()(calibrate)
app.add_typer(skip, name="skip")


@app.callback()
def _commands() -> None:
    """Keep commands named even while there is only one."""


def run() -> None:
    """Run the application; a mistake in the input is one line on stderr and exit code 2."""
    try:
        app()
    except FewstepError as error:
        _refuse(str(error))
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch is not imported before it is needed.
            raise
        _refuse(f"{str(error).partition('. ')[0]}: take a smaller batch.")


def _refuse(reason: str) -> NoReturn:
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {_plain(reason)}")
    sys.exit(2)


def _plain(reason: str) -> str:
    return reason.replace("[", r"\[").replace("\n", " ")
