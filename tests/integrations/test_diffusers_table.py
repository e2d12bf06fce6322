"""The committed table of pipelines, beside the installed diffusers."""

from __future__ import annotations

import json
from pathlib import Path

import diffusers
import pytest

from fewstep.integrations.diffusers.known_pipelines import TIED

ROOT = Path(__file__).parents[2]
PIPELINES = json.loads((ROOT / "benchmarks" / "results" / "pipelines.json").read_text())["pipelines"]


@pytest.mark.parametrize("name", [name for name, outcome in PIPELINES.items() if "enable" in outcome])
def test_each_pipeline_works_or_is_refused_in_words(name):
    if not hasattr(diffusers, name):
        pytest.skip(f"diffusers {diffusers.__version__} has no {name}")
    for use in ("enable", "model"):
        outcome = PIPELINES[name][use]
        assert "fails" not in outcome
        assert "works" in outcome or len(outcome["refused"].split()) > 3


def test_pipelines_tied_to_their_scheduler_are_refused():
    for name in TIED.keys() & PIPELINES.keys():
        assert "refused" in PIPELINES[name].get("enable", {"refused": ""})


def test_the_page_has_each_pipeline():
    page = (ROOT / "docs" / "pipelines-table.md").read_text()
    assert all(f"| {name} |" in page or f" {name}" in page for name in PIPELINES)
