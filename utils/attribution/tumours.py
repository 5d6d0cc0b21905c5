"""The table of chapter 01 (breast tumours, ten measurements each), and small networks trained on it."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Tumours:
    """scikit-learn's breast-cancer table: the ten mean measurements, standardised, and 1 for a malignant tumour."""

    table: Float[Tensor, "patient feature"]
    malignant: Float[Tensor, "patient"]
    features: list[str]
    train_rows: Int[Tensor, "train"]
    held_out: Int[Tensor, "held_out"]


@cache
def load_tumours() -> Tumours:
    """569 tumours; three quarters of the rows, drawn once, are for training."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    table = torch.tensor(data.data[:, :10])
    table = (table - table.mean(0)) / table.std(0, correction=0)
    malignant = 1.0 - torch.tensor(data.target, dtype=torch.float64)
    order = torch.randperm(len(table), generator=torch.Generator().manual_seed(0))
    split = 3 * len(table) // 4
    features = [name.removeprefix("mean ") for name in data.feature_names[:10]]
    return Tumours(table, malignant, features, order[:split], order[split:])


def train_network(
    data: Tumours, labels: Float[Tensor, "patient"], seed: int
) -> Callable[[Float[Tensor, "row feature"]], Float[Tensor, "row"]]:
    """Train a network of two hidden layers with 16 units each on the training rows.

    Args:
        data: The table.
        labels: What to predict for each patient, 0 or 1.
        seed: Seed of the weights and of the order of the rows.

    Returns:
        A function from rows to the probability of 1.
    """
    from sklearn.neural_network import MLPClassifier

    network = MLPClassifier((16, 16), alpha=1e-2, max_iter=200, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # stopping after max_iter is what we want
        network.fit(data.table[data.train_rows].numpy(), labels[data.train_rows].numpy())

    def probability(rows: Float[Tensor, "row feature"]) -> Float[Tensor, "row"]:
        return torch.as_tensor(network.predict_proba(rows.numpy())[:, 1])

    return probability


def unsure_patient(
    data: Tumours, networks: list[Callable[[Float[Tensor, "row feature"]], Float[Tensor, "row"]]]
) -> Float[Tensor, "feature"]:
    """The held-out patient for whom the networks' mean probability of "malignant" is nearest to 0.7."""
    mean = torch.stack([network(data.table[data.held_out]) for network in networks]).mean(0)
    return data.table[data.held_out[(mean - 0.7).abs().argmin()]]


def strangeness(table: Float[Tensor, "patient feature"], rows: Float[Tensor, "row feature"]) -> Float[Tensor, "row"]:
    """How far rows are from the table, counted as its own features scatter together (Mahalanobis' distance).

    A row whose radius and perimeter contradict each other is strange although each number alone is ordinary.
    """
    steps = rows - table.mean(0)
    covariance = torch.cov(table.T)
    return (steps * torch.linalg.solve(covariance, steps.T).T).sum(-1).sqrt()
