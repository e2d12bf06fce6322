"""Guidance rules, intervals and scales against their formulas and diffusers' guiders."""

import math

import pytest
import torch
from support.rounding import rounding

import fewstep as fs
from fewstep.errors import InputError
from fewstep.guidance import AutoGuidance, ClassifierFree, Linear, Projected, ZeroStar, evaluations, guidance_named
from fewstep.models.model import Model

guiders = pytest.importorskip("diffusers.guiders")

VP = fs.processes.VPLinear()
PROCESSES = [
    (fs.processes.VPLinear(), "epsilon"),
    (fs.processes.VPLinear(), "v"),
    (fs.processes.RectifiedFlow(), "flow"),
    (fs.processes.EDM(), "x0"),
]
T = torch.tensor(0.5, dtype=torch.float64)
X = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.tensor([0, 1, 2])
NULL = 3


class Counted:
    """A network whose output depends on the class in all directions, and the sizes of its batches."""

    def __init__(self, seed=1):
        self.rows: list[int] = []
        self.patterns = torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def __call__(self, x, time, labels):
        self.rows.append(len(x))
        return 0.3 * x + self.patterns.to(x.dtype)[labels]


def made(process=VP, prediction="epsilon", seed=1):
    network = Counted(seed)
    inner = fs.Denoiser(network, process, prediction, num_classes=3, default_cond=NULL, shape=(2, 4, 4))
    return inner, network


def outputs():
    """Return what the network puts out under the condition and without it."""
    network = Counted()
    return network(X, T, LABELS), network(X, T, torch.full_like(LABELS, NULL))


def data_of(process, prediction, output):
    """Return D of an output, by the library's own edge."""
    return fs.Denoiser(lambda x, t: output, process, prediction)(X, T)


@pytest.mark.parametrize(("process", "prediction"), PROCESSES, ids=lambda value: getattr(value, "name", value))
@pytest.mark.parametrize("rescale", [0.0, 0.7, 1.0])
def test_rescaled_guidance_is_diffusers(process, prediction, rescale):
    inner, _ = made(process, prediction)
    found = ClassifierFree(inner, 3.0, NULL, rescale=rescale)(X, T, LABELS)
    theirs = guiders.ClassifierFreeGuidance(3.0, guidance_rescale=rescale).forward(*outputs()).pred
    torch.testing.assert_close(found, data_of(process, prediction, theirs), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("process", "prediction"), PROCESSES, ids=lambda value: getattr(value, "name", value))
def test_zero_star_is_diffusers(process, prediction):
    inner, _ = made(process, prediction)
    found = ClassifierFree(inner, 3.0, NULL, rule=ZeroStar())(X, T, LABELS)
    guider = guiders.ClassifierFreeZeroStarGuidance(3.0, zero_init_steps=0)
    guider._step = 0
    theirs = guider.forward(*outputs()).pred
    # Their factor is computed in float32, and multiplies what is of order 10.
    torch.testing.assert_close(found, data_of(process, prediction, theirs), rtol=1e-5, atol=1e-5)


def test_zero_star_fits_the_other_prediction():
    """What is left of v_good after s·v_bad is taken off is orthogonal to v_bad."""
    inner, _ = made(fs.processes.RectifiedFlow(), "flow")
    good, bad = outputs()
    guided = ClassifierFree(inner, 0.0, NULL, rule=ZeroStar())(X, T, LABELS)  # D of s·v_bad
    fitted = (X - guided) / T
    assert ((good - fitted) * bad).sum((1, 2, 3)).abs().max() < 1e-12 * (good * bad).abs().sum()
    zero = ClassifierFree(inner, 3.0, NULL, rule=ZeroStar(zero_above=0.9))
    assert torch.equal(zero(X, T, LABELS), X)  # v = 0 where σ/α = 1.
    assert zero.evaluations(0.5) == 0 and zero.evaluations(0.4) == 2


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("threshold", [0.0, 2.0, 100.0])
def test_projected_guidance_is_diffusers(eta, threshold):
    inner, _ = made()
    found = ClassifierFree(inner, 4.0, NULL, rule=Projected(eta=eta, threshold=threshold))(X, T, LABELS)
    good, bad = inner(X, T, LABELS), inner(X, T)
    guider = guiders.AdaptiveProjectedGuidance(
        3.0, adaptive_projected_guidance_rescale=threshold, eta=eta, use_original_formulation=True
    )
    torch.testing.assert_close(found, guider.forward(good, bad).pred, rtol=1e-12, atol=1e-12)


def test_the_momentum_is_diffusers_and_begins_with_each_run():
    inner, _ = made()
    guided = ClassifierFree(inner, 4.0, NULL, rule=Projected(eta=0.0, threshold=5.0, momentum=-0.5))
    assert guided.remembers and fs.guidance.StaticThreshold(guided).remembers and not inner.remembers
    guider = guiders.AdaptiveProjectedGuidance(
        3.0,
        adaptive_projected_guidance_momentum=-0.5,
        adaptive_projected_guidance_rescale=5.0,
        eta=0.0,
        use_original_formulation=True,
    )
    from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer

    for _ in range(2):
        guider.momentum_buffer = MomentumBuffer(-0.5)
        for t in (0.9, 0.5, 0.2):
            time = torch.tensor(t, dtype=torch.float64)
            theirs = guider.forward(inner(X, time, LABELS), inner(X, time)).pred
            torch.testing.assert_close(guided(X, time, LABELS), theirs, rtol=1e-12, atol=1e-12)


def test_projection_that_keeps_all_is_linear_and_one_that_keeps_none_is_orthogonal():
    inner, _ = made()
    linear = ClassifierFree(inner, 4.0, NULL)(X, T, LABELS)
    same = ClassifierFree(inner, 4.0, NULL, rule=Projected(eta=1.0))(X, T, LABELS)
    torch.testing.assert_close(same, linear, rtol=1e-12, atol=1e-12)
    good = inner(X, T, LABELS)
    moved = ClassifierFree(inner, 4.0, NULL, rule=Projected())(X, T, LABELS) - good
    assert (moved * good).sum((1, 2, 3)).abs().max() < 1e-12 * (moved * good).abs().sum()


def test_an_interval_is_open_below_and_closed_above():
    process = fs.processes.EDM()
    inner, network = made(process, "x0")
    guided = ClassifierFree(inner, 3.0, NULL, interval=(0.5, 2.0))
    everywhere = ClassifierFree(inner, 3.0, NULL)
    for sigma, inside in ((80.0, False), (2.0, True), (1.0, True), (0.5, False), (0.002, False)):
        t = torch.tensor(sigma, dtype=torch.float64)
        network.rows.clear()
        found = guided(X, t, LABELS)
        assert network.rows == [6 if inside else 3]
        assert torch.equal(found, everywhere(X, t, LABELS) if inside else inner(X, t, LABELS))
        assert guided.evaluations(sigma) == 1 + inside


@pytest.mark.parametrize("process", [fs.processes.VPLinear(), fs.processes.RectifiedFlow(), fs.processes.EDM()])
def test_evaluations_are_those_of_the_network(process):
    inner, network = made(process, "flow" if isinstance(process, fs.processes.RectifiedFlow) else "epsilon")
    plan = fs.UniPC(2).plan(fs.grids.uniform_logsnr(process, 8))
    for interval in (None, (0.2, 3.0), (0.0, 0.5), (1.0, math.inf)):
        guided = ClassifierFree(inner, 2.0, NULL, interval=interval)
        network.rows.clear()
        x_T = fs.initial_state(plan.grid, inner.shape, range(2), dtype=torch.float64)
        fs.execute(plan, guided, x_T, cond=torch.tensor([0, 1]))
        assert evaluations(plan, guided) == sum(network.rows) / 2
        assert evaluations(plan, guided, conditional=False) == plan.nfe == 8
    assert evaluations(plan, inner) == 8 == evaluations(plan, lambda x, t: x)


def test_autoguidance_is_its_formula_and_composes():
    inner, network = made()
    guide, worse = made(seed=2)
    guided = AutoGuidance(inner, 2.5, guide)
    found = guided(X, T, LABELS)
    bad = guide(X, T, LABELS)
    torch.testing.assert_close(found, bad + 2.5 * (inner(X, T, LABELS) - bad), rtol=1e-12, atol=1e-12)
    blind = AutoGuidance(inner, 2.5, guide, conditional=False)(X, T, LABELS)
    torch.testing.assert_close(blind, guide(X, T) + 2.5 * (inner(X, T, LABELS) - guide(X, T)), rtol=1e-12, atol=1e-12)
    both = AutoGuidance(ClassifierFree(inner, 3.0, NULL), 2.0, guide, interval=(0.1, 9.0))
    free = ClassifierFree(inner, 3.0, NULL)(X, T, LABELS)
    torch.testing.assert_close(both(X, T, LABELS), bad + 2.0 * (free - bad), rtol=1e-12, atol=1e-12)
    network.rows.clear(), worse.rows.clear()
    both(X, T, LABELS)
    assert both.evaluations(0.5) == (sum(network.rows) + sum(worse.rows)) / 3 == 3
    assert guided.evaluations(0.5) == 2 == guided.evaluations(0.5, conditional=False)
    other, _ = made(fs.processes.EDM())
    with pytest.raises(InputError, match="the guide is of"):
        AutoGuidance(inner, 2.0, other)


def test_a_scale_for_each_sample_and_one_of_the_noise():
    inner, _ = made()
    scales = torch.tensor([1.0, 2.0, 4.0])
    found = ClassifierFree(inner, scales, NULL)(X, T, LABELS)
    for i, scale in enumerate(scales.tolist()):
        one = ClassifierFree(inner, scale, NULL)(X[i : i + 1], T, LABELS[i : i + 1])
        torch.testing.assert_close(found[i : i + 1], one, rtol=0, atol=rounding(4, 100.0, torch.float64))
    ratio = float(torch.exp(-inner.process.half_logsnr(T)))
    found = ClassifierFree(inner, lambda level: 1.0 + level, NULL)(X, T, LABELS)
    torch.testing.assert_close(found, ClassifierFree(inner, 1.0 + ratio, NULL)(X, T, LABELS), rtol=1e-12, atol=1e-12)
    with pytest.raises(InputError, match="2 numbers for 3 samples"):
        ClassifierFree(inner, scales[:2], NULL)(X, T, LABELS)


@pytest.mark.parametrize("rule", [Linear(), Projected(), ZeroStar()])
def test_two_equal_predictions_are_kept_by_every_rule(rule):
    inner, _ = made()
    guided = AutoGuidance(inner, 5.0, inner, rule=rule, rescale=0.5)
    torch.testing.assert_close(guided(X, T, LABELS), inner(X, T, LABELS), rtol=1e-12, atol=1e-12)
    alone = AutoGuidance(inner, 1.0, inner, rule=rule)
    assert torch.equal(alone(X, T, LABELS), inner(X, T, LABELS)) and alone.evaluations(0.5) == 1


@pytest.mark.parametrize(
    "words",
    [
        "3",
        "3:interval=0.2:2",
        "2.5:interval=0.2:inf,rescale=0.7",
        "7:rule=apg,eta=0.5,threshold=15,momentum=-0.5",
        "4:rule=zero-star,zero_above=20",
        "1.5:rule=zero-star",
    ],
)
def test_words_are_read_and_written(words):
    inner, _ = made()
    asked = guidance_named(words)
    guided = ClassifierFree(inner, asked.scale, NULL, **asked.settings)
    again = guidance_named(guided.spelling)
    assert again == asked
    assert str(guided).startswith("ClassifierFree(guidance_scale=")
    model = Model(inner, null_cond=NULL).guided(words)
    assert model.denoiser.spelling == guided.spelling == (words if ":" in words else 3.0)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ("much", "the guidance is 'much'"),
        ("3:interval=2", "interval"),
        ("3:interval=2:0.2", "the guidance interval is"),
        ("3:interval=a:b", "interval=a:b is not a range"),
        ("3:rescale=2", "rescale is 2"),
        ("3:rule=best", "unknown guidance rule 'best'"),
        ("3:eta=0.5", "setting of guidance without a rule= 'eta'.*interval, rescale, rule"),
        ("3:intervall=0.2:2", "did you mean 'interval'"),
        ("3:rule=apg,threshold=-1", "threshold is -1"),
        ("3:rule=zero-star,zero_above=0", "zero_above is 0"),
        (None, "guidance_scale is None"),
    ],
)
def test_mistakes_are_answered(words, match):
    with pytest.raises(InputError, match=match):
        guidance_named(words)


def test_a_recipe_says_what_guidance_it_is_of():
    from fewstep.fingerprint import described, guidance_scale

    inner, _ = made()
    assert described(ClassifierFree(inner, 3.0, NULL))["guidance_scale"] == 3.0
    said = described(ClassifierFree(inner, 3.0, NULL, interval=(0.2, 2.0)))
    assert said["guidance"] == "3:interval=0.2:2" and "guidance_scale" not in said
    both = AutoGuidance(ClassifierFree(inner, 3.0, NULL), 2.0, inner)
    assert guidance_scale(both) == "2.0 of 3.0" and guidance_scale(inner) == 1.0


def test_a_constant_output_has_no_deviation_to_bring_back():
    """Its deviation is 0, and the ratio of deviations would be NaN."""
    process = fs.processes.VPLinear()

    def network(x, t, c):
        return torch.zeros_like(x) + c.view(-1, 1, 1, 1)

    model = fs.Denoiser(network, process, "x0", shape=(1, 4, 4), num_classes=3)
    guided = ClassifierFree(model, 3.0, null_cond=0, rescale=0.7)
    made = guided(torch.randn(2, 1, 4, 4), torch.tensor(0.5), torch.tensor([1, 2]))
    assert bool(torch.isfinite(made).all())
