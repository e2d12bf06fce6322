"""The page of the benchmarks is that of its figures, and the figures are few enough for a repository."""

import figures
import readme


def test_the_page_is_that_of_the_figures():
    made = "run `python benchmarks/readme.py`, which writes README.md from README.template.md and results/"
    assert readme.README.read_text("utf-8") == readme.rendered(), made


def test_the_figures_stay_small():
    assert sum(path.stat().st_size for path in figures.RESULTS.glob("*.json")) < 250_000


def test_figures_are_laid_out_by_lines_and_rounded(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    figures.write("some", {"short": [1.23456789, 2], "long": [{"number": i} for i in range(20)], "λ": None})
    text = (tmp_path / "some.json").read_text("utf-8").splitlines()
    assert text[:3] == ["{", ' "short": [1.235, 2],', ' "long": ['] and ' "λ": null' in text
    assert figures.read("some")["long"][19] == {"number": 19}
    assert figures.read("absent") == {}
