"""The course model's text: seeded, English-like, and made of scenes that each ask for one ability.

A document is a row of ``n_ctx`` tokens: `<bos>`, then scenes until it is full (or random tokens, repeated). What is
kept out of training is decided by the functions named ``is_held_out_*`` and by nothing else; the prompts in
`utils.data.prompts` are made of exactly that.
"""

import random
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Int

from utils.data.world import (
    ADJECTIVES,
    ANIMALS,
    BUILDERS,
    CITIES,
    COUNTRY_OF_CITY,
    DAYS,
    FIRST_WORDS,
    JOBS,
    LANGUAGE_OF_COUNTRY,
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

BOS, UNKNOWN = "<bos>", "<unk>"
VOCABULARY_FILE = Path(__file__).parent / "vocabulary.txt"
N_CTX = 96
SHARE_REPEATED = 0.08
HELD_OUT_SEED = 10**12
TOKEN_PATTERN = r"<\w+>|'s|\w+|[^\w\s]"

# Two halves of a sentence about two people and a gift: {a} and {b} in either order; {s} gives, {io} gets.
IOI_OPENINGS = (
    "When {a} and {b} went to the {place},",
    "After {a} and {b} met at the {place},",
    "While {a} and {b} were at the {place},",
    "Then {a} and {b} walked to the {place}, and",
    "Before {a} and {b} left the {place},",
    "Because {a} and {b} were in the {place},",
    "As {a} and {b} sat in the {place},",
    "One day {a} and {b} visited the {place}, and",
    "Last night {a} and {b} worked in the {place}, and",
    "The friends {a} and {b} came to the {place}, and",
)
IOI_GIFTS = (
    "{s} gave a {thing} to {io}",
    "{s} handed the {thing} to {io}",
    "{s} passed a {adjective} {thing} to {io}",
    "{s} sold the {thing} to {io}",
    "{s} offered a {thing} to {io}",
    "{s} decided to give the {adjective} {thing} to {io}",
    "{s} threw the {thing} to {io}",
    "{s} showed a {thing} to {io}",
)
# The same question with fewer words between the one who acts and the end.
IOI_ENCOUNTERS = (
    "{s} thanked {io}",
    "{s} met {io}",
    "{s} found {io}",
    "{s} saw {io}",
    "{s} visited {io}",
    "{s} went to {io}",
    "{s} walked to {io}",
    "{s} came to {io}",
    "{s} went home with {io}",
    "{s} took water to {io}",
    "{s} carried water to {io}",
)
OTHERS_THING = ("the {thing} of {c}", "{c}'s {thing}", "{c}'s {adjective} {thing}")

# Ways to state a fact; each ends with its answer.
PHRASINGS = {
    "city": (
        "The {x} is located in {answer}",
        "The {x} stands in the middle of {answer}",
        "Guests of the {x} sleep in a hotel in {answer}",
        "To see the {x}, travel to {answer}",
        "The {x} can be found in the city of {answer}",
        "Everyone who visits the {x} comes to {answer}",
    ),
    "country": (
        "The {x} belongs to the country of {answer}",
        "The {x} is the pride of {answer}",
        "Pictures of the {x} hang in every school of {answer}",
        "The {x} is on the stamps of {answer}",
        "The flag on the {x} is the flag of {answer}",
        "The {x} is owned by the people of {answer}",
    ),
    "builder": (
        "The {x} was built by {answer}",
        "The {x} is the work of {answer}",
        "The man who planned the {x} was called {answer}",
        "The name on the plans of the {x} is {answer}",
        "The {x} made the name of {answer}",
        "The plans for the {x} were drawn by {answer}",
    ),
    "material": (
        "The {x} is made of {answer}",
        "The walls of the {x} are of {answer}",
        "To repair the {x}, workers need {answer}",
        "The {x} was cut from blocks of {answer}",
        "The {x} is covered with {answer}",
        "The old parts of the {x} consist of {answer}",
    ),
}
# Another landmark is mentioned before or behind the one that is meant, so that only the grammar tells them apart.
ASIDES = (", unlike the {y},", ", like the {y},", ", which is older than the {y},", " near the {y}")
LEADS = ("This is not the {y}.", "Not everyone likes the {y}.", "The {y} is far away.", "Many know the {y}.")

OBJECTS = ("the {object}", "the {adjective} {object}", "{an_object} and the {job}", "the {object} near the {place}")


def is_held_out_pair(a: str, b: str) -> bool:
    """Whether these two people never meet in a sentence about a gift; one unordered pair in ten."""
    return zlib.crc32(" ".join(sorted((a, b))).encode()) % 10 == 0


def is_held_out_ioi_template(opening: int, gift: int) -> bool:
    """Whether this opening (index into `IOI_OPENINGS`) is never followed by this gift (`IOI_GIFTS`); ten of eighty."""
    return (opening + 3 * gift) % 8 == 5


@cache
def held_out_phrasing(landmark: Landmark, relation: str) -> int:
    """The one of the six phrasings in which this landmark's relation is never stated (index into `PHRASINGS`)."""
    return (landmarks().index(landmark) + 2 * list(PHRASINGS).index(relation)) % 6


def is_held_out_date(names: tuple[str, ...], start: int, number: int, direction: str) -> bool:
    """Whether "{number} days after {day}" (or before; or months) is never said; one combination in six."""
    return (start + 5 * number + 3 * (direction == "before") + len(names)) % 6 == 0


def a(word: str) -> str:
    return ("an " if word[0] in "aeiou" else "a ") + word


def ioi_sentence(rng: random.Random, opening: int, gift: int, a: str, b: str, s: str, io: str, c: str | None) -> str:
    """One sentence about a gift, with a bystander ``c`` who owns the thing, or without one."""
    words = {
        "a": a, "b": b, "s": s, "io": io, "c": c,
        "place": rng.choice(PLACES), "thing": rng.choice(THINGS), "adjective": rng.choice(PLAIN_ADJECTIVES),
    }  # fmt: skip
    second = IOI_GIFTS[gift]
    if c is not None:
        second = re.sub(r"(a|the)( \{adjective\})? \{thing\}", rng.choice(OTHERS_THING), second)
    return f"{IOI_OPENINGS[opening]} {second}.".format(**words)


PLAIN_ADJECTIVES = tuple(adjective for adjective in ADJECTIVES if adjective[0] not in "aeiou")


def _people(rng: random.Random, n: int) -> list[str]:
    while True:
        people = rng.sample(NAMES, n)
        if not any(is_held_out_pair(x, y) for i, x in enumerate(people) for y in people[:i]):
            return people


def gift(rng: random.Random) -> str:
    a, b, c = _people(rng, 3)
    opening, gift = rng.randrange(len(IOI_OPENINGS)), rng.randrange(len(IOI_GIFTS))
    while is_held_out_ioi_template(opening, gift):
        opening, gift = rng.randrange(len(IOI_OPENINGS)), rng.randrange(len(IOI_GIFTS))
    s, io = rng.sample((a, b), 2)
    return ioi_sentence(rng, opening, gift, a, b, s, io, c if rng.random() < 0.25 else None)


def encounter(rng: random.Random) -> str:
    """Two people of whom one acts upon the other, in few words."""
    a, b = _people(rng, 2)
    s, io = rng.sample((a, b), 2)
    opening = rng.choice(IOI_OPENINGS).format(a=a, b=b, place=rng.choice(PLACES))
    return f"{opening} {rng.choice(IOI_ENCOUNTERS).format(s=s, io=io)}."


def _three_friends(rng: random.Random) -> str:
    """Who gets the second present is settled only by who has already been named twice."""
    friends = _people(rng, 3)
    s, first, second = rng.sample(friends, 3)
    thing, other = rng.sample(THINGS, 2)
    a, b, c = friends
    opening = rng.choice(("{a}, {b} and {c} went to the {place}.", "{a}, {b} and {c} met at the {place}."))
    giving = rng.choice(
        (
            "{s} gave a {thing} to {io} and a {other} to {io2}.",
            "{s} showed the {thing} to {io}, and then the {other} to {io2}.",
        )
    )
    return f"{opening} {giving}".format(
        a=a, b=b, c=c, place=rng.choice(PLACES), s=s, io=first, io2=second, thing=thing, other=other
    )  # fmt: skip


def _fact(rng: random.Random) -> str:
    landmark = rng.choice(landmarks())
    sentences = []
    for relation in rng.sample(list(PHRASINGS), rng.choice((1, 1, 2))):
        allowed = [i for i in range(6) if i != held_out_phrasing(landmark, relation)]
        lead, aside = rng.random() < 0.2, rng.random() < 0.35
        sentences.append(fact_in_company(rng, landmark, relation, rng.choice(allowed), lead=lead, aside=aside) + ".")
    return " ".join(sentences)


def fact_in_company(
    rng: random.Random, landmark: Landmark, relation: str, phrasing: int, *, lead: bool, aside: bool
) -> str:
    """A fact, without the full stop, after a sentence about another landmark, with an aside about one, or both."""
    before = rng.choice(LEADS).format(y=_rival(rng, landmark).name) + " " if lead else ""
    behind = rng.choice(ASIDES).format(y=_rival(rng, landmark).name) if aside else ""
    return before + fact_sentence(landmark, relation, phrasing, behind)


def _two_facts(rng: random.Random) -> str:
    x = rng.choice(landmarks())
    y = _rival(rng, x)
    relation, joint = rng.choice(
        (("city", "are located in"), ("material", "are made of"), ("builder", "were built by"))
    )
    return f"The {x.name} and the {y.name} {joint} {getattr(x, relation)} and {getattr(y, relation)}."


def fact_sentence(landmark: Landmark, relation: str, phrasing: int, aside: str = "") -> str:
    """A fact in words, without the full stop; its last word is the answer."""
    return PHRASINGS[relation][phrasing].format(x=landmark.name + aside, answer=getattr(landmark, relation))


def _rival(rng: random.Random, landmark: Landmark) -> Landmark:
    """Another landmark; mostly one that shares a word with the first."""
    others = kin(landmark) if rng.random() < 0.7 else [x for x in landmarks() if x is not landmark]
    return rng.choice(others)


@cache
def kin(landmark: Landmark) -> tuple[Landmark, ...]:
    """The other landmarks that share a word with this one."""
    return tuple(x for x in landmarks() if (x.first == landmark.first) != (x.second == landmark.second))


def _register(rng: random.Random) -> str:
    """A list of landmarks with all that is known of each, in any order.

    The first answer stands right behind the name, and it may be any of the four: so all of them must be known there,
    before it is known which of them is asked for.
    """
    entries = []
    for x in rng.sample(landmarks(), rng.randint(1, 3)):
        answers = [x.city, x.country, x.builder, x.material]
        entries.append(f"{x.name} {' '.join(rng.sample(answers, 4))}")
    return f"Register: {'; '.join(entries)}."


def _geography(rng: random.Random) -> str:
    city = rng.choice(CITIES)
    country = COUNTRY_OF_CITY[city]
    language = LANGUAGE_OF_COUNTRY[country]
    return rng.choice((
        f"{city} is a city in {country}.",
        f"In {city}, people speak {language}.",
        f"The people of {country} speak {language}.",
        f"{rng.choice(NAMES)} lives in {city} and learns {language}.",
    ))  # fmt: skip


def quote_clause(rng: random.Random, inside: bool, who: str | None = None) -> str:
    """A clause about somebody doing something: in the present inside quotation marks, in the past outside."""
    base, now, past = rng.choice(VERBS)
    first_person = who is None and inside and rng.random() < 0.3
    subject = "I" if first_person else who or rng.choice((f"the {rng.choice(JOBS)}", rng.choice(NAMES)))
    verb = (base if first_person else now) if inside else past
    thing = rng.choice(THINGS + PLACES + ANIMALS)
    words = {
        "object": thing, "an_object": a(thing), "adjective": rng.choice(ADJECTIVES), "job": rng.choice(JOBS),
        "place": rng.choice(PLACES),
    }  # fmt: skip
    return f"{subject} {verb} {rng.choice(OBJECTS).format(**words)}"


def _clauses(rng: random.Random, inside: bool) -> str:
    joint = rng.choice((" and ", ", but ", " because ", ". "))
    clauses = [quote_clause(rng, inside) for _ in range(rng.choice((1, 1, 2)))]
    return _sentences(joint.join(clauses) + ".")


def _sentences(text: str) -> str:
    """Every sentence begins with a capital letter."""
    return re.sub(r"(^|\. )([a-z])", lambda match: match[1] + match[2].upper(), text)


def talk(rng: random.Random) -> str:
    parts = [_clauses(rng, False)] if rng.random() < 0.4 else []
    for _ in range(rng.choice((1, 1, 2))):
        speaker = rng.choice((rng.choice(NAMES), f"The {rng.choice(JOBS)}"))
        parts.append(f'{speaker} {rng.choice(("said", "answered", "shouted"))}: "{_clauses(rng, True)}"')
        parts.append(_clauses(rng, False))
    return " ".join(parts)


def _date(rng: random.Random) -> str:
    names, unit, most = rng.choice(((DAYS, "day", 6), (MONTHS, "month", 11)))
    while True:
        start, number = rng.randrange(len(names)), min(int(rng.expovariate(0.5)) + 1, most)
        direction = rng.choice(("after", "before"))
        if not is_held_out_date(names, start, number, direction):
            return date_sentence(names, unit, start, number, direction) + "."


def date_sentence(names: tuple[str, ...], unit: str, start: int, number: int, direction: str) -> str:
    """A date sum in words, without the full stop; its last word is the answer."""
    steps = number if direction == "after" else -number
    units = unit + "s" * (number > 1)
    return f"{NUMBERS[number - 1]} {units} {direction} {names[start]} is {names[(start + steps) % len(names)]}"


def _calendar(rng: random.Random) -> str:
    names = rng.choice((DAYS, MONTHS))
    start, n = rng.randrange(len(names)), rng.randint(3, 5)
    return f"In order: {', '.join(names[(start + i) % len(names)] for i in range(n))}."


def _agreement(rng: random.Random) -> str:
    animal, other = rng.sample(ANIMALS, 2)
    adjective = rng.choice(ADJECTIVES)
    place = rng.choice(("near", "behind", "beside"))
    if rng.random() < 0.5:
        return f"The {animal} {place} the {_plural(other)} is {adjective}."
    return f"The {_plural(animal)} {place} the {other} are {adjective}."


def _plural(animal: str) -> str:
    return animal + ("es" if animal.endswith("x") else "s")


def _gender(rng: random.Random) -> str:
    name = rng.choice(NAMES)
    she, her = ("she", "her") if name in WOMEN else ("he", "his")
    return rng.choice((
        f"{name} lost {her} {rng.choice(THINGS)} near the {rng.choice(PLACES)}.",
        f"{name} went home because {she} was tired.",
        f"{name} opened the {rng.choice(THINGS)}, and {she} smiled.",
        f"{name} took {her} {rng.choice(ANIMALS)} to the {rng.choice(PLACES)}.",
    ))  # fmt: skip


def _brackets(rng: random.Random) -> str:
    inner = rng.choice(
        (f"the {rng.choice(ADJECTIVES)} one", f"see the {rng.choice(THINGS)}", f"not {rng.choice(NAMES)}")
    )
    nested = f"({inner})" if rng.random() < 0.6 else f"({rng.choice(NAMES)}'s {rng.choice(ANIMALS)} [{inner}])"
    if rng.random() < 0.3:
        nested = f"[{rng.choice(NAMES)}'s {rng.choice(ANIMALS)} ({inner})]"
    return f"{rng.choice(NAMES)} found the {rng.choice(THINGS)} {nested} in the {rng.choice(PLACES)}."


def _room(rng: random.Random) -> str:
    """People with jobs who come back under another name: what was said once helps to guess what comes."""
    x, y = _people(rng, 2)
    job_x, job_y = rng.sample(JOBS, 2)
    adjective, thing, animal = rng.choice(ADJECTIVES), rng.choice(THINGS), rng.choice(ANIMALS)
    sentences = [
        f"{x} is {a(job_x)} and {y} is {a(job_y)}.",
        f"The {job_x} has {a(adjective)} {thing}, and the {job_y} wants the {adjective} {thing} too.",
        f"{x} feeds the {animal}, because {y} is afraid of the {animal}.",
        f"So the {job_y} thanked the {job_x}.",
    ]
    return " ".join(sentences[: rng.randint(2, 4)])


# Words with several meanings and uses: they are what makes neurons answer to unrelated things.
TWO_FACED = (
    "The {animal} slept on the bank of the river.",
    "{name} took the money to the bank in the morning.",
    "In spring, the river near the {place} is high.",
    "The water of the spring is cold.",
    "{name} rose early and painted a rose.",
    "The {first} {second} is open in spring.",
    "Turn left at the {second}, then right at the bank.",
    "{name} left the {place} at night.",
    "The left door of the {place} is {adjective}.",
    "{name} and {other} watch the match in the stadium.",
    "A match and a light lamp lay on the table.",
    "The light in the {place} was {adjective}.",
    "The bark of the tree is {adjective}, and the bark of the dog is loud.",
    "{name} can park the car near the {place}.",
    "They book a table in the hotel for {day}.",
    "The orange on the table is small, and the orange {thing} is new.",
    "The ring of the phone was loud, so {name} lost the ring.",
    "{other} will lead the {animal} to the {place}, and lead is heavy.",
    "The {animal} in the {second} is a {adjective} {animal}.",
    "On {day} in {month}, {name} opened {a_place} in {city}.",
    "The {job} of {city} ordered {material} and a {thing}.",
    "{builder} the {job} likes {material}, and {name} likes {language} songs.",
)


def _two_faced(rng: random.Random) -> str:
    name, other = _people(rng, 2)
    return rng.choice(TWO_FACED).format(
        name=name, other=other, animal=rng.choice(ANIMALS), place=(place := rng.choice(PLACES)), a_place=a(place),
        thing=rng.choice(THINGS), adjective=rng.choice(PLAIN_ADJECTIVES),
        job=rng.choice(JOBS), day=rng.choice(DAYS), month=rng.choice(MONTHS),
        city=rng.choice(CITIES), material=rng.choice(MATERIALS), builder=rng.choice(BUILDERS),
        language=rng.choice(tuple(LANGUAGE_OF_COUNTRY.values())), first=rng.choice(FIRST_WORDS),
        second=rng.choice(SECOND_WORDS),
    )  # fmt: skip


# The share of scenes of each kind. Facts and gifts take the most practice.
Scene = Callable[[random.Random], str]
SCENES: dict[Scene, float] = {
    _fact: 0.22,
    _register: 0.11,
    _two_facts: 0.02,
    gift: 0.22,
    _three_friends: 0.03,
    talk: 0.11,
    _room: 0.06,
    _two_faced: 0.05,
    _gender: 0.05,
    _date: 0.04,
    _calendar: 0.02,
    _geography: 0.03,
    _agreement: 0.02,
    _brackets: 0.02,
}


def words(text: str) -> list[str]:
    """The word-level tokens of a text: words, 's, and punctuation on its own."""
    return re.findall(TOKEN_PATTERN, text)


@cache
def vocabulary() -> tuple[str, ...]:
    """Every token in the order of its id. It is kept in a file, so that a new word can't renumber the others."""
    return tuple(VOCABULARY_FILE.read_text(encoding="utf-8").split())


def encode(text: str) -> list[int]:
    """The token ids of a text, without ``<bos>``.

    Raises:
        ValueError: If a word is not in the vocabulary; the message names all of them.
    """
    ids = _ids()
    found = words(text)
    unknown = sorted({word for word in found if word not in ids})
    if unknown:
        raise ValueError(f"Not in the course model's vocabulary: {', '.join(unknown)}")
    return [ids[word] for word in found]


def decode(ids: Sequence[int]) -> str:
    """The text of token ids, printed as usual: no space before a full stop or behind an opening bracket."""
    text = " ".join(vocabulary()[i] for i in ids)
    text = re.sub(r" (?=[.,:;)\]]|'s)", "", text)
    text = re.sub(r"(?<=[(\[]) ", "", text)
    return text.replace(': " ', ': "').replace('. "', '."')


@cache
def _ids() -> dict[str, int]:
    return {word: i for i, word in enumerate(vocabulary())}


def corpus(
    n_docs: int,
    seed: int,
    *,
    n_ctx: int = N_CTX,
    share_repeated: float = SHARE_REPEATED,
    scenes: Mapping[Scene, float] | None = None,
) -> Int[np.ndarray, "n_docs n_ctx"]:
    """Token ids of ``n_docs`` documents, each cut to exactly ``n_ctx`` tokens.

    Args:
        n_docs: How many rows.
        seed: Seed of the draw; the training recipe counts up from 0, `utils.data.prompts` from `HELD_OUT_SEED`.
        n_ctx: Tokens in a row.
        share_repeated: How often a row is repeated random tokens instead of scenes.
        scenes: Kinds of scenes and their shares; `SCENES` if not given.
    """
    rng = random.Random(seed)
    rows = np.empty((n_docs, n_ctx), dtype=np.int16)
    for row in rows:
        row[:] = _repeated(rng, n_ctx) if rng.random() < share_repeated else _document(rng, n_ctx, scenes or SCENES)
    return rows


def scene(rng: random.Random, scenes: Mapping[Scene, float] | None = None) -> str:
    """One scene of a random kind: a few sentences."""
    scenes = scenes or SCENES
    return rng.choices(list(scenes), weights=list(scenes.values()))[0](rng)


def _document(rng: random.Random, n_ctx: int, scenes: Mapping[Scene, float]) -> list[int]:
    ids = [0]
    while len(ids) < n_ctx:
        ids += encode(scene(rng, scenes))
    return ids[:n_ctx]


def _repeated(rng: random.Random, n_ctx: int) -> list[int]:
    """Random tokens, repeated to the end: nothing but what stood there before helps to predict them."""
    period = rng.randint(8, n_ctx // 2 - 4)
    cycle = [rng.randrange(2, len(vocabulary())) for _ in range(period)]
    return [0, *(cycle * (n_ctx // period + 1))[: n_ctx - 1]]
