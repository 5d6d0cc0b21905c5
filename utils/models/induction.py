"""Attention-only transformers that learn to continue a repeated random sequence, and scores of how they do it.

With two layers the ability comes all at once: a head that reads the previous token and a head that reads what followed
the last time form within some hundred steps (Olsson et al. 2022, "In-context Learning and Induction Heads"). With
one layer it doesn't come.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from utils.models.config import TransformerConfig
from utils.models.initial import small_network
from utils.models.network import Network

D_VOCAB, N_CTX = 64, 48
SHORTEST_PERIOD, LONGEST_PERIOD = 6, 24
MAX_LR = 6e-3


@dataclass(frozen=True)
class InductionRun:
    """One training run, measured on 256 new sequences at each point of ``steps``.

    Attributes:
        cfg: Sizes.
        state: The final weights by their standard names, for ``utils.models.hooked.hooked_transformer``.
        steps: Optimiser steps taken at each point; the first is 0, the last is the end.
        loss: Mean cross-entropy in nats on the predictable tokens: those whose predecessor has come one period before.
        previous_token: Mean attention from a token to the one before it.
        induction: Mean attention from a token to those that followed it one, two, … periods before, all together; over
            the tokens that have come one period before.
    """

    cfg: TransformerConfig
    state: dict[str, Tensor]
    steps: Int[Tensor, " points"]
    loss: Float[Tensor, " points"]
    previous_token: Float[Tensor, "points n_layers n_heads"]
    induction: Float[Tensor, "points n_layers n_heads"]


def induction_config(n_layers: int = 2) -> TransformerConfig:
    """The sizes of the recipe: attention only, 4 heads of 16 dimensions in each layer."""
    return TransformerConfig(d_model=64, n_layers=n_layers, n_heads=4, d_head=16, d_mlp=0, n_ctx=N_CTX, d_vocab=D_VOCAB)


def repeated_sequences(n: int, generator: torch.Generator) -> tuple[Int[Tensor, "n pos"], Int[Tensor, " n"]]:
    """Sequences of 48 uniform random tokens out of 64, each of which repeats its beginning until its end.

    Args:
        n: How many.
        generator: Draws periods and tokens.

    Returns:
        tokens: ``tokens[b, i] == tokens[b, i - period[b]]`` for every i >= period[b].
        period: From 6 to 24, uniform.
    """
    period = torch.randint(SHORTEST_PERIOD, LONGEST_PERIOD + 1, (n,), generator=generator)
    beginning = torch.randint(D_VOCAB, (n, LONGEST_PERIOD), generator=generator)
    return beginning.gather(1, torch.arange(N_CTX) % period[:, None]), period


def train_induction(
    seed: int, *, n_layers: int = 2, n_steps: int = 400, measure_every: int = 20, progress: bool = False
) -> InductionRun:
    """Train on new repeated sequences at every step: batches of 64, Adam, learning rate 0.006 after 20 steps.

    Args:
        seed: Draws weights and sequences; the global random state is neither used nor changed.
        n_layers: 2 for the phase change, 1 for its absence.
        n_steps: Optimiser steps.
        measure_every: Steps between two points of the history.
        progress: Show a progress bar on stderr.

    Raises:
        ValueError: If one of the numbers is below 1.
    """
    if min(n_layers, n_steps, measure_every) < 1:
        raise ValueError(f"each must be at least 1, got {n_layers=}, {n_steps=}, {measure_every=}")
    generator = torch.Generator().manual_seed(seed)
    network = small_network(induction_config(n_layers), generator)
    optimizer = torch.optim.Adam(network.parameters(), lr=MAX_LR, betas=(0.9, 0.98), fused=True)
    new_sequences = repeated_sequences(256, generator)
    steps, points = [], []
    for step in tqdm(range(n_steps + 1), desc="induction", unit="step", disable=not progress):
        if step % measure_every == 0 or step == n_steps:
            steps.append(step)
            points.append(measure_induction(network, *new_sequences))
        if step < n_steps:
            train_step(network, optimizer, repeated_sequences(64, generator)[0], lr=MAX_LR * min(1.0, (step + 1) / 20))
    loss, previous_token, induction = (torch.stack(column) for column in zip(*points, strict=True))
    return InductionRun(network.cfg, network.standard_state(), torch.tensor(steps), loss, previous_token, induction)


@torch.no_grad()
def measure_induction(
    network: Network, tokens: Int[Tensor, "batch pos"], period: Int[Tensor, " batch"]
) -> tuple[Float[Tensor, ""], Float[Tensor, "n_layers n_heads"], Float[Tensor, "n_layers n_heads"]]:
    """Loss on predictable tokens, previous-token score and induction score; see ``InductionRun``."""
    position = torch.arange(tokens.shape[1])
    has_come = position >= period[:, None]  # [batch, query]
    losses = F.cross_entropy(network(tokens[:, :-1]).mT, tokens[:, 1:], reduction="none")
    patterns = attention_patterns(network, tokens)
    distance = position[:, None] + 1 - position  # [query, key], from the key to the token after the query
    followed = (distance % period[:, None, None] == 0) & (position > 0)  # [batch, query, key]
    return (
        losses[has_come[:, :-1]].mean(),
        patterns.diagonal(offset=-1, dim1=-2, dim2=-1).mean(dim=(2, 3)),
        (patterns * followed).sum(dim=-1)[:, :, has_come].mean(dim=-1),
    )


def attention_patterns(
    network: Network, tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, "n_layers n_heads batch query key"]:
    """The attention probabilities of an attention-only network, which its fused attention does not keep."""
    cfg = network.cfg
    resid = F.embedding(tokens, network.W_E) + network.W_pos[: tokens.shape[1]]
    future = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool).triu(1)
    patterns = []
    for block in network.blocks:
        normed = F.layer_norm(resid, (cfg.d_model,), block["ln1_w"], block["ln1_b"], cfg.layer_norm_eps)
        qkv = F.linear(normed, block["W_QKV"], block["b_QKV"]).unflatten(-1, (3, cfg.n_heads, cfg.d_head))
        q, k, v = qkv.permute(2, 3, 0, 1, 4)  # each [head, batch, pos, d_head]
        scores = (q @ k.mT / cfg.d_head**0.5).masked_fill(future, -torch.inf)
        patterns.append(scores.softmax(dim=-1))
        z = (patterns[-1] @ v).permute(1, 2, 0, 3).flatten(2)
        resid = resid + F.linear(z, block["W_O"], block["b_O"])
    return torch.stack(patterns)


def train_step(network: Network, optimizer: torch.optim.Optimizer, tokens: Int[Tensor, "batch pos"], lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
    loss = F.cross_entropy(network(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
