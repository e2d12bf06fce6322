"""The Python snippets of README.md and docs/ run.

The ```python blocks of one page run in order, in one namespace and a temporary working directory. A block fenced
```python no-run, or one whose fence follows `<!-- skip: reason -->`, is compiled and not run.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [page for page in PAGES if page.exists()]

FENCE = re.compile(
    r"^(?:[ \t]*<!--[ \t]*skip:[ \t]*(?P<reason>\S[^\n]*?)[ \t]*-->[ \t]*\n\s*?)?"
    r"^[ \t]*(?P<fence>`{3,})(?P<info>[^`\n]*)\n"
    r"(?P<code>.*?)"
    r"^[ \t]*(?P=fence)`*[ \t]*$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """A Python snippet, the line its code starts at, and why it does not run (None: it does)."""

    line: int
    code: str
    skip: str | None

    def compiled(self, page: str):
        # The blank lines make a traceback name the line of the page.
        return compile("\n" * (self.line - 1) + self.code, page, "exec")


def python_blocks(text: str) -> list[Block]:
    blocks = []
    for match in FENCE.finditer(text):
        language, *options = match["info"].split() or [""]
        if language != "python":
            continue
        assert options in ([], ["no-run"]), f"unknown words after ```python: {options}; write ```python no-run"
        reason = match["reason"] or ("marked no-run" if options else None)
        line = text.count("\n", 0, match.start("code")) + 1
        blocks.append(Block(line, textwrap.dedent(match["code"]), reason))
    return blocks


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def runnable() -> list:
    pages = [(page, [b for b in python_blocks(page.read_text("utf-8")) if b.skip is None]) for page in PAGES]
    return [pytest.param(page, blocks, id=name(page)) for page, blocks in pages if blocks]


def skipped() -> list:
    blocks = [(page, b) for page in PAGES for b in python_blocks(page.read_text("utf-8")) if b.skip is not None]
    return [pytest.param(page, block, id=f"{name(page)}:{block.line}") for page, block in blocks]


@pytest.mark.parametrize(("page", "blocks"), runnable())
def test_snippets_run(page, blocks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for block in blocks:
        exec(block.compiled(str(page)), namespace)


@pytest.mark.parametrize(("page", "block"), skipped())
def test_snippet_compiles(page, block):
    block.compiled(str(page))
    pytest.skip(f"compiled, not run: {block.skip}")


def test_blocks_are_found():
    page = textwrap.dedent(
        """\
        ```python
        a = 1
        ```

        <!-- skip: needs a GPU -->

        ```python
        b = 1
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

        <!-- skip: the comment of another block -->
        Text between.
        ```python
        d = 1
        ```
        """
    )
    assert python_blocks(page) == [
        Block(2, "a = 1\n", None),
        Block(8, "b = 1\n", "needs a GPU"),
        Block(18, "c = 1\n", "marked no-run"),
        Block(30, "d = 1\n", None),
    ]


def test_unknown_option_is_refused():
    with pytest.raises(AssertionError, match="no-run"):
        python_blocks("```python norun\n1 / 0\n```\n")


def test_errors_name_the_line_of_the_page(tmp_path):
    (block,) = python_blocks("Text\n\n```python\nx = 1\nx / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as caught:
        exec(block.compiled("page.md"), {})
    assert caught.traceback[-1].lineno + 1 == 5
