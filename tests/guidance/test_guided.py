"""Guidance and thresholds against their formulas."""

import pytest
import torch
from support.rounding import rounding

import fewstep as fs
from fewstep.errors import InputError
from fewstep.guidance import ClassifierFree, DynamicThreshold, StaticThreshold
from fewstep.guidance.thresholds import dynamically_thresholded

NULL = 3
T = torch.tensor(0.5)


def conditional(calls: list[int] | None = None) -> fs.Denoiser:
    def network(x, t, labels):
        if calls is not None:
            calls.append(len(x))
        return x + labels.view(-1, 1)

    return fs.Denoiser(network, fs.processes.VPLinear(), "x0", num_classes=3, default_cond=NULL, shape=(2,))


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_guidance_is_its_formula(scale, batched):
    inner = conditional()
    guided = ClassifierFree(inner, scale, NULL, batched=batched)
    x, labels = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0])
    null, cond = inner(x, T), inner(x, T, labels)
    assert torch.allclose(guided(x, T, labels), null + scale * (cond - null), atol=1e-6)
    assert torch.equal(guided(x, T), null)


def test_one_batched_call_or_two():
    labels = torch.tensor([0, 1])
    for batched, wanted in ((True, [4]), (False, [2, 2])):
        calls: list[int] = []
        ClassifierFree(conditional(calls), 2.0, NULL, batched=batched)(torch.zeros(2, 2), T, labels)
        assert calls == wanted
    calls = []
    ClassifierFree(conditional(calls), 1.0, NULL)(torch.zeros(2, 2), T, labels)
    assert calls == [2]


def test_guidance_of_named_conditions():
    def network(x, t, *, text, size):
        return x + text.mean((1, 2))[:, None] + size

    inner = fs.Denoiser(network, fs.processes.VPLinear(), "x0")
    guided = ClassifierFree(inner, 3.0, {"text": torch.zeros(1, 5, 7)})
    x, text = torch.zeros(2, 1), torch.ones(2, 5, 7)
    assert guided(x, T, {"text": text, "size": 1.0}).flatten().tolist() == [4.0, 4.0]


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize(
    ("cond", "null"),
    [
        ({"y": 1.0}, {"y": 0.0}),
        ({"y": torch.tensor(1.0)}, {"y": torch.tensor(0.0)}),
        ({"added": {"y": torch.ones(1, 1)}}, {"added": {"y": torch.zeros(1, 1)}}),
        ({"added": {"y": torch.ones(2, 1), "n": 1}}, {"added": {"y": torch.zeros(1, 1), "n": 1}}),
    ],
)
def test_guidance_of_numbers_and_nested_keywords(cond, null, batched):
    def network(x, t, *, y=None, added=None):
        return x + (y if added is None else added["y"])

    inner = fs.Denoiser(network, fs.processes.VPLinear(), "x0")
    guided = ClassifierFree(inner, 3.0, null, batched=batched)
    batch = 2 if "n" in cond.get("added", {}) else 1
    assert guided(torch.zeros(batch, 1), T, cond).flatten().tolist() == [3.0] * batch


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("named", [True, False])
def test_one_condition_for_all_samples_is_repeated(batched, named):
    def network(x, t, text):
        return x + text.mean((1, 2))[:, None]

    guided = ClassifierFree(fs.Denoiser(network, fs.processes.VPLinear(), "x0"), 3.0, 0, batched=batched)
    text = torch.arange(35.0).view(1, 5, 7)
    x = torch.randn(4, 1, generator=torch.Generator().manual_seed(0))
    shared = guided(x, T, {"text": text} if named else text)
    assert torch.allclose(shared, guided(x, T, text.expand(4, 5, 7)))


def test_a_condition_of_another_length_takes_two_calls():
    calls: list[int] = []

    def network(x, t, *, table):
        calls.append(len(x))
        return x + table.sum()

    guided = ClassifierFree(fs.Denoiser(network, fs.processes.VPLinear(), "x0"), 3.0, 0)
    assert guided(torch.zeros(2, 1), T, {"table": torch.ones(3)}).flatten().tolist() == [9.0, 9.0]
    assert calls == [2, 2]


def test_static_threshold_clamps():
    inner = fs.Denoiser(lambda x, t: 3 * x, fs.processes.VPLinear(), "x0")
    out = StaticThreshold(inner, 1.5)(torch.tensor([[-1.0, 0.2, 1.0]]), T)
    assert out.tolist() == [[-1.5, pytest.approx(0.6), 1.5]]


def test_dynamic_threshold_is_its_formula_and_at_limit_one_the_static_one():
    inner = fs.Denoiser(lambda x, t: 3 * x, fs.processes.VPLinear(), "x0")
    x = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    out = DynamicThreshold(inner, 0.9)(x, T)
    for sample, predicted in zip(out, 3 * x, strict=True):
        reach = max(1.0, float(torch.quantile(predicted.abs(), 0.9)))
        assert torch.allclose(sample, predicted.clamp(-reach, reach) / reach)
    assert torch.equal(DynamicThreshold(inner, 0.9, limit=1.0)(x, T), StaticThreshold(inner, 1.0)(x, T))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dynamic_threshold_of_half_precision(dtype):
    inner = fs.Denoiser(lambda x, t: 3 * x, fs.processes.VPLinear(), "x0")
    x = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)).to(dtype)
    out = DynamicThreshold(inner, 0.9)(x, T)
    assert out.dtype == dtype
    # Within ±1: a rounding each of the prediction, the quantile and their ratio, and of what the quantile interpolates.
    off = rounding(4, 1.0, dtype)
    torch.testing.assert_close(out.float(), DynamicThreshold(inner, 0.9)(x.float(), T), rtol=0, atol=off)


def test_the_quantile_may_be_a_tensor_of_any_type():
    x = 3 * torch.randn(3, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = dynamically_thresholded(x, 0.9, float("inf"))
    for dtype in (torch.float32, torch.float64):
        found = dynamically_thresholded(x, torch.tensor(0.9, dtype=dtype), float("inf"))
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_wrappers_keep_what_the_model_knows():
    guided = StaticThreshold(ClassifierFree(conditional(), 2.0, NULL))
    grid = fs.grids.uniform_logsnr(guided.process, 3)
    assert fs.sample(guided, fs.UniPC(), grid, seeds=range(4), cond=1).shape == (4, 2)
    with pytest.raises(InputError, match="out of range"):
        fs.sample(guided, fs.UniPC(), grid, seeds=range(4), cond=3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ClassifierFree(conditional(), float("nan"), NULL),
        lambda: ClassifierFree(lambda x, t: x, 2.0, NULL),
        lambda: StaticThreshold(conditional(), 0.0),
        lambda: DynamicThreshold(conditional(), 1.5),
        lambda: DynamicThreshold(conditional(), 0.9, limit=0.5),
    ],
)
def test_mistakes_are_answered(make):
    with pytest.raises(InputError):
        make()


def test_a_denoiser_tells_what_it_is():
    network = torch.nn.Linear(3, 5)
    denoiser = fs.Denoiser(network, fs.processes.EDM(), "edm", shape=(3,), num_classes=10)
    process = "EDM(sigma_min=0.002, sigma_max=80.0)"
    own = f"Denoiser(Linear, {process}, 'edm', shape=(3,), num_classes=10, 20 parameters, float32, cpu)"
    assert str(denoiser) == repr(fs.Denoiser(torch.nn.DataParallel(network), **_settings(denoiser))) == own
    guided = fs.guidance.StaticThreshold(fs.guidance.ClassifierFree(denoiser, 2.5, 10), 1.5)
    assert str(guided) == f"StaticThreshold(limit=1.5) of ClassifierFree(guidance_scale=2.5) of {own}"

    def network_function(x, t):
        return x

    assert str(fs.Denoiser(network_function, fs.processes.EDM())) == f"Denoiser(network_function, {process}, 'epsilon')"


def _settings(denoiser):
    return {name: getattr(denoiser, name) for name in ("process", "prediction", "shape", "num_classes")}
