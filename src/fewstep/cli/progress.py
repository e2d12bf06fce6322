"""The progress bar of every command: on standard error, and only where that is a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

__all__ = ["bar"]


def bar(*columns: ProgressColumn, silent: bool = False) -> Progress:
    """Return a bar that is gone when it is done; without ``columns`` it has rich's own, which tell the time left."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=silent or not console.is_terminal)
