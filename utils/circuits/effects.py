"""What heads put out at one position, runs in which it is replaced, and what all parts write for the answer."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from utils.circuits.ioi import answer_difference
from utils.patching.hooks import run_with_cache, run_with_hooks

Hooks = list[tuple[str, Callable[[Tensor], Tensor]]]


def outputs_at(
    model: nn.Module, tokens: Int[Tensor, "n pos"], positions: Int[Tensor, " n"]
) -> Float[Tensor, "n layer head d_head"]:
    """What each head puts out (``hook_z``) at one position of each row."""
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(len(model.blocks))]
    with torch.no_grad():
        _, cache = run_with_cache(model, tokens, names)
    return torch.stack([cache[name][torch.arange(len(tokens)), positions] for name in names], dim=1)


def heads_replaced(
    heads: Sequence[tuple[int, int]], outputs: Float[Tensor, "n layer head d_head"], positions: Int[Tensor, " n"]
) -> Hooks:
    """Hooks for ``run_with_hooks`` that put these outputs in place of the heads', at one position of each row.

    Args:
        heads: Pairs (layer, head).
        outputs: As of ``outputs_at``; of the other heads they are not read. A first dimension of size 1 stands for all
            rows (a mean over prompts).
        positions: One for each row.
    """

    def replacing(layer: int) -> Callable[[Tensor], Tensor]:
        def replace(z: Tensor) -> Tensor:
            changed, rows = z.clone(), torch.arange(len(z))
            for _, head in (pair for pair in heads if pair[0] == layer):
                changed[rows, positions, head] = outputs[:, layer, head]
            return changed

        return replace

    return [(f"blocks.{layer}.attn.hook_z", replacing(layer)) for layer in sorted({layer for layer, _ in heads})]


class DirectEffects(NamedTuple):
    """What each part adds to logit(IO) - logit(S) at END by itself, with the final norm's divisor held fixed, in nats.

    ``heads`` [n, layer, head] and ``mlps`` [n, layer] with ``rest`` [n] (the embeddings and all biases outside the
    MLPs) add up to the logit difference if the divisor is the run's own; ``scale`` [n] is the run's own divisor.
    """

    heads: Float[Tensor, "n layer head"]
    mlps: Float[Tensor, "n layer"]
    rest: Float[Tensor, " n"]
    scale: Float[Tensor, " n"]

    def total(self) -> Float[Tensor, " n"]:
        return self.heads.sum((1, 2)) + self.mlps.sum(1) + self.rest


def direct_effects(
    model: nn.Module,
    tokens: Int[Tensor, "n pos"],
    clean: Int[Tensor, "n pos"],
    at: dict[str, Int[Tensor, " n"]],
    hooks: Hooks = (),
    scale: Float[Tensor, " n"] | None = None,
) -> DirectEffects:
    """Direct logit attribution (part 03b) of all heads and MLPs at END, also under hooks.

    Args:
        model: A ``HookedTransformer`` with a layer norm or an RMS norm.
        tokens: What it reads.
        clean: The clean prompts, whose IO and S are compared.
        at: Positions, of ``ioi_dataset``.
        hooks: Interventions, as for ``run_with_hooks``.
        scale: The final norm's divisor for each row; None takes the one of this run.
    """
    layers, rows, end = range(len(model.blocks)), torch.arange(len(tokens)), at["END"]
    attn, mlp = (
        [f"blocks.{layer}.attn.hook_z" for layer in layers],
        [f"blocks.{layer}.hook_mlp_out" for layer in layers],
    )
    last = f"blocks.{len(model.blocks) - 1}.hook_resid_post"
    kept: dict[str, Tensor] = {}

    def keeping(name: str) -> Callable[[Tensor], Tensor]:
        def keep(activation: Tensor) -> Tensor:
            kept[name] = activation[rows, end]
            return activation

        return keep

    listening = [(name, keeping(name)) for name in [*attn, *mlp, last, "ln_final.hook_scale"]]
    with torch.no_grad():
        logits = run_with_hooks(model, tokens, [*hooks, *listening])
        own = kept["ln_final.hook_scale"][:, 0]
        scale = own if scale is None else scale
        ids = [clean[rows, at[place]] for place in ("IO", "S2")]
        unembed = (model.W_U[:, ids[0]] - model.W_U[:, ids[1]]).T
        gain = getattr(model.ln_final, "w", torch.ones(unembed.shape[1]))
        read = gain * unembed
        if not model.cfg.normalization_type.startswith("RMS"):  # an RMS norm takes no mean away
            read = read - read.mean(dim=-1, keepdim=True)
        heads = torch.stack(
            [torch.einsum("nhd,hdm,nm->nh", kept[name], model.W_O[layer], read) for layer, name in enumerate(attn)], 1
        )
        mlps = torch.stack([(kept[name] * read).sum(-1) for name in mlp], 1)
        whole = (kept[last] * read).sum(-1)
        constant = answer_difference(logits, clean, at) - whole / own  # what the last biases say
        rest = (whole - heads.sum((1, 2)) - mlps.sum(1)) / scale + constant
    return DirectEffects(heads / scale[:, None, None], mlps / scale[:, None], rest, own)
