"""Small UNets with the class names, attributes and calls of EDM, guided-diffusion, latent-diffusion and U-ViT."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.functional import group_norm, interpolate, silu


def normed(x):
    return silu(group_norm(x, 1))


def embedded(times, width):
    angles = times.float()[:, None] * torch.logspace(0, -2, width // 2, device=times.device)
    return torch.cat([angles.cos(), angles.sin()], -1)


def resampled(x, up, down):
    if up:
        return interpolate(x, scale_factor=2.0)
    return nn.functional.avg_pool2d(x, 2) if down else x


class Conv2d(nn.Module):
    """EDM's own convolution, with resampling and an optional kernel."""

    def __init__(self, in_channels, out_channels, kernel, up=False, down=False):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.up, self.down = up, down
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2) if kernel else nn.Identity()

    def forward(self, x):
        return self.conv(resampled(x, self.up, self.down))


class UNetBlock(nn.Module):
    def __init__(self, in_channels, out_channels, width, up=False, down=False):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.up, self.down = up, down
        self.conv0 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.affine = nn.Linear(width, out_channels)
        self.skip = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x, emb):
        x = resampled(x, self.up, self.down)
        return (self.skip(x) + self.conv0(normed(x)) + self.affine(emb)[:, :, None, None]) * math.sqrt(0.5)


def edm_blocks(size, channels, multipliers, blocks, encoder="standard", decoder="standard", image=3):
    """Return encoder and decoder with EDM's names, in EDM's order."""
    enc, dec, skips = nn.ModuleDict(), nn.ModuleDict(), []
    width, given, aux = channels, image, image

    def add(name, block):
        nonlocal given
        enc[name] = block
        given = block.out_channels
        skips.append(given)

    for level, multiplier in enumerate(multipliers):
        at = f"{size >> level}x{size >> level}"
        if level == 0:
            add(f"{at}_conv", Conv2d(image, channels, 3))
        else:
            add(f"{at}_down", UNetBlock(given, given, width, down=True))
            if encoder == "skip":
                enc[f"{at}_aux_down"] = Conv2d(aux, aux, 0, down=True)
                enc[f"{at}_aux_skip"] = Conv2d(aux, given, 1)
            if encoder == "residual":
                enc[f"{at}_aux_residual"] = Conv2d(aux, given, 3, down=True)
                aux = given
        for i in range(blocks):
            add(f"{at}_block{i}", UNetBlock(given, channels * multiplier, width))
    for level, multiplier in reversed(list(enumerate(multipliers))):
        at = f"{size >> level}x{size >> level}"
        if level == len(multipliers) - 1:
            dec[f"{at}_in0"] = UNetBlock(given, given, width)
            dec[f"{at}_in1"] = UNetBlock(given, given, width)
        else:
            dec[f"{at}_up"] = UNetBlock(given, given, width, up=True)
        for i in range(blocks + 1):
            dec[f"{at}_block{i}"] = UNetBlock(given + skips.pop(), channels * multiplier, width)
            given = channels * multiplier
        if decoder == "skip" or level == 0:
            if decoder == "skip" and level < len(multipliers) - 1:
                dec[f"{at}_aux_up"] = Conv2d(image, image, 0, up=True)
            dec[f"{at}_aux_norm"] = nn.GroupNorm(1, given)
            dec[f"{at}_aux_conv"] = Conv2d(given, image, 3)
    return enc, dec


class SongUNet(nn.Module):
    def __init__(self, size=16, channels=4, multipliers=(1, 2), blocks=1, encoder="standard", decoder="standard"):
        super().__init__()
        self.channels = channels
        self.enc, self.dec = edm_blocks(size, channels, multipliers, blocks, encoder, decoder)

    def forward(self, x, noise_labels, class_labels=None, augment_labels=None):
        emb, skips, aux = embedded(noise_labels, self.channels), [], x
        for name, block in self.enc.items():
            if "aux_down" in name:
                aux = block(aux)
            elif "aux" in name:
                x = skips[-1] = x + block(aux)
                aux = x if "residual" in name else aux
            else:
                x = block(x, emb) if isinstance(block, UNetBlock) else block(x)
                skips.append(x)
        image = None
        for name, block in self.dec.items():
            if "aux_up" in name:
                image = block(image)
            elif "aux_norm" in name:
                normal = block(x)
            elif "aux_conv" in name:
                image = block(silu(normal)) + (0 if image is None else image)
            else:
                if x.shape[1] != block.in_channels:
                    x = torch.cat([x, skips.pop()], dim=1)
                x = block(x, emb)
        return image


class DhariwalUNet(nn.Module):
    def __init__(self, size=16, channels=4, multipliers=(1, 2), blocks=1):
        super().__init__()
        self.channels = channels
        self.enc, dec = edm_blocks(size, channels, multipliers, blocks)
        self.dec = nn.ModuleDict({name: block for name, block in dec.items() if "aux" not in name})
        self.out_conv = nn.Conv2d(channels * multipliers[0], 3, 3, padding=1)

    def forward(self, x, noise_labels, class_labels=None, augment_labels=None):
        emb, skips = embedded(noise_labels, self.channels), []
        for block in self.enc.values():
            x = block(x, emb) if isinstance(block, UNetBlock) else block(x)
            skips.append(x)
        for block in self.dec.values():
            if x.shape[1] != block.in_channels:
                x = torch.cat([x, skips.pop()], dim=1)
            x = block(x, emb)
        return self.out_conv(normed(x))


class MPConv(nn.Module):
    """EDM2's convolution, which keeps no number of input channels."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.out_channels = out_channels
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3))

    def forward(self, x):
        return nn.functional.conv2d(x, self.weight, padding=1)


class MPBlock(nn.Module):
    def __init__(self, in_channels, out_channels, up=False, down=False):
        super().__init__()
        self.out_channels = out_channels
        self.up, self.down = up, down
        self.conv_res0, self.conv_res1 = MPConv(in_channels, out_channels), MPConv(out_channels, out_channels)

    def forward(self, x, emb):
        return self.conv_res1(normed(self.conv_res0(resampled(x, self.up, self.down)))) * emb.mean()


class UNet(nn.Module):
    """EDM2's layout, which weights hidden features and skip before it concatenates them."""

    def __init__(self, size=16, channels=4, multipliers=(1, 2), blocks=1):
        super().__init__()
        self.channels = channels
        enc, dec = edm_blocks(size, channels, multipliers, blocks)
        self.enc = nn.ModuleDict({name: self.block(name, block) for name, block in enc.items()})
        self.dec = nn.ModuleDict({name: self.block(name, block) for name, block in dec.items() if "aux" not in name})
        self.out_conv = MPConv(channels * multipliers[0], 3)

    @staticmethod
    def block(name, block):
        if "conv" in name:
            return MPConv(block.in_channels, block.out_channels)
        return MPBlock(block.in_channels, block.out_channels, block.up, block.down)

    def forward(self, x, noise_labels, class_labels=None):
        emb, skips = embedded(noise_labels, self.channels), []
        for name, block in self.enc.items():
            x = block(x) if "conv" in name else block(x, emb)
            skips.append(x)
        for name, block in self.dec.items():
            if "block" in name:
                skip = skips.pop()
                total = x.shape[1] + skip.shape[1]
                weights = [math.sqrt(0.5 * total / part.shape[1]) for part in (x, skip)]
                x = torch.cat([weights[0] * x, weights[1] * skip], dim=1)
            x = block(x, emb)
        return self.out_conv(x)


class EDMPrecond(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, sigma, class_labels=None):
        sigma = sigma.reshape(-1, 1, 1, 1)
        c_in = (sigma**2 + 0.25).rsqrt()
        output = self.model(c_in * x, (sigma.log() / 4).flatten(), class_labels)
        return 0.25 * c_in**2 * x + 0.5 * sigma * c_in * output


class Upsample(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.channels = self.out_channels = channels

    def forward(self, x):
        return interpolate(x, scale_factor=2.0)


class ResBlock(nn.Module):
    """A residual block with guided-diffusion's attributes."""

    def __init__(self, channels, width, out_channels, updown=0):
        super().__init__()
        self.channels, self.out_channels, self.updown = channels, out_channels, bool(updown)
        self.resample = updown
        self.conv = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.emb = nn.Linear(width, out_channels)
        self.skip_connection = nn.Conv2d(channels, out_channels, 1)

    def forward(self, x, emb):
        x = resampled(x, self.resample > 0, self.resample < 0)
        return self.skip_connection(x) + self.conv(normed(x)) + self.emb(emb)[:, :, None, None]


class TimestepEmbedSequential(nn.Sequential):
    def forward(self, x, emb):
        for layer in self:
            x = layer(x, emb) if isinstance(layer, ResBlock) else layer(x)
        return x


class UNetModel(nn.Module):
    """guided-diffusion's layout: one skip from every input block."""

    def __init__(self, size=16, channels=4, multipliers=(1, 2, 3), blocks=1, resblock_updown=False):
        super().__init__()
        self.image_size, self.model_channels = size, channels
        width, given = channels, channels
        inputs, outputs, skips = [[nn.Conv2d(3, given, 3, padding=1)]], [], [given]
        for level, multiplier in enumerate(multipliers):
            for _ in range(blocks):
                inputs.append([ResBlock(given, width, channels * multiplier)])
                given = channels * multiplier
                skips.append(given)
            if level < len(multipliers) - 1:
                inputs.append([ResBlock(given, width, given, -1) if resblock_updown else nn.AvgPool2d(2)])
                skips.append(given)
        self.middle_block = TimestepEmbedSequential(ResBlock(given, width, given), ResBlock(given, width, given))
        for level, multiplier in reversed(list(enumerate(multipliers))):
            for i in range(blocks + 1):
                layers = [ResBlock(given + skips.pop(), width, channels * multiplier)]
                given = channels * multiplier
                if level and i == blocks:
                    layers.append(ResBlock(given, width, given, 1) if resblock_updown else Upsample(given))
                outputs.append(layers)
        self.input_blocks = nn.ModuleList([TimestepEmbedSequential(*layers) for layers in inputs])
        self.output_blocks = nn.ModuleList([TimestepEmbedSequential(*layers) for layers in outputs])
        self.out = nn.Conv2d(given, 3, 3, padding=1)

    def forward(self, x, timesteps, y=None):
        emb, skips, h = embedded(timesteps, self.model_channels), [], x
        for block in self.input_blocks:
            h = block(h, emb)
            skips.append(h)
        h = self.middle_block(h, emb)
        for block in self.output_blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), emb)
        return self.out(normed(h))


class ResnetBlock(nn.Module):
    """A residual block with the attributes of latent-diffusion's model.py."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x, temb):
        return self.nin_shortcut(x) + self.conv(normed(x)) + temb


class Model(nn.Module):
    """The layout of DDPM's PyTorch ports: ``up[0]`` is the outermost level."""

    def __init__(self, size=16, channels=4, multipliers=(1, 2), blocks=1):
        super().__init__()
        self.resolution, self.blocks = size, blocks
        self.conv_in = nn.Conv2d(3, channels, 3, padding=1)
        self.down, self.up, self.mid = nn.ModuleList(), nn.ModuleList(), nn.Module()
        given, skips = channels, [channels]
        for i, multiplier in enumerate(multipliers):
            level = nn.Module()
            level.block = nn.ModuleList()
            for _ in range(blocks):
                level.block.append(ResnetBlock(given, channels * multiplier))
                given = channels * multiplier
                skips.append(given)
            if i < len(multipliers) - 1:
                skips.append(given)
            self.down.append(level)
        self.mid.block_1, self.mid.block_2 = ResnetBlock(given, given), ResnetBlock(given, given)
        for multiplier in reversed(multipliers):
            level = nn.Module()
            level.block = nn.ModuleList()
            for _ in range(blocks + 1):
                level.block.append(ResnetBlock(given + skips.pop(), channels * multiplier))
                given = channels * multiplier
            self.up.insert(0, level)
        self.conv_out = nn.Conv2d(given, 3, 3, padding=1)

    def forward(self, x, t):
        temb = t.float().cos().mean()
        h = self.conv_in(x)
        skips = [h]
        for i, level in enumerate(self.down):
            for block in level.block:
                h = block(h, temb)
                skips.append(h)
            if i < len(self.down) - 1:
                h = resampled(h, False, True)
                skips.append(h)
        h = self.mid.block_2(self.mid.block_1(h, temb), temb)
        for i in reversed(range(len(self.up))):
            for block in self.up[i].block:
                h = block(torch.cat([h, skips.pop()], dim=1), temb)
            h = resampled(h, i > 0, False)
        return self.conv_out(normed(h))


class Block(nn.Module):
    def __init__(self, width, skip=False):
        super().__init__()
        self.mlp = nn.Linear(width, width)
        self.skip_linear = nn.Linear(2 * width, width) if skip else None

    def forward(self, x, skip=None):
        if self.skip_linear is not None:
            x = self.skip_linear(torch.cat([x, skip], dim=-1))
        return x + self.mlp(x).tanh()


class UViT(nn.Module):
    def __init__(self, width=8, depth=4):
        super().__init__()
        self.embed = nn.Linear(3, width)
        self.in_blocks = nn.ModuleList([Block(width) for _ in range(depth // 2)])
        self.mid_block = Block(width)
        self.out_blocks = nn.ModuleList([Block(width, skip=True) for _ in range(depth // 2)])
        self.out = nn.Linear(width, 3)

    def forward(self, x, timesteps, y=None):
        shape = x.shape
        x = self.embed(x.flatten(2).transpose(1, 2)) + timesteps.float().cos().view(-1, 1, 1)
        skips = []
        for block in self.in_blocks:
            x = block(x)
            skips.append(x)
        x = self.mid_block(x)
        for block in self.out_blocks:
            x = block(x, skips.pop())
        return self.out(x).transpose(1, 2).reshape(shape)
