"""The public ``sample``."""

import pytest
import torch
from support.exact import GaussianMixture

import fewstep as fs
from fewstep.errors import InputError

VP = fs.processes.VPLinear()

REFUSED = "does not take these settings|is 'abc'|='abc'|neither a number"


def model() -> fs.Denoiser:
    exact = GaussianMixture.example(VP)
    return fs.Denoiser(lambda x, t: exact(x.double(), t[0]), VP, "x0", shape=(2,))


def test_sample_is_plan_and_execute():
    grid, solver = fs.grids.karras(VP, 6), fs.SASolver(3, 3, tau=1.0)
    x_T = fs.initial_state(grid, (2,), range(5))
    assert torch.equal(
        fs.sample(model(), solver, grid, seeds=range(5)),
        fs.execute(solver.plan(grid), model(), x_T, seeds=range(5)),
    )


def test_the_initial_state_is_noise_of_the_first_level_from_each_seed_alone():
    grid = fs.grids.karras(fs.processes.EDM(), 6)
    x_T = fs.initial_state(grid, (3, 4), [5, 9])
    assert torch.equal(x_T[1], 80.0 * torch.randn(3, 4, generator=torch.Generator().manual_seed(9)))


def test_samples_follow_the_data_distribution():
    """Two thousand samples in 12 calls land in the mixture's components with its weights."""
    exact = GaussianMixture.example(VP)
    out = fs.sample(model(), fs.UniPC(), fs.grids.uniform_logsnr(VP, 12), seeds=range(2000))
    component = torch.cdist(out.double(), exact.means).argmin(1)
    shares = torch.bincount(component, minlength=3) / 2000
    assert torch.allclose(shares.double(), exact.log_weights.exp(), atol=0.05)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fs.sample(model(), "unipc", fs.grids.karras(VP, 3), seeds=[0]), "fs.UniPC"),
        (lambda: fs.sample(model(), fs.UniPC(), [1.0, 0.5], seeds=[0]), "TimeGrid"),
        (lambda: fs.sample(model(), fs.UniPC(), fs.grids.karras(VP, 3)), "x_T is left out"),
        (lambda: fs.sample(lambda x, t: x, fs.UniPC(), fs.grids.karras(VP, 3), seeds=[0]), "knows its shape"),
        (lambda: fs.sample(model(), fs.UniPC(), fs.grids.karras(VP, 3), torch.zeros(1, 3)), r"\[batch, 2\]"),
        (lambda: fs.sample(model(), fs.UniPC(), fs.grids.karras(fs.processes.EDM(), 3), seeds=[0]), "made for EDM"),
        (lambda: fs.UniPC(order=0), "order is 0"),
        (lambda: fs.UniPC(order=9), "order is 9"),
        (lambda: fs.UniPC(variant="bh3"), "did you mean 'bh"),
        (lambda: fs.DPMSolverPP(order=4), "order is 4"),
        (lambda: fs.DPMSolverPP(variant="exactt"), "did you mean 'exact'"),
        (lambda: fs.DEIS(order=0), "order is 0"),
        (lambda: fs.DDIM(eta=1.5), "eta is 1.5"),
        (lambda: fs.SASolver(predictor_order=5), "predictor_order is 5"),
        (lambda: fs.SASolver(corrector_order=6), "corrector_order is 6"),
        (lambda: fs.SASolver(tau=-1.0), "tau is -1.0"),
        (lambda: fs.SASolver(tau="one"), "fs.tau.window"),
        (lambda: fs.SASolver(mode="PEEC"), "'PECE'"),
        (lambda: fs.SASolver(few_step=True, prediction="epsilon"), "few-step"),
        (lambda: fs.tau.window(1.0, 1.0, 0.05), "lower end first"),
        (lambda: fs.SASolver(tau=lambda p: -p.t).plan(fs.grids.karras(VP, 3)), "tau gave"),
        (lambda: fs.solvers.named("unicp"), "did you mean 'unipc'"),
        (lambda: fs.solvers.named("ddim:eta=abc"), REFUSED),
        (lambda: fs.solvers.named("sa:tau=abc"), "tau is 'abc'"),
        (lambda: fs.solvers.named("sa:tau=1@5"), "tau=1@0.05:1"),
        (lambda: fs.solvers.named("unipc:corrector=maybe"), "corrector=true or corrector=false"),
        (lambda: fs.UniPC(order=2.5), "order is 2.5"),
        (lambda: fs.solvers.named("sa:order=2"), "did you mean '(predictor|corrector)_order'"),
    ],
)
def test_mistakes_are_answered(call, words):
    with pytest.raises(InputError, match=words):
        call()


def test_a_window_keeps_every_digit_of_its_value():
    grid = fs.grids.karras(VP, 5)
    assert fs.tau.window(0.1, 0.05, 5.0).at(grid).unique().tolist() == [0.0, 0.1]


def test_a_tau_is_not_asked_at_the_noise_free_end():
    grid = fs.grids.karras(fs.processes.EDM(), 4)
    plans = [fs.SASolver(tau=tau).plan(grid) for tau in (lambda point: 0.1 / point.sigma.clamp(max=0.1), 1.0)]
    assert torch.isfinite(plans[0].history_weights).all() and plans[0].noise_scale[-1] == 0.0
    with pytest.raises(InputError, match="tau gave"):
        fs.SASolver(tau=lambda point: float("inf")).plan(grid)


def test_solvers_by_name():
    assert fs.solvers.named("unipc") == fs.UniPC()
    assert fs.solvers.named("sa:predictor_order=2,corrector_order=2,tau=0.5") == fs.SASolver(2, 2, tau=0.5)
    assert fs.solvers.named("sa:tau=1@0.05:1") == fs.SASolver(tau=fs.tau.window(1.0, 0.05, 1.0))
    assert fs.solvers.named("unipc:order=2,variant=bh1") == fs.UniPC(2, "bh1")


@pytest.mark.parametrize("word", ["false", "False", "no", "off"])
def test_words_switch_settings_off(word):
    assert fs.solvers.named(f"unipc:corrector={word}") == fs.UniPC(corrector=False)
    assert not fs.solvers.named(f"sa:few_step={word}").few_step


def test_seeds_beside_a_generator_serve_for_the_noise_alone():
    solver, grid = fs.SASolver(few_step=True), fs.grids.karras(VP, 3)
    model = fs.Denoiser(lambda x, t: 0.5 * x, VP, "x0", shape=(2,))
    seeds, draw = [3, 4], lambda: torch.Generator().manual_seed(1)
    found = fs.sample(model, solver, grid, seeds=seeds, generator=draw())
    x_T = fs.initial_state(grid, (2,), seeds)
    assert torch.equal(found, fs.sample(model, solver, grid, x_T, generator=draw()))
    with pytest.raises(InputError, match="not both"):
        fs.sample(model, solver, grid, x_T, seeds=seeds, generator=draw())
    with pytest.raises(InputError, match="one for each sample"):
        fs.sample(model, solver, grid, seeds=0)


def test_two_stages_of_one_seed_do_not_repeat_their_noise():
    solver = fs.DDIM(1.0)
    whole = fs.grids.karras(VP, 6).times
    first, second = fs.TimeGrid(VP, whole[:4]), fs.TimeGrid(VP, whole[3:])
    drawn = []
    for grid in (first, second):
        x_T = torch.zeros(1, 4000)
        drawn.append(fs.sample(lambda x, t: torch.zeros_like(x), solver, grid, x_T, seeds=[3]))
    assert abs(float(torch.corrcoef(torch.cat(drawn))[0, 1])) < 0.06


def test_seeds_count_in_all_their_64_bits():
    grid = fs.grids.karras(VP, 4)
    seeds = [5, 5 + 2**32, 5 + 2**63]
    x_T = fs.initial_state(grid, (4000,), seeds)
    assert float((torch.corrcoef(x_T) - torch.eye(3)).abs().max()) < 0.06
    got = fs.execute(fs.DDIM(1.0).plan(grid), lambda x, t: 0.0 * x, torch.zeros(3, 4000), seeds=seeds)
    assert float((torch.corrcoef(got) - torch.eye(3)).abs().max()) < 0.06


def test_noise_may_come_from_a_function_of_the_levels():
    grid, solver = fs.grids.karras(fs.processes.EDM(), 5), fs.DDIM(1.0)
    asked = []

    def centred(sigma, sigma_next):
        asked.append((float(sigma), float(sigma_next)))
        noise = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(len(asked)))
        return noise - noise.mean(0)

    x_T = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x_T = 80.0 * (x_T - x_T.mean(0))
    got = fs.sample(lambda x, t: x / (1 + t**2), solver, grid, x_T, noise_sampler=centred)
    assert asked == list(zip(grid.times.tolist()[:4], grid.times.tolist()[1:5], strict=True))
    assert float(got.mean(0).abs().max()) < 1e-12
    with pytest.raises(InputError, match="from one of them"):
        fs.sample(model(), solver, fs.grids.karras(VP, 3), torch.zeros(1, 2), noise_sampler=centred, seeds=[0])
    with pytest.raises(InputError, match=r"returned shape \(2,\)"):
        fs.sample(model(), solver, fs.grids.karras(VP, 3), torch.zeros(1, 2), noise_sampler=lambda *_: torch.zeros(2))
