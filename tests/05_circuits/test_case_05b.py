"""The check of the case of part 05b: the pairs are read, the measure is tried, and the swaps are run again."""

import re
from functools import cache

from utils.circuits.case_05b import what_the_signal_says
from utils.course.cases import design_of, estimate, expect_enough, expect_function_of_input, expect_reported
from utils.course.checking import Mismatch, expect, plain
from utils.data.corpus import words
from utils.data.prompts import token_id
from utils.data.world import ADJECTIVES, NAMES, PLACES, THINGS
from utils.models.course_model import load_course_model
from utils.patching.case_04b import gift_of, swap_heads

LISTS = ("nothing", "place", "name", "both")
HEAD = [(1, 3)]
KEYS = {
    **dict.fromkeys(LISTS, "list"),
    "measure": "callable",
    "control_heads": "list",
    **{f"effect_{name}": "pair" for name in LISTS},
    "verdict": ("name", "place", "name and place", "undecided"),
}
READINGS = {
    (False, True, False): "name",
    (False, False, True): "place",
    (False, True, True): "name and place",
}
DRAWN = {word: "*" for kind in (NAMES, PLACES, THINGS, ADJECTIVES) for word in kind}
SHOULD = {
    "nothing": "keep its people where they stand, and differ in other words",
    "place": "name the same two people in the other order, let the same one give, and differ in nothing else",
    "name": "have two people who are not in the prompt where its two stand, and differ in nothing else",
    "both": "let the other of the two give, and differ in nothing else",
}


class TestWhatTheSignalSays:
    exercise = "what_the_signal_says"

    def test_design(self, answer):
        "pairs that change the giver's name, his place, both or neither, a measure, a control, and the numbers again"
        model = course_model()
        design = design_of(answer, KEYS, load_course_model())
        for name in LISTS:
            expect_pairs(design[name], name)
        expect_control(design["control_heads"])
        own = {name: measured(model, design, name, []) for name in LISTS}
        for name in LISTS:
            expect_a_lead(model, design, name, own[name])
        effects = {name: falls(model, design, name, HEAD, own[name]) for name in LISTS}
        whole = estimate(effects["both"])
        expect(
            whole[0] - whole[1] > 0,
            "Where the other one gives, your measure does not fall: then it can't tell either what a name or a place"
            " does.",
            actual="nothing falls",
            returned=f"'both': {whole[0]:.3g} ± {whole[1]:.2g}",
        )
        for name in LISTS:
            mean, half_width = estimate(falls(model, design, name, design["control_heads"], own[name]))
            expect(
                abs(mean) <= whole[0] / 4,
                f"In {name!r} your control moves as well: what head 1.3 does is then nothing of its own.",
                actual="control moves",
                returned=f"{mean:.2f} ± {half_width:.2g}",
                expected=f"at most {whole[0] / 4:.2f}",
            )
        for name in LISTS:
            expect_reported(design[f"effect_{name}"], effects[name], of=f"effect_{name}", atol=1e-4)
        expect_verdict(design)


def expect_pairs(pairs, name):
    """Expect pairs of the list's kind, in unlike sentences of both orders."""
    read = [expect_pair(pair, f'design["{name}"][{i}]', name) for i, pair in enumerate(pairs)]
    expect_enough([tuple(pair) for pair in pairs], 10, of=f"pairs in {name!r}")
    built = [" ".join(re.sub(r"^an$", "a", DRAWN.get(word, word)) for word in words(pair[0])) for pair in pairs]
    expect(
        len(set(built)) == len(built),
        f"In {name!r} several prompts are built alike. What a head does in one sentence it does there with all names: "
        "such prompts are no independent units, and the interval looks narrower than it is.",
        actual=("built alike", len(set(built)) == 1),
        returned=next((text for text in built if built.count(text) > 1), ""),
    )
    receiver_first = sum(prompt.receiver_first for prompt in read)
    expect(
        3 <= receiver_first <= len(read) - 3,
        f"In {name!r} all prompts, or nearly all, have one order of names: then the giver has one place only, and "
        f"what is "
        "said of places is said of that one.",
        actual=("one order", receiver_first in (0, len(read))),
        returned=f"{receiver_first} of {len(read)} with the receiver first",
    )


def expect_pair(pair, where, name):
    """Expect one pair to be as the docstring says; who gives and gets in its prompt."""
    expect(
        isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair),
        "A pair is a tuple of two texts, prompt and donor.",
        actual="no pair",
        returned=f"{where} = {pair!r}"[:200],
    )
    try:
        prompt, donor = map(gift_of, pair)
    except ValueError as error:
        raise Mismatch(f"{where} can't be read: {error}.", actual="unreadable", returned=repr(pair)) from error
    before, after = map(words, pair)
    told = {"returned": f"{where} = {pair!r}", "expected": f"a donor that should {SHOULD[name]}"}
    expect(len(before) == len(after), "Prompt and donor need as many words.", actual="length", **told)
    kinds = changes(before, after, prompt, donor)
    wanted = {"nothing": {"words"}, "place": {"place"}, "name": {"name"}, "both": {"name", "place"}}[name]
    people = (donor.giver, donor.receiver)
    if name == "both" and kinds == wanted:
        exact = people == (prompt.receiver, prompt.giver)
    else:
        exact = name != "name" or not {*people} & {prompt.giver, prompt.receiver}
    expect(
        kinds == wanted and exact,
        f"A donor of {name!r} should {SHOULD[name]}.",
        actual=(name, *sorted(kinds)),
        **told,
    )
    return prompt


def changes(before, after, prompt, donor):
    """What changes between two texts: the giver's name, his place in the opening, other people, other words."""
    kinds = set()
    if donor.giver != prompt.giver:
        kinds.add("name")
    elif donor.receiver != prompt.receiver:
        kinds.add("receiver")
    if donor.receiver_first != prompt.receiver_first:
        kinds.add("place")
    if any(a != b and not (a in NAMES and b in NAMES) for a, b in zip(before, after, strict=True)):
        kinds.add("words")
    return kinds


def expect_control(heads):
    good = all(
        isinstance(pair, list | tuple) and len(pair) == 2 and all(type(plain(i)) is int and 0 <= i < 4 for i in pair)
        for pair in heads
    )
    expect(good, "Control heads are pairs (layer, head), both from 0 to 3.", actual="no heads", returned=f"{heads}")
    expect(
        (1, 3) not in map(tuple, heads),
        "Head 1.3 is in your control: a control is to show what swapping does where nobody expects anything.",
        actual="suspect",
        returned=f"{heads}",
    )
    expect_enough([tuple(pair) for pair in heads], 4, of="control heads")


@cache
def course_model():
    return load_course_model().requires_grad_(False)


RUNS = {}


def swapped(model, texts, donors, heads):
    """``swap_heads``, run once for the same texts, of which a learner tries several designs in a row."""
    key = tuple(texts), tuple(donors), tuple(heads)
    if key not in RUNS:
        if len(RUNS) > 100:
            RUNS.clear()
        RUNS[key] = swap_heads(model, texts, donors, heads)
    return RUNS[key].clone()


def measured(model, design, name, heads, exchanged=False):
    """The measure of each prompt with these heads' outputs from its donor, or with the two names exchanged."""
    prompts, donors = zip(*design[name], strict=True)
    logits = swapped(model, prompts, donors, [tuple(pair) for pair in heads])
    people = [(gift_of(text).receiver, gift_of(text).giver) for text in prompts]
    people = [pair[::-1] for pair in people] if exchanged else people
    return expect_function_of_input(design["measure"], [(row, *pair) for row, pair in zip(logits, people, strict=True)])


def falls(model, design, name, heads, own):
    return [a - b for a, b in zip(own, measured(model, design, name, heads), strict=True)]


def expect_a_lead(model, design, name, own):
    turned = measured(model, design, name, [], exchanged=True)
    expect(
        all(a - b > 1e-6 for a, b in zip(own, turned, strict=True)),
        "Behind a prompt as it is, your measure is not larger for its receiver and giver than with the two names "
        "exchanged: "
        "it does not say who is ahead.",
        actual="no lead",
        returned=f"in {name!r}: {own[0]:.3g} and, exchanged, {turned[0]:.3g}",
    )
    prompts, donors = zip(*design[name][:4], strict=True)
    people = [(gift_of(text).receiver, gift_of(text).giver) for text in prompts]
    for who, rises in (("receiver", True), ("giver", False)):
        # from just behind the other to just ahead of him: no measure is at its ceiling there
        for row, pair in zip(swapped(model, prompts, donors, []), people, strict=True):
            behind, (mover, other) = row.clone(), map(token_id, pair if rises else pair[::-1])
            behind[mover], behind[other] = row.max(), row.max() + 0.5
            ahead = behind.clone()
            ahead[mover] += 1
            before, after = expect_function_of_input(design["measure"], [(behind, *pair), (ahead, *pair)])
            expect(
                after - before > 1e-6 if rises else before - after > 1e-6,
                f"Your measure does not {'rise' if rises else 'fall'} if the {who}'s logit alone rises: it leaves out "
                "one of the two people whom it should compare.",
                actual=("one person left out", who),
                returned=f"{before:.3g} before, {after:.3g} after",
            )


def verdict_of(design):
    """The verdict that follows from the reported numbers, and which effects count."""
    quarter = design["effect_both"][0] / 4
    counts = tuple(
        None if abs(mean - quarter) <= half_width else mean > quarter
        for mean, half_width in (design[f"effect_{name}"] for name in ("nothing", "name", "place"))
    )
    return READINGS.get(counts, "undecided"), counts


def expect_verdict(design):
    follows, counts = verdict_of(design)
    said = {True: "counts", False: "does not count", None: "is not clear"}
    expect(
        design["verdict"] == follows,
        "Your verdict does not follow from your numbers: "
        + "; ".join(f"{name} {said[value]}" for name, value in zip(("nothing", "name", "place"), counts, strict=True))
        + ".",
        actual=("verdict", design["verdict"]),
        returned=repr(design["verdict"]),
        expected=repr(follows),
    )


def test_the_numbers_could_have_given_each_verdict():
    for counts, verdict in READINGS.items():
        values = {
            f"effect_{name}": (4.0 * x, 0.1) for name, x in zip(("nothing", "name", "place"), counts, strict=True)
        }
        assert verdict_of(values | {"effect_both": (8.0, 0.1)})[0] == verdict
    same = dict.fromkeys(("effect_nothing", "effect_name", "effect_place"), (2.0, 0.1))
    assert verdict_of(same | {"effect_both": (8.0, 0.1)})[0] == "undecided"


def test_it_is_the_name():
    design = what_the_signal_says(course_model())
    assert design["verdict"] == "name"
    assert abs(design["effect_place"][0]) < 0.2 and abs(design["effect_nothing"][0]) < 0.2
    assert 14 < design["effect_both"][0] < 20 and 7 < design["effect_name"][0] < 11
