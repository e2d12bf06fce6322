"""``fewstep skip``: what scaling the skip connections does to a model, and which ρ is best."""

from __future__ import annotations

import typer

from fewstep.cli.skip.diagnose import diagnose
from fewstep.cli.skip.search import search

__all__ = ["app"]

app = typer.Typer(help="Scaled skip connections (Skip-Tuning): measure what they do, and search for the best.")
app.command()(diagnose)
app.command()(search)
