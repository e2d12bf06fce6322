"""Every pipeline of diffusers' own tests under ``fs.enable``, and as a model, beside its own loop.

    python benchmarks/pipelines.py --checkout ./diffusers [--only 'pipelines.flux'] [--json FILE] [--page FILE]

The checkout's tests make tiny components; what they would fetch by name is made here. Stable Audio's scheduler needs
torchsde. Each pipeline runs in a process of its own under a time limit: (a) with ``fs.enable(pipe, steps=3)`` to finite
output, and with the solver of a scheduler of diffusers' beside that scheduler; (b) by ``fs.models.from_pipeline``, one
sample beside the pipeline's own loop under ``FewStepScheduler`` with the same plan. Differences are the largest ones of
the latents, relative to 1 + their largest value. What the pipeline cannot do here with its own scheduler says nothing
of fewstep: "not built".
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import io
import json
import multiprocessing
import re
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import diffusers
import local_pretrained
import numpy as np
import torch

import fewstep as fs
from fewstep.errors import InputError
from fewstep.integrations.diffusers import FewStepScheduler

STEPS = 3
SET_HERE = ("latents", "num_inference_steps", "timesteps", "sigmas", "output_type", "return_dict")
LEAST_STRENGTH = 0.7
"""Below it none of three steps may be left of an image-to-image pipeline."""
ALLOWED = 1e-3
"""Of the largest difference; what float32 makes of tiny networks lies far below, another method far above."""


def main() -> None:
    """Run the pipelines of the chosen test modules, and write what became of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, required=True, help="diffusers' repository, for its tests")
    parser.add_argument("--only", default="", help="test modules whose dotted name has this regular expression")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for a pipeline")
    parser.add_argument("--json", type=Path, help="where results go; what is there of other pipelines stays")
    parser.add_argument("--page", type=Path, help="where the table goes, in Markdown")
    arguments = parser.parse_args()
    sys.path.insert(0, str(arguments.checkout.resolve()))
    local_pretrained.without_test_tools()
    for common in ("test_pipelines_common", "testing_utils"):  # Once, before the processes part.
        importlib.import_module(f"tests.pipelines.{common}")
    results: dict[str, Any] = {}
    if arguments.json and arguments.json.exists():
        results = json.loads(arguments.json.read_text())["pipelines"]
    for path in sorted((arguments.checkout / "tests" / "pipelines").rglob("test_*.py")):
        module = ".".join(path.relative_to(arguments.checkout).with_suffix("").parts)
        if not re.search(arguments.only, module):
            continue
        for name, outcome in in_process(module, arguments.limit).items():
            if name not in results or "not_built" in results[name] or "not_built" not in outcome:
                results[name] = outcome
            print(f"{name}: {outcome}", flush=True)
        if arguments.json:
            write(arguments.json, results)
    if arguments.page:
        arguments.page.write_text(page(results))


def write(path: Path, results: dict[str, Any]) -> None:
    """Write the results, a line for each pipeline."""
    rows = ",\n".join(
        f"{json.dumps(name)}:{json.dumps(results[name], ensure_ascii=False, separators=(',', ':'))}"
        for name in sorted(results)
    )
    head = json.dumps({"diffusers": diffusers.__version__, "steps": STEPS})[:-1]
    path.write_text(f'{head}, "pipelines": {{\n{rows}\n}}}}\n')


def in_process(module: str, limit: float) -> dict[str, Any]:
    """Return the outcomes of a module's pipelines, whose processes may hang or crash."""
    context = multiprocessing.get_context("fork")
    outcomes: dict[str, Any] = {}
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_all_of, args=(module, sender))
    process.start()
    sender.close()
    current, until = None, time.monotonic() + limit
    while True:
        try:
            if not receiver.poll(max(0.0, until - time.monotonic())):
                process.kill()
                if current:
                    outcomes[current] = {"not_built": f"took more than {limit:g} s"}
                break
            name, outcome = receiver.recv()
        except EOFError:
            if current:
                outcomes[current] = {"fails": "the process ended"}
            break
        if outcome is None:
            current, until = name, time.monotonic() + limit
        else:
            current, outcomes[name] = None, outcome
    process.join()
    return outcomes


def _all_of(module: str, sender: Any) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    diffusers.utils.logging.set_verbosity_error()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            with local_pretrained.in_place():
                tests = vars(importlib.import_module(module)).values()
        except BaseException as error:
            sender.send((module.rsplit(".test_", 1)[-1], {"not_built": _said(error)}))
            return
        cases: dict[str, list[type]] = {}
        for test in tests:
            kind = None
            with contextlib.suppress(ImportError):  # What stands for a class whose package is missing has no attribute.
                kind = getattr(test, "pipeline_class", None) if isinstance(test, type) else None
            if isinstance(kind, type) and test.__module__ == module and hasattr(test, "get_dummy_components"):
                cases.setdefault(kind.__name__, []).append(test)
        for name, chosen in cases.items():
            sender.send((name, None))
            outcome: dict[str, Any] = {}
            for test in chosen:
                outcome = outcome_of(test)
                if "not_built" not in outcome:
                    break
            sender.send((name, outcome))


def outcome_of(test: Any) -> dict[str, Any]:
    """Return what becomes of one test class's pipeline."""
    try:
        maker = _Maker(test)
        try:
            _own(maker)
        except Exception:  # Some pipelines decode in any case.
            maker.output_type = "pt"
            _own(maker)
    except BaseException as error:
        return {"not_built": _said(error)}
    return {"enable": _outcome(_enabled, maker), "model": _outcome(_as_model, maker)}


def _own(maker: _Maker) -> None:
    pipe, call = maker.made()
    own = _Recorded(_scheduler(pipe))
    _finite(maker.run(pipe, call), own.last)


def _scheduler(pipe: Any) -> Any:
    """Return the scheduler of the loop; of a prior and a decoder, the decoder's."""
    return getattr(pipe, "decoder_pipe", pipe).scheduler


def _put(pipe: Any, scheduler: Any) -> _Recorded:
    getattr(pipe, "decoder_pipe", pipe).scheduler = scheduler
    return _Recorded(scheduler)


class _Maker:
    """A test class's pipeline, made anew for each run."""

    output_type = "latent"

    def __init__(self, test: Any) -> None:
        self.test = test()
        self.kind = test.pipeline_class

    def made(self) -> tuple[Any, dict[str, Any]]:
        with local_pretrained.in_place():
            torch.manual_seed(0)
            pipe = self.kind(**self.test.get_dummy_components())
            takes_device = "device" in inspect.signature(self.test.get_dummy_inputs).parameters
            call = self.test.get_dummy_inputs("cpu") if takes_device else self.test.get_dummy_inputs()
        for part in pipe.components.values():
            if isinstance(part, torch.nn.Module):
                part.eval()
        pipe.set_progress_bar_config(disable=True)
        if call.get("strength", 1.0) < LEAST_STRENGTH:
            call["strength"] = LEAST_STRENGTH
        if isinstance(call.get("generator"), torch.Generator):  # Some draw their inputs from it before.
            call["generator"] = torch.Generator().manual_seed(call["generator"].initial_seed())
        return pipe, {name: value for name, value in call.items() if name not in SET_HERE}

    def run(self, pipe: Any, call: dict[str, Any], **more: Any) -> Any:
        takes = inspect.signature(pipe.__call__).parameters
        settings = {"num_inference_steps": STEPS, "output_type": self.output_type} | more
        torch.manual_seed(0)
        return pipe(**call, **{name: value for name, value in settings.items() if name in takes})[0]


class _Recorded:
    """Keeps what the last ``step`` of a scheduler returned."""

    last: Any = None

    def __init__(self, scheduler: Any) -> None:
        step = scheduler.step

        def recorded(*args: Any, **kwargs: Any) -> Any:
            made = step(*args, **kwargs)
            self.last = made[0] if isinstance(made, tuple) else made.prev_sample
            return made

        scheduler.step = recorded


def _enabled(maker: _Maker) -> dict[str, Any]:
    pipe, call = maker.made()
    fs.enable(pipe, steps=STEPS)
    seen = _Recorded(_scheduler(pipe))
    _finite(maker.run(pipe, call), seen.last)
    if seen.last is None:
        return {"fails": "the enabled scheduler was not called"}
    outcome = {"works": None}
    for name, run in (("UniPCMultistepScheduler", _unipc), ("FlowMatchEulerDiscreteScheduler", _flow)):
        try:
            theirs, ours = run(maker)
        except _NoPeer:
            continue
        return {**_compared(ours, theirs), "peer": name}
    return outcome


class _NoPeer(Exception):
    """The peer does not go with the pipeline."""


def _unipc(maker: _Maker) -> tuple[Any, Any]:
    pipe, call = maker.made()
    config = _scheduler(pipe).config
    if (
        "beta_schedule" not in config
        or "snr_shift_scale" in config
        or config.get("use_flow_sigmas")
        or config.get("prediction_type") not in ("epsilon", "v_prediction", "sample")
    ):
        raise _NoPeer
    try:
        theirs = _put(pipe, diffusers.UniPCMultistepScheduler.from_config(config))
        maker.run(pipe, call)
    except Exception as error:
        raise _NoPeer from error
    pipe, call = maker.made()
    plain = {"clip_sample": False} if "clip_sample" in config else {}  # UniPC does not read it.
    ours = _put(pipe, FewStepScheduler.from_config(config, **plain))
    maker.run(pipe, call)
    return theirs.last, ours.last


def _flow(maker: _Maker) -> tuple[Any, Any]:
    pipe, call = maker.made()
    if not isinstance(pipe.scheduler, diffusers.FlowMatchEulerDiscreteScheduler):
        raise _NoPeer
    theirs = _Recorded(pipe.scheduler)
    maker.run(pipe, call)
    times = pipe.scheduler.sigmas.double().tolist()
    pipe, call = maker.made()
    ours = _put(pipe, FewStepScheduler.from_config(pipe.scheduler.config, solver="euler", grid=times))
    maker.run(pipe, call)
    if theirs.last is None or ours.last is None:  # The loop belongs to a pipeline within.
        raise _NoPeer
    return theirs.last, ours.last


def _as_model(maker: _Maker) -> dict[str, Any]:
    pipe, call = maker.made()
    whole = {"strength": 1.0} if "strength" in inspect.signature(pipe.__call__).parameters else {}
    model = fs.models.from_pipeline(pipe, **call | whole)
    grid = fs.grids.uniform_time(model.process, STEPS)
    x_T = fs.initial_state(grid, model.shape, [3])
    own, own_call = maker.made()
    own.scheduler = FewStepScheduler.from_config(own.scheduler.config, solver="unipc", grid=grid.times.tolist())
    theirs = _Recorded(own.scheduler)
    given = model.layout.latents_of(x_T / own.scheduler.init_noise_sigma)  # The pipeline scales what it is given.
    maker.run(own, own_call | whole, latents=given)
    ours = fs.execute(own.scheduler.plan, model, x_T)
    return _compared(ours, theirs.last)


def _outcome(run: Any, maker: _Maker) -> dict[str, Any]:
    try:
        return run(maker)
    except InputError as error:
        return {"refused": str(error).strip()}
    except BaseException as error:
        return {"fails": _said(error)}


def _compared(ours: torch.Tensor, theirs: torch.Tensor) -> dict[str, Any]:
    if ours.shape != theirs.shape:
        return {"fails": f"shapes {tuple(ours.shape)} and {tuple(theirs.shape)}"}
    difference = float((ours - theirs).abs().max() / (1 + theirs.abs().max()))
    return {"works": float(f"{difference:.1e}")} if difference <= ALLOWED else {"fails": f"differs by {difference:.1e}"}


def _finite(*made: Any) -> None:
    for value in made:
        if isinstance(value, (torch.Tensor, np.ndarray)) and not bool(torch.as_tensor(value).isfinite().all()):
            raise ArithmeticError("its output is not finite")


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def page(pipelines: dict[str, Any]) -> str:
    """Return the table in Markdown."""

    def cell(outcome: dict[str, Any]) -> str:
        if "works" in outcome:
            return "works" if outcome["works"] is None else f"works, {outcome['works']:.0e}"
        kind = "refused" if "refused" in outcome else "fails"
        return f"{kind}: {outcome[kind]}".replace("|", "\\|")

    rows = [
        f"| {n} | {cell(o['enable'])} | {cell(o['model'])} |" for n, o in sorted(pipelines.items()) if "enable" in o
    ]
    absent = [name for name, outcome in sorted(pipelines.items()) if "not_built" in outcome]
    return PAGE.format(version=diffusers.__version__, rows="\n".join(rows), absent=", ".join(absent) or "none")


PAGE = """# Which pipelines does it go with?

Made by `benchmarks/pipelines.py` with diffusers {version}, on the tiny components of diffusers' own tests.
*Enabled*: `fs.enable(pipe, steps=3)` runs to finite output; the figure is the largest difference to a scheduler of
diffusers (UniPC, or Euler on a flow) with the same settings. *As a model*: `fs.models.from_pipeline(pipe, …)`; the
figure is the largest difference between a sample and the pipeline's own loop with the same plan. Both are relative to
1 + the largest latent. Pipelines that take an image are models at `strength=1`.

| pipeline | enabled | as a model |
|---|---|---|
{rows}

Not built here, as what they need was not at hand: {absent}.
"""


if __name__ == "__main__":
    main()
