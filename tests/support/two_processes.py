"""Running a command in one process, and in two on the CPU: accelerate starts several only if told --multi_gpu."""

import os
import subprocess
import sys
from pathlib import Path

MODULE = ["-m", "fewstep.cli"]
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
          "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]  # fmt: skip


def run(words: list[str], folder: Path, processes: int) -> str:
    """Run ``fewstep`` in a folder and return what it printed."""
    return start(words, folder, processes, check=True).stdout


def start(words: list[str], folder: Path, processes: int, check: bool = False) -> subprocess.CompletedProcess[str]:
    """Run ``fewstep`` in a folder; each process has one thread, for the rounding depends on their number."""
    command = [sys.executable, *(LAUNCH if processes == 2 else []), *MODULE, *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=check)
