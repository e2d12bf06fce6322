"""Running a command in two processes on the CPU: accelerate starts several only if told --multi_gpu."""

import os
import subprocess
import sys
from pathlib import Path

COMMAND = [
    sys.executable,
    "-m",
    "accelerate.commands.launch",
    "--multi_gpu",
    "--num_processes",
    "2",
    "--num_machines",
    "1",
    "--mixed_precision",
    "no",
    "--dynamo_backend",
    "no",
    "--main_process_port",
    "0",
    "-m",
    "fewstep.cli",
]
TESTS = str(Path(__file__).parents[1])


def run(words: list[str], folder: Path) -> str:
    """Run ``fewstep`` in a folder and return what it printed."""
    return start(words, folder, check=True).stdout


def start(words: list[str], folder: Path, check: bool = False) -> subprocess.CompletedProcess[str]:
    """Run ``fewstep`` in a folder; each process has one thread, for the rounding depends on their number."""
    path = os.pathsep.join(filter(None, (TESTS, os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    return subprocess.run([*COMMAND, *words], cwd=folder, env=environment, capture_output=True, text=True, check=check)
