"""The page of a search: whole in itself, with the numbers that it is given, and safe whatever names it is given."""

from __future__ import annotations

import copy
import re

from support.searched import PICTURES, search

from fewstep.report import tuning_page


def test_it_loads_nothing_from_elsewhere():
    page = tuning_page(search(), PICTURES)
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert page.count("<img") == 3 + 3


def test_the_numbers_are_there():
    page = tuning_page(search(), PICTURES)
    for text in ("0.03000", "0.0200 – 0.0400", "6 calls are worth 9.6 calls of the default", "1900 of 2000", "8 more"):
        assert text in page, text
    assert page.count('class="best"') == 2


def test_nothing_better():
    given = copy.deepcopy(search())
    given["verdict"]["better"] = False
    assert "so the recipe is the default’s" in tuning_page(given)


def test_names_are_text():
    page = tuning_page(search("<script>ran()</script>"), PICTURES)
    assert "<script>" not in page and "&lt;script&gt;" in page


def test_scores_and_distances_have_their_names():
    for metric, title in (("score", "Score"), ("fd", "Fréchet distance to the images")):
        given = copy.deepcopy(search())
        given["verdict"]["metric"] = metric
        given["rows"] = [{**row, "predicted": None} for row in given["rows"]]
        page = tuning_page(given)
        assert title in page and "predicted without a network call" not in page
