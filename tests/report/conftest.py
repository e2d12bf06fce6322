"""One small comparison on the embedded model, which all tests of the report look at."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fewstep.cli.app import app

WORDS = [
    "compare",
    "--solvers",
    "unipc,ddim,sa:few_step=True",
    "--grids",
    "karras,uniform_logsnr",
    "--steps",
    "2,3",
    "--peers",
    "unipc_karras,sa",
    "--num",
    "9",
    "--batch-size",
    "4",
    "--exact-steps",
    "6",
]


@pytest.fixture(scope="session")
def comparison(tmp_path_factory) -> Path:
    """The folder that ``fewstep compare`` left."""
    folder = tmp_path_factory.mktemp("compared") / "table"
    done = CliRunner().invoke(app, [*WORDS, "--out", str(folder)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return folder
