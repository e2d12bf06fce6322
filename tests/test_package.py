"""The package itself: its public names, and that it is quick to import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fewstep as fs


def test_every_public_name_is_there():
    for name in fs.__all__:
        assert getattr(fs, name) is not None
    assert set(fs.__all__) <= set(dir(fs))


def test_functions_are_not_shadowed_by_modules():
    assert callable(fs.execute) and callable(fs.sample)
    import fewstep.executor.loop
    import fewstep.sampling  # noqa: F401

    assert callable(fs.execute) and callable(fs.sample)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'smaple'"):
        fs.smaple  # noqa: B018


def test_the_import_is_lazy():
    code = "import sys, fewstep; assert 'torch' not in sys.modules; fewstep.UniPC; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_modules_open_with_the_name_of_a_thing():
    questions = ("What", "Which", "How", "Where", "When", "Whether", "Who")
    for path in sorted(Path(fs.__file__).parent.rglob("*.py")):
        opening = ast.get_docstring(ast.parse(path.read_text("utf-8")))
        assert opening and not opening.startswith(questions), f"{path}: {opening}"
