"""The command line: one file per command."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    from fewstep.cli.app import run

    run()
