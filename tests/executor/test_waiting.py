"""From the first network call to the last state nothing waits for the device; and a GPU gives what the CPU gives."""

from contextlib import ExitStack

import pytest
import torch
from support.solvers import SOLVERS
from support.waiting import each_device, needs_gpu, without_waiting

import fewstep as fs
from fewstep.guidance import ClassifierFree, DynamicThreshold, StaticThreshold, Wrapped

MODELS = {
    "discrete, v": (fs.processes.VPDiscrete.from_betas(), "v"),
    "discrete, epsilon": (fs.processes.VPDiscrete.from_betas(), "epsilon"),
    "linear, x0": (fs.processes.VPLinear(), "x0"),
    "cosine, epsilon": (fs.processes.VPCosine(), "epsilon"),
    "flow": (fs.processes.RectifiedFlow(shift=3.0), "flow"),
    "edm": (fs.processes.EDM(), "edm"),
}


class Network(torch.nn.Module):
    """A convolution whose output depends on time and class too."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.kernel = torch.nn.Parameter(0.1 * torch.randn(3, 3, 3, 3, generator=generator), requires_grad=False)

    def forward(self, x, time, label=None):
        scale = torch.sin(time)[:, None, None, None] + (0 if label is None else label[:, None, None, None])
        return torch.tanh(torch.nn.functional.conv2d(x, self.kernel, padding=1) + 0.1 * scale)


class Entered(Wrapped):
    """A predictor from whose first call on ``stack`` holds a context."""

    def __init__(self, inner, stack, context):
        super().__init__(inner)
        self.stack, self.context = stack, context

    def __call__(self, x_t, t, cond=None):
        if self.context is not None:
            self.stack.enter_context(self.context)
            self.context = None
        return self.inner(x_t, t, cond)


def run(denoiser, solver, device, cond=None, steps=5, start=None):
    """Sample, and fail where anything waits between the first call and the last state."""
    plan = solver.plan(fs.grids.uniform_logsnr(denoiser.process, steps))
    x_T = start.to(device) if start is not None else torch.ones(3, *denoiser.shape, device=device)
    fs.execute(plan, denoiser, x_T, seeds=range(3), cond=cond)  # What is placed once a device is placed.
    with ExitStack() as stack:
        watched = Entered(denoiser, stack, without_waiting(x_T.device))
        return fs.execute(
            plan,
            watched,
            x_T,
            seeds=range(3),
            cond=cond,
            callback=lambda step, *_: stack.close() if step == steps - 1 else None,
        )


def model(name, device):
    process, prediction = MODELS[name]
    return fs.Denoiser(Network().to(device), process, prediction, shape=(3, 8, 8), num_classes=4)


@each_device
@pytest.mark.parametrize("name", MODELS)
def test_no_process_and_no_prediction_waits(name, device):
    run(model(name, device), fs.UniPC(3), device, cond=[0, 1, 2])


@each_device
@pytest.mark.parametrize("name", MODELS)
def test_no_process_waits_on_the_way_back(name, device):
    process = MODELS[name][0]
    level = torch.tensor(0.5, dtype=torch.float64, device=device)
    expected = process.time(level)
    with without_waiting(level.device):
        found = process.time(level)
    assert torch.equal(found, expected)


@each_device
@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_no_solver_waits(solver, device):
    run(model("discrete, v", device), solver, device)


@each_device
@pytest.mark.parametrize(
    "wrap",
    [
        lambda d: ClassifierFree(d, 2.0, 3),
        lambda d: ClassifierFree(d, 2.0, 3, batched=False),
        StaticThreshold,
        DynamicThreshold,
        lambda d: DynamicThreshold(ClassifierFree(d, 2.0, 3), 0.9, 2.0),
    ],
    ids=["guidance", "two calls", "static", "dynamic", "both"],
)
def test_no_guidance_waits(wrap, device):
    run(wrap(model("discrete, v", device)), fs.UniPC(2), device, cond=[0, 1, 2])


@each_device
@pytest.mark.parametrize("profile", [{}, {"sigma_window": (0.05, 5.0)}], ids=["constant", "window"])
def test_no_skip_tuning_waits(profile, device):
    pytest.importorskip("diffusers")
    from fewstep import skip, zoo

    denoiser = zoo.load("fashion-mnist", device=device, dtype=torch.bfloat16)
    settings = {**profile, "process": denoiser.process} if profile else {}
    with skip.tuned(denoiser.network, 0.7, 0.9, **settings):
        run(denoiser, fs.UniPC(2), device, cond=[0, 1, 2], steps=2)


@needs_gpu
@pytest.mark.parametrize("name", MODELS)
def test_a_gpu_gives_what_the_cpu_gives(name):
    start = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    start = start * MODELS[name][0].sigma(MODELS[name][0].t_max).to(torch.float32)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        ours = run(model(name, "cuda"), fs.UniPC(3), "cuda", cond=[0, 1, 2], start=start)
    theirs = run(model(name, "cpu"), fs.UniPC(3), "cpu", cond=[0, 1, 2], start=start)
    torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-4, atol=1e-4)


@needs_gpu
@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_on_a_gpu_too_a_sample_depends_on_its_seed_alone(solver):
    denoiser, plan = model("linear, x0", "cuda"), solver.plan(fs.grids.uniform_logsnr(fs.processes.VPLinear(), 6))
    start = torch.randn(7, 3, 8, 8, generator=torch.Generator().manual_seed(1)).cuda()
    whole = fs.execute(plan, denoiser, start, seeds=range(7))
    part = fs.execute(plan, denoiser, start[[6, 1, 2]], seeds=[6, 1, 2])
    torch.testing.assert_close(part, whole[[6, 1, 2]], rtol=1e-5, atol=1e-5)
