"""All variants on the same activations, with the same steps: what each costs in latents and what it gives back.

    OMP_NUM_THREADS=1 python -m utils.sae.compare

trains each variant at several strengths and from several seeds, on planted features and on the course model's stream
behind layer 2, and writes ``variants.json`` beside this file (four minutes on one core).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from utils.sae.autoencoder import SparseAutoencoder, l1_objective
from utils.sae.gated import GatedSAE, gated_objective
from utils.sae.jumprelu import JumpReLUSAE, jumprelu_objective
from utils.sae.matryoshka import MatryoshkaSAE, matryoshka_objective
from utils.sae.metrics import (
    dead_fraction,
    fraction_variance_explained,
    l0,
    loss_recovered,
    matched_cosines,
    spliced_loss,
)
from utils.sae.topk import BatchTopKSAE, TopKSAE, set_threshold, topk_objective
from utils.sae.training import Log, from_table, train_sae
from utils.superposition.planted import unit_directions

RESULTS = Path(__file__).with_name("variants.json")
SITE = "blocks.2.hook_resid_post"
VARIANTS = ("L1", "TopK", "BatchTopK", "Gated", "JumpReLU", "Matryoshka")
STRENGTHS = {
    "planted": {
        "L1": (4, 6), "TopK": (3, 5), "BatchTopK": (2, 4), "Gated": (6, 14), "JumpReLU": (1, 9), "Matryoshka": (2, 4),
    },
    "course": {
        "L1": (1.5, 3, 5), "TopK": (5, 10, 20), "BatchTopK": (5, 10, 20), "Gated": (2, 5, 9), "JumpReLU": (0.3, 1, 4),
        "Matryoshka": (5, 10, 20),
    },
}  # fmt: skip
SETTINGS = {
    "planted": {"d_sae": 96, "n_steps": 800, "batch_size": 256, "lr": 2e-3},
    "course": {"d_sae": 512, "n_steps": 300, "batch_size": 256, "lr": 4e-3},
}


class Planted(NamedTuple):
    """Activations made of known features, of mean length sqrt(d); the last fifth is kept for testing."""

    x: Float[Tensor, "n d"]
    codes: Float[Tensor, "n features"]
    truth: Float[Tensor, "features d"]


def planted(seed: int, n: int = 20_000, n_features: int = 64, d: int = 32) -> Planted:
    """Independent features, the rarest on in 6 of a thousand activations and the most frequent in 100."""
    generator = Generator().manual_seed(1000 + seed)
    truth = unit_directions(n_features, d, generator)
    on = torch.rand(n, n_features, generator=generator) < torch.logspace(-2.2, -1, n_features)
    codes = on * (0.5 + torch.rand(n, n_features, generator=generator))
    x = codes @ truth
    scale = d**0.5 / x.norm(dim=1).mean()
    return Planted(x * scale, codes * scale, truth)


def make(variant: str, strength: float, d_in: int, d_sae: int, seed: int):
    """An untrained dictionary and its objective.

    Args:
        variant: One of ``VARIANTS``.
        strength: k where latents are counted, the price of a latent elsewhere.
        d_in, d_sae, seed: Of the dictionary.
    """
    generator = Generator().manual_seed(seed)
    if variant == "L1":
        return SparseAutoencoder(d_in, d_sae, generator=generator), l1_objective(strength)
    if variant == "Gated":
        return GatedSAE(d_in, d_sae, generator=generator), gated_objective(strength)
    if variant == "JumpReLU":
        sae = JumpReLUSAE(d_in, d_sae, threshold=1.0, bandwidth=0.5, generator=generator)
        return sae, jumprelu_objective(strength)
    k = int(strength)
    if variant == "Matryoshka":
        widths = [d_sae // 16, d_sae // 4, d_sae // 2, d_sae]
        return MatryoshkaSAE(d_in, d_sae, k, widths, generator=generator), matryoshka_objective()
    kind = TopKSAE if variant == "TopK" else BatchTopKSAE
    return kind(d_in, d_sae, k, generator=generator), topk_objective()


def train_variant(
    variant: str,
    strength: float,
    x: Float[Tensor, "n d"],
    d_sae: int,
    seed: int,
    *,
    n_steps: int,
    batch_size: int,
    lr: float,
) -> tuple[nn.Module, Log]:
    """A trained dictionary, its threshold set where it has one."""
    sae, objective = make(variant, strength, x.shape[1], d_sae, seed)
    log = train_sae(sae, from_table(x, batch_size, seed=seed), objective, n_steps=n_steps, lr=lr)
    if isinstance(sae, BatchTopKSAE):
        set_threshold(sae, x[:8000])
    return sae, log


def shrinkage(x: Float[Tensor, "n d"], x_hat: Float[Tensor, "n d"]) -> float:
    """γ, by which reconstructions would have to be divided to fit x best: 1 for a fair one, below 1 for too short ones.

    Source: Rajamanoharan et al. (2024), the relative reconstruction bias.
    """
    return (x_hat.square().sum() / (x_hat * x).sum()).item()


def measured(sae: nn.Module, x: Float[Tensor, "n d"]) -> dict[str, float]:
    """What the dictionary does with activations that it was not trained on."""
    with torch.no_grad():
        x_hat, z = sae(x)
    return {
        "l0": l0(z),
        "fve": fraction_variance_explained(x, x_hat),
        "dead": dead_fraction(z),
        "gamma": shrinkage(x, x_hat),
    }


def on_planted(variant: str, strength: float, seed: int) -> dict[str, float]:
    """One run on planted features, with the share of them that was found (cosine above 0.9, one to one)."""
    x, _, truth = planted(seed)
    n_train = len(x) * 4 // 5
    sae, _ = train_variant(variant, strength, x[:n_train], seed=seed, **SETTINGS["planted"])
    cosines = matched_cosines(sae.W_dec.detach(), truth)
    return measured(sae, x[n_train:]) | {
        "cosine": cosines.mean().item(),
        "found": (cosines > 0.9).float().mean().item(),
    }


def course_setting():
    """(model, training table, scale, test documents, loss, mean-ablated loss) for the stream behind layer 2."""
    from utils.data.corpus import corpus
    from utils.models.course_model import load_course_model
    from utils.probes.activations import collect_activations

    model = load_course_model().requires_grad_(False)
    tokens = torch.as_tensor(corpus(300, 1)).long()
    chosen = torch.ones_like(tokens, dtype=torch.bool)
    chosen[:, 0] = False
    x = collect_activations(model, tokens, [SITE], chosen)[SITE]
    scale = (x.shape[1] ** 0.5 / x.norm(dim=1).mean()).item()
    tests = torch.as_tensor(corpus(32, 2)).long()
    loss = spliced_loss(model, tests, SITE, lambda value: value)
    ablated = spliced_loss(model, tests, SITE, lambda value: x.mean(dim=0).expand_as(value))
    return model, x * scale, scale, tests, loss, ablated


def on_course(setting, variant: str, strength: float, seed: int) -> dict[str, float]:
    """One run on the course model, with the loss recovered (against the mean activation)."""
    model, x, scale, tests, loss, ablated = setting
    n_train = len(x) - 4000
    sae, _ = train_variant(variant, strength, x[:n_train], seed=seed, **SETTINGS["course"])
    spliced = spliced_loss(model, tests, SITE, lambda value: sae(value * scale)[0] / scale)
    return measured(sae, x[n_train:]) | {"recovered": loss_recovered(loss, spliced, ablated)}


def at_l0(rows: Sequence[dict], l0_wanted: float, key: str) -> float:
    """What a variant would give at this L0, on straight lines in log L0 between its runs; NaN outside of them."""
    rows = sorted(rows, key=lambda row: row["l0"])
    for low, high in zip(rows, rows[1:], strict=False):
        if low["l0"] <= l0_wanted <= high["l0"]:
            at = torch.tensor([low["l0"], high["l0"], l0_wanted]).log()
            share = ((at[2] - at[0]) / (at[1] - at[0])).item() if high["l0"] > low["l0"] else 0.0
            return low[key] + share * (high[key] - low[key])
    return float("nan")


def main():
    torch.set_num_threads(1)
    rows = []
    setting = course_setting()
    for data, seeds in (("course", range(3)), ("planted", range(3))):
        for seed in seeds:
            for variant, strengths in STRENGTHS[data].items():
                for strength in strengths:
                    found = (
                        on_planted(variant, strength, seed)
                        if data == "planted"
                        else on_course(setting, variant, strength, seed)
                    )
                    which = {"data": data, "variant": variant, "strength": strength, "seed": seed}
                    measures = {key: round(value, 4) for key, value in found.items()}
                    rows.append(which | SETTINGS[data] | measures)
                    print(rows[-1], flush=True)
            RESULTS.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


if __name__ == "__main__":
    main()
