"""What the giver heads go by, and by which routes what they find reaches the answer.

A head that looks at S in "When Mary and Paul went to the park, Paul gave a ball to" may look for the name that was
said twice, for the giver, or for whoever is the first behind the opening. Prompts in which these are different people
decide, and so does putting the head's output on one prompt into the run on another. The routes are found by giving one
part of the model what it would have had without the head, and the rest what it has; after the path patching of Wang et
al. (2022), "Interpretability in the Wild".
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.data.prompts import Prompt, ioi_prompts, passive_prompts
from utils.models.phenomena.ioi import (
    N_PROMPTS,
    Head,
    Hooks,
    attention_at,
    copy_scores,
    copying_heads,
    direct_effects,
    giver_heads,
    giving_scenes,
    head_name,
    mean_outputs,
    other_people,
    preferring_heads,
    without,
)
from utils.models.phenomena.measuring import Batch, Estimate, end_logits, mean, share, to_batch

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer


class AtEnd(NamedTuple):
    """What heads and MLPs give at END."""

    z: Float[Tensor, "batch n_layers n_heads d_head"]
    mlps: Float[Tensor, "batch n_layers d_model"]


def measure(model: "HookedTransformer", seed: int = 0) -> dict[str, object]:
    """What the giver heads look at when repetition, giving and place part, what their output does, and its routes.

    Returns:
        "attention", "output", "passive": see the functions of these names; "routes", "copying heads": see `routes` and
        `copying`. Without giver heads only the last.
    """
    batch = to_batch(ioi_prompts(N_PROMPTS, seed))
    heads, scores = attention_at(model, batch), copy_scores(model)
    copies, prefer = copying_heads(heads, scores), preferring_heads(direct_effects(model, batch), heads, scores)
    scenes = giving_scenes(N_PROMPTS, seed)
    givers = giver_heads(model, scenes)
    found: dict[str, object] = {"copying heads": copying(model, batch, copies, prefer, seed)}
    if not givers:
        return found
    return found | {
        "attention": {name: attention(model, prompts, givers, seed) for name, prompts in scenes.items()},
        "output": {
            name: output(model, scenes["giver twice"], prompts, givers, seed) for name, prompts in scenes.items()
        },
        "passive": {
            owner: passive(model, passive_prompts(N_PROMPTS, seed, bystander=owner == "a third"), givers, seed)
            for owner in ("a third", "the receiver")
        },
        "routes": routes(model, batch, givers, prefer, seed),
    }


@torch.no_grad()
def attention(
    model: "HookedTransformer", prompts: Sequence[Prompt], heads: Sequence[Head], seed: int
) -> dict[str, dict[str, Estimate]]:
    """For each head, its attention from END to whoever stands at "S2", to the owner, and to the two in the opening."""
    batch = to_batch(prompts)
    _, cache = model.run_with_cache(batch.tokens, names_filter=lambda name: name.endswith("hook_pattern"))
    rows, end = batch.rows(), batch.at["END"]
    found = {}
    for layer, head in heads:
        row = cache[f"blocks.{layer}.attn.hook_pattern"][rows, head, end]
        opening = row[rows, batch.at["IO"]] + row[rows, batch.at["S1"]]
        looks = {"giver": row[rows, batch.at["S2"]], "owner": row[rows, batch.at["OWNER"]], "opening": opening}
        found[head_name((layer, head))] = {name: mean(values, seed, batch.units) for name, values in looks.items()}
    return found


def output(
    model: "HookedTransformer", into: Sequence[Prompt], prompts: Sequence[Prompt], heads: Sequence[Head], seed: int
) -> dict[str, Estimate]:
    """What the model answers on ``into`` with these heads' output, at END, from the run on the prompts beside them."""
    batch, source = to_batch(into), at_end(model, to_batch(prompts))
    return answers(model, batch, without(heads, batch, source.z), seed)


def passive(
    model: "HookedTransformer", prompts: Sequence[Prompt], heads: Sequence[Head], seed: int
) -> dict[str, object]:
    """Where the heads look in the passive, where the owner is first behind the opening and the giver comes second."""
    batch = to_batch(prompts)
    said = end_logits(model, batch).argmax(1)
    return {
        "attention": attention(model, prompts, heads, seed),
        "says the receiver": share(said == batch.answers, batch.units),
        "says the giver": share(said == batch.foils, batch.units),
    }


def routes(
    model: "HookedTransformer",
    batch: Batch,
    givers: Sequence[Head],
    prefer: Sequence[Head],
    seed: int,
) -> dict[str, dict[str, Estimate]]:
    """The logit difference without the giver heads, and when only a part of the model has to do without them.

    Returns:
        "whole model": the heads are knocked out. "all later heads", "preferring heads", "MLPs": these give at END what
        they give without the giver heads; all else is as it is. "direct": only what the giver heads themselves write is
        missing, and no head or MLP behind them notices. "nothing" changes nothing. The routes overlap: what an MLP
        makes of a later head's output belongs to both.
    """
    means = mean_outputs(model, batch, seed)
    gone = without(givers, batch, means)
    clean, lacking = at_end(model, batch), at_end(model, batch, gone)
    first = min(layer for layer, _ in givers)
    later = [(layer, head) for layer in range(first + 1, model.cfg.n_layers) for head in range(model.cfg.n_heads)]
    cases = {
        "nothing": [],
        "whole model": gone,
        "all later heads": without(later, batch, lacking.z),
        "preferring heads": without(prefer, batch, lacking.z),
        "MLPs": fixed_mlps(first, batch, lacking.mlps),
        "direct": [*gone, *without(later, batch, clean.z), *fixed_mlps(first, batch, clean.mlps)],
    }
    return {name: answers(model, batch, hooks, seed) for name, hooks in cases.items()}


def copying(
    model: "HookedTransformer", batch: Batch, copies: Sequence[Head], prefer: Sequence[Head], seed: int
) -> dict[str, dict[str, Estimate]]:
    """Whether the copying heads supply the name: what is said without them, and with their output for another receiver.

    Returns:
        For "knocked out" and "another receiver": "all", "preferring heads", and "other heads" (those of the layers
        before the copying ones). "says the other": the other receiver's name is the most likely next word.
    """
    generator = torch.Generator().manual_seed(seed)
    people = other_people(batch, generator)[batch.rows(), batch.at["IO"]]
    other = batch._replace(tokens=batch.tokens.clone())
    other.tokens[batch.rows(), batch.at["IO"]] = people
    before = min((layer for layer, _ in copies), default=0)
    groups = {
        "all": copies,
        "preferring heads": prefer,
        "other heads": [(layer, head) for layer in range(before) for head in range(model.cfg.n_heads)],
    }
    means, theirs = mean_outputs(model, batch, seed), at_end(model, other).z
    return {
        "knocked out": {
            name: answers(model, batch, without(heads, batch, means), seed) for name, heads in groups.items()
        },
        "another receiver": {
            name: answers(model, batch, without(heads, batch, theirs), seed, people) for name, heads in groups.items()
        },
    }


@torch.no_grad()
def at_end(model: "HookedTransformer", batch: Batch, hooks: Hooks = ()) -> AtEnd:
    """Every head's ``z`` and every MLP's output at END."""
    with model.hooks(fwd_hooks=list(hooks)):
        _, cache = model.run_with_cache(batch.tokens, names_filter=lambda n: n.endswith(("hook_z", "hook_mlp_out")))
    rows, end, layers = batch.rows(), batch.at["END"], range(model.cfg.n_layers)
    return AtEnd(
        torch.stack([cache[f"blocks.{layer}.attn.hook_z"][rows, end] for layer in layers], dim=1),
        torch.stack([cache[f"blocks.{layer}.hook_mlp_out"][rows, end] for layer in layers], dim=1),
    )


def fixed_mlps(first: int, batch: Batch, outputs: Float[Tensor, "batch n_layers d_model"]) -> Hooks:
    """Hooks that replace the output at END of every MLP from a layer on."""

    def replacing(layer: int) -> Callable:
        def replace(out: Float[Tensor, "batch pos d_model"], hook: object) -> Tensor:
            out[batch.rows(), batch.at["END"]] = outputs[:, layer]
            return out

        return replace

    return [(f"blocks.{layer}.hook_mlp_out", replacing(layer)) for layer in range(first, outputs.shape[1])]


@torch.no_grad()
def answers(
    model: "HookedTransformer", batch: Batch, hooks: Hooks, seed: int, other: Int[Tensor, " batch"] | None = None
) -> dict[str, Estimate]:
    """Accuracy and logit difference under hooks, and, if there is one, how often another name is said."""
    with model.hooks(fwd_hooks=hooks):
        logits = end_logits(model, batch)
    rows, said = batch.rows(), logits.argmax(1)
    found = {
        "accuracy": share(said == batch.answers, batch.units),
        "logit difference": mean(logits[rows, batch.answers] - logits[rows, batch.foils], seed, batch.units),
    }
    return found if other is None else found | {"says the other": share(said == other, batch.units)}
