"""The progress of every command, on standard error: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import Progress, ProgressColumn

__all__ = ["bar"]

PERIOD = 60.0
"""Seconds between two lines, where there is no terminal: in the log of a job."""

ESTIMATED = 600.0
"""Seconds back to which the speed is measured that tells the time left: a batch may take minutes."""


def bar(*columns: ProgressColumn, silent: bool = False) -> Progress:
    """Return a bar that disappears when it is done; without ``columns`` it has rich's own, with the time left."""
    console = Console(stderr=True)
    if silent or console.is_terminal:
        return Progress(*columns, console=console, transient=True, disable=silent, speed_estimate_period=ESTIMATED)
    return _lines(console)


def _lines(console: Console) -> Progress:
    class Lines(Progress):
        """Says how far a task is, once a ``PERIOD``."""

        told = time.monotonic()

        def advance(self, task_id: Any, advance: float = 1) -> None:
            super().advance(task_id, advance)
            if time.monotonic() - self.told < PERIOD:
                return
            self.told = time.monotonic()
            task = self.tasks[task_id]
            speed = task.fields.get("speed", "")
            left = "" if task.time_remaining is None else f"{task.time_remaining / 60:.0f} min left"
            parts = [f"{task.completed:.0f} of {task.total or 0:.0f}", *filter(None, (speed, left))]
            print(f"{task.description}: {', '.join(parts)}", file=console.file, flush=True)

    return Lines(console=console, disable=True, speed_estimate_period=ESTIMATED)
