"""guided-diffusion's UNet against diffusers', which is written independently, with the same weights."""

import pytest
import torch
from diffusers import UNet2DModel
from support import checkpoints

import fewstep as fs
from fewstep.errors import InputError
from fewstep.models.guided_diffusion import UNetModel, load_adm

SETTINGS = checkpoints.ADM
PROCESS = fs.processes.VPDiscrete.from_betas(schedule="cosine")


def renamed(weights: dict[str, torch.Tensor], blocks: int, levels: int) -> dict[str, torch.Tensor]:
    """Return guided-diffusion's weights by diffusers' names."""
    made: dict[str, torch.Tensor] = {}
    head = {
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "label_emb": "class_embedding",
        "input_blocks.0.0": "conv_in",
        "out.0": "conv_norm_out",
        "out.2": "conv_out",
        "middle_block.0": "mid_block.resnets.0",
        "middle_block.1": "mid_block.attentions.0",
        "middle_block.2": "mid_block.resnets.1",
    }
    index = 1
    for level in range(levels):
        for i in range(blocks):
            head[f"input_blocks.{index}.0"] = f"down_blocks.{level}.resnets.{i}"
            head[f"input_blocks.{index}.1"] = f"down_blocks.{level}.attentions.{i}"
            index += 1
        if level < levels - 1:
            head[f"input_blocks.{index}.0"] = f"down_blocks.{level}.downsamplers.0"
            index += 1
    index = 0
    for up in range(levels):
        for i in range(blocks + 1):
            head[f"output_blocks.{index}.0"] = f"up_blocks.{up}.resnets.{i}"
            attends = f"output_blocks.{index}.1.qkv.weight" in weights
            head[f"output_blocks.{index}.1"] = f"up_blocks.{up}.{f'attentions.{i}' if attends else 'upsamplers.0'}"
            head[f"output_blocks.{index}.2"] = f"up_blocks.{up}.upsamplers.0"
            index += 1
    inner = {
        "in_layers.0": "norm1",
        "in_layers.2": "conv1",
        "emb_layers.1": "time_emb_proj",
        "out_layers.0": "norm2",
        "out_layers.3": "conv2",
        "skip_connection": "conv_shortcut",
        "norm": "group_norm",
        "proj_out": "to_out.0",
    }
    for name, value in weights.items():
        key = next(one for one in sorted(head, key=len, reverse=True) if name.startswith(f"{one}."))
        place, kind = head[key], name.rpartition(".")[2]
        rest = name[len(key) + 1 :].rpartition(".")[0]
        if rest == "qkv":
            for part, one in zip(("to_q", "to_k", "to_v"), value.squeeze(-1).chunk(3), strict=True):
                made[f"{place}.{part}.{kind}"] = one
            continue
        value = value.squeeze(-1) if rest == "proj_out" and kind == "weight" else value
        made[".".join(filter(None, (place, inner.get(rest, rest), kind)))] = value
    return made


@pytest.fixture
def network():
    return checkpoints.adm()


def test_it_computes_what_diffusers_network_does(network):
    theirs = UNet2DModel(
        16, 3, 6, time_embedding_type="positional", flip_sin_to_cos=True, freq_shift=0, layers_per_block=1,
        block_out_channels=(32, 64), down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "ResnetUpsampleBlock2D"), downsample_type="resnet", upsample_type="resnet",
        attention_head_dim=16, norm_num_groups=32, norm_eps=1e-5, resnet_time_scale_shift="scale_shift",
        num_class_embeds=10, attn_norm_num_groups=32,
    ).eval()  # fmt: skip
    theirs.load_state_dict(renamed(network.state_dict(), 1, 2))
    x, labels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)), torch.tensor([3, 9])
    for time in (0.0, 500.25, 999.0):
        times = torch.full((2,), time)
        ours, other = network(x, times, labels), theirs(x, times, labels).sample.detach()
        # A few hundred roundings of float32 on numbers of the outputs' size.
        assert torch.allclose(ours, other, rtol=0, atol=2e-5 * float(other.abs().max()))


def test_a_checkpoint_is_a_denoiser_that_drops_the_variance(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "net.pt")
    denoiser = load_adm(tmp_path / "net.pt", SETTINGS, PROCESS).denoiser
    assert denoiser.shape == (3, 16, 16) and denoiser.num_classes == 10
    x, t = torch.randn(2, 3, 16, 16), torch.tensor(0.5, dtype=torch.float64)
    labels = torch.tensor([1, 2])
    noise = network(x, torch.full((2,), 499.0), labels)[:, :3]
    alpha, sigma = PROCESS.alpha(t).float(), PROCESS.sigma(t).float()
    assert torch.allclose(denoiser(x, t, labels), (x - sigma * noise) / alpha, atol=1e-4)
    with pytest.raises(InputError, match="needs a class"):
        denoiser(x, t)


def test_its_skips_can_be_scaled(network):
    skips = fs.skip.find(network)
    assert [skip.channels for skip in skips] == [64, 32, 32, 32]
    x, times, labels = torch.randn(1, 3, 16, 16), torch.tensor([5.0]), torch.tensor([0])
    plain = network(x, times, labels)
    with fs.skip.tuned(network, 0.5):
        assert not torch.allclose(network(x, times, labels), plain)
    assert torch.equal(network(x, times, labels), plain)


def test_the_cosine_schedule_is_that_of_diffusers():
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod
    # Theirs is a product of 1000 numbers in float32.
    assert torch.allclose(PROCESS.alphas_cumprod.float(), theirs, rtol=1000 * 2**-23, atol=1e-9)


def test_weights_of_another_network_are_refused(network, tmp_path):
    weights = network.state_dict()
    for changed, answer in (
        ({**weights, "more": torch.zeros(1)}, "has, besides the network's, 1 weights \\(more\\)"),
        ({name: value for name, value in weights.items() if name != "out.2.bias"}, "lacks 1 weights \\(out.2.bias\\)"),
        ({**weights, "out.2.bias": torch.zeros(3)}, "in another shape 1 weights"),
    ):
        torch.save(changed, tmp_path / "net.pt")
        with pytest.raises(InputError, match=answer):
            load_adm(tmp_path / "net.pt", SETTINGS, PROCESS)
    assert isinstance(network, UNetModel)
