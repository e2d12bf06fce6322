"""The application: each command's settings, and where it is run."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from types import FrameType
from typing import NoReturn

from fewstep.errors import FewstepError, MissingPackageError, one_line

try:
    import typer
    from rich.console import Console
    from rich.text import Text
except ImportError as error:
    raise MissingPackageError("the command line needs typer and rich: pip install 'fewstep[cli]'.") from error

from fewstep.cli.command import command
from fewstep.cli.settings.calibrate import CalibrateSettings
from fewstep.cli.settings.compare import CompareSettings
from fewstep.cli.settings.doctor import DoctorSettings
from fewstep.cli.settings.evaluate import EvaluateSettings
from fewstep.cli.settings.generate import GenerateSettings
from fewstep.cli.settings.grid import GridSettings
from fewstep.cli.settings.reproduce import ReproduceSettings
from fewstep.cli.settings.sample import SampleSettings
from fewstep.cli.settings.skip import DiagnoseSettings, SearchSettings
from fewstep.cli.settings.tune import TuneSettings

__all__ = ["COMMANDS", "app", "run"]

COMMANDS: dict[str, tuple[type, str]] = {
    "sample": (SampleSettings, "fewstep.cli.sample:sample"),
    "grid": (GridSettings, "fewstep.cli.grid:grid"),
    "generate": (GenerateSettings, "fewstep.cli.generate.command:generate"),
    "evaluate": (EvaluateSettings, "fewstep.cli.evaluate:evaluate"),
    "compare": (CompareSettings, "fewstep.cli.compare.command:compare"),
    "calibrate": (CalibrateSettings, "fewstep.cli.calibrate:calibrate"),
    "tune": (TuneSettings, "fewstep.cli.tune.command:tune"),
    "reproduce": (ReproduceSettings, "fewstep.cli.reproduce.command:reproduce"),
    "doctor": (DoctorSettings, "fewstep.cli.doctor:doctor"),
    "skip diagnose": (DiagnoseSettings, "fewstep.cli.skip.diagnose:diagnose"),
    "skip search": (SearchSettings, "fewstep.cli.skip.search:search"),
}
"""By command: its settings, and the function that runs it, which is imported when it is called."""

RESUMED = ("generate", "compare", "calibrate", "tune", "reproduce", "skip")
"""Commands that go on where they were stopped."""
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
        group, _, word = name.rpartition(" ")
        (groups[group] if group else app).command(word)(command(settings, run))
    for name, made in groups.items():
        app.add_typer(made, name=name)
    return app


app = _application()


def run() -> None:
    """Run the application; a mistake in the input is one line on stderr and exit code 2, a warning is a sentence.

    A signal to end is answered as an interrupt is: what is half-written goes, and the exit code is the usual one.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # Terminals that know no σ, names that are no UTF-8.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _end)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            app()
    except SystemExit as ended:
        if ended.code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
            resumed = sys.argv[1:2] and sys.argv[1] in RESUMED
            _say(
                "stopped:", "bold yellow", "the same command goes on from here." if resumed else "nothing was written."
            )
        raise
    except FewstepError as error:
        _refuse(str(error))
    except MemoryError:
        _refuse("there is not enough memory: take a smaller batch, fewer samples or fewer steps.")
    except BrokenPipeError:  # The reader of a pipe has gone.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename!r}: " if error.filename is not None else ""
        _refuse(f"{where}{error.strerror or error}.")
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch is not imported before it is needed.
            raise
        _refuse(f"{str(error).partition('. ')[0]}: take a smaller batch.")


def _warn(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    if not issubclass(category, (DeprecationWarning, PendingDeprecationWarning)):  # Those are for developers.
        _say("warning:", "bold yellow", str(message))


def _refuse(reason: str) -> NoReturn:
    _say("error:", "bold red", reason)
    sys.exit(2)


def _say(kind: str, style: str, text: str) -> None:
    """Print one line on stderr; what comes from outside is text, and no markup."""
    line = Text.assemble((kind, style), " ", one_line(text))
    Console(stderr=True, soft_wrap=True, highlight=False).print(line)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
