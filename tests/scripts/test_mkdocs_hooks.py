"""The pages of the site: what Markdown would not take for a snippet is one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("mkdocs")
from mkdocs_hooks import on_page_content, on_page_markdown

PAGE = SimpleNamespace(file=SimpleNamespace(src_uri="calibration.md"))
FILES = SimpleNamespace(src_uris={"calibration.md"})


def test_a_snippet_that_is_not_run_is_a_snippet():
    page = "Text\n\n```python no-run\na = 1\n```\n\n- in a list:\n\n  ```python no-run\n  b = 2\n  ```\n"
    assert on_page_markdown(page, PAGE, None, FILES) == page.replace(" no-run", "")


def test_links_lead_to_the_site_or_to_github():
    page = "[plans](plans.md#a) [code](../examples/a.py) [there](https://a.b/c)"
    made = on_page_markdown(page, PAGE, None, FILES)
    assert made == (
        "[plans](plans.md#a) [code](https://github.com/fewstep/fewstep/blob/main/examples/a.py) [there](https://a.b/c)"
    )


def test_names_in_tables_are_broken_between_their_parts():
    row = "<p><code>a:b=1</code></p><td><code>sa:few_step=True,tau=0.5</code> a:b</td>"
    made = on_page_content(row, PAGE, None, FILES)
    assert made == ("<p><code>a:b=1</code></p><td><code>sa:<wbr>few_<wbr>step=True,<wbr>tau=0.5</code> a:b</td>")
