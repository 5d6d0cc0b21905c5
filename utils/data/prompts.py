"""Prompts on the course model's tasks, made of what its training text leaves out, with the positions that matter.

Positions count tokens with `<bos>` at 0, as in ``encode_prompts``. The last position of a prompt is where the answer is
predicted, "END" in the literature.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

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
    PLACES,
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
        unit: What it has in common with other prompts that are right or wrong together with it: a landmark, a template,
            a sentence. None if it stands alone.
    """

    text: str
    answer: str
    foil: str | None = None
    at: dict[str, int] = field(default_factory=dict)
    kind: tuple[str, ...] = ()
    unit: str | None = None


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
    io, s, c = _strangers(rng)
    a, b = (io, s) if order == "ABBA" else (s, io)
    text = ioi_sentence(rng, opening, gift, a, b, s, io, c if bystander else None).removesuffix(f" {io}.")
    return _gift_prompt(text, io, s, c if bystander else None, (order, str(opening), str(gift)))


def passive_prompts(n: int, seed: int, *, bystander: bool = False) -> list[Prompt]:
    """The same question in the passive, which training never uses for gifts: the giver is not the first to be said.

    "When Mary and Paul went to the park, Mary's ball was handed by Paul to". Orders alternate as in ``ioi_prompts``;
    the answer is still the one of the two who does not give.

    Args:
        n: How many.
        seed: Seed of the draw.
        bystander: Let a third person, instead of the receiver, own the thing that is given.
    """
    rng = random.Random(seed)
    prompts = []
    for i in range(n):
        io, s, c = _strangers(rng)
        order, opening, verb = ("ABBA", "BABA")[i % 2], rng.randrange(len(IOI_OPENINGS)), rng.choice(PARTICIPLES)
        a, b = (io, s) if order == "ABBA" else (s, io)
        owner = c if bystander else io
        text = IOI_OPENINGS[opening].format(a=a, b=b, place=rng.choice(PLACES))
        text += f" {owner}'s {rng.choice(THINGS)} was {verb} by {s} to"
        prompts.append(_gift_prompt(text, io, s, owner, (order, str(opening), verb)))
    return prompts


# The question in sentences that are put together otherwise than those of training: two sentences for one, other verbs
# in the opening, something in between, the passive.
UNFAMILIAR = (
    "{a} and {b} were in the {place}. {s} gave the {thing} to",
    "{a} met {b} near the {place}, and {s} gave the {thing} to",
    "{a} and {b} were tired, so {s} gave the {thing} to",
    "{a} saw {b} in the {place}. Then {s} handed the {thing} to",
    "In the morning, {a} and {b} opened the door, and {s} sold the {thing} to",
    "{a} is a singer and {b} is a writer. {s} showed the {thing} to",
    "When {a} and {b} went home, {s} gave the {thing} to",
    "The judge met {a} and {b} at the {place}, and {s} passed the {thing} to",
    "In the {place} near the river, {a} and {b} smiled, and {s} threw the {thing} to",
    "{a} lost the {thing}, and {b} found the {thing}. {s} gave the {thing} to",
    "When {a} and {b} went to the {place}, the {thing} was handed by {s} to",
    "On Monday, {a} and {b} visited the {place}, and in the morning {s} offered the {thing} to",
)


def unfamiliar_prompts(n: int, seed: int) -> list[Prompt]:
    """Who gets the present, in each of the `UNFAMILIAR` sentences: ``n`` prompts each, orders alternate.

    ``kind`` has the order and the number of the sentence, which is the ``unit``, too.
    """
    rng = random.Random(seed)
    prompts = []
    for form, sentence in enumerate(UNFAMILIAR):
        for i in range(n):
            io, s, _ = _strangers(rng)
            order = ("ABBA", "BABA")[i % 2]
            a, b = (io, s) if order == "ABBA" else (s, io)
            text = sentence.format(a=a, b=b, s=s, place=rng.choice(PLACES), thing=rng.choice(THINGS))
            prompts.append(_gift_prompt(text, io, s, None, (order, str(form))))
    return prompts


def _strangers(rng: random.Random) -> list[str]:
    """Two people who never met in the training text, and a third."""
    while True:
        people = rng.sample(NAMES, 3)
        if is_held_out_pair(*people[:2]):
            return people


def _gift_prompt(text: str, io: str, s: str, owner: str | None, kind: tuple[str, ...]) -> Prompt:
    """A prompt about a gift; ``at`` has "IO", "S1", "S2" and "END", and "OWNER" if somebody else owns the thing."""
    tokens = ["<bos>", *words(text)]
    s1, s2 = (i for i, token in enumerate(tokens) if token == s)
    at = {"IO": tokens.index(io), "S1": s1, "S2": s2, "END": len(tokens) - 1}
    if owner is not None:
        at["OWNER"] = max(i for i, token in enumerate(tokens) if token == owner)
    return Prompt(text, io, s, at, kind, " ".join(kind[1:]))


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
    return Prompt(text, answer, None, at, (relation, str(phrasing)), landmark.name)


def named_landmark(text: str) -> tuple[Landmark, int]:
    """The landmark that a text names, and the position of its name's last word, counted with `<bos>` at 0.

    Raises:
        ValueError: If the text does not name exactly one landmark, once.
    """
    said, names = ["<bos>", *words(text)], {(x.first, x.second): x for x in landmarks()}
    found = [(names[pair], i + 1) for i, pair in enumerate(zip(said, said[1:], strict=False)) if pair in names]
    if len(found) != 1:
        raise ValueError(f"{text!r} names {len(found)} landmarks, and should name one")
    return found[0]


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
            kind = ("inner" if text == inner else "outer",)
            prompts.append(Prompt(text, answer, foil, {"END": len(words(text))}, kind, inner))
    return prompts


@dataclass(frozen=True)
class GivingRoles:
    """Who is who in a text that breaks off where a person should come. People are the world's names and its jobs.

    Attributes:
        said: For each person, in the order of their first mention, the positions of all mentions.
        repeated: Those who are said more than once.
        last: Who is said last; None if nobody is.
        giver: Who gives, or does what else has somebody as its goal ("thanked", "went to"), by the last such verb. None
            if nobody does; if nobody does *alone* ("Mary and Paul gave"); if it is no person, or only a pronoun
            ("Paul's dog gave", "he gave"); or if the grammar is not that of the world's scenes.
        first: Who is said first behind the opening. That is the clause that brings two people together, up to the comma
            or full stop behind its verb; without such a pair, all up to the first comma or full stop behind the first
            verb. None if nobody is said there, or there is no opening.
        last_at, giver_at, first_at: The positions of these mentions; None where there is none.
        end: The position of the last token.
    """

    said: dict[str, tuple[int, ...]]
    repeated: tuple[str, ...]
    last: str | None
    giver: str | None
    first: str | None
    last_at: int | None
    giver_at: int | None
    first_at: int | None
    end: int


PARTICIPLES = ("handed", "passed", "sold", "offered")
# `giving_roles` turns a text into a string with one letter for each token, the first of these kinds that it belongs to;
# other words, mostly nouns, are "o".
KINDS = {
    "N": NAMES,
    "J": JOBS,
    "o": (*THINGS, *PLACES, *ANIMALS),
    "A": (*ADJECTIVES, *NUMBERS),
    "S": ("'s",),
    "T": ("the", "The", "a", "A", "an", "his", "her", "every"),
    "B": ("is", "are", "was", "were", "be"),
    "G": (*PARTICIPLES, "gave", "give", "threw", "showed"),
    "E": ("thanked", "met", "found", "saw", "visited", "went", "walked", "came", "took", "carried"),
    "D": ("decided", "wanted", "wants", "want", "needed", "needs", "need"),
    "t": ("to",),
    "y": ("by",),
    "p": (
        "of",
        "in",
        "at",
        "near",
        "with",
        "from",
        "behind",
        "beside",
        "on",
        "for",
        "like",
        "unlike",
        "after",
        "before",
    ),
    "x": ("will", "can", "then", "Then", "not", "so", "too"),
    "&": ("and",),
    "w": ("who", "which"),
    ",": (",",),
    ".": (".", ":", ";", '"'),
    "V": (
        *(form for forms in VERBS for form in forms),
        "said",
        "answered",
        "shouted",
        "smiled",
        "slept",
        "sat",
        "worked",
    ),
}
PERSON = r"(?:N(?!S)|(?:NS|T)?A*J)"
THING = r"(?:NS|T)A*o"
SUBJECT = re.compile(rf"(?P<who>{PERSON}|{THING})(?:[pty](?:{PERSON}|(?:NS|T)?A*o))*(?:,[wTp][^,.]*,|w[^,.]*)?[xDtB]*$")
AGENT = re.compile(rf"y{PERSON}(?!&)")
PAIR = re.compile(rf"[NJ],?&{PERSON}")


def giving_roles(text: str) -> GivingRoles:
    """Who is named in a text, how often, who last, who gives, and who comes first behind the opening.

    Positions count `<bos>` as 0. The giver is looked for in the last sentence, or what there is of it; what stands in
    brackets does not give. A full stop at the very end does not count.

    Raises:
        ValueError: If a word is not in the vocabulary; the message names all of them.
    """
    encode(text)  # names the unknown words
    tokens = ["<bos>", *words(text)]
    said: dict[str, tuple[int, ...]] = {}
    for i, token in enumerate(tokens):
        if token in NAMES or token in JOBS:
            said[token] = (*said.get(token, ()), i)
    at = _outside_brackets(tokens)
    kinds = "".join(_kinds().get(tokens[i], "o") for i in at).rstrip(".")
    behind = _behind_opening(kinds)
    first = next((i for i in range(behind, len(kinds)) if kinds[i] in "NJ"), None) if behind else None
    giver = _giver(kinds, behind)
    last_at = max((i for places in said.values() for i in places), default=None)
    first_at, giver_at = (None if i is None else at[i] for i in (first, giver))
    return GivingRoles(
        said=said,
        repeated=tuple(person for person, places in said.items() if len(places) > 1),
        **{
            name: None if i is None else tokens[i]
            for name, i in (("last", last_at), ("giver", giver_at), ("first", first_at))
        },
        last_at=last_at,
        giver_at=giver_at,
        first_at=first_at,
        end=len(tokens) - 1,
    )


@cache
def _kinds() -> dict[str, str]:
    return {word: kind for kind in reversed(KINDS) for word in KINDS[kind]}


def _outside_brackets(tokens: Sequence[str]) -> list[int]:
    """Positions of the tokens that stand in no brackets, without `<bos>`; an opening bracket needs its closing one."""
    text = "".join(token if token in "()[]" else "o" for token in tokens)
    for _ in range(2):  # one pair may stand inside another
        text = re.sub(r"\([^()\[\]]*\)|\[[^()\[\]]*\]", lambda found: "-" * len(found[0]), text)
    return [i for i, mark in enumerate(text) if mark != "-" and i > 0]


def _behind_opening(kinds: str) -> int:
    """Where the opening is over; 0 if there is none."""
    for start in [*(pair.end() for pair in reversed(list(PAIR.finditer(kinds)))), 0]:
        opening = re.compile(r"[^BEDVG]*[BEDV][^,.]*[,.]").match(kinds, start)
        if opening:
            return opening.end()
    return 0


def _giver(kinds: str, behind: int) -> int | None:
    """Which token is the giver."""
    sentence = kinds.rfind(".") + 1
    verbs = [i for i in range(max(sentence, behind), len(kinds)) if kinds[i] in "GE"]
    verbs = verbs or [i for i in range(sentence, len(kinds)) if kinds[i] == "G"]
    if not verbs:
        return None
    verb = verbs[-1]
    if kinds[:verb].endswith("B"):  # the passive
        agent = AGENT.search(kinds, verb)
        return agent.end() - 1 if agent else None
    while ellipsis := re.search(r"[BGEDV][^BGEDV]*&x*$", kinds[sentence:verb]):
        if SUBJECT.search(kinds[sentence:verb]):
            break
        verb = sentence + ellipsis.start()  # "thanked Mary and gave": whoever thanked
    subject = SUBJECT.search(kinds, sentence, verb)
    if subject is None or re.search(r"(?:[pty]|[NJ]&|,T?A*[NJ],&)$", kinds[sentence : subject.start()]):
        return None
    return subject.end("who") - 1 if kinds[subject.end("who") - 1] in "NJ" else None


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
