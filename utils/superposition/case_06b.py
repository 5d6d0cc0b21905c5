"""The case of part 06b: what a pair of features was like in the data, told from trained models."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from utils.course.cases import estimate
from utils.superposition.pairs import sample_pairs
from utils.superposition.toy import ToyModel
from utils.superposition.train import train_toy_models

FAMILIES = ("A", "B", "C", "D")
N_MODELS, N_FEATURES, D_HIDDEN, P = 16, 8, 3, 0.3
CONDITIONS = {"A": ("apart", 1.0), "B": ("independent", 1.0), "C": ("together", 1.0), "D": ("independent", 0.1)}


def toy_families(seed: int = 0) -> dict[str, list[ToyModel]]:
    """Four families of 16 small models each, 8 features in 3 dimensions; within a family all had the same kind of data.

    In each family features 0 and 1 are a pair of one kind and of one importance, as ``CONDITIONS`` says for those who
    want to know beforehand; the other six features are independent. Models differ in their start and their examples.

    Args:
        seed: Of starts and examples.

    Returns:
        The models of each family, each a ``ToyModel`` with ``n_models`` 1.
    """
    importance = torch.ones(len(FAMILIES), N_FEATURES)
    for k, family in enumerate(FAMILIES):
        importance[k, :2] = CONDITIONS[family][1]

    def sampler(batch: int, generator: torch.Generator) -> Float[Tensor, "model batch feature"]:
        others = ["independent"] * (N_FEATURES // 2 - 1)
        return torch.cat([
            sample_pairs([CONDITIONS[family][0], *others], batch, P, generator, N_MODELS) for family in FAMILIES
        ])  # fmt: skip

    run = train_toy_models(
        N_FEATURES,
        D_HIDDEN,
        torch.full((len(FAMILIES) * N_MODELS,), P),
        importance=importance.repeat_interleave(N_MODELS, dim=0),
        sampler=sampler,
        n_steps=300,
        batch=64,
        lr=0.03,
        seed=seed,
        n_fresh=1024,
    )
    models = [one_model(W, b) for W, b in zip(run.model.W, run.model.b, strict=True)]
    return {family: models[k * N_MODELS : (k + 1) * N_MODELS] for k, family in enumerate(FAMILIES)}


def one_model(W: Float[Tensor, "d_hidden feature"], b: Float[Tensor, " feature"]) -> ToyModel:
    """A ``ToyModel`` of a single model with these weights, without gradients."""
    model = ToyModel(1, W.shape[1], W.shape[0], generator=torch.Generator())
    model.load_state_dict({"W": W.detach().clone()[None], "b": b.detach().clone()[None]})
    return model.requires_grad_(False)


def how_the_pair_was_given(families: dict[str, list[nn.Module]]) -> dict[str, object]:
    """Design a measurement: were features 0 and 1 of a family's data on together, never both, or neither of the two?

    ``families`` has four families, "A" to "D", of 16 trained models each (``ToyModel`` with ``n_models`` 1, 8 features
    in 3 dimensions; ``model.W[0]`` is [3, 8]). The models of a family are the independent units: they were trained from
    different starts on different examples of the same kind of data. In these data features 0 and 1 were a pair, the
    same kind of pair in all models of the family, and all other features were independent of everything.

    Args:
        families: The models by family.

    Returns:
        A dict with these keys:

        "measure": A function ``measure(model, i, j)`` that returns a number for two features of one model: the larger,
            the more they share a direction; the smaller, the more they point away from each other. You may use weights
            or outputs. It must not depend on which basis the hidden dimensions are written in: with W turned by an
            orthogonal matrix the model computes the same.
        "controls": A list of at least 6 different pairs (i, j) of features to compare with. Each contains exactly one
            of features 0 and 1, so that it differs from the pair (0, 1) in being no pair, and not in whose features
            these are.
        "effect_A", "effect_B", "effect_C", "effect_D": For each family the mean, over its models, of the measure of
            (0, 1) less the mean of the measure of the controls in the same model; and the half-width of its 95 %
            interval, as ``estimate`` computes it.
        "verdict_A", "verdict_B", "verdict_C", "verdict_D": "together" if the interval lies above 0, "apart" if below,
            "undecided" if 0 is in it.

    The check also asks your measure and your controls of families that are trained anew: there a pair that was always
    on together must have an interval above 0, and one that was never on together one below.
    """
    controls = [(one, other) for one in (0, 1) for other in range(2, 8)]

    def measure(model: nn.Module, i: int, j: int) -> float:
        one, other = model.W[0, :, i], model.W[0, :, j]
        return torch.cosine_similarity(one, other, dim=0).item()

    design: dict[str, object] = {"measure": measure, "controls": controls}
    for name, models in families.items():
        effects = [
            measure(model, 0, 1) - sum(measure(model, i, j) for i, j in controls) / len(controls) for model in models
        ]
        mean, half_width = estimate(effects)
        design[f"effect_{name}"] = (mean, half_width)
        design[f"verdict_{name}"] = (
            "together" if mean - half_width > 0 else "apart" if mean + half_width < 0 else "undecided"
        )
    return design
