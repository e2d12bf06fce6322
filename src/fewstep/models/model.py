"""A model of the command line: a denoiser, and the decoder of its samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from fewstep.denoiser import Condition, DataPredictor
from fewstep.errors import InputError, NonFiniteStateError
from fewstep.executor import Callback, execute
from fewstep.guidance import ClassifierFree, guidance_named
from fewstep.metrics.pixels import kept, rounded
from fewstep.models.pipeline_denoiser import PipelineDenoiser
from fewstep.plan import Plan
from fewstep.sampling import initial_state

__all__ = ["Conditions", "Kind", "Model"]

Conditions = Sequence[int] | Sequence[str] | None
"""A class number or a prompt for each sample, or None."""
Kind = Literal["images", "videos", "audio"]
"""What a model makes."""


@dataclass(frozen=True)
class Model:
    """A denoiser of known sample shape, with its way to images.

    Attributes:
        denoiser: the data prediction; guidance, if any, is part of it (see ``guided``).
        decode: samples of the process to images [n, C, H, W] in [−1, 1]; None if they are images already.
        embed: prompts to the denoiser's condition; None for a model that takes no prompts.
        parts: the networks besides the denoiser's own that the images depend on.
        encode: images to samples of the process, the inverse of ``decode``; None if they are the same or it is unknown.
        null_cond: the condition that means "none", for guidance; None if there is none that is known.
        default: a number of steps to the name of the sampler that comes with the model, and its plan; None if none is
            known.
        kind: what ``decode`` makes: images [n, C, H, W] or videos [n, frames, C, H, W], both in [−1, 1], or audio,
            [n, values] or [n, channels, values].
        rate: frames or values of audio a second; None if unknown.
    """

    denoiser: DataPredictor
    decode: Callable[[Tensor], Tensor] | None = None
    embed: Callable[[Sequence[str]], Condition] | None = None
    parts: tuple[nn.Module, ...] = ()
    encode: Callable[[Tensor], Tensor] | None = None
    null_cond: Condition | int = None
    default: Callable[[int], tuple[str, Plan]] | None = None
    kind: Kind = "images"
    rate: float | None = None

    def guided(self, guidance_scale: float | str | None) -> Model:
        """Return the model under classifier-free guidance (``fs.guidance.ClassifierFree``); a scale of 1 is none.

        The scale may have settings, as "3:interval=0.2:2,rule=apg" (see ``fs.guidance.guidance_named``). A pipeline
        that is called as a whole is guided by itself, all along or in an interval. It takes the place of guidance that
        there is; None leaves the model as it is.

        Raises:
            InputError: if the scale is not finite, or the model has no null condition that is known.
        """
        if guidance_scale is None:
            return self
        if isinstance(self.denoiser, ClassifierFree):
            return replace(self, denoiser=self.denoiser.inner).guided(guidance_scale)
        asked = guidance_named(guidance_scale)
        if isinstance(self.denoiser, PipelineDenoiser):
            if asked.rule is not None or asked.rescale:
                raise InputError(
                    f"guidance_scale is {guidance_scale!r}: this pipeline guides itself, so only an interval can be "
                    "set: leave rule and rescale out."
                )
            return replace(self, denoiser=self.denoiser.with_guidance(asked.scale, asked.interval))
        if asked.scale == 1.0:
            return self
        if self.null_cond is None:
            raise InputError(
                f"guidance_scale is {asked.scale:g}: this model has no known null condition; leave it out, or "
                "guide the model in the function that makes it."
            )
        return replace(self, denoiser=ClassifierFree(self.denoiser, asked.scale, self.null_cond, **asked.settings))

    @torch.no_grad()
    def draw(
        self,
        plan: Plan,
        seeds: Sequence[int],
        conditions: Conditions = None,
        callback: Callback | None = None,
        graph: bool = False,
    ) -> Tensor:
        """Return one image for each seed, [n, C, H, W] in [−1, 1], on the model's device; ``graph`` as ``fs.execute``.

        Raises:
            InputError: if the denoiser does not know the shape of a sample.
            NonFiniteStateError: if a sample stops being finite.
        """
        shape = self.denoiser.shape
        if shape is None:
            raise InputError(
                "the model does not know the shape of a sample: write fs.Denoiser(..., shape=(3, 32, 32))."
            )
        x_T = initial_state(plan.grid, shape, seeds, device=self.denoiser.device)
        cond = self.condition(conditions)
        samples = execute(plan, self.denoiser, x_T, seeds=seeds, cond=cond, callback=callback, graph=graph)
        return self.images(samples)

    def images(self, samples: Tensor) -> Tensor:
        """Return samples of the process as images [n, C, H, W] in [−1, 1].

        Raises:
            NonFiniteStateError: if an image is not finite.
        """
        images = samples if self.decode is None else self.decode(samples)
        if not bool(torch.isfinite(images).all()):
            raise NonFiniteStateError(
                "an image is not finite: the network or the decoder overflows in half precision; use float32."
            )
        return images

    def kept(self, samples: Tensor) -> tuple[str, np.ndarray]:
        """Return what files keep of decoded samples, and what it is called.

        "images", uint8 [n, H, W, C]; "videos", uint8 [n, frames, H, W, C]; "audio", float32; of anything else
        "samples", as they are, in float32.
        """
        if self.kind == "videos" and samples.ndim == 5 and samples.shape[2] in (1, 3):
            return "videos", rounded(samples).movedim(2, -1).cpu().numpy()
        made = kept(samples)
        return "images" if made.dtype == np.uint8 else "audio" if self.kind == "audio" else "samples", made

    def condition(self, conditions: Conditions) -> Any:
        """Return class numbers or prompts as the denoiser takes them.

        Raises:
            InputError: if there are prompts, which the model does not take.
        """
        if not conditions:
            return None
        if not isinstance(conditions[0], str):
            return torch.tensor(conditions)
        if self.embed is None:
            raise InputError("this model takes no prompts: leave --prompt and --prompts out.")
        return self.embed([str(prompt) for prompt in conditions])
