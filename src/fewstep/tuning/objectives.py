"""Objectives of a search: the error to the solution, a distance to real images, or a score with its sign turned."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep import checks
from fewstep.errors import InputError
from fewstep.metrics import Extractor, frechet_distance
from fewstep.metrics.bootstrap import bootstrap_interval
from fewstep.metrics.error import squared_errors
from fewstep.metrics.moments import Moments
from fewstep.metrics.neighbours import kid
from fewstep.models.model import Model
from fewstep.tuning.settings import Settings
from fewstep.tuning.subject import Noises, Subject

__all__ = ["DistanceToImages", "ErrorToSolution", "Objective", "Score"]

Scorer = Callable[..., Any]
FEATURES = "give features, such as fs.metrics.features('fashion-mnist')"
DRAWS = 1000


class Objective(ABC):
    """A number that is to be small, of rows that each noise gives one of.

    Attributes:
        name: a short name of it.
        to_solution: whether noises need a solution, and settings must not change it.
        no_gain: the gain of what is no better.
    """

    name: str
    to_solution = False
    no_gain = 0.0

    @property
    def identity(self) -> str:
        """All that decides on the rows, besides the model."""
        return self.name

    @property
    def sets(self) -> bool:
        """Whether many samples are judged together, as by the moments of their features."""
        return False

    @abstractmethod
    def rows(self, subject: Subject, settings: Settings, noises: Noises) -> np.ndarray:
        """Return a row for each noise, float32 [n, d]."""

    @abstractmethod
    def value(self, rows: np.ndarray) -> float:
        """Return the number, small where samples are good."""

    def shown(self, value: float) -> float:
        """Return the number as people read it."""
        return value

    def interval(self, rows: np.ndarray) -> tuple[float, float]:
        """Return the 95 % bootstrap interval of the shown value over the noises."""
        places = np.arange(len(rows))
        low, high = bootstrap_interval(
            lambda chosen: self.shown(self.value(rows[chosen])), places, draws=self.draws, vectorized=False
        )
        return low, high

    def gain(self, before: np.ndarray, after: np.ndarray) -> tuple[float, float, float]:
        """Return by how much ``after`` is better on the same noises, and the 95 % interval: a difference above 0."""

        def better(chosen: np.ndarray) -> float:
            return self.value(before[chosen]) - self.value(after[chosen])

        places = np.arange(len(before))
        return better(places), *bootstrap_interval(better, places, draws=self.draws, vectorized=False)

    @property
    def draws(self) -> int:
        """How many bootstrap samples are drawn."""
        return DRAWS


class ErrorToSolution(Objective):
    """The root mean square distance of samples, or of their features, to the model's solutions from the same noises.

    Args:
        extractor: images → features; None: the samples themselves are compared.

    Raises:
        InputError: if it is neither.
    """

    to_solution = True
    no_gain = 1.0

    def __init__(self, extractor: Extractor | None = None) -> None:
        if extractor is not None:
            checks.instance(Extractor, "extractor", extractor, FEATURES)
        self.extractor = extractor
        self.name = "error" if extractor is None else "feature-error"

    @property
    def identity(self) -> str:
        """The name, with that of the features."""
        return self.name if self.extractor is None else f"{self.name} {self.extractor.tag}"

    def rows(self, subject: Subject, settings: Settings, noises: Noises) -> np.ndarray:
        """Return the mean squared difference of each sample, or of its features."""
        pair = subject.samples(settings, noises), subject.solutions(noises)
        if self.extractor is None:
            errors = squared_errors(*pair)
        else:
            errors = squared_errors(*(self._features(subject, one) for one in pair))
        return errors.numpy().astype(np.float32)[:, None]

    def _features(self, subject: Subject, samples: Tensor) -> Tensor:
        assert self.extractor is not None
        parts = samples.split(subject.batch_size)
        return torch.cat([self.extractor(_images(subject.model, part)).cpu() for part in parts])

    def value(self, rows: np.ndarray) -> float:
        """Return the root of the mean."""
        return float(np.sqrt(rows.astype(np.float64).mean()))

    def gain(self, before: np.ndarray, after: np.ndarray) -> tuple[float, float, float]:
        """Return how many times smaller the error is, and the 95 % interval."""

        def ratio(one: np.ndarray, other: np.ndarray, axis: int) -> np.ndarray:
            return np.sqrt(one.mean(axis) / np.maximum(other.mean(axis), np.finfo(np.float64).tiny))

        pair = before[:, 0].astype(np.float64), after[:, 0].astype(np.float64)
        return float(ratio(*pair, axis=-1)), *bootstrap_interval(ratio, *pair, draws=DRAWS)


class Score(Objective):
    """A score of decoded samples, the higher the better.

    Args:
        scorer: samples → a number for each; with a second parameter it is given their conditions too.
        word: what it is called.
        conditions: the row of conditions → what the scorer is given for it, such as a prompt.

    Raises:
        InputError: if the scorer cannot be called, or the others are no text and no list.
    """

    name = "score"

    def __init__(self, scorer: Scorer, word: str, conditions: Sequence[Any] | None = None) -> None:
        self.scorer = checks.function("scorer", scorer, "give a function of samples")
        self.word = checks.instance(str, "word", word, "give the scorer's name")
        if conditions is not None:
            checks.instance(Sequence, "conditions", conditions, "give a list, such as of prompts, or leave it out")
        self.conditions = conditions
        self.pairs = _parameters(scorer) > 1

    @property
    def identity(self) -> str:
        """The name of the scorer."""
        return f"score {self.word}"

    def rows(self, subject: Subject, settings: Settings, noises: Noises) -> np.ndarray:
        """Return the scores with their signs turned.

        Raises:
            InputError: if the scorer raises, or returns something else than a finite number for each sample.
        """
        made = []
        for part in noises.parts(subject.batch_size):
            images = _images(subject.model, subject.samples(settings, part))
            numbers = subject.conditions.numbers(part.numbers, part.fresh)
            given = [self.conditions[number] for number in numbers] if self.conditions and numbers else numbers
            try:
                found = self.scorer(images, given) if self.pairs else self.scorer(images)
            except Exception as error:  # Whatever the caller's code makes of the samples.
                reason = " ".join(str(error).split()) or type(error).__name__
                raise InputError(
                    f"{self.word} raised {type(error).__name__}: {reason}; what was measured before is kept."
                ) from error
            made.append(self._checked(found, len(part)))
        return -np.concatenate(made)[:, None]

    def value(self, rows: np.ndarray) -> float:
        """Return the mean."""
        return float(rows.astype(np.float64).mean())

    def shown(self, value: float) -> float:
        """Return the score."""
        return -value

    def _checked(self, found: Any, count: int) -> np.ndarray:
        try:
            scores = checks.as_given(found).detach().float().cpu().numpy().reshape(-1)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{self.word} returned {type(found).__name__}: it must return a number for each sample."
            ) from error
        if scores.shape != (count,):
            raise InputError(f"{self.word} returned {scores.size} scores for {count} samples: return one for each.")
        if not np.isfinite(scores).all():
            bad = scores[~np.isfinite(scores)][0]
            raise InputError(
                f"{self.word} returned {bad} for a sample: scores must be finite; what was measured before is kept."
            )
        return scores


@dataclass(frozen=True)
class _Images:
    """Features of real images, [n, d], with their moments."""

    features: Tensor
    moments: Moments


class DistanceToImages(Objective):
    """The Fréchet distance between features of samples and of real images; KID beside it.

    Args:
        extractor: images → features.
        images: batches of real images [n, C, H, W] in [−1, 1].
        word: what they are called.

    Raises:
        InputError: if there are no images, or the features do not take them.
    """

    name = "fd"

    def __init__(self, extractor: Extractor, images: Sequence[Tensor], word: str) -> None:
        self.extractor = checks.instance(Extractor, "extractor", extractor, FEATURES)
        self.word = checks.instance(str, "word", word, "give the images' name")
        if not isinstance(images, Sequence) or not len(images):
            raise InputError(f"images is {checks.shown(images)}: give batches of them, a list of tensors [n, C, H, W].")
        features = torch.cat([extractor(part) for part in images]).cpu()
        moments = Moments(extractor.tag)
        moments.update(features)
        self.real = _Images(features, moments)

    @property
    def identity(self) -> str:
        """The features and the images."""
        return f"fd {self.extractor.tag} {self.word}"

    @property
    def sets(self) -> bool:
        """True: a Fréchet distance is one of many samples."""
        return True

    @property
    def draws(self) -> int:
        """How many bootstrap samples are drawn: each is a Fréchet distance."""
        return 200

    def rows(self, subject: Subject, settings: Settings, noises: Noises) -> np.ndarray:
        """Return the features of each sample."""
        made = []
        for part in noises.parts(subject.batch_size):
            images = _images(subject.model, subject.samples(settings, part))
            made.append(self.extractor(images).cpu().numpy().astype(np.float32))
        return np.concatenate(made)

    def value(self, rows: np.ndarray) -> float:
        """Return the Fréchet distance."""
        moments = Moments(self.extractor.tag)
        moments.update(torch.from_numpy(rows))
        return frechet_distance(moments, self.real.moments)

    def kid(self, rows: np.ndarray) -> tuple[float, float]:
        """Return KID, mean and deviation over subsets."""
        return kid(torch.from_numpy(rows).to(self.extractor.device), self.real.features)


def _images(model: Model, samples: Tensor) -> Tensor:
    """Return samples decoded, on the host."""
    return model.images(samples.to(model.denoiser.device)).float().cpu()


def _parameters(scorer: Scorer) -> int:
    """Return how many samples and conditions a scorer takes: its positional parameters without defaults."""
    try:
        parameters = inspect.signature(scorer).parameters.values()
    except (TypeError, ValueError):
        return 1
    return sum(
        parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and parameter.default is parameter.empty
        for parameter in parameters
    )
