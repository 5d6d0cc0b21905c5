"""Prompts on the course model's tasks, made of what its training text leaves out, with the positions that matter.

Positions count tokens with `<bos>` at 0, as in ``encode_prompts``. The last position of a prompt is where the answer is
predicted, "END" in the literature.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from utils.data import corpus
from utils.data.corpus import (
    IOI_GIFTS,
    IOI_OPENINGS,
    date_sentence,
    encode,
    fact_in_company,
    fact_sentence,
    held_out_phrasing,
    ioi_sentence,
    is_held_out_date,
    is_held_out_ioi_template,
    is_held_out_pair,
    quote_clause,
    vocabulary,
    words,
)
from utils.data.world import (
    ADJECTIVES,
    ANIMALS,
    BUILDERS,
    CITIES,
    COUNTRY_OF_CITY,
    DAYS,
    FIRST_WORDS,
    JOBS,
    MATERIALS,
    MONTHS,
    NAMES,
    NUMBERS,
    SECOND_WORDS,
    THINGS,
    VERBS,
    WOMEN,
    Landmark,
    landmarks,
)


@dataclass(frozen=True)
class Prompt:
    """The beginning of a text, what should come next, and where its parts stand.

    Attributes:
        text: Ends where the answer begins.
        answer: The next word.
        foil: The word to compare it with, if the task has one.
        at: Positions of named tokens, e.g. ``{"IO": 2, "S1": 4, "S2": 10, "END": 14}``.
        kind: What a table groups by: order and template, relation, direction …
    """

    text: str
    answer: str
    foil: str | None = None
    at: dict[str, int] = field(default_factory=dict)
    kind: tuple[str, ...] = ()


def encode_prompts(prompts: Sequence[Prompt]) -> Int[Tensor, "batch pos"]:
    """Token ids behind `<bos>`; shorter prompts are filled up with `<bos>` at the end, behind their "END".

    Raises:
        ValueError: If there are no prompts, or a word is not in the vocabulary.
    """
    if not prompts:
        raise ValueError("There are no prompts to encode.")
    rows = [[0, *encode(prompt.text)] for prompt in prompts]
    longest = max(map(len, rows))
    return torch.tensor([row + [0] * (longest - len(row)) for row in rows])


def token_id(word: str) -> int:
    """The id of one word.

    Raises:
        ValueError: If it is not one token of the vocabulary.
    """
    ids = encode(word)
    if len(ids) != 1:
        raise ValueError(f"{word!r} is {len(ids)} tokens, not one")
    return ids[0]


def ioi_prompts(n: int, seed: int, *, bystander: bool = False, held_out_templates: bool = False) -> list[Prompt]:
    """Sentences about a gift, cut before the person who gets it. The two people never met in the training text.

    Orders alternate: ABBA (the receiver is named first), then BABA. Openings and gifts are drawn anew each time.

    Args:
        n: How many.
        seed: Seed of the draw.
        bystander: Let a third person own the thing that is given.
        held_out_templates: Take only the ten combinations of opening and gift that the training text leaves out.
            Otherwise the seventy others.
    """
    rng = random.Random(seed)
    templates = [
        (opening, gift)
        for opening in range(len(IOI_OPENINGS))
        for gift in range(len(IOI_GIFTS))
        if is_held_out_ioi_template(opening, gift) == held_out_templates
    ]
    return [_ioi_prompt(rng, *rng.choice(templates), ("ABBA", "BABA")[i % 2], bystander) for i in range(n)]


def _ioi_prompt(rng: random.Random, opening: int, gift: int, order: str, bystander: bool) -> Prompt:
    while True:
        io, s, c = rng.sample(NAMES, 3)
        if is_held_out_pair(io, s):
            break
    a, b = (io, s) if order == "ABBA" else (s, io)
    text = ioi_sentence(rng, opening, gift, a, b, s, io, c if bystander else None).removesuffix(f" {io}.")
    tokens = ["<bos>", *words(text)]
    s1, s2 = (i for i, token in enumerate(tokens) if token == s)
    at = {"IO": tokens.index(io), "S1": s1, "S2": s2, "END": len(tokens) - 1}
    return Prompt(text, io, s, at, (order, str(opening), str(gift)))


def fact_prompts(relation: str, *, company: bool = False, seed: int = 0, held_out: bool = True) -> list[Prompt]:
    """One prompt for each landmark: a relation, in the one phrasing that the training text never uses for it.

    Args:
        relation: "city", "country", "builder" or "material".
        company: Mention other landmarks, most of which share a word with the first: before it, behind it, or both.
        seed: Draws the company, and the phrasings if ``held_out`` is False.
        held_out: False takes a phrasing that training did use.
    """
    rng = random.Random(seed)
    prompts = []
    for i, landmark in enumerate(landmarks()):
        unseen = held_out_phrasing(landmark, relation)
        phrasing = unseen if held_out else rng.choice([j for j in range(6) if j != unseen])
        lead, aside = ((True, False), (False, True), (True, True))[i % 3] if company else (False, False)
        prompts.append(
            _fact_prompt(
                landmark, relation, phrasing, fact_in_company(rng, landmark, relation, phrasing, lead=lead, aside=aside)
            )
        )
    return prompts


def fact_prompt(landmark: Landmark, relation: str, phrasing: int) -> Prompt:
    """One fact about one landmark, cut before the answer; ``at`` has "first", "last" (of the subject) and "END"."""
    return _fact_prompt(landmark, relation, phrasing, fact_sentence(landmark, relation, phrasing))


def _fact_prompt(landmark: Landmark, relation: str, phrasing: int, sentence: str) -> Prompt:
    answer = getattr(landmark, relation)
    text = sentence.removesuffix(f" {answer}")
    tokens = ["<bos>", *words(text)]
    first = next(i for i in range(len(tokens)) if tokens[i : i + 2] == [landmark.first, landmark.second])
    at = {"first": first, "last": first + 1, "END": len(tokens) - 1}
    return Prompt(text, answer, None, at, (relation, str(phrasing)))


def repeated_random_tokens(n: int, period: int, seed: int) -> Int[Tensor, "n pos"]:
    """`<bos>`, then ``period`` random tokens, twice: pos = 2 * period + 1."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.randint(2, len(vocabulary()), (n, period), generator=generator)
    return torch.cat([torch.zeros(n, 1, dtype=torch.long), half, half], dim=1)


def quote_prompts(n: int, seed: int) -> list[Prompt]:
    """Scenes cut before a verb that stands inside quotation marks (present tense) or outside (past), by turns.

    The answer and the foil are the two forms of one verb that would fit. The last words are drawn in the same way
    inside and outside, so that they do not tell; the quotation marks before them do. Half of those outside have one
    more sentence between the closing mark and the verb, half of those inside one behind the opening mark.
    """
    rng = random.Random(seed)
    return [_quote_prompt(rng, inside=i % 2 == 0) for i in range(n)]


def _quote_prompt(rng: random.Random, inside: bool) -> Prompt:
    subject = rng.choice((f"The {rng.choice(JOBS)}", rng.choice(NAMES)))
    speech = f'{rng.choice(NAMES)} said: "'
    before = rng.choice(("", _capital(quote_clause(rng, False)) + ". "))
    said = _capital(quote_clause(rng, True, rng.choice(NAMES))) + "."
    after = rng.choice(("", _capital(quote_clause(rng, False)) + ". "))
    text = before + speech + (rng.choice(("", said + " ")) if inside else said + '" ' + after) + subject
    _, now, past = rng.choice(VERBS)
    end = len(words(text))
    return Prompt(
        text, now if inside else past, past if inside else now, {"END": end}, ("inside" if inside else "outside",)
    )


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def date_prompts(*, held_out: bool) -> list[Prompt]:
    """Sums with weekdays and months ("Two days after Monday is"), seen in training or not."""
    prompts = []
    for names, unit, most in ((DAYS, "day", 6), (MONTHS, "month", 11)):
        for start in range(len(names)):
            for number in range(1, most + 1):
                for direction in ("after", "before"):
                    if is_held_out_date(names, start, number, direction) == held_out:
                        text, answer = date_sentence(names, unit, start, number, direction).rsplit(" ", 1)
                        prompts.append(Prompt(text, answer, None, {"END": len(words(text))}, (unit, direction)))
    return prompts


def agreement_prompts() -> list[Prompt]:
    """ "The dogs near the cat" … are, with a noun of the other number in between; all pairs, both numbers."""
    prompts = []
    for animal in ANIMALS:
        for other in ANIMALS:
            if animal != other:
                plural, others = corpus._plural(animal), corpus._plural(other)
                for text, answer, foil in (
                    (f"The {animal} near the {others}", "is", "are"),
                    (f"The {plural} near the {other}", "are", "is"),
                ):
                    prompts.append(Prompt(text, answer, foil, {"END": len(words(text))}, (answer,)))
    return prompts


def gender_prompts() -> list[Prompt]:
    """ "Mary went home because" … she, for every name."""
    prompts = []
    for name in NAMES:
        answer, foil = ("she", "he") if name in WOMEN else ("he", "she")
        text = f"{name} went home because"
        prompts.append(Prompt(text, answer, foil, {"END": len(words(text))}, (answer,)))
    return prompts


def bracket_prompts(n: int, seed: int) -> list[Prompt]:
    """Nested brackets cut where the inner one, and then the outer one, has to be closed."""
    rng = random.Random(seed)
    prompts = []
    for _ in range(n):
        (left, right), (inner_left, inner_right) = rng.sample((("(", ")"), ("[", "]")), 2)
        inner = f"{rng.choice(NAMES)} found the {rng.choice(THINGS)} {left}{rng.choice(NAMES)}'s {rng.choice(ANIMALS)} "
        inner += f"{inner_left}the {rng.choice(ADJECTIVES)} one"
        for text, answer, foil in ((inner, inner_right, right), (inner + inner_right, right, inner_right)):
            prompts.append(
                Prompt(text, answer, foil, {"END": len(words(text))}, ("inner" if text == inner else "outer",))
            )
    return prompts


# Sets of words that a labelled feature "the current token is one of these" stands for.
WORD_CLASSES: dict[str, tuple[str, ...]] = {
    "name": NAMES,
    "woman's name": WOMEN,
    "city": CITIES,
    "country": tuple(dict.fromkeys(COUNTRY_OF_CITY.values())),
    "builder": BUILDERS,
    "material": MATERIALS,
    "landmark's first word": FIRST_WORDS,
    "landmark's second word": SECOND_WORDS,
    "weekday": DAYS,
    "month": MONTHS,
    "number": NUMBERS,
    "animal": ANIMALS,
    "job": JOBS,
    "thing": THINGS,
    "adjective": ADJECTIVES,
    "verb in the present": tuple(now for _, now, _ in VERBS),
    "verb in the past": tuple(past for _, _, past in VERBS),
}


def token_labels(tokens: Int[Tensor, "batch pos"]) -> dict[str, Bool[Tensor, "batch pos"]]:
    """What is true of each token of documents: the class of the word, and its state (inside quotation marks, brackets).

    A quotation mark opens and closes by turns; the opening one counts as inside, the closing one as outside. The class
    of the *next* word is labelled too ("next: city"), False in the last column.
    """
    ids = {name: torch.tensor([token_id(word) for word in members]) for name, members in WORD_CLASSES.items()}
    labels = {name: torch.isin(tokens, members) for name, members in ids.items()}
    labels["inside quotes"] = (tokens == token_id('"')).cumsum(1) % 2 == 1
    opened = torch.isin(tokens, torch.tensor([token_id("("), token_id("[")])).cumsum(1)
    closed = torch.isin(tokens, torch.tensor([token_id(")"), token_id("]")])).cumsum(1)
    labels["inside brackets"] = opened > closed
    for name in WORD_CLASSES:
        labels[f"next: {name}"] = torch.cat([labels[name][:, 1:], torch.zeros_like(labels[name][:, :1])], dim=1)
    return labels


def documents(n: int, seed: int) -> Int[Tensor, "n pos"]:
    """Documents that training has not seen, without those of repeated random tokens."""
    return torch.from_numpy(corpus.corpus(n, corpus.HELD_OUT_SEED + seed, share_repeated=0.0)).long()
