"""The package itself: its public names, and that it is quick to import."""

import subprocess
import sys

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
