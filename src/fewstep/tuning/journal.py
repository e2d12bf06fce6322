"""The journal of a search in an optuna study: what was measured, by which of several processes, and what is in work."""

from __future__ import annotations

import base64
import math
import os
import socket
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fewstep.checks import real, whole
from fewstep.errors import InputError, MissingPackageError

__all__ = ["Journal", "Measured", "Task"]

BEAT, GRACE = 5, 30
"""Seconds between signs of life of a measurement, and seconds of silence after which it is taken over."""
PAUSE = 0.2
"""Seconds between looks at what other processes are at."""
PIECE = 30_000
"""Characters of a text in one attribute: some databases hold no more than 65535 bytes."""
WAIT = 60
"""Seconds that a write waits for a SQLite file in use."""


@dataclass(frozen=True)
class Measured:
    """What a task found.

    Attributes:
        rows: of the noises, float32 [n, d].
        calls: the network calls that it cost.
        text: what else there is, such as a recipe.
        value: what the journal shows of it.
    """

    rows: np.ndarray = field(default_factory=lambda: np.zeros((0, 1), np.float32))
    calls: int = 0
    text: str = ""
    value: float = 0.0


@dataclass(frozen=True)
class Task:
    """Something to measure once.

    Attributes:
        key: what it is: tasks of one key are one task.
        words: the same for readers of the journal.
        measure: what finds it out.
    """

    key: str
    words: Mapping[str, str]
    measure: Callable[[], Measured]


class Journal:
    """Tasks and their results in an optuna study, each measured once, however many processes share the storage.

    A process writes that it is at a task, and then looks whether another one wrote so before it: writes are in an
    order that all see. Signs of life let the others take over what a killed process leaves.

    Args:
        url: of the database, as SQLAlchemy writes it: "sqlite:///file", "postgresql://…"; None: in memory alone.
        name: of the study: what belongs to another search has another name.

    Raises:
        InputError: if the storage cannot be reached.
        MissingPackageError: if optuna is not installed.
    """

    def __init__(self, url: str | None, name: str) -> None:
        try:
            import optuna
        except ImportError as error:
            raise MissingPackageError("tuning needs optuna: pip install 'fewstep[tune]'.") from error
        self._optuna, self.url = optuna, url
        self.process = f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex}"
        connect = {"connect_args": {"timeout": WAIT}} if url and url.startswith("sqlite") else {}
        level = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # That signs of life may change one day.
                self._storage, self._study = self._opened(url, name, connect)
        except Exception as error:  # Drivers and databases refuse by exceptions of their own.
            raise self._refused(error) from error
        finally:
            optuna.logging.set_verbosity(level)
        self._read: dict[int, Measured] = {}
        self._seen: set[int] = set()

    def _refused(self, error: Exception) -> InputError:
        """Return what a driver, a database or what is in it makes impossible, as one sentence."""
        reason = " ".join(str(error).split()) or type(error).__name__
        return InputError(f"the storage {_without_password(self.url or '')!r} cannot be used: {reason[:300]}")

    def _opened(self, url: str | None, name: str, connect: dict[str, Any]) -> tuple[Any, Any]:
        """Return the storage and the study; tried again where another process makes the same tables just now."""
        optuna, tries = self._optuna, 1 if url is None else 3
        for left in reversed(range(tries)):
            try:
                storage: Any = (
                    optuna.storages.InMemoryStorage()
                    if url is None
                    else optuna.storages.RDBStorage(
                        url, engine_kwargs=connect, heartbeat_interval=BEAT, grace_period=GRACE
                    )
                )
                return storage, optuna.create_study(storage=storage, study_name=name, load_if_exists=True)
            except Exception:
                if not left:
                    raise
                time.sleep(0.5)
        raise AssertionError("unreachable")

    @property
    def measured(self) -> dict[str, Measured]:
        """All results by the keys of their tasks."""
        complete = self._optuna.trial.TrialState.COMPLETE
        found = {
            trial.user_attrs.get("key"): self._result(trial) for trial in self._trials() if trial.state == complete
        }
        return {key: held for key, held in found.items() if isinstance(key, str) and held is not None}

    def run(self, tasks: Sequence[Task], done: Callable[[int], None] = lambda count: None) -> list[Measured]:
        """Return the results of ``tasks``: those that are there, those made here, and those that others make meanwhile.

        Args:
            tasks: in the order in which they are begun.
            done: told how many there are results of.
        """
        try:
            return self._run(tasks, done)
        except self._optuna.exceptions.OptunaError as error:
            raise self._refused(error) from error

    def _run(self, tasks: Sequence[Task], done: Callable[[int], None]) -> list[Measured]:
        while True:
            there = self.measured
            done(sum(task.key in there for task in tasks))
            missing = [task for task in tasks if task.key not in there]
            if not missing:
                return [there[task.key] for task in tasks]
            taken = self._in_work()
            free = next((task for task in missing if task.key not in taken), None)
            if free is None:
                time.sleep(PAUSE)
            else:
                self._try(free)

    def _try(self, task: Task) -> None:
        """Measure a task, unless another process is found to have begun it before."""
        state = self._optuna.trial.TrialState
        claim = uuid.uuid4().hex
        attributes = {"key": task.key, "claim": claim, "process": self.process, **task.words}
        self._study.add_trial(self._optuna.trial.create_trial(state=state.RUNNING, user_attrs=attributes))
        mine = next(trial for trial in self._trials() if trial.user_attrs.get("claim") == claim)
        self._beat(mine._trial_id)
        before = [trial for trial in self._trials() if trial._trial_id < mine._trial_id]
        if any(
            trial.user_attrs.get("key") == task.key
            and (trial.state == state.RUNNING or (trial.state == state.COMPLETE and self._result(trial) is not None))
            for trial in before
        ):
            self._study.tell(mine.number, state=state.FAIL, skip_if_finished=True)
            return
        try:
            with self._alive(mine._trial_id):
                found = task.measure()
            if not math.isfinite(found.value):
                raise InputError(f"the figure of {task.key!r} is {found.value}: a search compares finite ones.")
        except BaseException:
            self._study.tell(mine.number, state=state.FAIL, skip_if_finished=True)
            raise
        with suppress(self._optuna.exceptions.UpdateFinishedTrialError):  # Another process took it over meanwhile.
            self._keep(mine, found)

    def _keep(self, mine: Any, found: Measured) -> None:
        kept = {"rows": _written(found.rows), "text": found.text}
        for name, text in kept.items():
            for place in range(0, len(text), PIECE):
                self._storage.set_trial_user_attr(
                    mine._trial_id, f"{name} {place // PIECE}", text[place : place + PIECE]
                )
        self._storage.set_trial_user_attr(mine._trial_id, "calls", found.calls)
        self._study.tell(mine.number, found.value, skip_if_finished=True)

    def _beat(self, trial_id: int) -> None:
        if hasattr(self._storage, "record_heartbeat"):
            self._storage.record_heartbeat(trial_id)

    @contextmanager
    def _alive(self, trial_id: int) -> Iterator[None]:
        """Give signs of life from a thread."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(BEAT):
                self._beat(trial_id)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _in_work(self) -> set[str]:
        """Return the keys of tasks that live processes are at; those of dead ones are given up.

        A claim of a process that ended before its first sign of life would never be silent for too long: the first
        sign of life of every claim is the look of whoever waits for it. The database's clock measures both.
        """
        state = self._optuna.trial.TrialState
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # That it may change one day.
            self._optuna.storages.fail_stale_trials(self._study)
        found = set()
        for trial in self._trials():
            if trial.state != state.RUNNING:
                continue
            if self._is_dead(trial.user_attrs.get("process", "")):
                self._study.tell(trial.number, state=state.FAIL, skip_if_finished=True)
            else:
                if trial._trial_id not in self._seen:
                    self._beat(trial._trial_id)
                    self._seen.add(trial._trial_id)
                found.add(trial.user_attrs.get("key", ""))
        return found

    def _is_dead(self, process: str) -> bool:
        """Whether a process of this machine is gone; of others signs of life tell."""
        host, _, rest = process.partition(" ")
        number = rest.partition(" ")[0]
        if host != socket.gethostname() or not number.isdigit() or os.name != "posix":
            return False
        if int(number) == os.getpid():
            return process != self.process
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False

    def _trials(self) -> list[Any]:
        try:
            return self._study.get_trials(deepcopy=False)
        except Exception as error:  # What is in the database is damaged, or it is gone.
            raise self._refused(error) from error

    def _result(self, trial: Any) -> Measured | None:
        """Return what a trial found; None if that is damaged, so that it is measured anew."""
        if trial._trial_id not in self._read:
            held = trial.user_attrs
            try:
                self._read[trial._trial_id] = Measured(
                    _array(_joined(held, "rows")),
                    whole("calls", held.get("calls"), 0),
                    _joined(held, "text"),
                    real("value", trial.value),
                )
            except (TypeError, ValueError):
                return None
        return self._read[trial._trial_id]


def _written(rows: np.ndarray) -> str:
    rows = np.ascontiguousarray(rows, "<f4")
    return f"{rows.shape[1]} {base64.b64encode(rows.tobytes()).decode('ascii')}"


def _array(text: str) -> np.ndarray:
    width, _, data = text.partition(" ")
    return np.frombuffer(base64.b64decode(data), "<f4").astype(np.float32).reshape(-1, int(width))


def _joined(attributes: Mapping[str, Any], name: str) -> str:
    pieces, place = [], 0
    while f"{name} {place}" in attributes:
        pieces.append(attributes[f"{name} {place}"])
        place += 1
    return "".join(pieces)


def _without_password(url: str) -> str:
    scheme, there, rest = url.partition("://")
    return f"{scheme}{there}{rest.rpartition('@')[2]}" if there else url
