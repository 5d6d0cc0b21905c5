"""The check of the case of part 07a: the pairs are read, and the design is run on readers of which it is known."""

import math
import zlib
from functools import partial
from statistics import stdev

import pytest

from utils.course.cases import design_of, estimate, expect_enough, expect_reported
from utils.course.checking import expect
from utils.data.corpus import vocabulary, words
from utils.probes.case_07a import (
    HYPOTHESES,
    KIND_OF,
    PAST,
    PRESENT,
    cues,
    ordinary_texts,
    reads_marks,
    reads_position,
    reads_since,
    reads_speaker,
    reads_tense,
    what_a_probe_reads,
)

LISTS = (*HYPOTHESES, "control")
VERDICTS = (*HYPOTHESES, "several", "none", "undecided")
KEYS = {
    **dict.fromkeys(LISTS, "list"),
    **{f"effect_{key}": "pair" for key in LISTS},
    "verdict": VERDICTS,
}
VOCABULARY = frozenset(vocabulary())


def unsteady(text):
    """Reads the marks, and errs where the text's letters say so."""
    return reads_marks(text) if zlib.crc32(text.encode()) % 5 else 1.0 - reads_marks(text)


def marks_turned(text):
    """Reads the marks, and says the opposite."""
    return 1.0 - reads_marks(text)


def marks_or_tense(text):
    return max(reads_marks(text), reads_tense(text))


def marks_and_late(text):
    """Two cues at once: neither is enough."""
    return min(reads_tense(text), reads_position(text))


READERS = (
    reads_tense,
    reads_marks,
    partial(reads_position, most=12),
    partial(reads_position, most=15),
    partial(reads_since, most=9),
    partial(reads_since, most=12),
    reads_speaker,
    marks_or_tense,
    marks_and_late,
    unsteady,
    marks_turned,
)


class TestWhatAProbeReads:
    exercise = "what_a_probe_reads"

    def test_design(self, answer):
        "pairs that change one cue each, and a verdict that follows, for twelve readers"
        firsts = set()  # of the control's pairs: the last reader knows them, so that the control is read
        for reader in (*READERS, lambda text: float(text in firsts)):
            design = design_of(answer, KEYS, lambda text, reader=reader: reader(text))
            for key in LISTS:
                for i, pair in enumerate(design[key]):
                    expect_pair(key, pair, f'design["{key}"][{i}]')
                expect_enough([tuple(pair) for pair in design[key]], 10, of=f"pairs for {key!r}")
            for key in LISTS:
                effects = [reader(first) - reader(second) for first, second in design[key]]
                expect_effect(f"effect_{key}", design[f"effect_{key}"], effects)
            expect_verdict(design)
            firsts.clear()
            firsts.update(first for first, _ in design["control"])


def expect_pair(key, pair, where):
    """Expect a pair of texts that changes the one cue."""
    expect(
        isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair),
        "A pair is a tuple of two texts.",
        actual="no pair",
        returned=f"{where} = {pair!r}"[:200],
    )
    first, second = map(words, pair)
    told = {"returned": f"{where} = {pair!r}"[:400]}
    strangers = sorted({word for word in first + second if word not in VOCABULARY})
    expect(not strangers, f"The course model has no word {', '.join(strangers[:3])}.", actual="strangers", **told)
    expect(0 < max(map(len, (first, second))) <= 60, "A text has no word, or more than 60.", actual="length", **told)
    expect(
        bool(first) and bool(second) and first[-1] == second[-1] and first[-1].isalpha(),
        "The two texts of a pair end in different words, or in a mark. The probe reads at the last token, and the word "
        "that stands there could be what changes its mind.",
        actual=("last word", bool({first[-1], second[-1]} <= PRESENT | PAST) if first and second else None), **told,
    )  # fmt: skip
    expect(
        first[-1] not in PRESENT | PAST,
        "The texts end in a verb: then the word at the last token tells the tense by itself.",
        actual="last verb", **told,
    )  # fmt: skip
    differing = [(a, b) for a, b in zip(first, second, strict=False) if a != b] if len(first) == len(second) else None
    {
        "marks": expect_marks, "tense": expect_tense, "position": expect_position, "since": expect_since,
        "control": expect_control,
    }[key](first, second, differing, cues(pair[0]), cues(pair[1]), told)  # fmt: skip


def expect_marks(first, second, differing, before, after, told):
    expect(
        (before.marks, after.marks) != (False, True),
        "Your pairs for 'marks' are the other way round: the first of the two ends inside.",
        actual="marks turned", **told,
    )  # fmt: skip
    expect(
        before.marks and not after.marks,
        "In a pair for 'marks' the first text ends inside quotation marks and the second outside.",
        actual="marks alike", **told,
    )  # fmt: skip
    expect(
        before.tense == after.tense,
        "A pair for 'marks' changes the tense of the last verb as well: a reader of either would change its mind.",
        actual="marks and tense", **told,
    )  # fmt: skip
    at_marks = [i for i, token in enumerate(second) if token == '"']
    expect(
        differing is not None and len(differing) == 1 and not set(differing[0]) & (PRESENT | PAST),
        "The two texts of a pair for 'marks' differ in more than one token. If a mark is put in, all that stands "
        "behind it comes one place later; take something out in its place.",
        actual=("marks and more", any(second[:i] + second[i + 1 :] == first for i in at_marks)), **told,
    )  # fmt: skip


def expect_tense(first, second, differing, before, after, told):
    expect(
        (before.tense, after.tense) != (False, True),
        "Your pairs for 'tense' are the other way round: the first of the two has its last verb in the present.",
        actual="tense turned", **told,
    )  # fmt: skip
    expect(
        before.tense is True and after.tense is False,
        "In a pair for 'tense' the last verb is in the present in the first text, and in the past in the second.",
        actual="tense alike", **told,
    )  # fmt: skip
    expect(
        differing is not None and len(differing) == 1,
        "The two texts of a pair for 'tense' differ in more than the last verb.",
        actual=("tense and more", before.marks == after.marks), **told,
    )  # fmt: skip


def expect_position(first, second, differing, before, after, told):
    behind = len(second) - len(first)
    expect(
        second[behind:] != first or '"' not in second[: max(behind, 0)],
        "In a pair for 'position' there is a mark in what stands in front: then more changes than the place.",
        actual="position and marks in front", **told,
    )  # fmt: skip
    expect(
        behind >= 0 and second[behind:] == first,
        "In a pair for 'position' the second text is the first with something in front. What stands behind has to "
        "stay: else more changes than the place.",
        actual=("position and more", before.since == after.since), **told,
    )  # fmt: skip
    expect(
        before.position <= 11 and after.position >= 17,
        "In a pair for 'position' the first text should have at most 11 tokens and the second at least 17: nobody "
        "knows "
        "where a probe draws the line.",
        actual="position near", **told,
    )  # fmt: skip


def expect_since(first, second, differing, before, after, told):
    expect(
        before.since is not None and after.since is not None,
        "A pair for 'since' has a quotation mark in both texts.",
        actual="no mark", **told,
    )  # fmt: skip
    expect(
        before.position == after.position,
        "The two texts of a pair for 'since' are not equally long: a reader of the position could change its mind, "
        "too.",
        actual="since and position", **told,
    )  # fmt: skip
    expect(
        before.marks == after.marks and before.tense == after.tense,
        "A pair for 'since' changes the marks or the tense as well.",
        actual="since and more", **told,
    )  # fmt: skip
    expect(
        before.since <= 8 and after.since >= 13,
        "In a pair for 'since' at most 8 tokens should have come since the first mark in the first text, and at least "
        "13 "
        "in the second.",
        actual="since near", **told,
    )  # fmt: skip


def expect_control(first, second, differing, before, after, told):
    expect(
        before == after,
        "In a pair for 'control' no cue may change.",
        actual="control cue", **told,
    )  # fmt: skip
    expect(bool(differing), "The two texts of a pair for 'control' are the same.", actual="control alike", **told)
    expect(
        all(KIND_OF.get(a) is not None and KIND_OF.get(a) == KIND_OF.get(b) for a, b in differing),
        "In a pair for 'control' a word is exchanged for one of another kind: a name for a job, say. A control changes "
        "what should not matter at all.",
        actual="control kind", **told,
    )  # fmt: skip


def expect_effect(key, said, effects):
    """Expect the mean and half-width of the effects, and neither of what is taken for them."""
    mean, half_width = estimate(effects)
    turned = math.isclose(said[0], -mean, abs_tol=1e-9) and abs(mean) > 1e-9
    expect(
        not turned,
        f"Your {key!r} has the wrong sign: it is the first text's reading less the second's.",
        actual="sign",
        returned=f"{said[0]:.3g}",
        expected=f"{mean:.3g}",
    )
    deviation = stdev(effects)
    for what, number in (("standard deviation", deviation), ("standard error", deviation / len(effects) ** 0.5)):
        expect(
            not (number > 1e-4 and math.isclose(said[1], number, rel_tol=0.04)),
            f"The half-width of {key!r} is the pairs' {what}, and not that of a 95 % interval.",
            actual=what,
            returned=f"{said[1]:.4g}",
            expected=f"{half_width:.4g}",
        )
    expect_reported(said, effects, of=key, atol=1e-6)


def verdict_of(design):
    """What follows from the five effects."""
    read = {}
    for key in LISTS:
        mean, width = design[f"effect_{key}"]
        read[key] = None if abs(abs(mean) - 0.5) <= width else abs(mean) > 0.5
    named = [key for key in HYPOTHESES if read[key]]
    if None in read.values() or read["control"]:
        return "undecided"
    return named[0] if len(named) == 1 else "several" if named else "none"


def expect_verdict(design):
    follows = verdict_of(design)
    numbers = ", ".join(f"{key} {design[f'effect_{key}'][0]:.2g} ± {design[f'effect_{key}'][1]:.2g}" for key in LISTS)
    mean, width = design["effect_control"]
    ignored = follows == "undecided" and abs(mean) - width > 0.5
    expect(
        design["verdict"] == follows,
        f"Your verdict does not follow from your numbers: {numbers}.",
        actual=("verdict", "the control") if ignored else ("verdict", follows, design["verdict"]),
        returned=repr(design["verdict"]),
        expected=repr(follows),
    )


@pytest.mark.parametrize(
    ("reader", "verdict"),
    [
        (reads_marks, "marks"),
        (reads_tense, "tense"),
        (partial(reads_position, most=15), "position"),
        (partial(reads_since, most=9), "since"),
        (reads_speaker, "none"),
        (marks_and_late, "several"),
    ],
)
def test_each_verdict_is_given_to_somebody(reader, verdict):
    assert what_a_probe_reads(reader)["verdict"] == verdict


def test_on_ordinary_texts_the_readers_can_hardly_be_told_apart():
    texts, inside = ordinary_texts(640, seed=3)
    for reader in (reads_tense, reads_position, reads_since, reads_speaker):
        accuracy = sum(reader(text) == label for text, label in zip(texts, inside, strict=True)) / len(texts)
        assert 0.95 < accuracy < 0.99
    assert all(reads_marks(text) == label for text, label in zip(texts, inside, strict=True))
    assert sum(inside) == 320 and all(len(words(text)) <= 40 for text in texts)
