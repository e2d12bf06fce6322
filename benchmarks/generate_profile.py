"""Where ``fewstep generate`` spends its time: ``python benchmarks/generate_profile.py --num 512 [--device cuda]``.

The share of the network is the time inside its calls over the whole time of the command from its first call on, with
drawing noise, the solver's own arithmetic, conversion, compression and writing of shards. On a GPU a call lasts from
the first of its kernels to the last one, by the device's clock.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from fewstep.cli.app import app


class Clock:
    """The time inside the network, by hooks on every call of it."""

    def __init__(self, device: str) -> None:
        self.mark = time.perf_counter if device == "cpu" else _event
        self.first = 0.0
        self.marks: list[Any] = []
        register_module_forward_pre_hook(self._passed)
        register_module_forward_hook(self._passed)

    def _passed(self, module: torch.nn.Module, *_: object) -> None:
        if isinstance(module, UNet2DModel):
            self.first = self.first or time.perf_counter()
            self.marks.append(self.mark())

    @property
    def inside(self) -> list[float]:
        """The seconds of each call."""
        pairs = zip(self.marks[::2], self.marks[1::2], strict=True)
        if self.mark is _event:
            return [begin.elapsed_time(end) / 1e3 for begin, end in pairs]
        return [end - begin for begin, end in pairs]


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def main() -> None:
    """Generate under the clock and print a line, and JSON where asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--json", type=Path, help="a file for the result")
    args = parser.parse_args()
    clock = Clock(args.device)
    with tempfile.TemporaryDirectory() as folder:
        words = (
            f"generate --solver sa:few_step=True --steps {args.steps} --num {args.num} --batch-size {args.batch_size} "
            f"--device {args.device} --dtype {args.dtype}"
        )
        app([*words.split(), "--out", f"{folder}/samples"], standalone_mode=False)
        whole = time.perf_counter() - clock.first
    inside = sum(clock.inside)
    result = {
        "images": args.num,
        "batch_size": args.batch_size,
        "steps": args.steps,
        "network_calls": len(clock.inside),
        "seconds": round(whole, 2),
        "seconds_in_network": round(inside, 2),
        "share_of_network": round(inside / whole, 4),
        "on": args.device if args.device == "cpu" else torch.cuda.get_device_name(),
        "dtype": args.dtype,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    print(f"{result['share_of_network']:.1%} of {whole:.1f} s in {len(clock.inside)} calls of the network")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
