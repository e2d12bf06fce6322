"""k-diffusion's conventions, and agreement with its samplers in float64 where they are the same method."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from support.exact import GaussianMixture
from support.torchvision import usable_torchvision

import fewstep as fs
from fewstep.analytic import AnalyticPrediction
from fewstep.errors import InputError
from fewstep.executor import with_last_formula
from fewstep.integrations import kdiffusion

LEVELS = fs.processes.VPDiscrete.from_betas(0.00085, 0.012, schedule="scaled_linear")


class Small(torch.nn.Module):
    """A small network that predicts ε; also CompVis' ``apply_model``."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        draw = lambda *shape: 0.4 * torch.randn(*shape, dtype=torch.float64, generator=generator)  # noqa: E731
        self.inner, self.outer, self.time = draw(6, 3), draw(3, 6), draw(6)
        self.alphas_cumprod = LEVELS.alphas_cumprod

    def forward(self, x, t, cond=0.0):
        hidden = torch.tanh(
            torch.einsum("oi,bihw->bohw", self.inner, x) + self.time[:, None, None] * (t / 500.0)[:, None, None, None]
        )
        return x + torch.einsum("oi,bihw->bohw", self.outer, hidden) + cond

    apply_model = forward


@pytest.fixture(scope="module")
def k_diffusion():
    """Return the package; its own __init__ imports training tools, so that a missing one hides all of it."""
    usable_torchvision()
    try:
        import k_diffusion
    except ImportError as error:
        pytest.skip(f"k-diffusion cannot be imported ({error}): pip install k-diffusion")
    return k_diffusion


def wrapped(k_diffusion, kind: str):
    network = Small()
    if kind == "compvis":
        return k_diffusion.external.CompVisDenoiser(network, quantize=True).double()
    return k_diffusion.external.DiscreteEpsDDPMDenoiser(
        network, network.alphas_cumprod, quantize=kind == "quantized"
    ).double()


def levels(model, steps: int) -> torch.Tensor:
    return kdiffusion.get_sigmas(steps, model.sigma_min, model.sigma_max, grid="karras", dtype=torch.float64)


def start(sigmas: torch.Tensor, batch: int = 2) -> torch.Tensor:
    return sigmas[0] * torch.randn(batch, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def noise_fed(seed: int = 5):
    """Return a noise sampler that is the same for both."""
    generator = torch.Generator().manual_seed(seed)
    return lambda sigma, sigma_next: torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("kind", ["eps", "quantized", "compvis"])
@pytest.mark.parametrize("steps", [1, 5, 8, 15])
@pytest.mark.parametrize(
    ("name", "settings", "solver"),
    [
        ("sample_euler", {}, "euler"),
        ("sample_euler_ancestral", {"eta": 0.0}, "ddim"),
        ("sample_euler_ancestral", {"eta": 0.7}, fs.DDIM(0.7)),
        ("sample_heun", {}, "heun"),
        ("sample_dpmpp_2m", {}, "dpmpp"),
        (
            "sample_dpmpp_2m_sde",
            {"solver_type": "heun", "eta": 0.6},
            fs.SASolver(2, 0, tau=math.sqrt(0.6), orders="diffusers"),
        ),
        ("sample_dpmpp_2m_sde", {"solver_type": "heun", "eta": 0.0}, fs.UniPC(2, "exact", corrector=False)),
    ],
    ids=str,
)
def test_the_same_method_gives_the_same_samples(k_diffusion, kind, steps, name, settings, solver):
    if steps == 1 and name == "sample_dpmpp_2m_sde":
        pytest.skip("k-diffusion's own raises at one step")
    model = wrapped(k_diffusion, kind)
    sigmas = levels(model, steps)
    x = start(sigmas)
    theirs_noise = {"noise_sampler": noise_fed()} if "eta" in settings else {}
    sampler = getattr(k_diffusion.sampling, name)
    extra = {"cond": 0.1}
    theirs = sampler(model, x, sigmas, extra_args=extra, disable=True, **settings, **theirs_noise)
    ours = kdiffusion.sample(model, x, sigmas, solver=solver, extra_args=extra, disable=True, noise_sampler=noise_fed())
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-12


@pytest.mark.parametrize("name", sorted(fs.solvers.NAMES))
def test_every_solver_runs_on_its_wrappers(k_diffusion, name):
    model = wrapped(k_diffusion, "eps")
    sigmas = kdiffusion.get_sigmas(60, model.sigma_min, model.sigma_max, grid="uniform_logsnr", dtype=torch.float64)
    got = kdiffusion.sample(model, start(sigmas), sigmas, solver=name, seeds=[0, 1], disable=True)
    fine = levels(model, 300)
    reference = kdiffusion.sample(model, start(sigmas), fine, solver="unipc", disable=True)
    assert got.shape == reference.shape and bool(torch.isfinite(got).all())
    if name != "sa":
        assert float((got - reference).norm() / reference.norm()) < 0.1


@pytest.mark.parametrize("name", ["sample_euler", "sample_heun", "sample_dpmpp_2m"])
def test_the_callback_is_told_what_theirs_is(k_diffusion, name):
    model = wrapped(k_diffusion, "eps")
    sigmas = levels(model, 5)
    told: list[list[dict]] = [[], []]
    sampler = getattr(k_diffusion.sampling, name)
    sampler(model, start(sigmas), sigmas, disable=True, callback=told[0].append)
    solver = name.removeprefix("sample_").removesuffix("_2m")
    kdiffusion.sample(model, start(sigmas), sigmas, solver=solver, disable=True, callback=told[1].append)
    assert len(told[0]) == len(told[1]) == 5
    for theirs, ours in zip(*told, strict=True):
        assert set(ours) == set(theirs) and ours["i"] == theirs["i"]
        for key in ("x", "sigma", "sigma_hat", "denoised"):
            assert torch.allclose(ours[key], theirs[key], rtol=1e-12, atol=1e-12)


def test_its_brownian_noise_serves(k_diffusion):
    model = wrapped(k_diffusion, "eps")
    sigmas = levels(model, 6)
    x = start(sigmas)
    made = [
        sampler(
            model,
            x,
            sigmas,
            disable=True,
            noise_sampler=k_diffusion.sampling.BrownianTreeNoiseSampler(x, sigmas[-2], sigmas[0], seed=[3, 4]),
            **settings,
        )
        for sampler, settings in [
            (k_diffusion.sampling.sample_dpmpp_2m_sde, {"solver_type": "heun", "eta": 1.0}),
            (kdiffusion.sample, {"solver": fs.SASolver(2, 0, tau=1.0, orders="diffusers")}),
        ]
    ]
    assert float((made[0] - made[1]).norm() / made[0].norm()) < 1e-12


@pytest.mark.parametrize(("grid", "theirs"), [("karras", "karras"), ("uniform_logsnr", "exponential")])
def test_the_grids_by_rule_are_theirs(k_diffusion, grid, theirs):
    wanted = getattr(k_diffusion.sampling, f"get_sigmas_{theirs}")(9, 0.03, 14.6)
    assert torch.allclose(kdiffusion.get_sigmas(9, 0.03, 14.6, grid=grid), wanted, rtol=2e-6)


def analytic(x, sigma, *, shift=0.0):
    """A wrapper that needs no package: the exact D of a mixture."""
    return GaussianMixture.example(fs.processes.EDM())(x, sigma[0].double()) + shift


def fed(draws: list[torch.Tensor]):
    """Return a noise sampler that gives these noises one by one."""
    feed = iter(draws)
    return lambda sigma, sigma_next: next(feed)


class TestWithoutThePackage:
    """What holds for any callable of k-diffusion's form."""

    sigmas = kdiffusion.get_sigmas(7, 0.01, 20.0, dtype=torch.float64)
    x = 20.0 * torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def run(self, sigmas=None, **settings):
        sigmas = self.sigmas if sigmas is None else sigmas
        return kdiffusion.sample(analytic, self.x, sigmas, disable=True, **settings)

    def test_it_is_execute_on_the_process_of_edm(self):
        plan = fs.UniPC().plan(fs.TimeGrid(fs.processes.EDM(), self.sigmas))
        wanted = fs.execute(plan, lambda x, t: analytic(x, t[None]), self.x)
        assert torch.equal(self.run(), wanted)

    def test_one_sigma_or_none_gives_x_back(self):
        assert self.run(self.sigmas[:1]) is self.x and self.run([]) is self.x

    def test_sigmas_that_do_not_end_in_zero_end_where_they_say(self):
        """In two stages of a one-step method is as in one."""
        half = self.run(self.sigmas[:4], solver="euler")
        whole = kdiffusion.sample(analytic, half, self.sigmas[3:], solver="euler", disable=True)
        assert torch.allclose(whole, self.run(solver="euler"), rtol=1e-12)

    def test_a_second_stage_has_other_noise(self):
        shape = (1, 5000)
        flat = lambda x, sigma: torch.zeros_like(x)  # noqa: E731
        made = [
            kdiffusion.sample(flat, torch.zeros(shape), sigmas, solver=fs.DDIM(1.0), seeds=[1], disable=True)
            for sigmas in ([80.0, 20.0, 5.0], [5.0, 2.0, 1.0])
        ]
        assert abs(float(torch.corrcoef(torch.cat(made))[0, 1])) < 0.05

    def test_rising_sigmas_run_towards_noise(self):
        falling = kdiffusion.get_sigmas(60, 0.01, 20.0, grid="karras", dtype=torch.float64)[:-1]
        data = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        for solver in ("euler", "ddim", "unipc"):
            told: list[dict] = []
            noise = kdiffusion.sample(
                analytic, data, falling.flip(0), solver=solver, disable=True, callback=told.append
            )
            assert [float(one["sigma"]) for one in told] == pytest.approx(falling.flip(0)[:-1].tolist(), rel=1e-9)
            back = kdiffusion.sample(analytic, noise, falling, solver=solver, disable=True)
            assert torch.allclose(back, data, atol=0.2 if solver != "unipc" else 1e-2)
        with pytest.raises(InputError, match="deterministic"):
            kdiffusion.sample(analytic, data, falling.flip(0), solver="sa", seeds=[0, 1, 2], disable=True)

    @pytest.mark.parametrize(
        "solver",
        [
            fs.UniPC(3),
            fs.SASolver(3, 4, tau=0.7),
            fs.SASolver(3, 4, tau=0.7, mode="PECE"),
            fs.DEIS(3),
            fs.DDIM(1.0),
            fs.Heun(),
        ],
        ids=repr,
    )
    @pytest.mark.parametrize("process", [fs.processes.VPLinear(), LEVELS], ids=repr)
    def test_a_plan_of_a_variance_preserving_process_runs_in_these_coordinates(self, process, solver):
        """x̄ = x/α: the same predictions and noise give the same samples, to rounding."""
        plan = solver.plan(fs.grids.uniform_logsnr(process, 8, end="zero"))
        moved = kdiffusion.in_sigma(plan)
        sigmas = kdiffusion.sigmas_of(plan)
        model = GaussianMixture.example(process)
        alpha = process.alpha(plan.times[0])
        draws = [torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(8)]
        inside = fs.execute(plan, model, self.x * alpha, noise_sampler=fed(draws))

        def wrapper(x, sigma):
            t = process.time(-sigma[0].log())
            return model(x * process.alpha(t), t)

        outside = kdiffusion.sample(
            wrapper,
            self.x,
            sigmas,
            solver=plan,
            disable=True,
            noise_sampler=fed(draws),
        )
        assert torch.allclose(outside, inside, rtol=1e-10, atol=1e-10)
        assert moved.process.to_dict()["name"] == "edm" and moved.nfe == plan.nfe

    def test_formulas_of_classes_are_refused(self):
        plan = fs.UniPC(2).plan(fs.grids.karras(fs.processes.EDM(), 3))
        evaluate = plan.evaluate.clone()
        evaluate[0] = False
        formula = AnalyticPrediction(torch.ones(1), torch.zeros(3, 2), by_class=True)
        plan = replace(plan, evaluate=evaluate, analytic=(formula, *[None] * (len(evaluate) - 1)))
        with pytest.raises(InputError, match="not told the classes"):
            kdiffusion.sample(lambda x, sigma: x, torch.zeros(1, 2), plan.times, solver=plan, disable=True)

    def test_a_step_that_a_formula_begins_is_told_too(self):
        """A plan whose first prediction and whose last row are formulas: calls, callbacks and samples."""
        process, steps = fs.processes.VPLinear(), 6
        plan = fs.UniPC(2, corrector=False).plan(fs.grids.uniform_logsnr(process, steps, end="zero"))
        formula = AnalyticPrediction.gaussian(process, plan.times[0], 0.8)
        evaluate = plan.evaluate.clone()
        evaluate[0] = False
        plan = replace(plan, evaluate=evaluate, analytic=(formula, *[None] * (steps - 1)), fitted=True)
        gains = torch.tensor([[[0.9, 0.0, 0.2, 0.0], [0.1, 0.8, 0.0, 0.3]]], dtype=torch.float64)
        plan = with_last_formula(plan, AnalyticPrediction(gains, torch.tensor(0.1)))
        model = GaussianMixture.example(process)

        def wrapper(x, sigma):
            t = process.time(-sigma[0].log())
            return model(x * process.alpha(t), t)

        inside = fs.execute(plan, model, self.x * process.alpha(plan.times[0]))
        told: list[dict] = []
        sigmas = kdiffusion.sigmas_of(plan)
        outside = kdiffusion.sample(wrapper, self.x, sigmas, solver=plan, disable=True, callback=told.append)
        assert torch.allclose(outside, inside, rtol=1e-10, atol=1e-10)
        assert [one["i"] for one in told] == list(range(steps)) and plan.nfe == steps - 1

    def test_half_precision_is_called_and_returned_in_its_own_type(self):
        seen = set()

        def model(x, sigma):
            seen.add((x.dtype, sigma.dtype, tuple(sigma.shape)))
            return (x / (1 + sigma[:, None] ** 2)).to(x.dtype)

        got = kdiffusion.sample(model, self.x.bfloat16(), self.sigmas.float(), disable=True)
        assert got.dtype == torch.bfloat16 and seen == {(torch.bfloat16, torch.bfloat16, (3,))}

    @pytest.mark.parametrize("process", [LEVELS, fs.processes.RectifiedFlow(shift=3.0)], ids=repr)
    def test_grids_of_a_process_are_sigmas_too(self, process):
        sigmas = kdiffusion.get_sigmas(6, grid="uniform_time", process=process, dtype=torch.float64)
        grid = fs.grids.uniform_time(process, 6, end="zero")
        wanted = grid.times if process.straight else grid.sigma / grid.alpha
        assert torch.allclose(sigmas, wanted, rtol=1e-12) and float(sigmas[-1]) == 0.0

    @pytest.mark.parametrize(
        ("call", "words"),
        [
            (lambda self: self.run([3.0, 3.0, 0.0]), "drop repeated"),
            (lambda self: self.run(solver="sa"), "seeds"),
            (lambda self: self.run(solver="unipcs"), "did you mean 'unipc'"),
            (lambda self: self.run(solver=fs.UniPC().plan(fs.grids.karras(LEVELS, 7))), "give those that it has"),
            (
                lambda self: kdiffusion.in_sigma(
                    fs.UniPC().plan(fs.TimeGrid(fs.processes.VPCosine(), [1.0, 0.5, 0.1]))
                ),
                "α = 0",
            ),
        ],
    )
    def test_mistakes_are_answered(self, call, words):
        with pytest.raises(InputError, match=words):
            call(self)
