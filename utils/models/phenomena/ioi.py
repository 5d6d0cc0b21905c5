"""How the model tells who gets the present: a head that looks at the giver, heads that copy names, and what they do.

Prompts name two people, IO and S, in either order, then S again (S1, S2), and end (END) where IO should come. What is
measured follows Wang et al. (2022), "Interpretability in the Wild", and, for self-repair, Rushing and Nanda (2024),
"Explorations of Self-Repair in Language Models".

In these prompts S is three things at once: the name that was said twice, the giver, and the first person behind the
opening. Which of them a head goes by, `utils.models.phenomena.giver` takes apart.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.data.corpus import decode, encode
from utils.data.prompts import Prompt, giving_roles, ioi_prompts, token_id
from utils.data.world import NAMES
from utils.models.phenomena.measuring import Batch, end_logits, mean, ratio, share, to_batch, untrained

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

N_PROMPTS = 200
N_NULL_MODELS = 3
N_RANDOM_SETS = 10
PAIRS = (("END", "IO"), ("END", "S1"), ("END", "S2"), ("S2", "S1"))

# A head has a role if it does more than this.
LOOKS = 0.3  # attention from the role's position to its target
COPIES = 0.5  # share of names that the head copies
DIRECT = 0.05  # direct effect, as a share of the logit difference

Head = tuple[int, int]
Hooks = list[tuple[str, Callable]]


class DirectEffects(NamedTuple):
    """What each part of the model adds to logit(IO) - logit(S) by itself, with the final layer norm's scale frozen.

    The parts add up to the logit difference.

    Attributes:
        heads, mlps: One for each head and each MLP.
        rest: The embeddings and all biases outside the MLPs.
        scale: The final layer norm's divisor.
    """

    heads: Float[Tensor, "batch n_layers n_heads"]
    mlps: Float[Tensor, "batch n_layers"]
    rest: Float[Tensor, " batch"]
    scale: Float[Tensor, " batch"]

    def total(self) -> Float[Tensor, " batch"]:
        return self.heads.sum((1, 2)) + self.mlps.sum(1) + self.rest


def measure(model: "HookedTransformer", seed: int = 0) -> dict[str, object]:
    """The heads' attention, copying and direct effects, their roles, and what happens when they are knocked out.

    Heads are called "layer.head". "Knocked out" means: at END, a head's output is replaced by its mean over the same
    sentences about three other people, none of them repeated. The roles: heads that look from END at the giver in any
    of `giving_scenes`, said twice or not; heads that copy the names of the two people; among these, those that prefer
    the receiver; and heads that look from the second mention of the giver back at the first.
    """
    batch = to_batch(ioi_prompts(N_PROMPTS, seed))
    attention = attention_at(model, batch)
    copying = copy_scores(model)
    effects = direct_effects(model, batch)
    means = mean_outputs(model, batch, seed)
    givers = giver_heads(model, giving_scenes(N_PROMPTS, seed))
    preferring = preferring_heads(effects, attention, copying)
    return {
        "heads": _head_table(attention, copying, effects),
        "MLPs' direct effects": [round(value, 3) for value in effects.mlps.mean(0).tolist()],
        "roles": {
            "giver": [head_name(head) for head in givers],
            "copy names": [head_name(head) for head in copying_heads(attention, copying)],
            "prefer the receiver": [head_name(head) for head in preferring],
            "duplicate token": [head_name(head) for head in heads_above(attention["S2", "S1"], LOOKS)],
        },
        "direct effect": direct_shares(effects, batch, seed),
        "giver heads knocked out": knock_out(model, batch, means, givers, preferring, seed),
        "self-repair": self_repair(model, batch, means, preferring, effects, seed),
        "null": null_models(model, batch, seed),
    }


def head_name(head: Head) -> str:
    return f"{head[0]}.{head[1]}"


def heads_above(scores: Float[Tensor, "n_layers n_heads"], threshold: float) -> list[Head]:
    """The heads with a score above the threshold, the highest first."""
    n_heads = scores.shape[1]
    order = scores.flatten().argsort(descending=True).tolist()
    return [divmod(i, n_heads) for i in order if scores.flatten()[i] > threshold]


@torch.no_grad()
def attention_to_people(model: "HookedTransformer", text: str, layer: int, head: int) -> dict[str, float]:
    """How much a head looks from the last token of a text at each person in it, all mentions together.

    Args:
        model: The course model.
        text: Made of the model's words, without `<bos>`.
        layer, head: Both counted from 0.

    Returns:
        For each of the world's names, and of its jobs, that the text mentions, a number from 0 to 1.

    Raises:
        ValueError: If a word is not in the vocabulary.
    """
    roles, tokens = giving_roles(text), torch.tensor([[0, *encode(text)]])
    name = f"blocks.{layer}.attn.hook_pattern"
    _, cache = model.run_with_cache(tokens, names_filter=name)
    return {person: cache[name][0, head, -1, list(places)].sum().item() for person, places in roles.said.items()}


@torch.no_grad()
def attention_at(
    model: "HookedTransformer", batch: Batch, hooks: Sequence[tuple[str, Callable]] = ()
) -> dict[tuple[str, str], Float[Tensor, "n_layers n_heads"]]:
    """Mean attention from END to IO, S1 and S2, and from S2 to S1 (`PAIRS`)."""
    patterns = {}
    for layer in range(model.cfg.n_layers):

        def keep(pattern: Float[Tensor, "batch head query key"], hook: object, layer: int = layer) -> None:
            patterns[layer] = pattern

        hooks = [*hooks, (f"blocks.{layer}.attn.hook_pattern", keep)]
    model.run_with_hooks(batch.tokens, fwd_hooks=list(hooks))
    stacked = torch.stack([patterns[layer] for layer in range(model.cfg.n_layers)], dim=1)
    rows = batch.rows()
    return {(start, goal): stacked[rows, :, :, batch.at[start], batch.at[goal]].mean(0) for start, goal in PAIRS}


@torch.no_grad()
def copy_scores(model: "HookedTransformer", sign: int = 1, top: int = 5) -> Float[Tensor, "n_layers n_heads"]:
    """Share of names that are among the ``top`` tokens that a head would write if it looked at that name alone.

    The residual stream at the name goes through the head's OV circuit, the final layer norm and the unembedding: after
    block 0, as in Wang et al. (2022), or before it for the heads of block 0.

    Args:
        model: The model.
        sign: -1 asks instead for heads that push the name down.
        top: Of how many tokens.
    """
    names = torch.tensor([token_id(name) for name in NAMES])
    tokens = torch.stack([torch.zeros_like(names), torch.full_like(names, token_id("Then")), names], dim=1)
    _, cache = model.run_with_cache(tokens, names_filter=lambda name: name.startswith("blocks.0.hook_resid_"))
    scores = torch.empty(model.cfg.n_layers, model.cfg.n_heads)
    for layer, block in enumerate(model.blocks):
        resid = cache["blocks.0.hook_resid_post" if layer else "blocks.0.hook_resid_pre"][:, 2]
        attn = block.attn
        z = torch.einsum("nm,hmd->nhd", block.ln1(resid), attn.W_V) + attn.b_V
        written = sign * torch.einsum("nhd,hdm->nhm", z, attn.W_O)
        best = model.unembed(model.ln_final(written)).topk(top).indices
        scores[layer] = (best == names[:, None, None]).any(-1).float().mean(0)
    return scores


@torch.no_grad()
def direct_effects(
    model: "HookedTransformer", batch: Batch, hooks: Sequence[tuple[str, Callable]] = (), scale: Tensor | None = None
) -> DirectEffects:
    """Direct logit attribution to logit(answer) - logit(foil) at END, Elhage et al. (2021).

    Args:
        model: The model.
        batch: Prompts with foils.
        hooks: Interventions to run it under.
        scale: The final layer norm's divisor for each prompt, [batch]; None takes the one of this run.
    """
    wanted = ("hook_z", "hook_mlp_out", "hook_embed", "hook_pos_embed", "ln_final.hook_scale")
    with model.hooks(fwd_hooks=list(hooks)):
        _, cache = model.run_with_cache(batch.tokens, names_filter=lambda name: name.endswith(wanted))
    rows, end = batch.rows(), batch.at["END"]
    own_scale = cache["ln_final.hook_scale"][rows, end, 0]
    scale = own_scale if scale is None else scale
    unembed = (model.W_U[:, batch.answers] - model.W_U[:, batch.foils]).T
    weighted = model.ln_final.w * unembed
    direction = (weighted - weighted.mean(1, keepdim=True)) / scale[:, None]

    heads, mlps = [], []
    rest = (model.ln_final.b * unembed).sum(1) + model.b_U[batch.answers] - model.b_U[batch.foils]
    inputs = cache["hook_embed"][rows, end] + cache["hook_pos_embed"][rows, end]
    for layer in range(model.cfg.n_layers):
        z = cache[f"blocks.{layer}.attn.hook_z"][rows, end]
        heads.append(torch.einsum("nhd,hdm,nm->nh", z, model.W_O[layer], direction))
        mlps.append((cache[f"blocks.{layer}.hook_mlp_out"][rows, end] * direction).sum(1))
        inputs = inputs + model.b_O[layer]
    rest = rest + (inputs * direction).sum(1)
    return DirectEffects(torch.stack(heads, 1), torch.stack(mlps, 1), rest, own_scale)


def direct_shares(effects: DirectEffects, batch: Batch, seed: int) -> dict[str, object]:
    """What the three heads with the largest direct effect carry."""
    per_head = effects.heads.mean(0).flatten()
    top = per_head.topk(3).indices
    top_sum = effects.heads.flatten(1)[:, top].sum(1)
    helping = effects.heads.flatten(1)[:, per_head > 0].sum(1)
    return {
        "top three heads": [head_name(divmod(i, effects.heads.shape[2])) for i in top.tolist()],
        "logit difference": mean(effects.total(), seed, batch.units),
        "top three's effect": mean(top_sum, seed, batch.units),
        "share of the helping heads' effect": ratio(top_sum, helping, seed, batch.units),
        "share of the logit difference": ratio(top_sum, effects.total(), seed, batch.units),
    }


def other_people(batch: Batch, generator: torch.Generator) -> Int[Tensor, "batch pos"]:
    """The same sentences about three other people: IO, S1 and S2 are replaced by three different names."""
    ids = torch.tensor([token_id(name) for name in NAMES])
    order = torch.rand(len(batch.tokens), len(ids), generator=generator)
    order[(batch.tokens[:, :, None] == ids).any(1)] = -1.0  # nobody who is in the sentence already
    drawn = ids[order.topk(3).indices]
    tokens, rows = batch.tokens.clone(), batch.rows()
    for i, name in enumerate(("IO", "S1", "S2")):
        tokens[rows, batch.at[name]] = drawn[:, i]
    return tokens


@torch.no_grad()
def mean_outputs(
    model: "HookedTransformer", batch: Batch, seed: int, draws: int = 4
) -> Float[Tensor, "batch n_layers n_heads d_head"]:
    """Each head's ``z`` at END, a mean over ``draws`` versions of the same sentence about other people."""
    generator = torch.Generator().manual_seed(seed)
    rows, total = batch.rows(), torch.zeros(())
    for _ in range(draws):
        tokens = other_people(batch, generator)
        _, cache = model.run_with_cache(tokens, names_filter=lambda name: name.endswith("hook_z"))
        stacked = [cache[f"blocks.{layer}.attn.hook_z"][rows, batch.at["END"]] for layer in range(model.cfg.n_layers)]
        total = total + torch.stack(stacked, dim=1)
    return total / draws


def without(heads: Sequence[Head], batch: Batch, means: Float[Tensor, "batch n_layers n_heads d_head"]) -> Hooks:
    """Hooks that replace these heads' ``z`` at END."""

    def replacing(layer: int, head: int) -> Callable:
        def replace(z: Float[Tensor, "batch pos head d_head"], hook: object) -> Tensor:
            z[batch.rows(), batch.at["END"], head] = means[:, layer, head]
            return z

        return replace

    return [(f"blocks.{layer}.attn.hook_z", replacing(layer, head)) for layer, head in heads]


def copying_heads(
    attention: dict[tuple[str, str], Float[Tensor, "n_layers n_heads"]], copying: Float[Tensor, "n_layers n_heads"]
) -> list[Head]:
    """Heads that look from END at the two people, and copy what they look at; by layer."""
    looks = attention["END", "IO"] + attention["END", "S1"] + attention["END", "S2"]
    return sorted(head for head in heads_above(looks, LOOKS) if copying[head] > COPIES)


def preferring_heads(
    effects: DirectEffects,
    attention: dict[tuple[str, str], Float[Tensor, "n_layers n_heads"]],
    copying: Float[Tensor, "n_layers n_heads"],
) -> list[Head]:
    """Copying heads that look from END to IO more than to S, and raise IO over S; the strongest first."""
    found = heads_above(effects.heads.mean(0), DIRECT * effects.total().mean().item())
    to_io, to_s = attention["END", "IO"], attention["END", "S1"] + attention["END", "S2"]
    return [h for h in found if to_io[h] > LOOKS and to_io[h] > to_s[h] and copying[h] > COPIES]


def giving_scenes(n: int, seed: int) -> dict[str, list[Prompt]]:
    """The same gifts by other people, so that who gives and who is said twice vary one without the other.

    "Mary" and "Paul" below are two people who never met in training, "Nina" and "Carl" two others. Orders, openings and
    gifts are those of ``ioi_prompts``. The giver always stands at ``at["S2"]``, the owner of the thing at
    ``at["OWNER"]``; the answer and the foil stay those of the first scene.

    Returns:
        "giver twice": When Mary and Paul …, Paul gave Nina's ball to
        "nobody twice": When Mary and Carl …, Paul gave Nina's ball to
        "another twice": When Mary and Carl …, Paul gave Mary's ball to
        "another gives": When Mary and Paul …, Nina gave Paul's ball to
    """
    rng = random.Random(seed)
    scenes: dict[str, list[Prompt]] = {"giver twice": ioi_prompts(n, seed, bystander=True)}
    scenes |= {name: [] for name in ("nobody twice", "another twice", "another gives")}
    for prompt in scenes["giver twice"]:
        owner = encode(prompt.text)[prompt.at["OWNER"] - 1]
        taken = {token_id(prompt.answer), token_id(prompt.foil), owner}
        outsider = rng.choice([token_id(name) for name in NAMES if token_id(name) not in taken])
        receiver, giver = token_id(prompt.answer), token_id(prompt.foil)
        scenes["nobody twice"].append(recast(prompt, {"S1": outsider}))
        scenes["another twice"].append(recast(prompt, {"S1": outsider, "OWNER": receiver}))
        scenes["another gives"].append(recast(prompt, {"S2": owner, "OWNER": giver}))
    return scenes


def recast(prompt: Prompt, parts: Mapping[str, int]) -> Prompt:
    """The same text with other tokens at named positions; everything else about the prompt stays."""
    ids = [0, *encode(prompt.text)]
    for place, token in parts.items():
        ids[prompt.at[place]] = token
    return replace(prompt, text=decode(ids[1:]))


def giver_heads(model: "HookedTransformer", scenes: Mapping[str, Sequence[Prompt]]) -> list[Head]:
    """Heads that look from END at the giver in every scene, whoever is said twice.

    Args:
        model: The model.
        scenes: Of `giving_scenes`.
    """
    least = torch.stack([attention_at(model, to_batch(prompts))["END", "S2"] for prompts in scenes.values()]).amin(0)
    return heads_above(least, LOOKS)


def knock_out(
    model: "HookedTransformer",
    batch: Batch,
    means: Float[Tensor, "batch n_layers n_heads d_head"],
    givers: Sequence[Head],
    preferring: Sequence[Head],
    seed: int,
) -> dict[str, object]:
    """How well the model does, and where the preferring heads look, without the giver heads and without as many others.

    The others are drawn from the layers below the last of the preferring heads.
    """
    generator = torch.Generator().manual_seed(seed)
    n_heads = model.cfg.n_heads
    last = max((layer for layer, _ in preferring), default=0)
    others = [(layer, h) for layer in range(last) for h in range(n_heads) if (layer, h) not in {*givers, *preferring}]
    controls = []
    for _ in range(N_RANDOM_SETS if len(others) >= len(givers) > 0 else 0):
        chosen = torch.randperm(len(others), generator=generator)[: len(givers)].tolist()
        controls.append(_outcome(model, batch, without([others[i] for i in chosen], batch, means), preferring))
    return {
        "before": _outcome(model, batch, [], preferring),
        "after": _outcome(model, batch, without(givers, batch, means), preferring),
        "after, random other heads": {
            key: mean(torch.tensor([control[key] for control in controls]), seed) for key in (controls or [{}])[0]
        },
    }


def _outcome(model: "HookedTransformer", batch: Batch, hooks: Hooks, preferring: Sequence[Head]) -> dict[str, float]:
    attention = attention_at(model, batch, hooks)
    with model.hooks(fwd_hooks=hooks):
        logits = end_logits(model, batch)
    rows = batch.rows()
    outcome = {
        "accuracy": (logits.argmax(1) == batch.answers).float().mean().item(),
        "logit difference": (logits[rows, batch.answers] - logits[rows, batch.foils]).mean().item(),
    }
    for goal in ("IO", "S1", "S2"):
        looks = [attention["END", goal][head].item() for head in preferring]
        outcome[f"attention to {goal}"] = sum(looks) / max(1, len(looks))
    return outcome


def self_repair(
    model: "HookedTransformer",
    batch: Batch,
    means: Float[Tensor, "batch n_layers n_heads d_head"],
    preferring: Sequence[Head],
    effects: DirectEffects,
    seed: int,
) -> dict[str, dict[str, object]]:
    """What the rest of the model makes up for when one, two, three of the preferring heads are knocked out.

    With a frozen layer norm and nothing else changing, the logit difference would fall by the direct effect that is
    lost. It falls by less, or more: by what other heads and MLPs change at the old scale, and by what the new scale of
    the final layer norm changes. The four numbers add up: fall = lost - heads - MLPs - layer norm.
    """
    measured = {}
    for n in range(1, min(3, len(preferring)) + 1):
        gone = tuple(zip(*preferring[:n], strict=True))
        frozen = direct_effects(model, batch, without(preferring[:n], batch, means), effects.scale)
        after = direct_effects(model, batch, without(preferring[:n], batch, means))
        change = frozen.heads - effects.heads
        lost = -change[:, gone[0], gone[1]].sum(1)
        heads = change.sum((1, 2)) + lost
        mlps = (frozen.mlps - effects.mlps).sum(1)
        norm = after.total() - frozen.total()
        measured[f"top {n}"] = {
            "lost": mean(lost, seed, batch.units),
            "fall": mean(effects.total() - after.total(), seed, batch.units),
            "made up by heads": ratio(heads, lost, seed, batch.units),
            "made up by MLPs": ratio(mlps, lost, seed, batch.units),
            "made up by the layer norm": ratio(norm, lost, seed, batch.units),
            "made up": ratio(heads + mlps + norm, lost, seed, batch.units),
            "accuracy": share(after.total() > 0, batch.units),
        }
    return measured


def null_models(model: "HookedTransformer", batch: Batch, seed: int) -> dict[str, float]:
    """The largest attention, copy score and direct effect of any head of models that learnt nothing."""
    largest: dict[str, float] = {}
    for i in range(N_NULL_MODELS):
        null = untrained(model, seed + i)
        scores = {f"{start} to {goal}": a for (start, goal), a in attention_at(null, batch).items()}
        scores |= {"copies": copy_scores(null), "direct effect": direct_effects(null, batch).heads.mean(0)}
        for name, values in scores.items():
            largest[name] = max(largest.get(name, -torch.inf), values.max().item())
    return largest


def _head_table(
    attention: dict[tuple[str, str], Tensor], copying: Tensor, effects: DirectEffects
) -> dict[str, dict[str, float]]:
    columns = {f"{start} to {goal}": scores for (start, goal), scores in attention.items()}
    columns |= {"copies": copying, "direct effect": effects.heads.mean(0)}
    n_layers, n_heads = copying.shape
    return {
        head_name((layer, head)): {name: round(scores[layer, head].item(), 3) for name, scores in columns.items()}
        for layer in range(n_layers)
        for head in range(n_heads)
    }
