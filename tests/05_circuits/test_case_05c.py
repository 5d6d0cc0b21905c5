"""The check of the case of part 05c: the pairs are read, the effects are had again, and the verdicts follow."""

import math
from functools import cache
from statistics import stdev

import torch

from utils.circuits.case_05c import EDGES, effects_of_pairs, what_an_edge_carries
from utils.course.cases import design_of, estimate, expect_enough, expect_reported
from utils.course.checking import expect
from utils.data.corpus import words
from utils.data.prompts import giving_roles
from utils.models.course_model import load_course_model

LISTS = ("giver", "receiver", "control")
KEYS = {
    **dict.fromkeys(LISTS, "list"),
    **{f"{name}_{edge}": "pair" for name in LISTS for edge in EDGES},
    **{f"verdict_{edge}": ("giver", "receiver", "both", "neither", "undecided") for edge in EDGES},
}


@cache
def course_model():
    return load_course_model().requires_grad_(False)


class TestWhatAnEdgeCarries:
    exercise = "what_an_edge_carries"

    def test_design(self, answer):
        "pairs that differ in one thing, enough of them, and what they give when run again"
        model = course_model()
        design = design_of(answer, KEYS, load_course_model())
        for name in LISTS:
            pairs = design[name]
            for i, pair in enumerate(pairs):
                expect_pair(name, pair, f'design["{name}"][{i}]')
            expect_enough([pair[0] for pair in pairs], 12, of=f"clean texts in {name!r}")
            expect_variety(name, [pair[0] for pair in pairs])
        effects = {
            name: dict(zip(EDGES, effects_of_pairs(model, design[name], list(EDGES.values())).tolist(), strict=True))
            for name in LISTS
        }
        for name in LISTS:
            for edge in EDGES:
                expect_interval(f"{name}_{edge}", design[f"{name}_{edge}"], effects[name][edge])
                expect_reported(design[f"{name}_{edge}"], effects[name][edge], of=f"{name}_{edge}", atol=1e-4)
        for edge in EDGES:
            mean, half_width = design[f"control_{edge}"]
            expect(
                abs(mean) + half_width < 0.5,
                f"Your control moves the edge from head {edge}: the word that you changed there matters to it.",
                actual=("control", edge), returned=f"{mean:.3g} ± {half_width:.2g}",
            )  # fmt: skip
            expect_verdict(design, edge)


def expect_pair(name, pair, where):
    """Expect one pair to be as the docstring says."""
    expect(
        isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair),
        "A pair is a tuple of two texts.", actual="no pair", returned=f"{where} = {pair!r}"[:200],
    )  # fmt: skip
    told = {"returned": f"{where} = {tuple(pair)!r}"[:300]}
    clean, corrupt = (text.split() for text in pair)
    try:
        roles, others = map(giving_roles, pair)
    except ValueError as error:
        expect(False, f"A text has words that the model does not know: {error}", actual="strangers", **told)
    expect(
        len(roles.said) == 2 and roles.giver is not None and clean[-1] == "to",
        "A clean text should name two people, one of whom gives, and break off behind \"to\" (a job "
        f"counts as a person, too). This one names {', '.join(roles.said) or 'nobody'}.",
        actual="not two people", **told,
    )  # fmt: skip
    receiver = next(person for person in roles.said if person != roles.giver)
    expect(
        len(roles.said[roles.giver]) == 2 and len(roles.said[receiver]) == 1,
        "In a clean text the one who gives should be said twice, and the other one once.", actual="said", **told,
    )  # fmt: skip
    tokens, changed = (words(text) for text in pair)
    differ = sum(a != b for a, b in zip(tokens, changed, strict=False))
    expect(
        len(tokens) == len(changed) and differ == 1,
        f"The texts of a pair in {name!r} differ in {differ} places"
        f"{'' if len(tokens) == len(changed) else ' and in length'}, and should in one: whatever else differs could be "
        "the reason as well.",
        actual=("differ", name), **told,
    )  # fmt: skip
    same_people = set(others.said) == set(roles.said)
    if name == "giver":
        expect(
            others.giver == receiver,
            "In a corrupt text of 'giver' the other of the two should give.", actual="giver stays", **told,
        )  # fmt: skip
    elif name == "receiver":
        expect(
            others.giver == roles.giver and len(others.said) == 2 and receiver not in others.said,
            "In a corrupt text of 'receiver' the one who gives should be the same, and the other one somebody else.",
            actual="receiver stays", **told,
        )  # fmt: skip
    else:
        expect(
            same_people and others.giver == roles.giver and others.said == roles.said,
            "In a pair of 'control' no person should change, nor what they do.", actual="control", **told,
        )  # fmt: skip


def expect_variety(name, texts):
    first = {next(iter(roles.said)) == roles.giver for roles in map(giving_roles, texts)}
    expect(
        len(first) == 2,
        f"In all clean texts of {name!r} the one who gives is named at the same place, first or second. What you find "
        "may hold for this order alone.",
        actual=("order", name),
    )  # fmt: skip
    expect(
        len({text.split()[0] for text in texts}) > 1,
        f"All clean texts of {name!r} begin with the same word. What you find may hold for this opening alone.",
        actual=("opening", name),
    )  # fmt: skip


def expect_interval(key, reported, effects):
    """Expect a half-width, and neither of the two numbers that are taken for one, nor the other sign."""
    deviation, (mean, half_width) = stdev(effects), estimate(effects)
    for what, number in {"standard deviation": deviation, "standard error": deviation / len(effects) ** 0.5}.items():
        expect(
            not (number > 1e-3 and math.isclose(reported[1], number, rel_tol=0.03)),
            f"The half-width of {key!r} is the pairs' {what}, and not that of a 95 % interval.",
            actual=what, returned=f"{reported[1]:.6g}", expected=f"{half_width:.6g}",
        )  # fmt: skip
    expect(
        not (abs(mean) > 0.1 and math.isclose(reported[0], -mean, rel_tol=1e-3)),
        f"{key!r} has the other sign: an effect is the metric with the edge cut less that without.",
        actual="sign", returned=f"{reported[0]:.6g}", expected=f"{mean:.6g}",
    )  # fmt: skip


def carries(pair):
    mean, half_width = pair
    if mean + half_width < -0.5:
        return True
    return False if abs(mean) + half_width < 0.5 else None


def verdict_of(giver, receiver):
    """What follows from an edge's two effects."""
    words = {(True, False): "giver", (False, True): "receiver", (True, True): "both", (False, False): "neither"}
    return words.get((carries(giver), carries(receiver)), "undecided")


def expect_verdict(design, edge):
    follows = verdict_of(design[f"giver_{edge}"], design[f"receiver_{edge}"])
    said = design[f"verdict_{edge}"]
    expect(
        said == follows,
        f"Your verdict on the edge from head {edge} does not follow from your numbers. Ask of each of its two "
        "intervals whether it lies below -0.5, or between -0.5 and 0.5.",
        actual=("verdict", edge, said), returned=repr(said), expected=repr(follows),
    )  # fmt: skip


def test_the_numbers_could_have_given_each_verdict():
    yes, no, unclear = (-2.0, 0.3), (0.1, 0.2), (-0.6, 0.3)
    assert verdict_of(yes, no) == "giver" and verdict_of(no, yes) == "receiver"
    assert verdict_of(yes, yes) == "both" and verdict_of(no, no) == "neither"
    assert verdict_of(unclear, yes) == "undecided" == verdict_of(no, unclear)


def test_three_edges_carry_three_things():
    with torch.no_grad():
        design = what_an_edge_carries(course_model())
    assert [design[f"verdict_{edge}"] for edge in EDGES] == ["giver", "receiver", "both"]
    assert design["giver_1.3"][0] < -3 and abs(design["receiver_1.3"][0]) < 0.2
    assert abs(design["giver_2.2"][0]) < 0.2 and design["receiver_2.2"][0] < -1
