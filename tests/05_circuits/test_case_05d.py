"""The check of the case of part 05d: the tests are read and run again, and the verdict is tried further."""

import itertools
import random
from functools import cache
from statistics import stdev

from utils.circuits.case_05d import NEAR, answers_to, pairs_of, three_circuits, which_circuit_is_right
from utils.circuits.planted import A_OFF, A_ON, B_OFF, B_ON, END, FILLERS, planted_circuit
from utils.course.cases import design_of, estimate, expect_enough, expect_reported, lent
from utils.course.checking import expect, plain

NAMES = ("A", "B", "C")
DISTANCES = {f"distance_{name}": name for name in NAMES}
IDLEST = {f"idlest_{name}": name for name in NAMES}
KEYS = {
    "tests": "list",
    "ablation": ("zero", "mean", "resample"),
    **dict.fromkeys([*DISTANCES, *IDLEST], "pair"),
    "control": "list",
    "distance_control": "pair",
    "verdict": NAMES,
}
BOTH, NEITHER, FIRST, SECOND = (True, True), (False, False), (True, False), (False, True)


@cache
def offered(kind, seed):
    return three_circuits(kind, seed)


class TestWhichCircuitIsRight:
    exercise = "which_circuit_is_right"

    def test_design(self, answer):
        "two networks: tests that vary what they say, distances that follow, a control, and a verdict that stands"
        for kind, seed in (("or", 103), ("and", 107)):
            offer = offered(kind, seed)
            with lent(offer.network.model):
                design = design_of(answer, KEYS, offer)
            tests = [expect_test(offer, test, f'design["tests"][{i}]') for i, test in enumerate(design["tests"])]
            expect_enough(tests, 2, of="tests")
            expect_distances(offer, design, tests)
            expect_control(offer, design, tests)
            expect_verdict(design)
            expect_to_stand(offer, design)


def expect_test(offer, test, where):
    """Expect pairs of which each differs in the inputs alone, all in the same way, and edges of the network."""
    expect(
        isinstance(test, list | tuple) and len(test) == 2,
        "A test is a tuple of its pairs and of the edges that are removed.", actual="no test",
        returned=f"{where} = {test!r}"[:200],
    )  # fmt: skip
    pairs = [tuple([int(plain(token)) for token in row] for row in pair) for pair in test[0]]
    removed = [tuple(edge) for edge in test[1]]
    expect_enough(pairs, 12, of="pairs of a test")
    for pair in pairs:
        expect_pair(offer, pair)
    inputs = {tuple(tuple(row[place] for place in offer.places) for row in pair) for pair in pairs}
    expect(
        len(inputs) == 1,
        "In one of your tests the pairs have different inputs. A mean over them hides the one that shows something: "
        "make a test of each.",
        actual="mixed", returned=f"{where}: {len(inputs)} kinds of pairs",
    )  # fmt: skip
    strangers = [edge for edge in removed if edge not in offer.network.edges]
    expect(
        not strangers, "You remove edges that the network does not have.", actual="no edges",
        returned=f"{where}: {strangers[:2]}",
    )  # fmt: skip
    return pairs, removed


def expect_pair(offer, pair):
    width, (first, second) = offer.network.clean.shape[1], offer.places
    told = {"returned": str(pair)}
    expect(
        len(pair) == 2 and all(len(row) == width for row in pair),
        "A pair is two rows, as long as the network's own prompts.", actual="no pair", **told,
    )  # fmt: skip
    for row in pair:
        expect(
            row[first] in (A_ON, A_OFF) and row[second] in (B_ON, B_OFF) and row[-1] == END,
            "A row does not have its inputs where the network has them.", actual="no inputs", **told,
        )  # fmt: skip
    rest = [[token for i, token in enumerate(row) if i not in offer.places] for row in pair]
    expect(
        rest[0] == rest[1] and all(token in FILLERS for token in rest[0][:-1]),
        "The two rows of a pair differ in more than their inputs. What the rest does is then part of every distance.",
        actual="differs", **told,
    )  # fmt: skip
    expect(pair[0] != pair[1], "The two rows of a pair are the same: nothing is replaced.", actual="the same", **told)


def distances(offer, tests, ablation, ones, others):
    """For each of the ones and the other beside it, its distances in each test, pair by pair."""
    found = []
    for pairs, removed in tests:
        left = [set(circuit) - set(removed) for circuit in [*ones, *others]]
        answers = answers_to(offer.network, pairs, left, ablation).double()
        found.append((answers[: len(ones)] - answers[len(ones) :]).abs().tolist())
    return [list(by_test) for by_test in zip(*found, strict=True)]


def mean(values):
    return sum(values) / len(values)


def largest(by_test):
    return max(by_test, key=mean)


def expect_distances(offer, design, tests):
    """Expect the distances handed in, and name what else was handed in where that can be told."""
    circuits, everything = offer.circuits, offer.network.edges
    ablation = design["ablation"]
    whole = distances(offer, tests, ablation, list(circuits.values()), [everything] * 3)
    for (key, _), by_test in zip(DISTANCES.items(), whole, strict=True):
        values = largest(by_test)
        expect_interval(key, design[key][1], values)
        if design[key][0] < mean(values) - 0.1 and any(abs(mean(v) - design[key][0]) < 1e-3 for v in by_test):
            expect(False, f"Your {key!r} is not the largest of its tests' distances: a circuit that fails one test "
                   "has failed.", actual="not the largest", returned=f"{design[key][0]:.4g}",
                   expected=f"{mean(values):.4g}")  # fmt: skip
        expect_reported(design[key], values, of=key, atol=1e-4)
    for key, name in IDLEST.items():
        circuit = circuits[name]
        without = [set(circuit) - {edge} for edge in circuit]
        found = distances(offer, tests, ablation, [circuit] * len(circuit), without)
        values = min(map(largest, found), key=mean)
        expect_interval(key, design[key][1], values)
        at_their_worst = min(mean(v) for by_test in found for v in by_test)
        if design[key][0] < mean(values) - 0.1 and abs(at_their_worst - design[key][0]) < 1e-3:
            expect(False, f"For {key!r} you take an edge in the test in which it does least. Every edge is idle in "
                   "some test: ask what it does at its best.", actual="at its worst", returned=f"{design[key][0]:.4g}",
                   expected=f"{mean(values):.4g}")  # fmt: skip
        expect_reported(design[key], values, of=key, atol=1e-4)


def expect_interval(key, said, values):
    """Expect a half-width, and neither of the two numbers that are taken for one."""
    deviation, (_, half_width) = stdev(values), estimate(values)
    for what, number in (("standard deviation", deviation), ("standard error", deviation / len(values) ** 0.5)):
        expect(
            not (number > 5e-3 and abs(said - number) < 0.04 * number),
            f"The half-width of {key!r} is the {what} of its values, and not that of a 95 % interval.",
            actual=what, returned=f"{said:.4g}", expected=f"{half_width:.4g}",
        )  # fmt: skip


def expect_control(offer, design, tests):
    control = [frozenset(map(tuple, circuit)) for circuit in design["control"]]
    expect_enough([tuple(sorted(circuit)) for circuit in control], 5, of="control circuits")
    size, offered = len(offer.circuits[design["verdict"]]), set().union(*offer.circuits.values())
    for circuit, given in zip(control, design["control"], strict=True):
        expect(
            len(circuit) == len(given) == size and circuit <= set(offer.network.edges),
            "A control circuit has not as many edges of the network as the circuit that you find right.",
            actual=("size of the control", circuit <= offered), returned=f"{len(circuit)} edges", expected=f"{size}",
        )  # fmt: skip
        expect(
            not circuit <= offered,
            "A control circuit has only edges of the three: it is not drawn from all of the network's.",
            actual="of the three", returned=", ".join(" → ".join(edge) for edge in sorted(circuit)),
        )  # fmt: skip
    found = distances(offer, tests, design["ablation"], control, [offer.network.edges] * len(control))
    values = [mean(largest(by_test)) for by_test in found]
    expect_reported(design["distance_control"], values, of="distance_control", atol=1e-4)
    center, half_width = design["distance_control"]
    expect(
        center - half_width > NEAR,
        "Your tests let random circuits pass as well: what passes them has not shown much.",
        actual="control", returned=f"{center:.3g} ± {half_width:.2g} nats",
    )  # fmt: skip


def standing(design):
    """The circuits that are near, and have no idle edge."""
    names = []
    for name in NAMES:
        distance, idle = design[f"distance_{name}"], design[f"idlest_{name}"]
        if sum(distance) < NEAR and idle[0] - idle[1] > NEAR:
            names.append(name)
    return names


def expect_verdict(design):
    left = standing(design)
    name = design["verdict"]
    far = sum(design[f"distance_{name}"]) >= NEAR
    why = "far from the network in one of your tests" if far else "with an edge that is idle in all of your tests"
    if left != [name] and left:
        expect(False, f"Your verdict does not follow from your numbers: they leave {' and '.join(left)} standing, and "
               f"the circuit that you find right is {why}.", actual=("verdict", far),
               returned=f"{name!r}", expected=f"{' or '.join(left)}")  # fmt: skip
    expect(left, f"By your numbers no circuit is right: the one that you name is {why}. Tests in which the right one "
           "fails ask for something that it can't do: look at what the cut edges carry.",
           actual=("none", design["ablation"]))  # fmt: skip


def expect_to_stand(offer, design):
    """Expect the verdict to hold on kinds of prompts, and without edges, that a design may have left out."""
    rng, name = random.Random(0), design["verdict"]
    circuit, everything = offer.circuits[name], offer.network.edges
    kinds = ((BOTH, NEITHER), (FIRST, NEITHER), (SECOND, NEITHER), (BOTH, FIRST), (BOTH, SECOND))
    for clean, corrupt in kinds:
        tests = [(pairs_of(offer, clean, corrupt, 12, rng), [])]
        far = mean(distances(offer, tests, "resample", [circuit], [everything])[0][0])
        said = [" and ".join(w for w, on in zip(("the first", "the second"), x, strict=True) if on) or "none"
                for x in (clean, corrupt)]  # fmt: skip
        expect(
            far < NEAR,
            "Your verdict follows from your tests, and they have left something out: there are prompts on which the "
            "circuit that you find right does not do what the network does. Which inputs have you never tried one by "
            "one?",
            actual="left out", returned=f"{far:.2g} nats apart where {said[0]} input is on, replaced by {said[1]}",
        )  # fmt: skip
    sizes = {other: len(edges) for other, edges in offer.circuits.items()}
    expect(sizes[name] == sorted(sizes.values())[1], "The circuit that you find right has edges that do nothing.",
           actual="too big")  # fmt: skip


def test_the_right_circuit_is_found_whatever_the_network():
    for kind, seed in itertools.product(("and", "or"), range(10)):
        offer, planted = three_circuits(kind, seed), planted_circuit(kind, seed, noise=0.05)
        truth = [e for e, true in zip(planted.edges, planted.truth.tolist(), strict=True) if true]
        assert not offer.network.kind and not offer.network.truth.any()
        design = which_circuit_is_right(offer)
        assert set(offer.circuits[design["verdict"]]) == set(truth)
        assert standing(design) == [design["verdict"]]
        small = min(NAMES, key=lambda name: len(offer.circuits[name]))
        big = max(NAMES, key=lambda name: len(offer.circuits[name]))
        assert design[f"distance_{small}"][0] > 2 and design[f"idlest_{small}"][0] > 2
        assert design[f"distance_{big}"][0] < 0.6 and design[f"idlest_{big}"][0] < 0.3


def test_each_input_alone_and_one_ablation_are_what_the_small_circuit_passes():
    offer, rng = three_circuits("or", 0), random.Random(0)
    small = min(offer.circuits.values(), key=len)
    for ablation, near in (("resample", True), ("mean", True), ("zero", False)):
        tests = [(pairs_of(offer, BOTH, NEITHER, 12, rng), [])]
        apart = mean(distances(offer, tests, ablation, [small], [offer.network.edges])[0][0])
        assert (apart < NEAR) == near, (ablation, apart)
