"""The sampler node."""

from __future__ import annotations

from comfy_api.latest import io

from fewstep import solvers
from fewstep.integrations.comfyui.sampler import VARIANTS, Choice, sampler

__all__ = ["FewstepSampler"]


class FewstepSampler(io.ComfyNode):
    """A SAMPLER of one of our solvers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Return inputs and outputs."""
        bound = {"min": 0.0, "max": 100000.0, "step": 0.01, "round": False}
        return io.Schema(
            node_id="FewstepSampler",
            display_name="fewstep Sampler",
            category="sampling/fewstep",
            description="A sampler for few steps, for SamplerCustom and SamplerCustomAdvanced. unipc is a good start "
            "at 5 to 10 steps; sa adds noise on the way, which pays with more of them.",
            inputs=[
                io.Combo.Input(
                    "solver",
                    options=sorted(solvers.NAMES),
                    default="unipc",
                    tooltip="unipc: predictor-corrector without noise. sa: SA-Solver, with noise. dpmpp: DPM-Solver++ "
                    "multistep. deis, ipndm: multistep in noise predictions. heun: two network calls a step. euler, "
                    "ddim: first order.",
                ),
                io.Int.Input(
                    "order",
                    default=2,
                    min=1,
                    max=4,
                    tooltip="The number of the network's last predictions that a step uses: 2 with guidance, 3 "
                    "without. dpmpp and deis go to 3; euler, ddim and heun have none.",
                ),
                io.Combo.Input(
                    "variant",
                    options=list(VARIANTS),
                    default="default",
                    tooltip="unipc: bh1, bh2 (default), exact. dpmpp of order 3: exact (default), published. sa: "
                    "few-step (default; a network call a step), many-step (its authors' form, two calls more).",
                ),
                io.Boolean.Input(
                    "corrector", default=True, tooltip="Whether unipc and sa correct each step; it costs no call."
                ),
                io.Float.Input(
                    "tau",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    tooltip="How much noise sa adds: 0 none, 1 as much as the reverse diffusion.",
                ),
                io.Float.Input(
                    "window_start",
                    default=0.2,
                    tooltip="Where sa begins to add noise: percent 0 is the first step; in sigma, the higher level.",
                    **bound,
                ),
                io.Float.Input(
                    "window_end",
                    default=0.8,
                    tooltip="Where sa ceases to add noise: percent 1 is the last step; in sigma, the lower level.",
                    **bound,
                ),
                io.Combo.Input(
                    "window_in",
                    options=["percent", "sigma"],
                    default="percent",
                    tooltip="What the window is given in: percent of the sampling process (0 to 1), or σ/α, the noise "
                    "relative to the image.",
                ),
                io.Float.Input(
                    "eta",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How much noise ddim adds: 0 none, 1 ancestral sampling.",
                ),
                io.Int.Input(
                    "step_seed",
                    default=0,
                    min=0,
                    max=2**64 - 1,
                    tooltip="Another number, another noise of the steps for the same initial noise.",
                ),
                io.Combo.Input(
                    "noise_device",
                    options=["cpu", "gpu"],
                    default="cpu",
                    tooltip="cpu: every machine draws the same noise. gpu: where the model is, equal but for rounding.",
                ),
                io.Combo.Input(
                    "levels",
                    options=["model", "sigma"],
                    default="model",
                    tooltip="For flow models (Flux, SD3). model: steps in the flow's log signal-to-noise ratio. sigma: "
                    "in log σ, as ComfyUI's dpmpp_2m. For others there is no difference.",
                ),
                io.String.Input(
                    "settings",
                    default="",
                    optional=True,
                    tooltip="More settings of the solver as name=value,name=value: orders=comfyui,mode=PECE for sa.",
                ),
            ],
            outputs=[io.Sampler.Output()],
        )

    @classmethod
    def execute(
        cls,
        solver: str,
        order: int,
        variant: str,
        corrector: bool,
        tau: float,
        window_start: float,
        window_end: float,
        window_in: str,
        eta: float,
        step_seed: int,
        noise_device: str,
        levels: str,
        settings: str = "",
    ) -> io.NodeOutput:
        """Return the SAMPLER."""
        choice = Choice(
            solver=solver,
            order=order,
            variant=variant,
            corrector=corrector,
            tau=tau,
            window=(window_start, window_end),
            window_in=window_in,
            eta=eta,
            settings=settings,
            levels=levels,
        )
        return io.NodeOutput(sampler(choice.plan, step_seed=step_seed, noise_on_cpu=noise_device == "cpu"))
