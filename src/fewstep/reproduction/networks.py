"""The networks of the tables by their kind, each with the settings that its checkpoint does not hold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from fewstep.models.dit import DiTSettings, load_dit
from fewstep.models.guided_diffusion import UNetSettings, load_adm
from fewstep.models.latent_diffusion import LatentDiffusionSettings, load_latent_diffusion
from fewstep.models.loading import load_edm_pickle
from fewstep.models.model import Model
from fewstep.models.score_sde import DDPMPlusPlusSettings, load_score_sde
from fewstep.processes import VPDiscrete
from fewstep.storage import Schema

__all__ = ["ADM", "EDM", "DiT", "FileName", "LatentDiffusion", "Network", "ScoreSDE"]

FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*$")]
"""A name, in folders or not, that leads out of none."""


class _Kind(Schema):
    """A network in a folder of downloaded files.

    Attributes:
        file: its checkpoint.
    """

    model_config = ConfigDict(extra="forbid")

    file: FileName

    @property
    def is_pickle(self) -> bool:
        """Whether loading runs code."""
        return False


class EDM(_Kind):
    """A pickle of EDM, which says itself what it is; loading it runs the code in it."""

    kind: Literal["edm"]

    @property
    def is_pickle(self) -> bool:
        """Whether loading runs code."""
        return True

    def load(self, folder: Path, device: str) -> Model:
        """Return the model.

        Raises:
            InputError: here and in the other kinds, if the files hold none.
        """
        return load_edm_pickle(folder / self.file, device=device)


class ScoreSDE(_Kind):
    """A checkpoint of ScoreSDE's PyTorch code, variance preserving and continuous."""

    kind: Literal["score-sde"]
    settings: DDPMPlusPlusSettings

    def load(self, folder: Path, device: str) -> Model:
        """Return the model."""
        return load_score_sde(folder / self.file, self.settings, device)


class ADM(_Kind):
    """A checkpoint of guided-diffusion, trained on 1000 steps of a schedule."""

    kind: Literal["adm"]
    schedule: Literal["linear", "cosine"]
    settings: UNetSettings

    def load(self, folder: Path, device: str) -> Model:
        """Return the model."""
        process = VPDiscrete.from_betas(schedule=self.schedule)
        return load_adm(folder / self.file, self.settings, process, device)


class DiT(_Kind):
    """A checkpoint of DiT's code, and the folder of its autoencoder."""

    kind: Literal["dit"]
    autoencoder: FileName
    settings: DiTSettings

    def load(self, folder: Path, device: str) -> Model:
        """Return the model."""
        return load_dit(folder / self.file, self.settings, folder / self.autoencoder, device)


class LatentDiffusion(_Kind):
    """A class-conditional checkpoint of latent-diffusion with its autoencoder."""

    kind: Literal["latent-diffusion"]
    settings: LatentDiffusionSettings

    def load(self, folder: Path, device: str) -> Model:
        """Return the model."""
        return load_latent_diffusion(folder / self.file, self.settings, device)


Network = Annotated[EDM | ScoreSDE | ADM | DiT | LatentDiffusion, Field(discriminator="kind")]
"""Any network of a table."""
