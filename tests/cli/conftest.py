"""What the tests of commands share: a command that must fail, a model, one thread."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest
import torch

from fewstep.cli.app import run


@pytest.fixture
def fails(monkeypatch, capsys) -> Callable[..., str]:
    """Runs a command that must end with exit code 2 and one line on stderr, and returns the line."""

    def failing(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["fewstep", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            run()
        assert stop.value.code == 2
        printed = capsys.readouterr().err
        assert printed.count("\n") == 1
        return printed

    return failing


@pytest.fixture
def entry() -> str:
    """``module:function`` of a small denoiser with a closed form."""
    return "support.generating:tiny"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread, as runs in processes of their own have: the last bits depend on the number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
