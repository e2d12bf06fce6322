"""The application: each command's settings, and where it is run."""

from __future__ import annotations

import sys
import warnings
from typing import NoReturn

from fewstep.errors import FewstepError, MissingPackageError

try:
    import typer
    from rich.console import Console
except ImportError as error:
    raise MissingPackageError("the command line needs typer and rich: pip install 'fewstep[cli]'.") from error

from fewstep.cli.command import command
from fewstep.cli.settings.calibrate import CalibrateSettings
from fewstep.cli.settings.compare import CompareSettings
from fewstep.cli.settings.evaluate import EvaluateSettings
from fewstep.cli.settings.generate import GenerateSettings
from fewstep.cli.settings.grid import GridSettings
from fewstep.cli.settings.sample import SampleSettings
from fewstep.cli.settings.skip import DiagnoseSettings, SearchSettings

__all__ = ["COMMANDS", "app", "run"]

COMMANDS: dict[str, tuple[type, str]] = {
    "sample": (SampleSettings, "fewstep.cli.sample:sample"),
    "grid": (GridSettings, "fewstep.cli.grid:grid"),
    "generate": (GenerateSettings, "fewstep.cli.generate.command:generate"),
    "evaluate": (EvaluateSettings, "fewstep.cli.evaluate:evaluate"),
    "compare": (CompareSettings, "fewstep.cli.compare.command:compare"),
    "calibrate": (CalibrateSettings, "fewstep.cli.calibrate:calibrate"),
    "skip diagnose": (DiagnoseSettings, "fewstep.cli.skip.diagnose:diagnose"),
    "skip search": (SearchSettings, "fewstep.cli.skip.search:search"),
}
"""What each command can be asked for, and the function that does it, imported when it is called."""

GROUPS = {"skip": "Scaled skip connections (Skip-Tuning): measure what they do, and search for the best."}


def _application() -> typer.Typer:
    app = typer.Typer(
        name="fewstep",
        help="Trained diffusion and flow-matching models at their best in few network calls, without training.",
        no_args_is_help=True,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
    )
    groups = {name: typer.Typer(help=text) for name, text in GROUPS.items()}
    for name, (settings, run) in COMMANDS.items():
        group, _, own = name.rpartition(" ")
        (groups[group] if group else app).command(own)(command(settings, run))
    for name, made in groups.items():
        app.add_typer(made, name=name)
    return app


app = _application()


def run() -> None:
    """Run the application; a mistake in the input is one line on stderr and exit code 2, a warning is a sentence."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            app()
    except FewstepError as error:
        _refuse(str(error))
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch is not imported before it is needed.
            raise
        _refuse(f"{str(error).partition('. ')[0]}: take a smaller batch.")


def _warn(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    if not issubclass(category, (DeprecationWarning, PendingDeprecationWarning)):  # Those are for developers.
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold yellow]warning:[/] {_plain(str(message))}")


def _refuse(reason: str) -> NoReturn:
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]error:[/] {_plain(reason)}")
    sys.exit(2)


def _plain(reason: str) -> str:
    return reason.replace("[", r"\[").replace("\n", " ")
