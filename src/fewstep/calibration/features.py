"""The features that a row's coefficients are fitted in: nearly independent, of similar size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.plan import Prediction
from fewstep.processes import Process

__all__ = ["PREDICTION_ERROR", "Units", "feature_matrix"]

PREDICTION_ERROR = {torch.float32: 5e-4, torch.float64: 1e-12}
"""The relative error of a prediction that fits allow for: networks run in half precision even where states do not."""


@dataclass(frozen=True)
class Units:
    """What makes features [k] comparable.

    Attributes:
        scale: the root mean square of each feature, [k]; of one that is rounding that of what it is made of.
        penalty: Q [k, k] with δᵀ·Q·δ the mean square that errors of the base and the predictions, of the relative
            size above, add to the next state if features divided by ``scale`` get the coefficients δ. It keeps
            coefficients from being large and opposite, which half precision does not forgive.
    """

    scale: Tensor
    penalty: Tensor

    @classmethod
    def of(cls, matrix: Tensor, gram: Tensor, sizes: Tensor, dtype: torch.dtype) -> Units:
        """Return the units of features ``matrix``·vectors with mean Gram matrix ``gram``.

        Args:
            matrix: T [k, k].
            gram: of the features, [k, k].
            sizes: the mean square of each vector, [k].
            dtype: of the states.
        """
        parts, scale = matrix.abs() @ sizes.sqrt(), gram.diagonal().sqrt()
        scale = torch.where(scale > torch.finfo(dtype).eps * parts, scale, parts)  # A difference of alikes is nothing,
        scale = torch.where(scale > 0.0, scale, 1.0)  # and so is what is 0: neither gets enormous coefficients.
        scaled = matrix / scale[:, None]
        return cls(scale, PREDICTION_ERROR[dtype] ** 2 * (scaled * sizes) @ scaled.T)


def feature_matrix(process: Process, t: Tensor, prediction: Prediction, width: int) -> Tensor:
    r"""Return T [1 + width, 1 + width] with features = T·(base, newest prediction, older ones).

    Over data predictions: ε̂ = (x − α·D_0)/σ, D_0, D_0 − D_1, D_1 − D_2, …; over noise predictions: the
    data prediction (x − σ·ε̂_0)/α, ε̂_0, ε̂_0 − ε̂_1, … The state and the newest prediction are nearly parallel at
    both ends of a trajectory, and neighbouring predictions everywhere; these features are not. The first k of them
    span the base and k − 1 predictions.

    Args:
        process: where α and σ come from.
        t: the time at which the newest prediction was made.
        prediction: what the history holds.
        width: the number of predictions.
    """
    alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
    factor, other = (alpha, sigma) if prediction == "x0" else (sigma, alpha)
    matrix = torch.zeros(1 + width, 1 + width, dtype=torch.float64)
    matrix[0, 0], matrix[0, 1] = 1.0 / other, -factor / other
    matrix[1, 1] = 1.0
    for k in range(2, 1 + width):
        matrix[k, k - 1], matrix[k, k] = 1.0, -1.0
    return matrix
