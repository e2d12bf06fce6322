"""The journal: tasks are measured once, dead processes' are taken over, and failures lose nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

from fewstep.errors import InputError
from fewstep.tuning.journal import Journal, Measured, Task


def counting(keys, log, delay=0.0):
    def task(key):
        def measure():
            log.append(key)
            threading.Event().wait(delay)
            return Measured(np.full((3, 2), len(key), np.float32), 7, "x" * 70_000, 0.5)

        return Task(key, {"what": "test"}, measure)

    return [task(key) for key in keys]


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'journal.db'}"


def test_what_is_there_is_not_measured_again(url):
    log = []
    first = Journal(url, "study").run(counting(["a", "bb", "a"], log))
    again = Journal(url, "study").run(counting(["a", "bb"], log))
    assert log == ["a", "bb"]
    assert again[1].text == "x" * 70_000 and again[1].calls == 7
    assert np.array_equal(again[1].rows, np.full((3, 2), 2, np.float32)) and len(first) == 3
    Journal(url, "another").run(counting(["a"], log))
    assert log == ["a", "bb", "a"]


def test_a_failure_loses_nothing(url):
    journal, log = Journal(url, "study"), []

    def broken():
        raise InputError("it broke.")

    with pytest.raises(InputError, match="it broke"):
        journal.run([*counting(["a"], log), Task("b", {}, broken)])
    assert list(journal.measured) == ["a"]
    assert len(Journal(url, "study").run(counting(["a", "b"], log))) == 2
    assert log == ["a", "b"]


def test_what_another_process_took_over_meanwhile_is_waited_for(url):
    """A process that was paused comes back: its trial has been given up."""
    journal, log = Journal(url, "study"), []
    other = Journal(url, "study")

    def paused():
        log.append("a")
        if len(log) == 1:
            other._study.tell(0, state=other._optuna.trial.TrialState.FAIL)
        return Measured(np.zeros((1, 1), np.float32), 1, value=float(len(log)))

    (found,) = journal.run([Task("a", {}, paused)])
    assert log == ["a", "a"] and found.value == 2.0


def test_a_figure_that_is_not_finite_ends_the_search(url):
    with pytest.raises(InputError, match="the figure of 'a' is nan"):
        Journal(url, "study").run([Task("a", {}, lambda: Measured(np.zeros((1, 1), np.float32), 1, value=np.nan))])


def test_what_a_dead_process_was_at_is_taken_over(url):
    """A process of this machine that is gone is known to be dead at once."""
    journal, log = Journal(url, "study"), []
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    journal.process = f"{socket.gethostname()} {gone.pid} 0"
    claimed = journal._optuna.trial.create_trial(
        state=journal._optuna.trial.TrialState.RUNNING, user_attrs={"key": "a", "process": journal.process}
    )
    journal._study.add_trial(claimed)
    Journal(url, "study").run(counting(["a"], log))
    assert log == ["a"]


def test_another_process_is_waited_for(url):
    """Its trial is running with our own identity: it is alive, so it is not measured here until it is given up."""
    alive, log = Journal(url, "study"), []
    state = alive._optuna.trial.TrialState
    claim = {"key": "a", "process": alive.process}
    alive._study.add_trial(alive._optuna.trial.create_trial(state=state.RUNNING, user_attrs=claim))
    waiting = Journal(url, "study")
    waiting.process = alive.process
    thread = threading.Thread(target=lambda: waiting.run(counting(["a"], log)))
    thread.start()
    thread.join(0.6)
    assert thread.is_alive() and not log
    alive._study.tell(0, state=state.FAIL)
    thread.join(30)
    assert log == ["a"]


@pytest.fixture
def hasty(monkeypatch):
    """A second of silence is too long."""
    for name in ("BEAT", "GRACE"):
        monkeypatch.setattr(f"fewstep.tuning.journal.{name}", 1)


def claim_elsewhere(url, key):
    """Claim a task as a process of another machine does that gives no sign of life after, and return its journal."""
    there = Journal(url, "study")
    state = there._optuna.trial.TrialState
    claim = {"key": key, "process": "elsewhere 1 0"}
    there._study.add_trial(there._optuna.trial.create_trial(state=state.RUNNING, user_attrs=claim))
    return there


def test_a_claim_elsewhere_without_a_sign_of_life_is_taken_over(url, hasty):
    """The process died between its claim and its first sign of life."""
    claim_elsewhere(url, "a")
    log = []
    waiting = threading.Thread(target=lambda: Journal(url, "study").run(counting(["a"], log)), daemon=True)
    waiting.start()
    waiting.join(30)
    assert log == ["a"] and not waiting.is_alive()


def test_a_claim_elsewhere_whose_signs_of_life_come_is_waited_for(url, hasty):
    there, log = claim_elsewhere(url, "a"), []
    (claim,) = there._trials()
    with there._alive(claim._trial_id):
        waiting = threading.Thread(target=lambda: Journal(url, "study").run(counting(["a"], log)), daemon=True)
        waiting.start()
        waiting.join(1.0)
        assert waiting.is_alive() and not log
    waiting.join(30)
    assert log == ["a"]


def test_processes_measure_nothing_twice(url, tmp_path):
    program = textwrap.dedent(
        f"""
        import os, time
        import numpy as np
        from fewstep.tuning.journal import Journal, Measured, Task

        def task(key):
            def measure():
                with open({str(tmp_path / "log")!r}, "a") as file:
                    file.write(key + "\\n")
                time.sleep(0.01)
                return Measured(np.zeros((1, 1), np.float32), 1)
            return Task(key, {{}}, measure)

        Journal({url!r}, "study").run([task(f"task {{i}}") for i in range(12)])
        """
    )
    runs = [subprocess.Popen([sys.executable, "-c", program], env=os.environ) for _ in range(3)]
    assert [run.wait(120) for run in runs] == [0, 0, 0]
    lines = (tmp_path / "log").read_text().split("\n")[:-1]
    assert sorted(lines) == sorted(f"task {i}" for i in range(12))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "the storage 'nonsense' cannot be used"),
        ("sqlite:////no/such/folder/journal.db", "cannot be used"),
        ("postgresql://me:secret@nowhere.invalid/db", "the storage 'postgresql://nowhere.invalid/db' cannot be used"),
    ],
)
def test_a_storage_that_cannot_be_reached(url, words):
    with pytest.raises(InputError, match=words) as refused:
        Journal(url, "study")
    assert "\n" not in str(refused.value) and "secret" not in str(refused.value)
