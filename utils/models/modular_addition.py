"""A one-layer transformer that adds modulo a prime, trained until it is right about pairs that it never saw.

It reads ``a b =`` and says (a + b) mod p at the ``=``. Source of the task and of the idea that it is solved on circles:
Nanda et al. (2023), "Progress measures for grokking via mechanistic interpretability".
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from utils.models.bundled import BUNDLED
from utils.models.config import TransformerConfig
from utils.models.initial import small_network
from utils.models.network import Network

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

FOLDER = BUNDLED / "modular-addition"
P, N_STEPS = 59, 4000
TRAINING_SHARE = 0.35
MAX_LR, WEIGHT_DECAY = 2e-3, 2.0


class ModularAdditionData(NamedTuple):
    """All p² questions, a by a: row ``a * p + b`` asks for a + b.

    Attributes:
        tokens: ``[a, b, p]``; the number p is the token "=".
        answers: (a + b) mod p.
        in_training: The rows that the model is trained on, 35 % of all; always the same ones.
    """

    tokens: Int[Tensor, "p*p 3"]
    answers: Int[Tensor, " p*p"]
    in_training: Bool[Tensor, " p*p"]


@dataclass(frozen=True)
class AdditionRun:
    """One training run.

    Attributes:
        cfg: Sizes.
        state: The final weights by their standard names, for ``utils.models.hooked.hooked_transformer``.
        history: Lists of equal length: ``step`` (taken so far), ``train_loss`` and ``unseen_loss`` in nats,
            ``train_accuracy`` and ``unseen_accuracy``.
    """

    cfg: TransformerConfig
    state: dict[str, Tensor]
    history: dict[str, list[float]]


def load_modular_addition() -> "HookedTransformer":
    """The trained model that ships with the course, ready for hooks: ``model(modular_addition_data().tokens)``.

    Raises:
        utils.models.bundled.ModelFileError: If a file is missing or damaged.
    """
    from utils.models.catalogue import load_model

    return load_model("modular-addition")


def modular_addition_data(p: int = P) -> ModularAdditionData:
    """Every question modulo p, its answer, and whether the model is trained on it.

    Raises:
        ValueError: If p is not an odd prime.
    """
    if p < 3 or any(p % divisor == 0 for divisor in range(2, p)):
        raise ValueError(f"p must be an odd prime, got {p}")
    a, b = torch.cartesian_prod(torch.arange(p), torch.arange(p)).unbind(dim=1)
    order = torch.randperm(p * p, generator=torch.Generator().manual_seed(0))
    in_training = torch.zeros(p * p, dtype=torch.bool)
    in_training[order[: round(TRAINING_SHARE * p * p)]] = True
    return ModularAdditionData(torch.stack([a, b, torch.full_like(a, p)], dim=1), (a + b) % p, in_training)


def modular_addition_config(p: int = P) -> TransformerConfig:
    """The sizes of the recipe: one layer of the course model's architecture; the vocabulary is 0 … p - 1 and "="."""
    return TransformerConfig(d_model=64, n_layers=1, n_heads=4, d_head=16, d_mlp=256, n_ctx=3, d_vocab=p + 1)


def train_modular_addition(
    seed: int, *, p: int = P, n_steps: int = N_STEPS, measure_every: int = 50, progress: bool = False
) -> AdditionRun:
    """Train with AdamW and strong weight decay, on all training pairs at every step.

    Args:
        seed: Draws the initial weights; the global random state is neither used nor changed.
        p: An odd prime. The recipe was made for 59.
        n_steps: The learning rate falls in a straight line to zero during the second half of them.
        measure_every: Steps between two points of the history.
        progress: Show a progress bar on stderr.

    Raises:
        ValueError: If p is not an odd prime, or one of the other numbers is below 1.
    """
    if min(n_steps, measure_every) < 1:
        raise ValueError(f"each must be at least 1, got {n_steps=}, {measure_every=}")
    data = modular_addition_data(p)
    network = small_network(modular_addition_config(p), torch.Generator().manual_seed(seed))
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=MAX_LR, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY, fused=True
    )
    tokens, answers = data.tokens[data.in_training], data.answers[data.in_training]
    history = []
    for step in tqdm(range(n_steps + 1), desc="modular-addition", unit="step", disable=not progress):
        if step % measure_every == 0 or step == n_steps:
            history.append({"step": step} | _measure_progress(network, data))
        if step == n_steps:
            break
        optimizer.param_groups[0]["lr"] = MAX_LR * min(1.0, (step + 1) / 10, 2 * (1 - step / n_steps))
        loss = F.cross_entropy(logits_at_end(network, tokens), answers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    columns = {name: [point[name] for point in history] for name in history[0]}
    return AdditionRun(network.cfg, network.standard_state(), columns)


def logits_at_end(network: Network, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch d_vocab"]:
    """``network(tokens)[:, -1]`` of a one-layer network, without what only the other positions need.

    That is two thirds of the work on three tokens.
    """
    cfg, block = network.cfg, network.blocks[0]
    inner = cfg.n_heads * cfg.d_head
    resid = F.embedding(tokens, network.W_E) + network.W_pos[: tokens.shape[1]]
    normed = F.layer_norm(resid, (cfg.d_model,), block["ln1_w"], block["ln1_b"], cfg.layer_norm_eps)
    q = F.linear(normed[:, -1:], block["W_QKV"][:inner], block["b_QKV"][:inner])
    k, v = F.linear(normed, block["W_QKV"][inner:], block["b_QKV"][inner:]).split(inner, dim=-1)
    q, k, v = (x.unflatten(-1, (cfg.n_heads, cfg.d_head)).transpose(1, 2) for x in (q, k, v))
    z = F.scaled_dot_product_attention(q, k, v).flatten(1)
    resid = resid[:, -1] + F.linear(z, block["W_O"], block["b_O"])
    normed = F.layer_norm(resid, (cfg.d_model,), block["ln2_w"], block["ln2_b"], cfg.layer_norm_eps)
    post = F.gelu(F.linear(normed, block["W_in"], block["b_in"]), approximate="tanh")
    resid = resid + F.linear(post, block["W_out"], block["b_out"])
    normed = F.layer_norm(resid, (cfg.d_model,), network.ln_final_w, network.ln_final_b, cfg.layer_norm_eps)
    return F.linear(normed, network.W_U, network.b_U)


@torch.no_grad()
def _measure_progress(network: Network, data: ModularAdditionData) -> dict[str, float]:
    logits = logits_at_end(network, data.tokens)
    losses = F.cross_entropy(logits, data.answers, reduction="none")
    right = (logits.argmax(dim=-1) == data.answers).float()
    seen, unseen = data.in_training, ~data.in_training
    return {
        "train_loss": losses[seen].mean().item(),
        "unseen_loss": losses[unseen].mean().item(),
        "train_accuracy": right[seen].mean().item(),
        "unseen_accuracy": right[unseen].mean().item(),
    }
