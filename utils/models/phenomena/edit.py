"""Moving landmarks to other cities with one rank-one change of one MLP's output matrix (ROME).

Source: Meng et al. (2022), "Locating and Editing Factual Associations in GPT". An MLP is seen as a memory: its hidden
activations at the subject's last token are the key, its output there is the value.
"""

import contextlib
import dataclasses
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from utils.data.corpus import PHRASINGS, held_out_phrasing, kin, scene, words
from utils.data.prompts import Prompt, documents, fact_prompt, fact_prompts
from utils.data.world import CITIES, COUNTRY_OF_CITY, Landmark, landmarks
from utils.models.phenomena.facts import known_facts, restored, trace
from utils.models.phenomena.measuring import Batch, Estimate, end_logits, ratio, to_batch

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

N_EDITS, N_NULL_EDITS = 50, 15
N_DOCUMENTS = 300
KEPT = ("builder", "material")
STEPS, LEARNING_RATE = 30, 0.1
KEEP, DECAY, LONGEST = 1.0, 0.01, 3.0
RIDGE = 1e-3


class Edit(NamedTuple):
    """One landmark that is to stand in another city.

    Attributes:
        landmark, city: What moves where; the new city is in another country.
        moves: Prompts for the city whose answer is the new one; the value is fitted to them.
        in_text: The same prompts behind other text; the key is a mean over them.
        keeps: Prompts for builder and material, whose predictions the fitted value is to leave as they are.
        paraphrases: Prompts for the city in phrasings that are not in ``moves``; the answer is the new city.
        own: For each other relation, prompts in phrasings that are not in ``keeps``; the answers are the old ones.
    """

    landmark: Landmark
    city: str
    moves: list[Prompt]
    in_text: list[Prompt]
    keeps: list[Prompt]
    paraphrases: list[Prompt]
    own: dict[str, list[Prompt]]


def measure(model: "HookedTransformer", seed: int = 0) -> dict[str, object]:
    """Edits at the layer whose MLP causal tracing finds at the last subject token, each made alone, and their effects.

    The null writes, for the same keys, values that are as far from the old ones in a random direction.
    """
    layer = traced_layer(model, seed)
    plan = edits(N_EDITS, seed)
    values = fitted_values(model, layer, plan)
    old = subject_means(model, f"blocks.{layer}.hook_mlp_out", [edit.moves for edit in plan])
    noise = torch.randn(values.shape, generator=torch.Generator().manual_seed(seed))
    distance = (values - old).norm(dim=1, keepdim=True)
    anywhere = old + distance * noise / noise.norm(dim=1, keepdim=True)
    moment = second_moment(model, layer, documents(N_DOCUMENTS, seed))
    null = outcomes(model, layer, plan[:N_NULL_EDITS], anywhere[:N_NULL_EDITS], moment, seed)
    return {"layer": layer} | outcomes(model, layer, plan, values, moment, seed) | {"null, random value": null}


def traced_layer(model: "HookedTransformer", seed: int) -> int:
    """The layer whose MLP, restored at the last subject token, brings back most of the answer's probability."""
    run = trace(model, known_facts(model, seed), seed)
    layers = range(model.cfg.n_layers)
    return max(layers, key=lambda layer: restored(model, run, [(layer, "mlp")], "last", seed)["value"])


def edits(n: int, seed: int) -> list[Edit]:
    """``n`` different landmarks with a new city each; three phrasings of each relation to fit with, three to test."""
    rng = random.Random(seed)
    plan = []
    for landmark in rng.sample(landmarks(), n):
        city = rng.choice([city for city in CITIES if COUNTRY_OF_CITY[city] != landmark.country])
        fitted, tested = {}, {}
        for relation in PHRASINGS:
            unseen = held_out_phrasing(landmark, relation)
            seen = rng.sample([i for i in range(6) if i != unseen], 5)
            fitted[relation] = [fact_prompt(landmark, relation, i) for i in seen[:3]]
            tested[relation] = [fact_prompt(landmark, relation, i) for i in (*seen[3:], unseen)]
        moves, paraphrases = (
            [dataclasses.replace(prompt, answer=city) for prompt in prompts["city"]] for prompts in (fitted, tested)
        )
        in_text = [behind_text(prompt, rng) for prompt in moves]
        keeps = [prompt for relation in KEPT for prompt in fitted[relation]]
        own = {relation: prompts for relation, prompts in tested.items() if relation != "city"}
        plan.append(Edit(landmark, city, moves, in_text, keeps, paraphrases, own))
    return plan


def behind_text(prompt: Prompt, rng: random.Random) -> Prompt:
    """The same prompt behind a scene, as facts stand in the training text."""
    text = scene(rng)
    shift = len(words(text))
    at = {name: position + shift for name, position in prompt.at.items()}
    return dataclasses.replace(prompt, text=f"{text} {prompt.text}", at=at)


@torch.no_grad()
def subject_means(
    model: "HookedTransformer", name: str, groups: Sequence[Sequence[Prompt]]
) -> Float[Tensor, "groups d"]:
    """Mean activation at the subject's last token over each group of prompts; the groups have one size.

    Args:
        model: The model.
        name: Of a hook point.
        groups: Prompts about one subject each.
    """
    batch = to_batch([prompt for group in groups for prompt in group])
    _, cache = model.run_with_cache(batch.tokens, names_filter=name)
    return cache[name][batch.rows(), batch.at["last"]].unflatten(0, (len(groups), -1)).mean(1)


@torch.no_grad()
def second_moment(model: "HookedTransformer", layer: int, tokens: Int[Tensor, "n pos"]) -> Float[Tensor, "d_mlp d_mlp"]:
    """Mean outer product of the MLP's hidden activations over these tokens, with a little added to the diagonal.

    Without that little, directions that the documents never use would cost nothing, and the matrix had no inverse.
    """
    name = f"blocks.{layer}.mlp.hook_post"
    _, cache = model.run_with_cache(tokens, names_filter=name)
    hidden = cache[name].flatten(0, 1)
    moment = hidden.T @ hidden / len(hidden)
    return moment + RIDGE * moment.diagonal().mean() * torch.eye(len(moment))


def fitted_values(model: "HookedTransformer", layer: int, plan: Sequence[Edit]) -> Float[Tensor, "n_edits d_model"]:
    """For each edit, an MLP output at the subject's last token that makes the model name the new city there.

    Fitted with Adam: the new city's surprise over ``moves``, plus `KEEP` times the divergence from the old predictions
    over ``keeps``, plus `DECAY` times the squared distance from the old output, in units of that output's norm; the
    distance is never more than `LONGEST`. All edits are fitted side by side; they do not see each other.
    """
    moves, keeps = (
        to_batch([prompt for edit in plan for prompt in getattr(edit, name)]) for name in ("moves", "keeps")
    )
    name = f"blocks.{layer}.hook_mlp_out"
    old = subject_means(model, name, [edit.moves for edit in plan])
    norms = old.norm(dim=1, keepdim=True)
    before = end_logits(model, keeps).log_softmax(-1)
    move_streams, keep_streams = (stream_before(model, layer, batch) for batch in (moves, keeps))
    change = torch.zeros_like(old, requires_grad=True)
    optimiser = torch.optim.Adam([change], lr=LEARNING_RATE)
    for _ in range(STEPS):
        values = old + norms * change
        moved = logits_with(model, layer, moves, move_streams, values).log_softmax(-1)
        kept = logits_with(model, layer, keeps, keep_streams, values).log_softmax(-1)
        surprise = -moved[moves.rows(), moves.answers].unflatten(0, (len(plan), -1)).mean(1)
        divergence = (before.exp() * (before - kept)).sum(-1).unflatten(0, (len(plan), -1)).mean(1)
        loss = (surprise + KEEP * divergence + DECAY * change.square().sum(1)).sum()
        (change.grad,) = torch.autograd.grad(loss, [change])
        optimiser.step()
        with torch.no_grad():
            change *= (LONGEST / change.norm(dim=1, keepdim=True)).clamp(max=1.0)
    return (old + norms * change).detach()


@torch.no_grad()
def stream_before(model: "HookedTransformer", layer: int, batch: Batch) -> Float[Tensor, "batch pos d_model"]:
    """The residual stream before a block: what comes earlier stays as it is, whatever the block's MLP writes."""
    return model(batch.tokens, stop_at_layer=layer)


def logits_with(
    model: "HookedTransformer", layer: int, batch: Batch, stream: Tensor, values: Float[Tensor, "n_edits d_model"]
) -> Float[Tensor, "batch d_vocab"]:
    """Logits at END when the MLP's output at each edit's subject is its value; prompts stand edit by edit."""
    each = values.repeat_interleave(len(stream) // len(values), dim=0)

    def write(output: Float[Tensor, "batch pos d_model"], hook: object) -> Tensor:
        return output.index_put((batch.rows(), batch.at["last"]), each)

    with model.hooks(fwd_hooks=[(f"blocks.{layer}.hook_mlp_out", write)]):
        return model(stream, start_at_layer=layer)[batch.rows(), batch.at["END"]]


def rank_one(
    weights: Float[Tensor, "d_mlp d_model"],
    bias: Float[Tensor, " d_model"],
    moment: Float[Tensor, "d_mlp d_mlp"],
    key: Float[Tensor, " d_mlp"],
    value: Float[Tensor, " d_model"],
) -> Float[Tensor, "d_mlp d_model"]:
    """What to add to an MLP's output matrix so that ``key`` gives ``value`` and other keys change least.

    "Least" is meant in the mean square over the keys whose second moment is given. Meng et al. (2022), equation 2,
    with keys as rows.
    """
    direction = torch.linalg.solve(moment, key)
    return torch.outer(direction / (direction @ key), value - (key @ weights + bias))


@contextlib.contextmanager
def edited(model: "HookedTransformer", layer: int, change: Float[Tensor, "d_mlp d_model"]) -> Iterator[None]:
    """Inside the ``with`` block, the MLP's output matrix is changed; behind it, it is what it was, to the bit."""
    weights = model.blocks[layer].mlp.W_out
    before = weights.detach().clone()
    with torch.no_grad():
        weights += change
    try:
        yield
    finally:
        with torch.no_grad():
            weights.copy_(before)


def outcomes(
    model: "HookedTransformer",
    layer: int,
    plan: Sequence[Edit],
    values: Float[Tensor, "n_edits d_model"],
    moment: Float[Tensor, "d_mlp d_mlp"],
    seed: int,
) -> dict[str, Estimate]:
    """How often the prompts of each group are answered as they should be when one edit is made; intervals over edits.

    Returns:
        "efficacy" and "paraphrase": the new city is the most likely next word, in the phrasings that the value was
        fitted to and in others. "new country": the country follows. All the rest: what was right before is right still,
        for the landmark's "own" other relations, and for other landmarks' cities and other relations.
    """
    keys = subject_means(model, f"blocks.{layer}.mlp.hook_post", [edit.moves + edit.in_text for edit in plan])
    world = to_batch([prompt for relation in PHRASINGS for prompt in fact_prompts(relation)])
    stream = stream_before(model, layer, world)
    known = answered(model, layer, world, stream)
    mlp = model.blocks[layer].mlp
    counts = []
    for edit, key, value in zip(plan, keys, values, strict=True):
        asked = questions(edit)
        own = to_batch([prompt for prompts in asked.values() for prompt in prompts])
        own_stream, sizes = stream_before(model, layer, own), [len(prompts) for prompts in asked.values()]
        own_known = answered(model, layer, own, own_stream)
        with edited(model, layer, rank_one(mlp.W_out.detach(), mlp.b_out.detach(), moment, key, value)):
            right, still = answered(model, layer, own, own_stream), answered(model, layer, world, stream)
        groups = {}
        for name, now, before in zip(asked, right.split(sizes), own_known.split(sizes), strict=True):
            groups[name] = now[before] if name.startswith("own") else now
        groups |= {name: still[of_group & known] for name, of_group in bystanders(edit.landmark).items()}
        counts.append({name: [float(answers.sum()), float(len(answers))] for name, answers in groups.items()})
    return {name: ratio(*torch.tensor([count[name] for count in counts]).unbind(1), seed) for name in counts[0]}


def questions(edit: Edit) -> dict[str, list[Prompt]]:
    """What to ask about the landmark after its edit."""
    country = COUNTRY_OF_CITY[edit.city]
    return {
        "efficacy": edit.moves,
        "paraphrase": edit.paraphrases,
        "new country": [dataclasses.replace(prompt, answer=country) for prompt in edit.own["country"]],
        **{f"own {relation}": prompts for relation, prompts in edit.own.items()},
    }


def bystanders(landmark: Landmark) -> dict[str, Bool[Tensor, " facts"]]:
    """Which of the world's facts, relation by relation and landmark by landmark, are about other landmarks."""
    others = torch.tensor([other is not landmark for other in landmarks()])
    sharing = torch.tensor([other in kin(landmark) for other in landmarks()])
    none = torch.zeros_like(others)
    return {
        "others' cities": torch.cat([others, *[none] * 3]),
        "cities of others that share a word": torch.cat([sharing, *[none] * 3]),
        "others' other relations": torch.cat([none, *[others] * 3]),
    }


@torch.no_grad()
def answered(
    model: "HookedTransformer", layer: int, batch: Batch, stream: Float[Tensor, "batch pos d_model"]
) -> Bool[Tensor, " batch"]:
    """Whether each answer is the most likely next word, going on from the residual stream before a block."""
    logits = model(stream, start_at_layer=layer)
    return logits[batch.rows(), batch.at["END"]].argmax(1) == batch.answers
