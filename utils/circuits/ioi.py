"""Who gets the present: prompts with their corruptions, row for row and word for word alike but for names."""

import re
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from utils.data.corpus import words
from utils.data.prompts import Prompt, encode, ioi_prompts

FIRST, SECOND, GIVER = -1, -2, -3
# For networks that were trained on the web: scenes for `text_templates`, and names.
WEB_TEXTS = (
    "When <1> and <2> went to the store, <3> gave a drink to",
    "Because <1> and <2> were friends, <3> told the secret to",
    "After <1> and <2> had lunch at the office, <3> handed the keys to",
    "While <1> and <2> were waiting for the train, <3> offered a sandwich to",
    "Then <1> and <2> met in the garden, and <3> showed the map to",
    "Yesterday <1> and <2> worked at the hospital, and <3> sent a letter to",
)
WEB_NAMES = (
    "Mary", "John", "Anna", "Paul", "James", "Peter", "Sarah", "David", "Laura", "Mark", "Emma", "Jack",
    "Alice", "Tom", "Lucy", "Adam", "Jane", "Henry", "Kate", "Simon", "Helen", "Frank", "Rose", "Martin",
)  # fmt: skip


def ioi_dataset(
    templates: Sequence[Int[Tensor, " length"]], names: Int[Tensor, " k"], n: int, generator: torch.Generator
) -> tuple[dict[str, Int[Tensor, "n pos"]], dict[str, Int[Tensor, " n"]]]:
    """Prompts about a gift, each with five corruptions that have the same words at the same positions but for names.

    A prompt names two people, IO (who gets the present) and S (who gives it), then S again. In a template -1 stands for
    the person who is named first, -2 for the second, -3 for the one who gives; the other entries are token ids. Row i
    is made of template (i // 2) % len(templates). Rows 0, 2, 4 … name IO first (ABBA: IO, S, S), rows 1, 3, 5 … S first
    (BABA). With X, Y and Z three people who are not in the prompt, the three places hold:

        ===============  =============  =============  =============
        prompt           IO's place     S's first (S1) S's second (S2)
        ===============  =============  =============  =============
        "clean"          IO             S              S
        "giver swapped"  IO             S              IO
        "names swapped"  S              IO             IO
        "said once"      IO             X              S
        "ABC"            IO             S              X
        "random names"   X              Y              Z
        ===============  =============  =============  =============

    IO, S, X, Y and Z are five different names, drawn for each row anew: every choice is equally likely.

    Args:
        templates: Token ids up to the word before the answer; each has -1, -2 and -3 exactly once.
        names: Token ids to draw from, all different.
        n: How many rows, at least 1.
        generator: Draws the names.

    Returns:
        prompts: Token ids under the six names above. Rows that are shorter than the longest are filled up behind their
            end with the template's first token.
        at: Positions, the same for all six: "IO", "S1", "S2", and "END", the prompt's last word.

    Raises:
        ValueError: If there is no template, one does not have its three places, there are fewer than five names, or n
            is below 1.

    Source: Wang et al. (2022), "Interpretability in the Wild", section 2 and appendix A; the last four corruptions
    separate what their p_ABC (our "random names") changes at once.
    """
    if n < 1 or len(names) < 5 or not templates:
        raise ValueError("at least one row, five names and one template are needed")
    if any(sorted(template[template < 0].tolist()) != [-3, -2, -1] for template in templates):
        raise ValueError("a template needs -1, -2 and -3, once each")
    order = torch.rand(n, len(names), generator=generator).argsort(dim=-1)
    io, s, x, y, z = names[order[:, :5]].T
    rows = [templates[(i // 2) % len(templates)] for i in range(n)]
    frame = torch.stack([torch.cat([row, row[:1].expand(max(map(len, rows)) - len(row))]) for row in rows])
    first, second, giver = ((frame == place).int().argmax(dim=1) for place in (-1, -2, -3))
    io_first = torch.arange(n) % 2 == 0
    at = {
        "IO": torch.where(io_first, first, second),
        "S1": torch.where(io_first, second, first),
        "S2": giver,
        "END": torch.tensor([len(row) - 1 for row in rows]),
    }
    casts = {
        "clean": (io, s, s),
        "giver swapped": (io, s, io),
        "names swapped": (s, io, io),
        "said once": (io, x, s),
        "ABC": (io, s, x),
        "random names": (x, y, z),
    }
    prompts = {}
    for name, cast in casts.items():
        prompts[name] = frame.clone()
        for place, person in zip(("IO", "S1", "S2"), cast, strict=True):
            prompts[name][torch.arange(n), at[place]] = person
    return prompts, at


def gift_templates(n: int, seed: int, **kwargs: bool) -> list[Int[Tensor, " length"]]:
    """Templates for ``ioi_dataset`` from the course model's own scenes, no two with the same opening and gift.

    Args:
        n: How many, at most 70 (10 with ``held_out_templates``).
        seed: Draws them, with their places, things and adjectives.
        kwargs: Of ``utils.data.prompts.ioi_prompts``.
    """
    found = {}
    for prompt in ioi_prompts(2000, seed, **kwargs):
        ids = torch.tensor([0, *encode(prompt.text)])
        first, second = sorted((prompt.at["IO"], prompt.at["S1"]))
        ids[first], ids[second], ids[prompt.at["S2"]] = FIRST, SECOND, GIVER
        found.setdefault(prompt.unit, ids)
    return list(found.values())[:n]


def text_templates(model: nn.Module, texts: Sequence[str]) -> list[Int[Tensor, " length"]]:
    """Templates for ``ioi_dataset`` from texts such as "When <1> and <2> went home, <3> gave a book to".

    Args:
        model: A ``HookedTransformer`` with its tokenizer. Names are tokens with a space before them.
        texts: With <1>, <2> and <3> once each, a space before each.
    """
    stand_ins = {" Mary": FIRST, " John": SECOND, " Anna": GIVER}
    found = []
    for text in texts:
        for place, name in zip(("<1>", "<2>", "<3>"), stand_ins, strict=True):
            text = text.replace(place, name.strip())
        ids = model.to_tokens(text)[0]
        for name, place in stand_ins.items():
            ids = torch.where(ids == model.to_single_token(name), place, ids)
        found.append(ids)
    return found


def answer_difference(
    logits: Float[Tensor, "n pos d_vocab"], clean: Int[Tensor, "n pos"], at: dict[str, Int[Tensor, " n"]]
) -> Float[Tensor, " n"]:
    """logit(IO) - logit(S) at END, with IO and S those of the clean prompt; in nats."""
    rows = torch.arange(len(clean))
    end = logits[rows, at["END"]]
    return end[rows, clean[rows, at["IO"]]] - end[rows, clean[rows, at["S2"]]]


def nobodys_thing(prompt: Prompt) -> Prompt:
    """The same sentence about "the ball" where the thing has an owner ("Mary's ball")."""
    text = re.sub(r"[A-Z]\w*'s\b", "the", prompt.text)
    tokens = ["<bos>", *words(text)]
    places = [i for i, token in enumerate(tokens) if token == prompt.foil]
    at = {"IO": tokens.index(prompt.answer), "S1": places[0], "S2": places[-1], "END": len(tokens) - 1}
    return replace(prompt, text=text, at=at)
