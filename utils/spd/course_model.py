"""One weight matrix of the course model, decomposed: the output matrix of the last MLP."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from utils.patching.hooks import run_with_cache
from utils.spd.components import Forward, RankOneComponents, masked_forward
from utils.spd.losses import Distance
from utils.spd.training import Decomposition, train_spd

LAYER = 3


class Rows(NamedTuple):
    """What comes into the matrix and what is beside it, at all positions but the first of each text.

    Attributes:
        x: [text, pos, d_mlp + d_model]: the neurons' activations, then the stream without the matrix's product.
        tokens: The token at each position.
    """

    x: Float[Tensor, "text pos d"]
    tokens: Int[Tensor, "text pos"]


def last_mlp_rows(model: nn.Module, tokens: Int[Tensor, "text pos"]) -> Rows:
    """Run the course model, and keep what its last MLP's output matrix reads and what its product is added to."""
    neurons, stream = f"blocks.{LAYER}.mlp.hook_post", f"blocks.{LAYER}.hook_resid_mid"
    parts = []
    with torch.no_grad():
        for part in tokens.split(64):
            cache = run_with_cache(model, part, [neurons, stream])[1]
            beside = cache[stream] + model.blocks[LAYER].mlp.b_out
            parts.append(torch.cat([cache[neurons], beside], dim=-1)[:, 1:])
    return Rows(torch.cat(parts), tokens[:, 1:])


def finish(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """What the course model does with its stream at the end: the final norm and the unembedding."""
    return lambda resid: model.unembed(model.ln_final(resid))


def kl_distance(logits: Float[Tensor, "*batch vocab"], wanted: Float[Tensor, "*batch vocab"]) -> Float[Tensor, ""]:
    """The Kullback-Leibler divergence of the predictions, KL(wanted ‖ logits), in nats: a mean over the batch.

    Args:
        logits: The network's with components.
        wanted: The network's own.

    Returns:
        The mean over all inputs of Σ_v p_v (log p_v − log q_v), p from ``wanted`` and q from ``logits``.
    """
    log_q, log_p = logits.log_softmax(dim=-1), wanted.log_softmax(dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1).mean()


def spd_on_course_model(
    x: Float[Tensor, "n d"],
    W_out: Float[Tensor, "d_mlp d_model"],
    finish: Callable[[Tensor], Tensor],
    *,
    C: int,
    price: float,
    n_steps: int,
    lr: float = 4e-3,
    batch: int = 256,
    seed: int = 0,
) -> tuple[Forward, Decomposition]:
    """Decompose the output matrix of a network's last MLP on what comes into it.

    The network from the matrix on: its product with the first d_mlp numbers of a row is added to the other d_model
    numbers, and ``finish`` makes logits of the sum. Predictions are compared by ``kl_distance``; the exponent of the
    price is 1, and faithfulness has the weight 1000, the other two losses 1.

    Args:
        x: Rows to train on: d_mlp activations of neurons, then d_model numbers of the stream. A batch is
            ``x[torch.randint(len(x), (batch,), generator=generator)]``.
        W_out: The matrix. In the decomposition its name is "W_out".
        finish: From the stream to logits.
        C, price, n_steps, lr, seed: Of ``train_spd``.
        batch: Rows of a batch.

    Returns:
        The network as a ``forward(x, linear)``, for rows of any batch dimensions, and its decomposition.
    """
    d_mlp = len(W_out)

    def forward(rows: Tensor, linear: Callable[[str, Tensor], Tensor]) -> Tensor:
        return finish(rows[..., d_mlp:] + linear("W_out", rows[..., :d_mlp]))

    def draw(generator: torch.Generator) -> Tensor:
        return x[torch.randint(len(x), (batch,), generator=generator)]

    decomposition = train_spd(
        forward,
        {"W_out": W_out},
        draw,
        C=C,
        price=price,
        n_steps=n_steps,
        lr=lr,
        distance=kl_distance,
        weigh={"faithfulness": 1000.0},
        seed=seed,
    )
    return forward, decomposition


def what_it_writes(
    components: RankOneComponents,
    a: Float[Tensor, "n d_in"],
    needed: Bool[Tensor, "n C"],
    W_U: Float[Tensor, "d_out vocab"],
) -> Float[Tensor, "C vocab"]:
    """What each component adds to the logits where it is needed, on average, as far as it acts directly.

    A component adds (a · V[:, c]) U[c] to the stream. The final norm takes the mean over dimensions away; its scale is
    left out. A number added to all words' logits changes nothing, so the mean over the vocabulary is taken away too.

    Args:
        components: Of a matrix that writes to the stream.
        a: What comes into the matrix.
        needed: Which components each input needs.
        W_U: The unembedding.

    Returns:
        A row for each component; zeros for one that no input needs.
    """
    strength = ((a @ components.V) * needed).sum(dim=0) / needed.sum(dim=0).clamp(min=1)
    U = components.U - components.U.mean(dim=1, keepdim=True)
    logits = strength[:, None] * (U @ W_U)
    return logits - logits.mean(dim=1, keepdim=True)


def adversarial_masks(
    forward: Forward,
    weights: Mapping[str, Float[Tensor, "d_in d_out"]],
    components: Mapping[str, RankOneComponents],
    x: Tensor,
    wanted: Tensor,
    needed: Mapping[str, Bool[Tensor, "*batch C"]],
    distance: Distance,
    n_steps: int = 10,
    step: float = 0.2,
) -> dict[str, Float[Tensor, "*batch C"]]:
    """The worst that setting unneeded components to something between 0 and 1 can do, looked for by gradient ascent.

    Unneeded components start at 1/2. In each step every mask moves by ``step`` in the direction of its gradient's sign
    (not at all where the gradient is 0), so that the distance grows, and is brought back between 0 and 1. Needed
    components stay at 1.

    Args:
        forward: The network, as for ``inputs_of_matrices``.
        weights: The matrices by name.
        components: Components for each.
        x: Inputs of the network.
        wanted: Its own output for x.
        needed: True where a component is needed, by name of matrix.
        distance: ``distance(output, wanted)`` is one number.
        n_steps: Number of steps.
        step: How far a mask moves in one.

    Returns:
        The masks after the last step by name of matrix, without gradients.

    Source: the idea is projected gradient descent, as in Madry et al. (2018), "Towards deep learning models resistant
    to adversarial attacks".
    """
    masks = {name: torch.where(keep, 1.0, 0.5) for name, keep in needed.items()}
    for _ in range(n_steps):
        for mask in masks.values():
            mask.requires_grad_()
        worse = distance(masked_forward(forward, weights, components, x, masks), wanted)
        gradients = torch.autograd.grad(worse, list(masks.values()))
        masks = {
            name: torch.where(needed[name], 1.0, (mask.detach() + step * gradient.sign()).clamp(0, 1))
            for (name, mask), gradient in zip(masks.items(), gradients, strict=True)
        }
    return masks
