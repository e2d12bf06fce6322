"""Every supported network: what is found, and that hooks equal a skip multiplied before its concatenation."""

from __future__ import annotations

import pytest
import torch
from support import skip_diffusers_networks as diffusers
from support import skip_research_networks as research
from support.skip_reference import ScaledConcatenation, randomised

from fewstep import skip

TOKENS, SIGNAL = {"ndim": 3, "dim": 2}, {"ndim": 3, "dim": 1, "before": 1}


def image(network):
    x = torch.sin(torch.arange(2 * 3 * 16 * 16).float()).view(2, 3, 16, 16)
    return network, lambda: network(x, torch.tensor([2.0, 2.0]))


# name: how to make it, number of skips, what its concatenations look like
RESEARCH = {
    "edm-ddpm++": (lambda: image(research.SongUNet()), 4, {}),
    "edm-ncsn++": (lambda: image(research.SongUNet(encoder="residual", multipliers=(2, 2))), 4, {}),
    "edm-aux": (lambda: image(research.SongUNet(encoder="skip", decoder="skip")), 4, {}),
    "edm-adm": (lambda: image(research.DhariwalUNet()), 4, {}),
    "edm-preconditioned": (lambda: image(research.EDMPrecond(research.SongUNet())), 4, {}),
    "edm2": (lambda: image(research.UNet()), 4, {}),
    "guided-diffusion": (lambda: image(research.UNetModel()), 6, {}),
    "guided-diffusion-updown": (lambda: image(research.UNetModel(resblock_updown=True)), 6, {}),
    "ddpm": (lambda: image(research.Model()), 4, {}),
    "u-vit": (lambda: image(research.UViT()), 2, TOKENS),
}
DIFFUSERS = {
    "unet2d": (diffusers.unet2d, 4, {}),
    "unet2d-resnet": (
        lambda: diffusers.unet2d(("ResnetDownsampleBlock2D", "DownBlock2D"), ("UpBlock2D", "ResnetUpsampleBlock2D")),
        4,
        {},
    ),
    "unet2d-skip": (lambda: diffusers.unet2d_skip("Skip"), 4, {}),
    "unet2d-attn-skip": (lambda: diffusers.unet2d_skip("AttnSkip"), 4, {}),
    "stable-diffusion-1.5": (diffusers.stable_diffusion_15, 12, {}),
    "sdxl": (diffusers.sdxl, 9, {}),
    "simple-cross-attention": (diffusers.simple, 4, {}),
    "k-blocks": (diffusers.k_blocks, 2, {}),
    "unet1d": (diffusers.unet1d, 3, SIGNAL),
    "unet3d": (diffusers.unet3d, 4, {}),
    "motion": (diffusers.motion, 4, {}),
    "stable-video": (diffusers.stable_video, 4, {}),
    "i2vgen-xl": (diffusers.i2vgen, 4, {}),
    "kandinsky3": (diffusers.kandinsky3, 3, {}),
    "stable-cascade": (diffusers.stable_cascade, 1, {}),
    "hunyuan-dit": (diffusers.hunyuan, 2, TOKENS),
    "unidiffuser": (diffusers.unidiffuser, 2, TOKENS),
}


@pytest.fixture(params=[*RESEARCH, *DIFFUSERS])
def case(request):
    """A network with random weights, its call, its number of skips, and what its concatenations look like."""
    if request.param in DIFFUSERS:
        pytest.importorskip("diffusers")
    make, count, joins = {**RESEARCH, **DIFFUSERS}[request.param]
    network, call = make()
    randomised(network)
    return network, call, count, joins


def test_hooks_equal_a_skip_multiplied_before_its_concatenation(case):
    network, call, count, joins = case
    plain = call()
    found = skip.find(network)
    factors = torch.linspace(0.5, 0.9, count).tolist()
    with ScaledConcatenation(factors, **joins) as reference:
        expected = call()
    with skip.tuned(network, rho=factors):
        result = call()
    assert len(reference.seen) == len(found) == count
    assert [s.depth for s in found] == list(reversed(range(count)))
    scale = plain.abs().max()
    torch.testing.assert_close(result / scale, expected / scale, rtol=0, atol=1e-6)
    assert ((result - plain).abs().max() / scale) > 1e-3
    assert torch.equal(call(), plain)

    channels = -1 if joins.get("dim") == 2 else 1
    assert [s.channels for s in found] == [shape[channels] for shape in reference.seen]
    for s, shape in zip(found, reference.seen, strict=True):
        assert s.resolution is None or s.resolution == shape[2:]
        network.get_submodule(s.name)


def test_counts_of_the_papers_networks():
    with torch.device("meta"):
        cifar = research.SongUNet(size=32, channels=128, multipliers=(2, 2, 2), blocks=4)
        imagenet = research.DhariwalUNet(size=64, channels=192, multipliers=(1, 2, 3, 4), blocks=3)
    found = skip.find(research.EDMPrecond(cifar))
    assert len(found) == 15
    assert (found[0].name, found[0].depth, found[0].channels) == ("model.dec.8x8_block0", 14, 256)
    assert (found[-1].name, found[-1].channels, found[-1].resolution) == ("model.dec.32x32_block4", 128, (32, 32))
    assert len(skip.find(imagenet)) == 16


def test_subclasses_and_pickled_copies_are_known_by_name():
    Pickled = type("SongUNet", (research.SongUNet,), {"__module__": "_imported_module_1234"})
    Larger = type("SuperResModel", (research.UNetModel,), {})
    assert len(skip.find(Pickled())) == 4
    assert len(skip.find(Larger())) == 6


def test_resolutions_are_known_where_the_network_says_its_size():
    assert [s.resolution[0] for s in skip.find(research.UNetModel())] == [4, 4, 8, 8, 16, 16]
    assert [s.resolution[0] for s in skip.find(research.Model())] == [8, 8, 16, 16]


@pytest.mark.parametrize("make", [lambda: torch.nn.Linear(2, 2), lambda: torch.nn.Sequential()])
def test_a_network_without_skips_is_told_so(make):
    with pytest.raises(ValueError, match="has no skip connections"):
        skip.find(make())


def test_transformers_without_skips_are_told_so():
    library = pytest.importorskip("diffusers")
    dit = library.DiTTransformer2DModel(
        num_attention_heads=1, attention_head_dim=8, in_channels=4, num_layers=1, sample_size=4, norm_num_groups=1
    )
    with pytest.raises(ValueError, match="DiTTransformer2DModel has no skip connections"):
        skip.find(dit)


def test_what_is_no_network_is_told_what_to_give():
    with pytest.raises(ValueError, match="pipe.unet"):
        skip.find("unet")


def test_two_networks_in_one_are_told_apart():
    pair = torch.nn.ModuleDict({"main": research.SongUNet(), "guide": research.SongUNet()})
    with pytest.raises(ValueError, match="main, guide"):
        skip.find(pair)


def test_the_residual_branch_alone_has_its_skip_scaled():
    """Every block equals its shortcut of [hidden, skip] plus its branch of [hidden, ρ·skip], layer by layer."""
    pytest.importorskip("diffusers")
    network, call = diffusers.unet2d(("DownBlock2D", "DownBlock2D"), ("UpBlock2D", "UpBlock2D"))
    randomised(network)
    plain, found = call(), skip.find(network, branch="residual")
    seen = {}
    for one in found:
        block = network.get_submodule(one.name)
        block.register_forward_hook(lambda _, args, out, name=one.name: seen.update({name: (*args[:2], out)}))
    with skip.tuned(network, rho=[0.5, 0.6, 0.7, 0.8], sites=[one.site for one in found]):
        result = call()
    for one, rho in zip(found, (0.5, 0.6, 0.7, 0.8), strict=True):
        x, temb, out = seen[one.name]
        block = network.get_submodule(one.name)
        scaled = torch.cat([x[:, : -one.channels], rho * x[:, -one.channels :]], dim=1)
        hidden = block.conv1(block.nonlinearity(block.norm1(scaled)))
        hidden = hidden + block.time_emb_proj(block.nonlinearity(temb))[:, :, None, None]
        expected = block.conv_shortcut(x) + block.conv2(block.nonlinearity(block.norm2(hidden)))
        torch.testing.assert_close(out, expected / block.output_scale_factor, rtol=0, atol=1e-5)
    assert (result - plain).abs().max() > 1e-3 and torch.equal(call(), plain)


def test_a_site_may_be_on_the_residual_branch():
    pytest.importorskip("diffusers")
    network, _ = diffusers.unet2d()
    skips = skip.find(network)
    sites = [skip.Site(one.name, channels=one.channels, branch="residual") for one in skips]
    assert skip.find(network, sites)[0].site == skip.find(network, branch="residual")[0].site


def test_branches_that_are_not_known_are_told_so():
    with pytest.raises(ValueError, match="residual branch is not known"):
        skip.find(research.UNet(), branch="residual")
    with pytest.raises(ValueError, match="did you mean 'residual'"):
        skip.Site("dec", channels=3, branch="residal")
    with pytest.raises(ValueError, match="how many channels"):
        skip.Site("dec", branch="residual")
