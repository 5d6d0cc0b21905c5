"""How the model goes on with what it has seen before: induction heads and the previous-token heads that feed them.

Source: Olsson et al. (2022), "In-context Learning and Induction Heads".
"""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.data.prompts import documents, repeated_random_tokens
from utils.models.phenomena.measuring import mean, share, untrained

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

N_ROWS, PERIOD = 100, 40
N_DOCUMENTS = 50
N_NULL_MODELS = 3
PERIODS = (4, 6, 8, 12, 20, 40)  # in training, none below 8


def measure(model: "HookedTransformer", seed: int = 0) -> dict[str, object]:
    """Loss and accuracy on repeated random tokens, and each head's induction and previous-token score."""
    tokens = repeated_random_tokens(N_ROWS, PERIOD, seed)
    text = documents(N_DOCUMENTS, seed)
    scores = {
        "induction": induction_scores(model, tokens, PERIOD),
        "previous token, random tokens": previous_token_scores(model, tokens),
        "previous token, text": previous_token_scores(model, text),
    }
    nulls = [untrained(model, seed + i) for i in range(N_NULL_MODELS)]
    null_losses = [repetition(null, tokens, PERIOD, seed)["loss, second time"]["value"] for null in nulls]
    return repetition(model, tokens, PERIOD, seed) | {
        "heads": _head_table(scores),
        "best": {name: _best(values) for name, values in scores.items()},
        "null": {
            "induction": max(induction_scores(null, tokens, PERIOD).max().item() for null in nulls),
            "previous token": max(previous_token_scores(null, tokens).max().item() for null in nulls),
            "loss, second time": min(null_losses),
        },
        "loss, second time, by period": {
            str(period): repetition(model, repeated_random_tokens(N_ROWS, period, seed), period, seed)[
                "loss, second time"
            ]
            for period in PERIODS
        },
    }


@torch.no_grad()
def repetition(model: "HookedTransformer", tokens: Int[Tensor, "n pos"], period: int, seed: int) -> dict[str, object]:
    """Loss (nats) on the first and second time, and accuracy on the second.

    The first token of the second time is left out: nothing tells that the repetition begins.

    Args:
        model: The model.
        tokens: Of `repeated_random_tokens`.
        period: How many tokens are repeated.
        seed: Of the bootstrap over rows.
    """
    logits = model(tokens)[:, :-1]
    targets = tokens[:, 1:]
    losses = -logits.log_softmax(-1).gather(-1, targets[:, :, None])[:, :, 0]
    right = logits.argmax(-1) == targets
    return {
        "loss, first time": mean(losses[:, :period].mean(1), seed),
        "loss, second time": mean(losses[:, period + 1 :].mean(1), seed),
        "accuracy, second time": share(right[:, period + 1 :].flatten(), _row_of_each(right[:, period + 1 :])),
    }


def _row_of_each(values: Tensor) -> Int[Tensor, " n"]:
    """For each entry of a matrix, row by row, its row: the tokens of one row are not independent."""
    return torch.arange(len(values)).repeat_interleave(values.shape[1])


@torch.no_grad()
def induction_scores(
    model: "HookedTransformer", tokens: Int[Tensor, "n pos"], period: int
) -> Float[Tensor, "n_layers n_heads"]:
    """Mean attention, the second time, from each token to the one that came after it the first time."""
    queries = torch.arange(period + 1, 2 * period)
    return _mean_attention(model, tokens, queries, queries - period + 1)


@torch.no_grad()
def previous_token_scores(
    model: "HookedTransformer", tokens: Int[Tensor, "n pos"]
) -> Float[Tensor, "n_layers n_heads"]:
    """Mean attention from each token to the one before it, from the third token on (the second sees only two)."""
    queries = torch.arange(2, tokens.shape[1])
    return _mean_attention(model, tokens, queries, queries - 1)


def _mean_attention(
    model: "HookedTransformer", tokens: Int[Tensor, "n pos"], queries: Int[Tensor, " q"], keys: Int[Tensor, " q"]
) -> Float[Tensor, "n_layers n_heads"]:
    _, cache = model.run_with_cache(tokens, names_filter=lambda name: name.endswith("hook_pattern"))
    patterns = [cache[f"blocks.{layer}.attn.hook_pattern"] for layer in range(model.cfg.n_layers)]
    return torch.stack([pattern[:, :, queries, keys].mean((0, 2)) for pattern in patterns])


def _best(scores: Float[Tensor, "n_layers n_heads"]) -> dict[str, object]:
    layer, head = divmod(int(scores.argmax()), scores.shape[1])
    return {"head": f"{layer}.{head}", "score": scores.max().item()}


def _head_table(scores: dict[str, Float[Tensor, "n_layers n_heads"]]) -> dict[str, dict[str, float]]:
    n_layers, n_heads = next(iter(scores.values())).shape
    return {
        f"{layer}.{head}": {name: round(values[layer, head].item(), 3) for name, values in scores.items()}
        for layer in range(n_layers)
        for head in range(n_heads)
    }
