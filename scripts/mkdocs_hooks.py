"""Pages of the documentation that lie outside docs/: benchmarks, changelog, contributing, security.

Snippets that the tests do not run say so after the name of their language, which Markdown takes for no snippet at all.

The pages link to each other as files of the repository, so that they can be read on GitHub. Here links to those that
are part of the site become links within it, and links to other files of the repository become links to GitHub.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
BLOB = "https://github.com/fewstep/fewstep/blob/main/"
OUTSIDE = ["CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md"]
PICTURES = "benchmarks/results/*.png"
UNRUN = re.compile(r"^(\s*`{3,}\w+) no-run[ \t]*$", re.MULTILINE)
LINK = re.compile(r"(\]\()(?!https?:|#)([^)#\s]+)((?:#[^)\s]*)?\))")

CELL = re.compile(r"<td\b.*?</td>", re.DOTALL)
CODE = re.compile(r"<code>[^<]*</code>")
PART = re.compile(r"(?<=[\w=][:,_/])(?=[^\W\d])")
"""Where a name in a cell may be broken: sa:|few_|step=True,|tau=0.5."""


def on_files(files: Files, config: Any) -> Files:
    """Add the pages outside docs/, at the paths that they have in the repository."""
    for path in [*(ROOT / name for name in OUTSIDE), *ROOT.glob(PICTURES)]:
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links between files of the repository into links of the site, or of GitHub; a snippet is a snippet."""
    source = page.file.src_uri
    place = source if (ROOT / source).exists() else f"docs/{source}"

    def turned(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(place), match[2]))
        inside = target.removeprefix("docs/")
        if target.startswith("docs/") or target in files.src_uris:
            return f"{match[1]}{posixpath.relpath(inside, posixpath.dirname(source) or '.')}{match[3]}"
        return f"{match[1]}{BLOB}{target}{match[3]}"

    return LINK.sub(turned, UNRUN.sub(r"\1", markdown))


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Let long names in tables be broken between their parts."""
    return CELL.sub(lambda cell: CODE.sub(lambda code: PART.sub("<wbr>", code[0]), cell[0]), html)
