"""The worker: this process among those that ``accelerate launch`` set up, or the only one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed

from fewstep.errors import InputError, MissingPackageError

__all__ = ["Workers", "workers"]

T = TypeVar("T")
PATIENCE = timedelta(days=30)
"""The longest wait for another process, which may have more to do; one that stopped is noticed at once."""


@dataclass(frozen=True)
class Workers:
    """This process among all.

    Attributes:
        index: its number, from 0; 0 leads.
        count: how many there are.
        device: where this one computes.
        wait: returns once every process has called it.
        leave: to be called at the end.
    """

    index: int = 0
    count: int = 1
    device: str = "cpu"
    wait: Callable[[], None] = lambda: None
    leave: Callable[[], None] = lambda: None

    @property
    def among(self) -> str:
        """What to add to a result, so that people see how many processes made it: nothing for one."""
        return f" in {self.count} processes" if self.count > 1 else ""

    def lead(self, act: Callable[[], T]) -> T:
        """Call ``act`` in the leading process, and once it is done in every other one; return what it returned here."""
        if self.index == 0:
            made = act()
            self.wait()
            return made
        self.wait()
        return act()


def workers(device: str) -> Workers:
    """Return this process's place under ``accelerate launch``; the only one where there was no launch.

    "cuda" stands for the process's GPU.

    Raises:
        MissingPackageError: if there are several processes and accelerate is not installed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Workers(device=device)
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise MissingPackageError("several processes need accelerate: pip install 'fewstep[eval]'.") from error
    state = PartialState(cpu=device == "cpu", timeout=PATIENCE)
    place = f"cuda:{state.local_process_index}" if device == "cuda" else device
    # On the CPU accelerate's barrier would ask for a GPU for each process, on a machine that has some.
    barrier = torch.distributed.barrier if device == "cpu" else state.wait_for_everyone
    return Workers(state.process_index, state.num_processes, place, lambda: _wait(barrier), state.destroy_process_group)


def _wait(barrier: Callable[[], Any]) -> None:
    try:
        barrier()
    except RuntimeError as error:
        raise InputError("another process has stopped: see its error.") from error
