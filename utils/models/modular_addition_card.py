"""How the model of modular addition is made, and its card: its accuracy, its circles, and the rings that mean nothing.

A ring in a picture is not yet a circle in the model. Two kinds can appear in models that were never trained: in
averages over neighbouring b (each point shares most of its terms with the next), and in planes that were fitted to the
order of the points. So every ring is measured in random models as well, and the embedding's frequencies are taken away
to see whether the model needs them.
"""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from utils.models.bundled import write_model
from utils.models.circles import Ring, fourier_power, frequency_plane, principal_plane, remove_frequencies, ring
from utils.models.hooked import hooked_transformer
from utils.models.initial import small_network
from utils.models.modular_addition import (
    MAX_LR,
    TRAINING_SHARE,
    WEIGHT_DECAY,
    AdditionRun,
    modular_addition_config,
    modular_addition_data,
    train_modular_addition,
)

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

N_NEIGHBOURS = 20  # how many b = 1, 2, 3 … are averaged where neighbours make rings
N_RANDOM_MODELS, N_DRAWS = 5, 20

RING_NAMES = {
    "embedding": "embeddings",
    "embedding_fitted_plane": "embeddings, in the plane fitted to the strongest frequency",
    "end_b_fixed": "at `=`, b fixed (mean over all b)",
    "end_mean_over_b": "at `=`, averaged over all b for each a",
    "end_mean_by_answer": "at `=`, averaged over all b for each answer",
    "end_mean_by_answer_few_b": f"at `=`, averaged over b = 1 … {N_NEIGHBOURS} for each answer",
}

CARD = """\
# modular-addition

A one-layer transformer that reads `a b =` and says (a + b) mod {p}. It is right about pairs that it was not trained on.

| | |
| --- | --- |
| data | all {p} × {p} pairs; a fixed {share} of them, {n_train:,}, for training, {n_unseen:,} never seen |
| architecture | the course model's (pre-layer-norm, GELU, biases): 1 layer, d_model {cfg.d_model}, {cfg.n_heads} \
heads of {cfg.d_head}, d_mlp {cfg.d_mlp}; {cfg.d_vocab} tokens, the last one is "=" |
| parameters | {n_parameters:,} |
| recipe | `mi train modular-addition`: AdamW, learning rate {max_lr} falling to 0 in the second half, weight decay \
{weight_decay}, all training pairs at every one of {n_steps:,} steps, seed {seed} |
| files | `history.json`: losses and accuracies over the steps of training |

Measured by the recipe (`measured.json`):

| | training pairs | unseen pairs |
| --- | --- | --- |
| accuracy | {train_accuracy:.4f} | {unseen_accuracy:.4f} |
| loss (nats) | {train_loss:.4f} | {unseen_loss:.4f} |

**Frequencies.** {n_frequencies} of {n_possible} frequencies carry 90 % of the variance of the numbers' embeddings: \
{frequencies}. In {n_random_models} untrained models it takes {random_n}.

**Do they matter?** Accuracy on all pairs: {accuracy_with[all]:.3f} as it is; {accuracy_with[key_removed]:.3f} with \
these frequencies taken out of the embeddings; {accuracy_with[key_only]:.3f} with only these left; \
{accuracy_with[others_removed]:.3f} on average, {accuracy_with[others_removed_lowest]:.3f} at worst with as many of \
the others taken out ({n_draws} random choices).

**Rings, and the same measurement in untrained models.** "Share" is the part of the variance in the plane of the two \
first principal components that one circle, walked through in even steps, accounts for (1: a perfect circle). CV is \
the radius's standard deviation by its mean, the error is the mean difference from the circle's angles.

| points | share | frequency | CV | error | share, untrained (mean) | (highest) | frequency, untrained |
| --- | --- | --- | --- | --- | --- | --- | --- |
{ring_rows}

The rings of untrained models say what a ring is worth. Averages over neighbouring b are close to circles of \
frequency 1 without any training: the averaging makes them. Averages over all b, and points with b fixed, are not. A \
plane that was fitted to the order of the points shows part of a circle in untrained models, too. The frequency is \
that of more than half of the rings.

Known absences: other primes, other operations, and questions in words.
"""


def measure(model: "HookedTransformer", p: int) -> dict:
    """Everything that the card says about a model that adds modulo p."""
    random_models = [random_model(p, seed) for seed in range(N_RANDOM_MODELS)]
    power = fourier_power(number_embeddings(model))
    found, by_chance = rings(model), [rings(other) for other in random_models]
    return {
        "p": p,
        "n_parameters": sum(parameter.numel() for parameter in model.parameters()),
        **losses_and_accuracies(model, p),
        "power": {str(k): float(power[k - 1]) for k in key_frequencies(power)},
        "n_frequencies_random": [len(key_frequencies(fourier_power(number_embeddings(m)))) for m in random_models],
        "rings": {
            name: {"trained": average(found[name]), "random": average([r for other in by_chance for r in other[name]])}
            for name in found
        },
        "accuracy_with": accuracies_with_other_embeddings(model, p),
    }


def random_model(p: int, seed: int) -> "HookedTransformer":
    """An untrained model of the recipe's sizes, initialised as the recipe does it."""
    cfg = modular_addition_config(p)
    return hooked_transformer(cfg, small_network(cfg, torch.Generator().manual_seed(10_000 + seed)).standard_state())


def number_embeddings(model: "HookedTransformer") -> Float[Tensor, "p d_model"]:
    """The embeddings of 0 … p - 1, without that of "="."""
    return model.W_E[:-1].detach()


def key_frequencies(power: Float[Tensor, " frequency"], share: float = 0.9) -> list[int]:
    """The strongest frequencies, strongest first, that together carry this share of the variance."""
    order = power.argsort(descending=True)
    n = int((power[order].cumsum(dim=0) < share).sum()) + 1
    return [int(i) + 1 for i in order[:n]]


@torch.no_grad()
def losses_and_accuracies(model: "HookedTransformer", p: int) -> dict[str, float]:
    """Mean loss in nats and accuracy, on the pairs of the training and on the others."""
    data = modular_addition_data(p)
    logits = model(data.tokens)[:, -1]
    losses = F.cross_entropy(logits, data.answers, reduction="none")
    right = (logits.argmax(dim=-1) == data.answers).float()
    return {
        f"{which}_{name}": values[rows].mean().item()
        for which, rows in (("train", data.in_training), ("unseen", ~data.in_training))
        for name, values in (("loss", losses), ("accuracy", right))
    }


@torch.no_grad()
def rings(model: "HookedTransformer") -> dict[str, list[Ring]]:
    """Rings in the embedding and in the last residual stream at "=", seen in six ways; with b fixed, one for each b."""
    embeddings = number_embeddings(model)
    p = len(embeddings)
    _, cache = model.run_with_cache(modular_addition_data(p).tokens, names_filter="blocks.0.hook_resid_post")
    end = cache["blocks.0.hook_resid_post"][:, -1].unflatten(0, (p, p))  # [a, b, d_model]
    b = torch.arange(p)
    by_answer = end[(b[:, None] - b) % p, b]  # [answer, b, d_model]
    strongest = key_frequencies(fourier_power(embeddings))[0]
    return {
        "embedding": [ring(principal_plane(embeddings))],
        "embedding_fitted_plane": [ring(frequency_plane(embeddings, strongest))],
        "end_b_fixed": [ring(principal_plane(points)) for points in end.unbind(dim=1)],
        "end_mean_over_b": [ring(principal_plane(end.mean(dim=1)))],
        "end_mean_by_answer": [ring(principal_plane(by_answer.mean(dim=1)))],
        "end_mean_by_answer_few_b": [ring(principal_plane(by_answer[:, 1 : N_NEIGHBOURS + 1].mean(dim=1)))],
    }


def average(found: list[Ring]) -> dict[str, float | None]:
    """Means over rings; ``highest_share`` is the best single one, ``frequency`` that of more than half, or None."""
    share, radius_cv, angle_error = torch.tensor([r[1:] for r in found]).mean(dim=0).tolist()
    frequency, n_of_it = Counter(r.frequency for r in found).most_common(1)[0]
    return {
        "n": len(found),
        "frequency": frequency if 2 * n_of_it > len(found) else None,
        "share": share,
        "highest_share": max(r.share for r in found),
        "radius_cv": radius_cv,
        "angle_error": angle_error,
    }


def accuracies_with_other_embeddings(model: "HookedTransformer", p: int) -> dict[str, float]:
    """Accuracy on all pairs when frequencies are taken out of the embeddings of the numbers.

    Returns:
        all: Nothing is taken out.
        key_removed: Without the frequencies that carry 90 % of the variance.
        key_only: Without all others.
        others_removed, others_removed_lowest: Without as many of the others, drawn at random; mean and lowest of 20.
    """
    embeddings = number_embeddings(model)
    key = key_frequencies(fourier_power(embeddings))
    others = [k for k in range(1, p // 2 + 1) if k not in key]
    generator = torch.Generator().manual_seed(0)
    draws = [[others[i] for i in torch.randperm(len(others), generator=generator)[: len(key)]] for _ in range(N_DRAWS)]
    of_draws = [accuracy_without(model, p, draw) for draw in draws]
    return {
        "all": accuracy_without(model, p, []),
        "key_removed": accuracy_without(model, p, key),
        "key_only": accuracy_without(model, p, others),
        "others_removed": sum(of_draws) / N_DRAWS,
        "others_removed_lowest": min(of_draws),
    }


@torch.no_grad()
def accuracy_without(model: "HookedTransformer", p: int, frequencies: list[int]) -> float:
    """Accuracy on all pairs without these frequencies in the embeddings of the numbers."""
    data = modular_addition_data(p)
    embeddings = torch.cat([remove_frequencies(number_embeddings(model), frequencies), model.W_E[-1:]])
    hook = ("hook_embed", lambda value, hook: embeddings[data.tokens])
    logits = model.run_with_hooks(data.tokens, fwd_hooks=[hook])[:, -1]
    return (logits.argmax(dim=-1) == data.answers).float().mean().item()


def make(folder: Path, *, seed: int = 0) -> None:
    """Train the model, measure it, and write weights, ``history.json``, ``measured.json`` and ``CARD.md``."""
    run = train_modular_addition(seed, progress=True)
    write_model(folder, asdict(run.cfg), run.state)
    (folder / "history.json").write_text(json.dumps(run.history) + "\n", encoding="utf-8")
    write_card(folder, run, seed)


def write_card(folder: Path, run: AdditionRun, seed: int) -> None:
    """Measure a finished run and write ``measured.json`` and ``CARD.md``."""
    p = run.cfg.d_vocab - 1
    measured = {"seed": seed, "n_steps": run.history["step"][-1]}
    measured |= measure(hooked_transformer(run.cfg, run.state), p)
    (folder / "measured.json").write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    (folder / "CARD.md").write_text(card(measured), encoding="utf-8")


def ring_row(points: str, trained: dict, random: dict) -> str:
    """One line of the card's table of rings."""
    return (
        f"| {points} | {trained['share']:.2f} | {trained['frequency'] or 'several'} | {trained['radius_cv']:.2f} "
        f"| {trained['angle_error']:.0f}° | {random['share']:.2f} | {random['highest_share']:.2f} "
        f"| {random['frequency'] or 'several'} |"
    )


def card(measured: dict) -> str:
    """The model card with these measurements."""
    power = ", ".join(f"{k} ({100 * share:.0f} %)" for k, share in measured["power"].items())
    data = modular_addition_data(measured["p"])
    rows = "\n".join(ring_row(RING_NAMES[name], **of) for name, of in measured["rings"].items())
    return CARD.format(
        **measured,
        cfg=modular_addition_config(measured["p"]),
        n_train=int(data.in_training.sum()),
        n_unseen=int((~data.in_training).sum()),
        share=f"{100 * TRAINING_SHARE:.0f} %",
        max_lr=MAX_LR,
        weight_decay=WEIGHT_DECAY,
        frequencies=power,
        n_frequencies=len(measured["power"]),
        n_possible=measured["p"] // 2,
        random_n=" or ".join(map(str, sorted(set(measured["n_frequencies_random"])))),
        ring_rows=rows,
        n_random_models=N_RANDOM_MODELS,
        n_draws=N_DRAWS,
    )
