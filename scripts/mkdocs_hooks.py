"""Pages of the documentation that lie outside docs/: benchmarks, changelog, contributing, security.

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
LINK = re.compile(r"(\]\()(?!https?:|#)([^)#\s]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages outside docs/, at the paths that they have in the repository."""
    for path in [*(ROOT / name for name in OUTSIDE), *ROOT.glob(PICTURES)]:
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links between files of the repository into links of the site, or of GitHub."""
    source = page.file.src_uri
    place = source if (ROOT / source).exists() else f"docs/{source}"

    def turned(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(place), match[2]))
        inside = target.removeprefix("docs/")
        if target.startswith("docs/") or target in files.src_uris:
            return f"{match[1]}{posixpath.relpath(inside, posixpath.dirname(source) or '.')}{match[3]}"
        return f"{match[1]}{BLOB}{target}{match[3]}"

    return LINK.sub(turned, markdown)
