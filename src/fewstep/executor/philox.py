"""Normal noise by counter: Philox4x64-10, and Box and Muller's transform."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

__all__ = ["Philox", "philox", "words_on_device"]

MULTIPLIERS = 0xD2E7470EE14C6C93, 0xCA5A826395121157
INCREMENTS = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B
ROUNDS = 10
LOW = 0xFFFFFFFF
RUN = 64
"""Radii, and then angles, of so many pairs of normals lie side by side: the arithmetic is over contiguous numbers."""
ON_CPU, ELSEWHERE = 1 << 14, 1 << 20
"""Words at a time: on the CPU so few that they stay in its cache and threads do not part them."""
AHEAD = 8
"""Draws of a small batch made at once, in fewer and larger operations."""


class Philox:
    r"""Standard normal noise for a batch, each number a function of its sample's key, the draw and its place.

    Philox4x64-10 turns a key of 128 bits and a counter of 256 bits into four words of 64 bits; those of draw n are at
    the counters (1, n, 0, 0), (2, n, 0, 0), …. Let v₀, v₁, … be their halves of 32 bits, the lower first. Number i of
    the draw, with k = 128·⌊i/128⌋ + i mod 64, is r·cos φ where i mod 128 < 64 and r·sin φ elsewhere, of
    r = √(−2·log((a + ½)/2³¹)) with a the lower 31 bits of v_k, and φ = 2πb/2³² with b = v_{k+64}, signed. So the
    numbers depend neither on the batch nor on the rest of the shape, and are the same on every kind of device, and in
    float32 and float64, but for rounding.

    Source: Salmon, Moraes, Dror & Shaw, Parallel Random Numbers: As Easy as 1, 2, 3 (SC 2011). On the CPU the words are
    numpy's ``Philox``.

    Args:
        keys: uint64 [batch, 2].
        device: where the noise is drawn.
    """

    def __init__(self, keys: np.ndarray, device: torch.device) -> None:
        self.device, self.draws = device, 0
        self._ahead, self._ahead_from = torch.empty(0, 0), 0
        if device.type == "cpu":
            self._keys, self._block = keys, ON_CPU
            self._bits = np.random.Philox(0)
            self._state = self._bits.state
        else:
            self._placed, self._block = torch.from_numpy(keys.view(np.int64)).to(device), ELSEWHERE

    def fill(self, out: Tensor) -> None:
        """Fill ``out`` [batch, …] with the next draw; half precision is rounded from float32."""
        size = out.numel() // len(out)
        words = -(-size // (2 * RUN)) * RUN
        together = self._block // words
        if together >= 2 * len(out):
            out.copy_(self._drawn_ahead(out, min(AHEAD, together // len(out)), words))
        else:
            for first in range(0, len(out), max(1, together)):
                part = out[first : first + max(1, together)]
                self._fill(part, self.words(slice(first, first + len(part)), words))
        self.draws += 1

    def _drawn_ahead(self, out: Tensor, draws: int, words: int) -> Tensor:
        """Return the next draw out of several that are made together."""
        number, wide = self.draws - self._ahead_from, torch.promote_types(out.dtype, torch.float32)
        if number >= len(self._ahead) or self._ahead.shape[1:] != out.shape or self._ahead.dtype != wide:
            self._ahead = torch.empty(draws, *out.shape, dtype=wide, device=self.device)
            self._ahead_from, number = self.draws, 0
            self._fill(self._ahead.flatten(0, 1), self.words(slice(None), words, draws))
        return self._ahead[number]

    def _fill(self, out: Tensor, words: Tensor) -> None:
        """Fill samples with the normals of their words, int64 [samples, count]."""
        shape, wide = (words.numel() // RUN, 2, RUN), torch.promote_types(out.dtype, torch.float32)
        whole = words.numel() * 2 == out.numel() and out.dtype == wide and out.is_contiguous()
        normals = out.view(shape) if whole else torch.empty(shape, dtype=wide, device=self.device)
        halves, at_once = words.view(torch.int32).view(shape), self._block // RUN
        for first in range(0, len(halves), at_once):
            _transform(halves[first : first + at_once], normals[first : first + at_once])
        if not whole:
            size = out.numel() // len(out)
            out.copy_(normals.view(len(out), -1)[:, :size].view(out.shape))

    def words(self, samples: slice, count: int, draws: int = 1) -> Tensor:
        """Return the first ``count`` words (a multiple of 4) of the next draws, int64 [draws · samples, count]."""
        if self.device.type != "cpu":
            return words_on_device(self._placed[samples], self.draws, draws, count)
        keys, state = self._keys[samples], self._state
        words = torch.empty(draws, len(keys), count, dtype=torch.int64, device=self.device)
        for number, of_draw in enumerate(words.numpy().view(np.uint64), self.draws):
            # numpy counts up before each block: its first one is that of the counter 1.
            state["state"]["counter"] = np.array([0, number, 0, 0], np.uint64)
            for key, row in zip(keys, of_draw, strict=True):
                state["state"]["key"] = key
                self._bits.state = state
                row[:] = self._bits.random_raw(count)
        return words.flatten(0, 1)


def _transform(halves: Tensor, out: Tensor) -> None:
    """Write a normal for each half of a word: int32 [n, 2, RUN], radii before angles, into ``out`` of that shape."""
    (radius, angle), (first, second) = halves.unbind(1), out.unbind(1)
    radius = (radius & 0x7FFFFFFF).to(out.dtype).add_(0.5).mul_(2.0**-31).log_().mul_(-2.0).sqrt_()
    angle = angle.to(out.dtype).mul_(2.0 * math.pi * 2.0**-32)
    torch.mul(angle.cos(), radius, out=first)
    torch.mul(angle.sin_(), radius, out=second)


def words_on_device(keys: Tensor, draw: int, draws: int, count: int) -> Tensor:
    """Return words as ``Philox.words`` does, where the keys are: in one launch on a GPU, else by torch's operations.

    Args:
        keys: int64 [batch, 2].
        draw: the number of the first draw.
        draws: how many.
        count: how many words of each, a multiple of 4.

    Returns:
        int64 [draws · batch, count].
    """
    one = torch.arange(1, count // 4 + 1, device=keys.device)
    two = torch.arange(draw, draw + draws, device=keys.device)[:, None, None]
    first, second = keys[:, :1], keys[:, 1:]
    if keys.device.type == "cuda":
        try:
            return torch.stack(_kernel()(one, two, first, second), dim=-1).view(-1, count)
        except RuntimeError:  # There is no compiler of kernels: the same numbers in more launches.
            pass
    zero = torch.zeros_like(one[:1])
    return torch.stack(philox((one, two, zero, zero), (first, second)), dim=-1).view(-1, count)


def philox(counter: tuple[Tensor, ...], key: tuple[Tensor, ...]) -> list[Tensor]:
    """Return Philox4x64-10's four words at a counter of four words, by a key of two: int64 for uint64, of one shape."""
    one, two, three, four = counter
    first, second = key
    for number in range(ROUNDS):
        first_key, second_key = (_signed(number * step) for step in INCREMENTS)
        (top, low), (other_top, other_low) = _product(one, MULTIPLIERS[0]), _product(three, MULTIPLIERS[1])
        one, two = other_top ^ two ^ (first + first_key), other_low
        three, four = top ^ four ^ (second + second_key), low
    return list(torch.broadcast_tensors(one, two, three, four))


def _product(a: Tensor, b: int) -> tuple[Tensor, Tensor]:
    """Return the upper and the lower 64 bits of a·b, all read as unsigned; int64 wraps, and shifts in its sign."""
    low, high = a & LOW, a >> 32 & LOW
    b_low, b_high = b & LOW, b >> 32
    carried = high * b_low + (low * b_low >> 32 & LOW)
    middle = low * b_high + (carried & LOW)
    return high * b_high + (carried >> 32 & LOW) + (middle >> 32 & LOW), a * _signed(b)


def _signed(word: int) -> int:
    """Return the signed number with the same lower 64 bits."""
    return (word + 2**63) % 2**64 - 2**63


@cache
def _kernel() -> Callable[..., list[Tensor]]:
    """Return the generator as one elementwise CUDA kernel: (counter, draw, key, key) → four words."""
    code = """
    template <typename T> void philox(T counter, T draw, T first, T second, T& one, T& two, T& three, T& four) {
        unsigned long long a = counter, b = draw, c = 0, d = 0, k = first, l = second;
        for (int round = 0; round < %d; ++round) {
            const unsigned long long p = a * %dULL, top_p = __umul64hi(a, %dULL);
            const unsigned long long q = c * %dULL, top_q = __umul64hi(c, %dULL);
            a = top_q ^ b ^ k;
            b = q;
            c = top_p ^ d ^ l;
            d = p;
            k += %dULL;
            l += %dULL;
        }
        one = a;
        two = b;
        three = c;
        four = d;
    }
    """
    (p, q), steps = MULTIPLIERS, INCREMENTS
    compiled = torch.cuda.jiterator._create_multi_output_jit_fn(code % (ROUNDS, p, p, q, q, *steps), num_outputs=4)
    return lambda *given: list(compiled(*given))
