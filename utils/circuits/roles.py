"""Heads by role: movers and copying heads, duplicate-token heads, S-inhibition heads."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from utils.circuits.effects import direct_effects, heads_replaced, outputs_at
from utils.circuits.ioi import answer_difference
from utils.circuits.knockout import attention_of_all_heads
from utils.patching.hooks import run_with_cache, run_with_hooks


def name_mover_scores(
    model: nn.Module, tokens: Int[Tensor, "n pos"], at: dict[str, Int[Tensor, " n"]]
) -> dict[str, Float[Tensor, "n layer head"]]:
    """What each head looks at from END, and what it writes for IO against S.

    Args:
        model: A ``HookedTransformer``.
        tokens: Clean prompts of ``ioi_dataset``.
        at: Their positions.

    Returns:
        "to IO": attention from END to IO. "to S": attention from END to S, both mentions together. "direct": what the
        head adds to logit(IO) - logit(S) at END by itself, in nats: its output (without the layer's bias) goes through
        the final norm with the run's own divisor, that is, it is centred if the norm centres, divided, and weighed by
        ``ln_final.w``. Without a graph.

    Source: Wang et al. (2022), section 3.1 and figure 3.
    """
    rows = torch.arange(len(tokens))
    from_end = [pattern[rows, :, at["END"]] for pattern in attention_of_all_heads(model, tokens)]
    looks = torch.stack(from_end, dim=1)  # [n, layer, head, key]
    to_io, to_s1, to_s2 = (looks[rows, :, :, at[place]] for place in ("IO", "S1", "S2"))
    return {"to IO": to_io, "to S": to_s1 + to_s2, "direct": direct_effects(model, tokens, tokens, at).heads}


def copy_score(
    model: nn.Module, layer: int, head: int, tokens: Int[Tensor, "n pos"], *, k: int = 5, sign: int = 1
) -> Float[Tensor, ""]:
    """The share of last tokens that a head would put among the ``k`` likeliest words, if it looked at nothing else.

    The stream at the last token, behind block 0 (for a head of layer 0: before block 0), goes through the layer's first
    norm (``ln1``), the head's value matrix with its bias (``attn.W_V``, ``attn.b_V``) and its output matrix
    (``attn.W_O``, without the layer's bias), then through ``ln_final`` and ``unembed``.

    Args:
        model: A ``HookedTransformer``.
        layer, head: Both counted from 0.
        tokens: Short texts; the last token of each is what the head would look at.
        k: Of how many likeliest words.
        sign: 1, or -1 for the head's output turned round: whether it pushes the token *down* (a negative head).

    Returns:
        A number from 0 to 1, without a graph.

    Raises:
        ValueError: If ``sign`` is neither 1 nor -1.

    Source: Wang et al. (2022), section 3.1 and appendix F.
    """
    if sign not in (1, -1):
        raise ValueError(f"sign must be 1 or -1, got {sign}")
    block, site = model.blocks[layer], "blocks.0.hook_resid_post" if layer else "blocks.0.hook_resid_pre"
    with torch.no_grad():
        _, cache = run_with_cache(model, tokens, [site])
        z = block.ln1(cache[site])[:, -1] @ block.attn.W_V[head] + block.attn.b_V[head]
        written = sign * z @ block.attn.W_O[head]
        best = model.unembed(model.ln_final(written[:, None]))[:, 0].topk(k, dim=-1).indices
    return (best == tokens[:, -1:]).any(dim=-1).float().mean()


def duplicate_token_effect(
    model: nn.Module,
    prompts: dict[str, Int[Tensor, "n pos"]],
    at: dict[str, Int[Tensor, " n"]],
    heads: Sequence[tuple[int, int]],
) -> Float[Tensor, " n"]:
    """By how much the logit difference falls if heads, at S2, can't tell that S has been said before.

    The model reads the clean prompts. At position S2 alone, all the named heads together put out what they do on the
    prompts "said once", in which S1 is somebody else and S2 is the same name.

    Args:
        model: A ``HookedTransformer``.
        prompts, at: Of ``ioi_dataset``.
        heads: Pairs (layer, head); with none, nothing changes.

    Returns:
        logit(IO) - logit(S) at END of the clean run less that of the run with the heads replaced; for each row, in
        nats. Without a graph.

    Source: after Wang et al. (2022), section 3.2, who take the heads' output from p_ABC, where S2 is another name, too.
    """
    elsewhere = outputs_at(model, prompts["said once"], at["S2"])
    with torch.no_grad():
        whole = model(prompts["clean"])
        without = run_with_hooks(model, prompts["clean"], heads_replaced(heads, elsewhere, at["S2"]))
    return answer_difference(whole, prompts["clean"], at) - answer_difference(without, prompts["clean"], at)


def s_inhibition_effect(
    model: nn.Module,
    prompts: dict[str, Int[Tensor, "n pos"]],
    at: dict[str, Int[Tensor, " n"]],
    heads: Sequence[tuple[int, int]],
    movers: Sequence[tuple[int, int]],
    *,
    source: str = "ABC",
) -> dict[str, Float[Tensor, "n mover"]]:
    """How the movers' attention from END changes if other heads, at END, put out what they do on other prompts.

    Args:
        model: A ``HookedTransformer``.
        prompts, at: Of ``ioi_dataset``. The model reads the clean prompts.
        heads: Pairs (layer, head), replaced together, at END alone.
        movers: Pairs (layer, head) whose attention is looked at.
        source: Where the heads' output comes from, a key of ``prompts``.

    Returns:
        "to IO" and "to S" (S1 and S2 together): attention with the heads replaced less attention in the clean run, in
        the order of ``movers``. Without a graph.

    Source: Wang et al. (2022), section 3.2.
    """
    clean, rows, looks = prompts["clean"], torch.arange(len(prompts["clean"])), []
    layers = sorted({layer for layer, _ in movers})
    kept: dict[int, Tensor] = {}

    def keeping(layer: int) -> Callable[[Tensor], Tensor]:
        def keep(pattern: Tensor) -> Tensor:
            kept[layer] = pattern
            return pattern

        return keep

    listening = [(f"blocks.{layer}.attn.hook_pattern", keeping(layer)) for layer in layers]
    elsewhere = outputs_at(model, prompts[source], at["END"])
    with torch.no_grad():
        for hooks in ([], heads_replaced(heads, elsewhere, at["END"])):
            run_with_hooks(model, clean, [*hooks, *listening])
            looks.append(torch.stack([kept[layer][rows, head, at["END"]] for layer, head in movers], dim=1))
    change = looks[1] - looks[0]  # [n, mover, key]
    to_io, to_s1, to_s2 = (change[rows, :, at[place]] for place in ("IO", "S1", "S2"))
    return {"to IO": to_io, "to S": to_s1 + to_s2}
