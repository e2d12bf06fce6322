"""The handle: what it changes, what it gives back, and what it composes with."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from support.skip_reference import ScaledConcatenation, randomised
from support.skip_research_networks import EDMPrecond, SongUNet, UViT
from torch import nn

from fewstep import processes, skip
from fewstep.denoiser import Denoiser

X = torch.sin(torch.arange(2 * 3 * 16 * 16).float()).view(2, 3, 16, 16)
TIME = torch.tensor([0.3, 0.3])


@pytest.fixture
def network():
    return randomised(SongUNet())


def state(network):
    """Everything that a network holds, module by module, without the tensors' values."""
    return [
        (name, sorted(vars(module)), len(module._forward_pre_hooks), len(module._forward_pre_hooks_with_kwargs))
        for name, module in network.named_modules()
    ]


def referenced(factors, call):
    with ScaledConcatenation(factors):
        return call()


def test_the_network_is_bit_identical_afterwards(network):
    before, held, weights = network(X, TIME), state(network), copy.deepcopy(network.state_dict())
    for settings in ({}, {"sigma_window": (0.1, 10.0), "process": processes.EDM()}):
        handle = skip.tuned(network, 0.5, **settings)
        changed = network(X, TIME)
        assert network.state_dict().keys() == weights.keys()
        handle.remove()
        handle.remove()
        assert not torch.equal(changed, before)
        assert torch.equal(network(X, TIME), before)
        assert state(network) == held
        assert all(torch.equal(network.state_dict()[key], value) for key, value in weights.items())


def test_the_public_names_are_those_of_the_package():
    import fewstep as fs

    assert fs.skip is skip and {"tuned", "find", "load", "Profile", "Site"} <= set(fs.skip.__all__)


def test_an_exception_restores(network):
    before, held = network(X, TIME), state(network)
    with pytest.raises(RuntimeError, match="in the block"), skip.tuned(network, 0.5):
        raise RuntimeError("in the block")
    assert torch.equal(network(X, TIME), before) and state(network) == held


def test_a_removed_handle_says_so(network):
    handle = skip.tuned(network, 0.5)
    with handle:
        assert handle.active
    assert not handle.active
    with pytest.raises(ValueError, match="was removed"):
        handle.set(skip.Profile(0.6))
    with pytest.raises(ValueError, match="was removed"), handle:
        pass


def test_nesting_multiplies(network):
    with skip.tuned(network, rho=0.5), skip.tuned(network, rho=[0.9, 1.0, 0.8, 0.7]):
        result = network(X, TIME)
    expected = referenced([0.45, 0.5, 0.4, 0.35], lambda: network(X, TIME))
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)


def test_removal_in_any_order(network):
    before = network(X, TIME)
    first, second = skip.tuned(network, rho=0.5), skip.tuned(network, rho=0.8)
    first.remove()
    result = network(X, TIME)
    second.remove()
    torch.testing.assert_close(result, referenced([0.8] * 4, lambda: network(X, TIME)))
    assert torch.equal(network(X, TIME), before)


def test_one_everywhere_registers_nothing(network):
    held = state(network)
    with skip.tuned(network, rho=1.0):
        assert state(network) == held
    with skip.tuned(network, 1.0, 1.0, sigma_window=(0.1, 1.0), process=processes.EDM()):
        assert state(network) == held


def test_a_skip_left_alone_gets_no_hook(network):
    with skip.tuned(network, rho=[0.5, 1.0, 1.0, 0.9]):
        hooked = [name for name, module in network.named_modules() if module._forward_pre_hooks]
    assert hooked == ["dec.8x8_block0", "dec.16x16_block1"]


def test_set_changes_the_factors_of_an_active_handle(network):
    untouched = copy.deepcopy(network)
    with skip.tuned(network, 0.5) as handle:
        for profile in (skip.Profile(0.7), skip.Profile(0.7, 0.9), skip.Profile(rho=1.0), skip.Profile(rho=0.3)):
            handle.set(profile)
            assert handle.profile == profile
            factors = profile.factors(4)
            expected = referenced(factors, lambda: untouched(X, TIME))
            torch.testing.assert_close(network(X, TIME), expected, rtol=0, atol=1e-6)
        with pytest.raises(ValueError, match="process must be known"):
            handle.set(skip.Profile(0.5, sigma_window=(0.1, 1.0)))
        assert handle.profile == skip.Profile(rho=0.3)
        torch.testing.assert_close(network(X, TIME), expected, rtol=0, atol=1e-6)


def test_profiles_and_other_settings_exclude_each_other(network):
    profile = skip.Profile(0.6)
    with skip.tuned(network, profile=profile) as handle:
        assert handle.profile == profile
    with pytest.raises(ValueError, match="one or the other"):
        skip.tuned(network, 0.7, profile=profile)


def test_a_window_needs_the_process(network):
    with pytest.raises(ValueError, match="process="):
        skip.tuned(network, 0.5, sigma_window=(0.1, 1.0))


def test_a_window_acts_only_within(network):
    denoiser = Denoiser(network, processes.EDM(), "edm")
    times = torch.tensor([0.02, 0.05, 0.4, 1.0, 1.1, 60.0], dtype=torch.float64)
    plain = [denoiser(X, t) for t in times]
    with skip.tuned(network, 0.5):
        everywhere = [denoiser(X, t) for t in times]
    with skip.tuned(denoiser, 0.5, sigma_window=(0.05, 1.0)):
        windowed = [denoiser(X, t) for t in times]
    for i, t in enumerate(times.tolist()):
        expected = everywhere[i] if 0.05 <= t <= 1.0 else plain[i]
        torch.testing.assert_close(windowed[i], expected, rtol=0, atol=1e-6)


def test_a_window_is_kept_while_the_weights_are_elsewhere(network):
    """As under sequential offloading, whose weights are on the meta device until they are needed."""
    times = torch.tensor([0.01, 0.3, 9.0])
    with skip.tuned(network, 0.5, sigma_window=(0.05, 1.0), process=processes.EDM()) as handle:
        expected = handle._scaling.table(times)
    with skip.tuned(network.to("meta"), 0.5, sigma_window=(0.05, 1.0), process=processes.EDM()) as handle:
        assert torch.equal(handle._scaling.table(times), expected)


def test_a_table_that_moved_in_inference_mode_can_be_changed(network):
    elsewhere = torch.device("meta")
    with skip.tuned(network, 0.5, sigma_window=(0.05, 1.0), process=processes.EDM()) as handle:
        with torch.inference_mode():
            handle._scaling.table.on(elsewhere)
        handle.set(profile=skip.Profile(0.7, sigma_window=(0.05, 1.0)))
        handle.set(profile=skip.Profile(0.7, sigma_window=(0.1, 3.0), ramp=0.2))
        for here, there in zip(*(handle._scaling.table.on(d) for d in (torch.device("cpu"), elsewhere)), strict=True):
            assert here.shape == there.shape and here.device != there.device


def test_a_wrapper_is_tuned_by_the_time_that_it_is_given():
    precond = randomised(EDMPrecond(SongUNet()))
    inside, outside = (precond(X, torch.tensor(sigma)) for sigma in (0.5, 5.0))
    with skip.tuned(precond, 0.5, sigma_window=(0.05, 1.0), process=processes.EDM()):
        assert not torch.allclose(precond(X, torch.tensor(0.5)), inside)
        torch.testing.assert_close(precond(X, sigma=torch.tensor(5.0)), outside)


def test_every_sample_has_the_factor_of_its_own_time(network):
    profile = skip.Profile(0.4, sigma_weight=[(0.1, 0.0), (1.0, 1.0)])
    with skip.tuned(network, profile=profile, process=processes.EDM()):
        together = network(X, torch.tensor([0.2, 0.7]))
        apart = [network(X[i : i + 1], torch.tensor([t])) for i, t in enumerate((0.2, 0.7))]
    torch.testing.assert_close(together, torch.cat(apart), rtol=0, atol=1e-5)


def test_a_network_without_time_cannot_follow_it(network):
    class Blind(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x, TIME)

    with pytest.raises(ValueError, match="no time argument"):
        skip.tuned(Blind(network), 0.5, sigma_window=(0.1, 1.0), process=processes.EDM())


def test_nothing_is_read_back_from_the_device():
    with torch.device("meta"):
        network = SongUNet()
        x, t = torch.zeros(2, 3, 16, 16), torch.zeros(2)
    # Any .item(), copy to the host or branch on a value fails on tensors without data.
    with skip.tuned(network, 0.5):
        assert network(x, t).shape == x.shape
    with skip.tuned(network, 0.5, sigma_window=(0.05, 1.0), process=processes.EDM()):
        assert network(x, t).shape == x.shape


@pytest.mark.parametrize("settings", [{}, {"sigma_window": (0.05, 1.0), "process": processes.EDM()}])
def test_one_compilation_serves_all_factors(network, settings):
    from torch._dynamo.testing import CompileCounter

    torch.compiler.reset()
    counter = CompileCounter()
    with skip.tuned(network, 0.9, **settings) as handle:
        compiled = torch.compile(network, backend=counter, fullgraph=True)
        counts = []
        for bottom in (0.9, 0.5, 0.7):
            handle.set(skip.Profile(bottom, sigma_window=settings.get("sigma_window")))
            for time in (TIME, 10 * TIME):
                torch.testing.assert_close(compiled(X, time), network(X, time), rtol=0, atol=1e-5)
                counts.append(counter.frame_count)
        assert len(set(counts)) == 1
    torch.testing.assert_close(compiled(X, TIME), network(X, TIME))
    torch.compiler.reset()


def test_a_network_that_is_compiled_already_is_tuned_too(network):
    torch.compiler.reset()
    compiled = torch.compile(network, backend="eager")
    plain = compiled(X, TIME)
    with skip.tuned(compiled, 0.5):
        result = compiled(X, TIME)
        torch.testing.assert_close(result, network(X, TIME))
        assert not torch.allclose(result, plain)
    torch.testing.assert_close(compiled(X, TIME), plain)
    torch.compiler.reset()


def test_autocast(network):
    with torch.autocast("cpu", torch.bfloat16):
        plain = network(X, TIME)
        expected = referenced([0.5, 0.6, 0.7, 0.8], lambda: network(X, TIME))
        with skip.tuned(network, rho=[0.5, 0.6, 0.7, 0.8]):
            result = network(X, TIME)
    assert torch.equal(result, expected) and result.dtype == plain.dtype


class Decoder(nn.Module):
    """Returns what reaches it, so that a test sees what the hook made of it."""

    def forward(self, hidden, skips=None):
        return hidden, skips


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("rho", [torch.tensor(0.7, dtype=torch.float64), torch.tensor([0.7, 0.7])])
def test_dtype_and_the_callers_tensors_are_kept(dtype, rho):
    x = X.to(dtype)
    kept = x.clone()
    for site, value in [(skip.Site(""), x), (skip.Site("", channels=2), x), (skip.Site("", entry=-1), [None, x])]:
        result = site.scaled(value, rho)
        result = result[-1] if site.entry else result
        expected = torch.cat([x[:, :1] * (1.0 if site.channels else 0.7), x[:, 1:] * 0.7], dim=1)
        torch.testing.assert_close(result, expected)
        assert result.dtype == dtype and torch.equal(x, kept)


def test_channels_last(network):
    network.to(memory_format=torch.channels_last)
    x = X.to(memory_format=torch.channels_last)
    formats = []
    name = skip.find(network)[0].site.module
    with skip.tuned(network, rho=[0.5, 0.6, 0.7, 0.8]):
        see = network.get_submodule(name).register_forward_pre_hook(
            lambda _, args: formats.append(args[0].is_contiguous(memory_format=torch.channels_last))
        )
        result = network(x, TIME)
        see.remove()
    torch.testing.assert_close(result, referenced([0.5, 0.6, 0.7, 0.8], lambda: network(x, TIME)), rtol=0, atol=1e-6)
    assert formats == [True]


def test_gradients_flow(network):
    def gradient(x):
        network(x, TIME).square().sum().backward()
        return x.grad

    with skip.tuned(network, rho=0.6):
        result = gradient(X.clone().requires_grad_())
    expected = referenced([0.6] * 4, lambda: gradient(X.clone().requires_grad_()))
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def test_a_copy_of_a_tuned_network_has_factors_of_its_own(network):
    with skip.tuned(network, 0.5) as handle:
        twin = copy.deepcopy(network)
        tuned = network(X, TIME)
        handle.set(skip.Profile(0.9))
        assert torch.equal(twin(X, TIME), tuned)
    assert torch.equal(twin(X, TIME), tuned)


def replica(network):
    """A replica as torch.nn.parallel.replicate makes it, on the same device."""
    copies = {module: module._replicate_for_data_parallel() for module in network.modules()}
    for module, twin in copies.items():
        for name, child in module._modules.items():
            twin._modules[name] = None if child is None else copies[child]
        for name, parameter in module._parameters.items():
            setattr(twin, name, None if parameter is None else parameter.detach().clone())
        for name, buffer in module._buffers.items():
            twin._buffers[name] = buffer
    return copies[network]


@pytest.mark.parametrize("settings", [{}, {"sigma_window": (0.2, 10.0), "process": processes.EDM()}])
def test_replicas_run_side_by_side(network, settings):
    with skip.tuned(network, 0.5, **settings):
        times = [torch.tensor([0.1, 0.1]), torch.tensor([0.4, 0.4])]
        expected = [network(X, time) for time in times]
        # Both wait for each other between encoder and decoder, where they would mix their factors up.
        barrier = threading.Barrier(2, timeout=30)
        meet = network.get_submodule("dec.8x8_in0").register_forward_pre_hook(lambda *_: (barrier.wait(), None)[1])
        replicas, results = [replica(network), replica(network)], [None, None]
        meet.remove()

        def run(i):
            results[i] = replicas[i](X, times[i])

        threads = [threading.Thread(target=run, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for result, value in zip(results, expected, strict=True):
        torch.testing.assert_close(result, value, rtol=0, atol=1e-6)


def test_data_parallel_is_looked_through(network):
    with skip.tuned(nn.DataParallel(network), 0.5) as handle:
        assert handle.skips[0].name == "dec.8x8_block0"


@pytest.mark.parametrize(
    "call",
    [
        lambda net, x, skips: net(x, skips),
        lambda net, x, skips: net(x, skips=skips),
        lambda net, x, skips: net(hidden=x, skips=skips),
    ],
)
def test_arguments_are_found_by_position_and_by_name(call):
    network = nn.Sequential()
    network.up = Decoder()
    sites = [skip.Site("up", "skips", entry=-1), skip.Site("up", 1, entry=-2), skip.Site("up", channels=1)]
    with skip.tuned(network, rho=[0.5, 0.6, 0.7], sites=sites):
        hidden, skips = call(network.up, X, (X, None, X))
    torch.testing.assert_close(hidden, torch.cat([X[:, :2], 0.7 * X[:, 2:]], dim=1))
    assert skips[1] is None and skips[0] is X
    torch.testing.assert_close(skips[2], 0.5 * X)


def test_a_described_network_is_tuned():
    found = skip.find(UViT())
    network = randomised(UViT())
    with skip.tuned(network, rho=[0.5, 0.8]):
        expected = network(X, TIME)
    sites = [skip.Site(s.name, "skip") for s in found]
    with skip.tuned(network, rho=[0.5, 0.8], sites=sites) as handle:
        assert [s.depth for s in handle.skips] == [1, 0]
        assert torch.equal(network(X, TIME), expected)


def test_a_wrong_description_is_named(network):
    with pytest.raises(ValueError, match="no module 'dec.9x9'"):
        skip.find(network, [skip.Site("dec.9x9")])
    with pytest.raises(ValueError, match="no parameter 'skip': it takes x, emb"):
        skip.tuned(network, sites=[skip.Site("dec.8x8_block0", "skip")])
    assert all(not module._forward_pre_hooks for module in network.modules())
