"""The check of the case of part 10a: detectors are run again on the learner's sentences."""

from utils.capstone.case_10a import BETWEEN, NAMES, NOUNS, READS, detector, detectors, which_name_stands
from utils.course.cases import design_of, estimate, expect_enough, expect_reported
from utils.course.checking import expect

SEEDS = (7, 12)
KEYS = {
    **dict.fromkeys(READS, "list"),
    **{f"effect_{letter}": "list" for letter in "ABCD"},
    **dict.fromkeys("ABCD", NAMES),
}


def taken_apart(text):
    """Its nouns without their number, their numbers, and the words between; None if it is built otherwise."""
    words = text.split() if isinstance(text, str) else []
    if (
        len(words) != 8
        or [words[i] for i in (0, 3, 6)] != ["The", "the", "the"]
        or not {words[2], words[5]} <= set(BETWEEN)
    ):
        return None
    nouns = [words[i] for i in (1, 4, 7)]
    plural = tuple(noun not in NOUNS for noun in nouns)
    single = tuple(noun[:-1] if many else noun for noun, many in zip(nouns, plural, strict=True))
    return (single, plural, (words[2], words[5])) if set(single) <= set(NOUNS) else None


def expect_pairs(name, pairs):
    place = READS.index(name)
    well = all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs)
    parts = [tuple(map(taken_apart, pair)) for pair in pairs] if well else [(None,)]
    expect(
        all(part is not None for pair in parts for part in pair),
        f"Under {name!r} pairs of sentences are expected, \"The NOUN WORD the NOUN WORD the NOUN\".",
        actual=("sentences", name),
    )  # fmt: skip
    for (nouns, numbers, words), (nouns2, numbers2, words2) in parts:
        changed = [READS[i] for i in range(3) if numbers[i] != numbers2[i]]
        expect(
            (nouns, words) == (nouns2, words2),
            f"A pair of {name!r} changes a noun or a word, and not only a number. What the detector "
            "then does may be due "
            "to that.",
            actual=("words changed", name),
        )  # fmt: skip
        expect(
            changed == [name],
            f"A pair of {name!r} changes the number of {' and '.join(changed) or 'no noun'}: only this "
            "noun's may change.",
            actual=("changed", name, *changed),
        )  # fmt: skip
        expect(
            not numbers[place], f"In the first sentence of a pair of {name!r} this noun is to be singular.",
            actual=("order", name),
        )  # fmt: skip
    expect_enough([tuple(pair) for pair in pairs], 16, of=f"pairs of {name!r}")
    for other in (i for i in range(3) if i != place):
        share = sum(first[1][other] for first, _ in parts) / len(parts)
        expect(
            0.25 <= share <= 0.75,
            f"In the pairs of {name!r} the {READS[other]} noun is nearly always of one number. A "
            "detector of any plural "
            "can't be told then: where another noun is plural, it is high already.",
            actual=("one-sided", name, share > 0.5), returned=f"plural in {share:.0%}",
        )  # fmt: skip
    words = {first[2] for first, _ in parts}
    expect(len(words) >= 3, f"The pairs of {name!r} have fewer than three templates.", actual=("templates", name))


class TestWhichNameStands:
    exercise = "which_name_stands"

    def test_design(self, answer):
        "four detectors that you have not seen, twice: the pairs, each effect run again, and the verdicts"
        for seed in SEEDS:
            given = detectors(seed)
            design = design_of(answer, KEYS, given)
            for name in READS:
                expect_pairs(name, design[name])
            for letter, detect in given.items():
                reported = design[f"effect_{letter}"]
                expect(len(reported) == 3, f"Three effects are expected for {letter!r}.", actual=("three", letter))
                for name, said in zip(READS, reported, strict=True):
                    values = [detect(many) - detect(single) for single, many in design[name]]
                    expect_reported(tuple(said), values, of=f"effect_{letter}, {name}", atol=1e-6)
                self.expect_verdict(given, design, letter, seed)

    def expect_verdict(self, given, design, letter, seed):
        means = [estimate([given[letter](b) - given[letter](a) for a, b in design[name]])[0] for name in READS]
        # A noun's own detector rises by 2. One of any plural rises by 1.5 at most, as a quarter has another plural.
        kind = READS[max(range(3), key=means.__getitem__)] if max(means) > 1.75 else "any"
        expect(
            design[letter] == kind,
            f"Your verdict on a detector is {design[letter]!r}, and by your own pairs its effects are "
            f"{means[0]:.2f} (first), {means[1]:.2f} (middle) and {means[2]:.2f} (last).",
            actual=("verdict", design[letter], kind, len({design[other] for other in given}) == 1),
        )  # fmt: skip


def test_the_rule_finds_what_is_planted():
    for seed in range(20):
        design = which_name_stands(detectors(seed))
        probe = "The dog of the cats near the birds"
        for letter, detect in detectors(seed).items():
            (kind,) = [k for k in NAMES for i in range(4) if detector(k, 100 * seed + i)(probe) == detect(probe)]
            assert design[letter] == kind
