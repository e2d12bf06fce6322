"""``--spectrum``: a name, a law, a file, or a model whose samples are measured."""

from __future__ import annotations

import torch

from fewstep import grids, solvers, spectra
from fewstep.cli.settings.options import ModelSettings
from fewstep.cli.shared.conditions import class_numbers
from fewstep.cli.shared.models import load_model
from fewstep.errors import InputError
from fewstep.models import zoo
from fewstep.models.model import Model
from fewstep.processes import Process
from fewstep.recommended import recommended
from fewstep.sampling import sample
from fewstep.spectra import Spectrum

__all__ = ["measured", "spectrum_of"]

SAMPLES, CALLS = 64, 10
"""How many samples of a model are measured, and how many calls each costs."""


def spectrum_of(text: str) -> tuple[Spectrum, Process | None]:
    """Return the spectrum that ``--spectrum`` names, and the process of the model if it names one.

    Raises:
        InputError: if there is no such law, file or model, or the model needs prompts.
    """
    if text.partition(":")[0] in spectra.NAMES or text.endswith(".json"):
        return spectra.named(text), None
    if text not in zoo.MODELS and ":" not in text and "/" not in text and not text.startswith("."):
        raise InputError(
            f"--spectrum is {text!r}: write {', '.join(spectra.NAMES)}, a law as power:2, a .json file of "
            f"Spectrum.save, or a model: {', '.join(zoo.MODELS)} or a pipeline's folder."
        )
    model = load_model(ModelSettings(model=text))
    return measured(model), model.denoiser.process


@torch.no_grad()
def measured(model: Model) -> Spectrum:
    """Return the spectrum of samples of a model, about the mean of each class where it has classes.

    Raises:
        InputError: if the model needs prompts, or does not know the shape of a sample.
    """
    if model.embed is not None:
        raise InputError(
            "--spectrum names a model that needs prompts: measure samples of your prompts with "
            "fs.spectra.Spectrum.of, and give the file of its save()."
        )
    denoiser, latent = model.denoiser, model.decode is not None
    rule = recommended(denoiser.process, CALLS, latent=latent)
    solver = solvers.named(rule.solver)
    grid = grids.named(rule.grid, denoiser.process, CALLS, solver=solver)
    classes = class_numbers("each", range(SAMPLES), getattr(denoiser, "num_classes", None))
    made = sample(denoiser, solver, grid, seeds=range(SAMPLES), cond=model.condition(classes))
    return Spectrum.of(made, classes=classes)
