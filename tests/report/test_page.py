"""The page: whole in itself, honest about what is best, and safe whatever names it is given."""

import copy
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from fewstep.report import comparison_page

VOID = {"meta", "link", "img", "br", "path"}


class Page(HTMLParser):
    """The elements of a page in order, each with its attributes and the text inside it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict, list[str]]] = []
        self.open: list[int] = []
        self.feed(text)
        self.close()
        assert not self.open, "an element is not closed"

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs), []))
        if tag not in VOID:
            self.open.append(len(self.found) - 1)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs), []))

    def handle_endtag(self, tag):
        assert self.found[self.open.pop()][0] == tag

    def handle_data(self, data):
        for index in self.open:
            self.found[index][2].append(data)

    def all(self, *tags):
        return [(attrs, " ".join("".join(text).split())) for tag, attrs, text in self.found if tag in tags]


@pytest.fixture(scope="module")
def table(comparison):
    return json.loads((comparison / "table.json").read_text())


@pytest.fixture(scope="module")
def page(comparison):
    return Page((comparison / "report.html").read_text("utf-8"))


def test_it_loads_nothing_from_elsewhere(comparison, page):
    links = [
        value
        for _, attrs, _ in page.found
        for name, value in attrs.items()
        if name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href")
    ]
    assert links and all(link.startswith(("data:", "#")) for link in links)
    text = (comparison / "report.html").read_text("utf-8")
    assert not re.search(r"url\(|@import|https?://", text)
    assert not page.all("script", "iframe", "object", "embed")
    inner = {attrs["id"] for attrs, _ in page.all("h2")}
    assert {attrs["href"][1:] for attrs, _ in page.all("a")} <= inner


def test_the_best_of_each_column_is_bold_and_nothing_else(table, page):
    tables = "".join(
        f"{tag} {attrs.get('class', '')} {' '.join(''.join(text).split())}\n"
        for tag, attrs, text in page.found
        if tag in ("caption", "strong")
    )
    for title, metric in (("Error to the reference solution by", "error"), ("Fréchet distance to the", "fd")):
        _, _, after = tables.partition(f"caption  {title}")
        bold = sorted(re.findall(r"strong best (\S+)", after.partition("caption")[0]))
        rows = [row for row in table["rows"] if metric in row]
        least = {n: min(row[metric] for row in rows if row["nfe"] == n) for n in {row["nfe"] for row in rows}}
        ties = [f"{row[metric]:#.4g}" for row in rows if row[metric] == least[row["nfe"]]]
        assert bold == sorted(ties)


def test_every_value_is_there(table, page):
    cells = [text for _, text in page.all("td")]
    for row in table["rows"]:
        assert any(cell.startswith(f"{row['fd']:#.4g}") for cell in cells)
        if "error" in row:
            interval = f"{row['error']:#.4g} {row['error_low']:#.3g} – {row['error_high']:#.3g}"
            assert interval in cells


def test_every_cell_has_its_command_and_the_page_its_versions(table, page):
    code = [text for _, text in page.all("code")]
    assert all(row["command"] in code for row in table["rows"]) and table["command"] in code
    shown = {text for _, text in page.all("td")}
    assert set(table["versions"].values()) <= shown and table["settings"]["model_hash"] in code


def test_it_can_be_read_without_seeing(page):
    assert page.all("html")[0][0]["lang"] == "en" and len(page.all("h1")) == 1
    assert all(len(attrs["alt"]) > 10 for attrs, _ in page.all("img"))
    assert all(attrs["scope"] in ("row", "col") for attrs, _ in page.all("th"))
    assert len(page.all("caption")) >= 3


def test_names_are_escaped(table):
    table = copy.deepcopy(table)
    evil = "<script>alert(1)</script>"
    table["settings"].update(model=evil, reference=evil, features='"><img src=x onerror=alert(1)>')
    table["command"] = evil
    for row in table["rows"]:
        row.update(solver=f"{evil}{row['solver']}", grid=f"'\"<i>{row['grid']}", command=evil)
    images = [np.zeros((2, 8, 8, 1), np.uint8)] * len(table["rows"])
    page = Page(comparison_page(table, images, images[0]))
    assert not page.all("script", "i") and evil in page.all("h1")[0][1]
    assert not any("onerror" in attrs for _, attrs, _ in page.found)
    assert f"{evil}unipc on '\"<i>karras" in {text for _, text in page.all("th")}


@pytest.mark.parametrize(
    "kept", [{"solver": "unipc"}, {"solver": "sa:few_step=True"}, {"solver": "ddim", "grid": "karras", "nfe": 2}]
)
def test_small_comparisons_too(table, kept):
    """One panel for few lines; a stochastic sampler alone; a single cell; no images."""
    rows = [row for row in table["rows"] if all(row[key] == value for key, value in kept.items())]
    page = Page(comparison_page({**table, "rows": rows}))
    figures = [attrs["alt"] for attrs, _ in page.all("img")]
    curves = [alt for alt in figures if "over the number of network calls" in alt]
    assert len(curves) == (1 if "sa" in kept["solver"] else 2)


def test_other_versions_are_told_apart(table):
    table = copy.deepcopy(table)
    table["rows"][0]["versions"]["torch"] = "1.2.3"
    table["rows"][0]["measured"] = "2001-02-03"
    page = Page(comparison_page(table))
    assert "1.2.3" in {text for _, text in page.all("td")}
    assert "from 2001-02-03 to" in page.all("header")[0][1]
    assert any("2001-02-03" in text and "torch 1.2.3" in text for _, text in page.all("p"))
