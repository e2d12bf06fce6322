"""The Python snippets of Markdown pages: found, and run page by page.

python scripts/run_snippets.py README.md docs/plans.md

The ```python blocks of one page run in order, in one namespace. A block fenced ```python no-run is compiled only.
Everything here is of the standard library, so that an installed package can be tried with nothing beside it.
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path
from types import CodeType
from typing import NamedTuple

__all__ = ["Block", "python_blocks", "run"]

FENCE = re.compile(
    r"^[ \t]*(?P<fence>`{3,})(?P<info>[^`\n]*)\n(?P<code>.*?)^[ \t]*(?P=fence)`*[ \t]*$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """A Python snippet, the line its code starts at, and whether it is run."""

    line: int
    code: str
    runs: bool

    def compiled(self, page: str) -> CodeType:
        """Return the code; the blank lines before it make a traceback name the line of the page."""
        return compile("\n" * (self.line - 1) + self.code, page, "exec")


def python_blocks(text: str) -> list[Block]:
    """Return the Python blocks of a page."""
    blocks = []
    for match in FENCE.finditer(text):
        language, *options = match["info"].split() or [""]
        if language != "python":
            continue
        assert options in ([], ["no-run"]), f"unknown words after ```python: {options}; write ```python no-run"
        line = text.count("\n", 0, match.start("code")) + 1
        blocks.append(Block(line, textwrap.dedent(match["code"]), not options))
    return blocks


def run(page: Path) -> None:
    """Run the blocks of a page in one namespace, and compile those that are not to be run."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in python_blocks(page.read_text("utf-8")):
        code = block.compiled(str(page))
        if block.runs:
            exec(code, namespace)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        run(Path(name))
