"""The progress of every command, on standard error: a bar on a terminal, else a line every ten seconds."""

from __future__ import annotations

import threading
import time
from typing import Any

from rich.console import Console
from rich.progress import Progress, ProgressColumn, TextColumn

__all__ = ["bar"]

PERIOD = 10.0
"""Seconds between two lines, where there is no terminal: in the log of a job."""

ESTIMATED = 600.0
"""How many seconds of the past the speed is measured over, for the time left: a batch may take minutes."""


def bar(*columns: ProgressColumn, silent: bool = False) -> Progress:
    """Return a bar that disappears when it is done; without ``columns`` it has rich's default, with the time left.

    A task's fields "speed" and "shown" are words that belong to its line.
    """
    console = Console(stderr=True)
    for column in columns:
        if isinstance(column, TextColumn):
            column.markup = False  # Names from outside are text.
    if silent or console.is_terminal:
        return Progress(*columns, console=console, transient=True, disable=silent, speed_estimate_period=ESTIMATED)
    return _Lines(console=console, disable=True, speed_estimate_period=ESTIMATED)


class _Lines(Progress):
    """Says how far the last task is once a ``PERIOD``, whether it moves or not."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.printed, self.done = time.monotonic(), threading.Event()
        self.clock = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        super().start()
        self.clock.start()

    def stop(self) -> None:
        super().stop()
        self.done.set()

    def advance(self, task_id: Any, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._say()

    def _watch(self) -> None:
        while not self.done.wait(PERIOD):
            self._say()

    def _say(self) -> None:
        if time.monotonic() - self.printed < PERIOD or not self.tasks:
            return
        self.printed, task = time.monotonic(), self.tasks[-1]
        count = f"{task.completed:.0f}" + (f" of {task.total:.0f}" if task.total else "")
        left = "" if task.time_remaining is None else f"{_lasting(task.time_remaining)} left"
        words = (
            count if task.total or task.completed else "",
            task.fields.get("speed"),
            task.fields.get("shown"),
            left,
        )
        print(f"{task.description}: {', '.join(filter(None, words)) or '…'}", file=self.console.file, flush=True)


def _lasting(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds > 99 else f"{seconds:.0f} s"
