"""Where ``fewstep generate`` spends its time: ``python benchmarks/generate_profile.py --num 512``.

The share of the network is the time inside its calls over the whole time of the command from its first call on, with
drawing noise, the solver's own arithmetic, conversion, compression and writing of shards.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from diffusers import UNet2DModel
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from fewstep.cli.app import app


class Clock:
    """The time inside the network, by hooks on every call of it."""

    def __init__(self) -> None:
        self.first, self.inside, self.calls, self._began = 0.0, 0.0, 0, 0.0
        register_module_forward_pre_hook(self._enter)
        register_module_forward_hook(self._leave)

    def _enter(self, module: torch.nn.Module, _: object) -> None:
        if isinstance(module, UNet2DModel):
            self._began = time.perf_counter()
            self.first = self.first or self._began

    def _leave(self, module: torch.nn.Module, *_: object) -> None:
        if isinstance(module, UNet2DModel):
            self.inside += time.perf_counter() - self._began
            self.calls += 1


def main() -> None:
    """Generate under the clock and print a line, and JSON where asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--json", type=Path, help="a file for the result")
    args = parser.parse_args()
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        words = (
            f"generate --solver sa:few_step=True --steps {args.steps} --num {args.num} --batch-size {args.batch_size}"
        )
        app([*words.split(), "--out", f"{folder}/samples"], standalone_mode=False)
        whole = time.perf_counter() - clock.first
    result = {
        "images": args.num,
        "batch_size": args.batch_size,
        "steps": args.steps,
        "network_calls": clock.calls,
        "seconds": round(whole, 2),
        "seconds_in_network": round(clock.inside, 2),
        "share_of_network": round(clock.inside / whole, 4),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    print(f"{result['share_of_network']:.1%} of {whole:.1f} s in {clock.calls} calls of the network")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
