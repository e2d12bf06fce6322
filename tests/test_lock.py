"""A folder is held by one process, until that ends, however it ends."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
from support import holding

from fewstep.errors import InputError
from fewstep.lock import held
from fewstep.storage import LOCK


def test_a_folder_that_was_not_there_is_gone_again(tmp_path):
    folder = tmp_path / "a"
    with held(folder, folder):
        assert (folder / LOCK).exists()
        with pytest.raises(InputError, match="another fewstep process is writing there"), held(folder, folder):
            pytest.fail("it was held twice")
        assert (folder / LOCK).exists()
    assert not folder.exists()
    folder.mkdir()
    with held(folder, folder):
        pass
    assert list(tmp_path.rglob("*")) == [folder]


def test_another_process_is_refused_and_a_killed_one_blocks_nobody(tmp_path):
    folder = tmp_path / "a"
    other = holding.start(folder)
    with pytest.raises(InputError, match="another fewstep process"), held(folder, folder):
        pytest.fail("it was held twice")
    os.kill(other, signal.SIGKILL)
    os.waitpid(other, 0)
    assert (folder / LOCK).exists()
    with held(folder, folder):
        pass
    assert not (folder / LOCK).exists()


def test_one_of_many_at_a_time(tmp_path):
    """Threads take a folder again and again, while it comes and goes: never two hold it, and nothing else fails."""
    folder, inside, most, wrong = tmp_path / "a", [0], [0], list[BaseException]()
    barrier, guard = threading.Barrier(8), threading.Lock()

    def take() -> None:
        barrier.wait()
        for _ in range(40):
            try:
                with held(folder, folder):
                    with guard:
                        inside[0] += 1
                        most[0] = max(most[0], inside[0])
                    with guard:
                        inside[0] -= 1
            except InputError as error:
                if "another fewstep process" not in str(error):
                    wrong.append(error)
            except BaseException as error:
                wrong.append(error)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and most[0] == 1 and not list(tmp_path.glob("a/*"))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder that takes no files, whoever asks")
def test_a_folder_that_cannot_be_made_is_a_sentence():
    with pytest.raises(InputError, match="--out is '/proc/x.json', which cannot be written"):
        with held(Path("/proc/x"), Path("/proc/x.json")):
            pass
