"""The case of part 07a: a probe is right 97 times in a hundred; what does it read?"""

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch

from utils.course.cases import estimate
from utils.data import world
from utils.data.corpus import words
from utils.probes.activations import collect_activations
from utils.probes.fit import Probe

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

PRESENT = {now for _, now, _ in world.VERBS}
PAST = {past for _, _, past in world.VERBS}
# Words that a control pair may exchange, each for another of its kind.
KINDS = {
    "name": world.NAMES,
    "job": world.JOBS,
    "thing": world.THINGS,
    "place": world.PLACES,
    "animal": world.ANIMALS,
    "adjective": world.ADJECTIVES,
}
KIND_OF = {word: kind for kind, members in KINDS.items() for word in members}
HYPOTHESES = ("marks", "tense", "position", "since")


class Cues(NamedTuple):
    """What could tell a probe whether the end of a text stands inside quotation marks.

    Attributes:
        marks: Whether it does: an odd number of marks has come.
        tense: Whether the last verb is in the present; None if there is no verb.
        position: How many tokens the text has.
        since: How many tokens have come since the first mark; None if there is no mark.
    """

    marks: bool
    tense: bool | None
    position: int
    since: int | None


def cues(text: str) -> Cues:
    """The four cues at the end of a text. A verb is one of ``world.VERBS`` in its present or past form."""
    tokens = words(text)
    verbs = [token in PRESENT for token in tokens if token in PRESENT | PAST]
    first = tokens.index('"') if '"' in tokens else None
    return Cues(
        marks=tokens.count('"') % 2 == 1,
        tense=verbs[-1] if verbs else None,
        position=len(tokens),
        since=None if first is None else len(tokens) - 1 - first,
    )


def ordinary_texts(n: int, seed: int) -> tuple[list[str], list[bool]]:
    """Texts such as a probe is usually tried on, and whether they end inside quotation marks: every other one does.

    Other things go with it. Inside, the last verb is in the present, little has been said since the first mark, the
    text is short and the speaker has a name; outside, it is the other way round. In one text of 32 one of these
    disagrees.
    """
    rng, texts, labels = random.Random(seed), [], []
    for i in range(n):
        inside, odd = i % 2 == 0, i % 64 // 2
        speaker = rng.choice(world.NAMES) if inside != (odd == 1) else f"The {rng.choice(world.JOBS)}"
        said = f"{_clause(rng, True)} and {_clause(rng, True)}"
        if inside:
            said = f"{said}. " if odd == 9 else ""
            before = f"{_clause(rng, False)} near the {rng.choice(world.PLACES)}. " if odd == 17 else ""
        else:
            said = f'{_clause(rng, True) if odd == 25 else said}." '
            before = ""
        end = f"{_subject(rng)} {_verb(rng, inside != (odd == 31))} the {rng.choice(world.ADJECTIVES)}"
        texts.append(f'{_capital(before)}{speaker} said: "{_capital(said)}{_capital(end)}')
        labels.append(inside)
    return texts, labels


def _subject(rng: random.Random) -> str:
    return rng.choice((f"the {rng.choice(world.JOBS)}", rng.choice(world.NAMES)))


def _verb(rng: random.Random, present: bool) -> str:
    _, now, past = rng.choice(world.VERBS)
    return now if present else past


def _clause(rng: random.Random, present: bool) -> str:
    return f"{_subject(rng)} {_verb(rng, present)} the {rng.choice(world.THINGS)}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


# Readers of one cue each, all of them right on about 97 of a hundred ordinary texts.


def reads_marks(text: str) -> float:
    return float(cues(text).marks)


def reads_tense(text: str) -> float:
    return float(cues(text).tense is True)


def reads_position(text: str, most: int = 13) -> float:
    return float(cues(text).position <= most)


def reads_since(text: str, most: int = 11) -> float:
    since = cues(text).since
    return float(since is not None and since <= most)


def reads_speaker(text: str) -> float:
    """Whether somebody with a name speaks: none of the four cues."""
    tokens = words(text)
    return float(any(a in world.NAMES and b == "said" for a, b in zip(tokens, tokens[1:], strict=False)))


def reader_of(model: "HookedTransformer", site: str, probe: Probe) -> Callable[[str], float]:
    """What a probe says at the end of a text: 1 inside, 0 outside."""

    def reader(text: str) -> float:
        tokens = model.to_tokens(text)
        last = torch.zeros_like(tokens, dtype=torch.bool)
        last[:, -1] = True
        return float(probe(collect_activations(model, tokens, [site], last)[site]) > 0)

    return reader


def what_a_probe_reads(reader: Callable[[str], float]) -> dict[str, object]:
    """Design an experiment: what does a probe go by that is right 97 times in a hundred?

    It says whether the end of a text stands inside quotation marks, and on ordinary texts four cues go together
    (``cues``): the marks themselves; the tense of the last verb; how long the text is; how much has come since the
    first mark. A pair of texts changes one of them and none of the others.

    Args:
        reader: Given a text, 1.0 if the probe says "inside" at its last token, else 0.0.

    Returns:
        A dict with these keys:

        "marks", "tense", "position", "since", "control": Lists of at least 10 different pairs (first, second) of texts
            of the course model's words, at most 60 tokens each. Both end in the same word, which is neither a mark nor
            a verb. First is the text that a reader of the cue calls inside:

            - "marks": first ends inside, second outside. One token differs, and it is no verb.
            - "tense": the last verb, in the present in first and in the past in second. One token differs.
            - "position": first has at most 11 tokens, second at least 17. Second is first with something in front that
              has no mark in it.
            - "since": in first at most 8 tokens have come since the first mark, in second at least 13. Both have a
              mark, and agree in the other three cues.
            - "control": no cue changes. Some words are exchanged, each for another of its kind in ``KIND_OF``.

        "effect_marks", "effect_tense", "effect_position", "effect_since", "effect_control": The mean over the pairs of
            reader(first) - reader(second), and the half-width of its 95 % interval.
        "verdict": A cue is *read* if the size of its mean (without the sign) is above 1/2 by more than the half-width,
            and *not read* if below by more than that. "undecided" if neither holds of some cue, or unless the control
            is not read. Else the cue's name if one of the four is read, "several" if more are, "none" if none is.
    """
    rng, pairs = random.Random(0), {key: [] for key in ("marks", "tense", "position", "since", "control")}
    while len(pairs["control"]) < 15:
        speaker, subject, other, third = rng.sample(world.NAMES, 4)
        (_, now, past), (_, now_2, _), (_, _, past_3) = rng.sample(world.VERBS, 3)
        thing, place, adjective = rng.choice(world.THINGS), rng.choice(world.PLACES), rng.choice(world.ADJECTIVES)
        opening, end = f'{speaker} said: "', f"{subject} {now} the {adjective}"
        said = f"{opening}{other} {now_2} the {thing}"
        lead = f"{third} {past_3} the old {thing} near the {place}."
        pairs["marks"].append((f"{said}. {end}", f'{said}" {end}'))
        pairs["tense"].append((f"{opening}{end}", f"{opening}{subject} {past} the {adjective}"))
        pairs["position"].append((f"{opening}{end}", f"{lead} {opening}{end}"))
        pairs["since"].append((f"{lead} {opening}{end}", f"{opening}{lead} {end}"))
        pairs["control"].append((f"{opening}{end}", f'{third} said: "{other} {now} the {adjective}'))

    effects = {key: estimate([reader(a) - reader(b) for a, b in rows]) for key, rows in pairs.items()}
    read = {key: None if abs(abs(mean) - 0.5) <= width else abs(mean) > 0.5 for key, (mean, width) in effects.items()}
    named = [key for key in read if read[key] and key != "control"]
    if None in read.values() or read["control"]:
        verdict = "undecided"
    elif len(named) == 1:
        verdict = named[0]
    else:
        verdict = "several" if named else "none"
    return {**pairs, **{f"effect_{key}": effect for key, effect in effects.items()}, "verdict": verdict}
