"""Toy models that store more features than they have dimensions: their data, the models, their loss.

Everything here works on many models at once: the first dimension of each tensor is the model. Source: Elhage et al.
(2022), "Toy Models of Superposition".
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def sample_features(
    n_features: int,
    batch: int,
    p: float | Float[Tensor, " model"] | Float[Tensor, "model feature"],
    generator: torch.Generator | None = None,
) -> Float[Tensor, "model batch feature"]:
    """Independent features: each is on with its own probability, and then uniform between 0 and 1; otherwise 0.

    Args:
        n_features: Number of features of each example.
        batch: Number of examples for each model; those of different models are drawn independently.
        p: The probability that a feature is on (Elhage et al. write S for 1 - p): a number for one model; a tensor
            [model] with a probability for each model; or [model, feature] with one for each of its features. A row of
            probabilities for the features of a single model is ``row[None]``.
        generator: Source of the random draws; None for torch's global one.

    Returns:
        Features from 0 to 1, in the default dtype; the model dimension is 1 if p is a number.

    Raises:
        ValueError: If a probability lies outside [0, 1], or if p has another number of dimensions or of features.

    Source: Elhage et al. (2022), "Toy Models of Superposition", section 2.
    """
    p = torch.as_tensor(p, dtype=torch.get_default_dtype())
    if p.ndim > 2 or (p.ndim == 2 and p.shape[1] != n_features):
        raise ValueError(f"p must be a number, [model], or [model, {n_features}]; got shape {tuple(p.shape)}")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("probabilities lie between 0 and 1")
    p = p.reshape(1, 1) if p.ndim == 0 else p.reshape(len(p), -1)  # [model, feature], or one for all features
    shape = (len(p), batch, n_features)
    on = torch.rand(shape, generator=generator) < p[:, None]
    return torch.rand(shape, generator=generator) * on


class ToyModel(nn.Module):
    """Many models side by side, each of which squeezes its features into ``d_hidden`` dimensions and gets them back.

    A model computes ReLU(Wᵀ W x + b): column i of W is the direction in which feature i is stored, and the same
    direction reads it out. The models share nothing.

    Args:
        n_models: Number of models.
        n_features: Number of features of each.
        d_hidden: Number of dimensions of each.
        relu: Whether there is a ReLU at the end; without it the models are linear.
        generator: Source of the starting weights; None for torch's global one.

    Attributes:
        W: Parameter [model, d_hidden, feature]; it starts as ``torch.randn(n_models, d_hidden, n_features,
            generator=generator)`` times sqrt(2 / (d_hidden + n_features)).
        b: Parameter [model, feature]; it starts at 0.

    Source: Elhage et al. (2022), "Toy Models of Superposition", section 2.
    """

    def __init__(
        self,
        n_models: int,
        n_features: int,
        d_hidden: int,
        *,
        relu: bool = True,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        scale = (2 / (d_hidden + n_features)) ** 0.5
        self.W = nn.Parameter(scale * torch.randn(n_models, d_hidden, n_features, generator=generator))
        self.b = nn.Parameter(torch.zeros(n_models, n_features))
        self.relu = relu

    def forward(self, features: Float[Tensor, "model batch feature"]) -> Float[Tensor, "model batch feature"]:
        """Each model's output for its own examples."""
        hidden = torch.einsum("mbf,mdf->mbd", features, self.W)
        output = torch.einsum("mbd,mdf->mbf", hidden, self.W) + self.b[:, None]
        return output.relu() if self.relu else output


def toy_loss(
    output: Float[Tensor, "model batch feature"],
    features: Float[Tensor, "model batch feature"],
    importance: Float[Tensor, " feature"] | Float[Tensor, "model feature"] | None = None,
) -> Float[Tensor, " model"]:
    """Each model's loss: the squared errors of its features, weighted by importance; a sum over features, and the mean
    over examples.

    So a feature that is on with probability p, is never stored and whose output is 0, costs importance * p / 3, however
    many others there are.

    Args:
        output: What the models give back.
        features: What they were given.
        importance: What an error of each feature counts, for all models [feature] or for each [model, feature]; None
            for 1 throughout.

    Returns:
        A loss for each model. The sum of the losses has, for each model's weights, the gradient of its own loss.

    Source: Elhage et al. (2022), "Toy Models of Superposition", section 2.
    """
    errors = (output - features).square().mean(dim=1)
    return (errors if importance is None else errors * importance).sum(dim=-1)
