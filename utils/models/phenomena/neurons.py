"""Neurons that answer to unrelated things.

A neuron counts as polysemantic if the tokens that excite it most belong to two families of words, and neither the
words before them nor the words after them are mostly the same: a neuron for "a full stop comes next" sees many kinds of
words, and is about one thing all the same.

Source: Elhage et al. (2022), "Toy Models of Superposition", for the word and the idea; the criterion is ours.
"""

from collections import Counter
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.data.corpus import vocabulary
from utils.data.prompts import WORD_CLASSES, documents, token_id
from utils.models.phenomena.measuring import untrained

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

# Classes whose words are alike, or stand in the same places, are one family.
FAMILIES = {
    "people": ("name", "builder", "job"),
    "geography": ("city", "country"),
    "landmarks": ("landmark's first word", "landmark's second word"),
    "calendar": ("weekday", "month", "number"),
    "materials": ("material",),
    "objects": ("thing", "animal"),
    "adjectives": ("adjective",),
    "verbs": ("verb in the present", "verb in the past"),
}
N_DOCUMENTS = 1060  # more than 100,000 tokens
N_TOP = 40
CLEAR_SHARE = 0.2
OVERLAP = 0.5
N_EXAMPLES = 12


class Top(NamedTuple):
    """The tokens that excite each neuron of a layer most.

    Attributes:
        values: Their activations, largest first.
        documents, positions: Where they stand.
    """

    values: Float[Tensor, "top d_mlp"]
    documents: Int[Tensor, "top d_mlp"]
    positions: Int[Tensor, "top d_mlp"]


class Meanings(NamedTuple):
    """Two families among a neuron's top tokens, and the rows of `Top` that belong to each."""

    families: tuple[str, str]
    rows: tuple[list[int], list[int]]


def measure(model: "HookedTransformer", seed: int = 0) -> dict:
    """Count polysemantic neurons by layer, and show some.

    Returns:
        "polysemantic": by layer, the share of neurons; "untrained": of a random model's; "shuffled": of the trained
        model's if the words' families were dealt out at random; "count": of all layers; "examples": see `examples`.
    """
    tokens = documents(N_DOCUMENTS, 700 + seed)
    families = family_of_words()
    dealt = families[torch.randperm(len(families), generator=torch.Generator().manual_seed(seed))]
    tops, null = top_tokens(model, tokens), top_tokens(untrained(model, seed), tokens)
    found = [polysemantic(top, tokens, families) for top in tops]
    return {
        "polysemantic": _shares(found, model.cfg.d_mlp),
        "untrained": _shares([polysemantic(top, tokens, families) for top in null], model.cfg.d_mlp),
        "shuffled": _shares([polysemantic(top, tokens, dealt) for top in tops], model.cfg.d_mlp),
        "count": sum(map(len, found)),
        "examples": examples(tops, found, tokens),
    }


def _shares(found: list[dict[int, Meanings]], d_mlp: int) -> dict[str, float]:
    return {f"layer {layer}": len(neurons) / d_mlp for layer, neurons in enumerate(found)}


def family_of_words() -> Int[Tensor, " d_vocab"]:
    """For each word the index of its family in `FAMILIES`, or -1."""
    families = torch.full((len(vocabulary()),), -1)
    for index, classes in enumerate(FAMILIES.values()):
        for name in classes:
            families[[token_id(word) for word in WORD_CLASSES[name]]] = index
    return families


@torch.no_grad()
def top_tokens(model: "HookedTransformer", tokens: Int[Tensor, "batch pos"]) -> list[Top]:
    """For each layer the tokens that excite its neurons most, without the first and the last of each document."""
    hooks = [f"blocks.{layer}.mlp.hook_post" for layer in range(model.cfg.n_layers)]
    best: list[Top | None] = [None] * len(hooks)
    for start in range(0, len(tokens), 32):
        _, cache = model.run_with_cache(tokens[start : start + 32], names_filter=hooks, return_type=None)
        best = [_merge(top, cache[hook][:, 1:-1], start) for top, hook in zip(best, hooks, strict=True)]
    return best


def _merge(best: Top | None, post: Float[Tensor, "batch pos d_mlp"], first_document: int) -> Top:
    values, flat = post.flatten(0, 1).topk(N_TOP, dim=0)
    found = Top(values, first_document + flat // post.shape[1], 1 + flat % post.shape[1])
    if best is None:
        return found
    joined = [torch.cat(pair) for pair in zip(best, found, strict=True)]
    order = joined[0].topk(N_TOP, dim=0).indices
    return Top(*(part.gather(0, order) for part in joined))


def polysemantic(top: Top, tokens: Int[Tensor, "batch pos"], families: Int[Tensor, " d_vocab"]) -> dict[int, Meanings]:
    """The polysemantic neurons of a layer: two families, each with a fifth of the top tokens, in unlike surroundings.

    Tokens that excite the neuron less than half as much as the first one do not count.
    """
    words = tokens[top.documents, top.positions]
    strong = top.values >= top.values[0] / 2
    member = torch.where(strong, families[words], -1)
    counts = torch.stack([(member == index).sum(0) for index in range(len(FAMILIES))])
    before, after = (tokens[top.documents, top.positions + shift] for shift in (-1, 1))
    found = {}
    for neuron in (((counts >= CLEAR_SHARE * N_TOP).sum(0) >= 2) & (top.values[0] > 0)).nonzero().flatten().tolist():
        clear = (counts[:, neuron] >= CLEAR_SHARE * N_TOP).nonzero().flatten().tolist()
        for pair in combinations(sorted(clear, key=lambda index: -counts[index, neuron]), 2):
            rows = tuple((member[:, neuron] == index).nonzero().flatten().tolist() for index in pair)
            around = [[[side[row, neuron].item() for row in part] for part in rows] for side in (before, after)]
            if all(overlap(*sides) < OVERLAP for sides in around):
                names = list(FAMILIES)
                found[neuron] = Meanings((names[pair[0]], names[pair[1]]), rows)
                break
    return found


def overlap(first: list[int], second: list[int]) -> float:
    """How much two lists of words have in common: the sum over words of the smaller of their two shares."""
    one, two = Counter(first), Counter(second)
    return sum(min(one[word] / len(first), two[word] / len(second)) for word in one)


def examples(tops: list[Top], found: list[dict[int, Meanings]], tokens: Int[Tensor, "batch pos"]) -> list[dict]:
    """The neurons whose two families are the most even, with three contexts for each; » and « mark the word."""
    ranked = sorted(
        ((layer, neuron) for layer, neurons in enumerate(found) for neuron in neurons),
        key=lambda place: (-min(map(len, found[place[0]][place[1]].rows)), place),
    )
    shown = []
    for layer, neuron in ranked[:N_EXAMPLES]:
        meanings, top = found[layer][neuron], tops[layer]
        contexts = {
            family: [
                _context(tokens[top.documents[row, neuron]], top.positions[row, neuron].item()) for row in rows[:3]
            ]
            for family, rows in zip(meanings.families, meanings.rows, strict=True)
        }
        shown.append({"layer": layer, "neuron": neuron, "contexts": contexts})
    return shown


def _context(document: Int[Tensor, " pos"], position: int) -> str:
    words = [vocabulary()[index] for index in document.tolist()]
    return " ".join([*words[max(0, position - 6) : position], f"»{words[position]}«", *words[position + 1 :][:2]])
