"""The Python snippets of README.md, CONTRIBUTING.md and docs/ run, page by page, in a temporary working directory."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
import run_snippets
from run_snippets import Block, python_blocks

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def pages_with_python() -> list:
    pages = [page for page in PAGES if python_blocks(page.read_text("utf-8"))]
    return [pytest.param(page, id=page.relative_to(ROOT).as_posix()) for page in pages]


@pytest.mark.parametrize("page", pages_with_python())
def test_snippets_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_snippets.run(page)


def test_blocks_are_found():
    page = textwrap.dedent(
        """\
        ```python
        a = 1
        ```

        ```bash
        echo no
        ```

        - in a list:

          ```python no-run
          c = 1
          ```

        ````markdown
        ```python
        quoted = 1
        ```
        ````
        """
    )
    assert python_blocks(page) == [Block(2, "a = 1\n", True), Block(12, "c = 1\n", False)]


def test_unknown_option_is_refused():
    with pytest.raises(AssertionError, match="no-run"):
        python_blocks("```python norun\n1 / 0\n```\n")


def test_errors_name_the_line_of_the_page():
    (block,) = python_blocks("Text\n\n```python\nx = 1\nx / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as caught:
        exec(block.compiled("page.md"), {})
    assert caught.traceback[-1].lineno + 1 == 5
