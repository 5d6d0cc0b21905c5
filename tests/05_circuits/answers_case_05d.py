"""Wrong designs for the case of part 05d, each with its sentence, and right ones."""

import random
from itertools import combinations

from utils.circuits.case_05d import NEAR, answers_to, pairs_of
from utils.course.cases import estimate
from utils.course.catalogue import right, wrong

BOTH, NEITHER, FIRST, SECOND = (True, True), (False, False), (True, False), (False, True)
ONE_BY_ONE = ((BOTH, NEITHER), (FIRST, NEITHER), (SECOND, NEITHER), (BOTH, FIRST), (BOTH, SECOND))


def tests_of(offer, kinds=ONE_BY_ONE, n=12, seed=1):
    rng = random.Random(seed)
    return [(pairs_of(offer, clean, corrupt, n, rng), []) for clean, corrupt in kinds]


def measured(offer, tests, ablation, ones, others, interval=estimate, pick=max):
    found = []
    for pairs, removed in tests:
        left = [set(circuit) - set(removed) for circuit in [*ones, *others]]
        answers = answers_to(offer.network, pairs, left, ablation)
        found.append((answers[: len(ones)] - answers[len(ones) :]).abs().tolist())
    return [pick(map(interval, by_test)) for by_test in zip(*found, strict=True)]


def designed(
    offer,
    tests=None,
    ablation="resample",
    interval=estimate,
    pick=max,
    idle=max,
    verdict=None,
    control=None,
    random_n=8,
):
    """Our design with one thing done otherwise."""
    tests, network, rng = tests or tests_of(offer), offer.network, random.Random(2)
    whole = measured(offer, tests, ablation, list(offer.circuits.values()), [network.edges] * 3, interval, pick)
    distances = dict(zip(offer.circuits, whole, strict=True))
    idlest = {}
    for name, circuit in offer.circuits.items():
        without = [set(circuit) - {edge} for edge in circuit]
        idlest[name] = min(measured(offer, tests, ablation, [circuit] * len(circuit), without, interval, idle))
    standing = [name for name in "ABC" if sum(distances[name]) < NEAR and idlest[name][0] - idlest[name][1] > NEAR]
    chosen = verdict(offer, distances) if verdict else (standing or ["A"])[0]
    circuits = control or [rng.sample(network.edges, len(offer.circuits[chosen])) for _ in range(random_n)]
    far = measured(offer, tests, ablation, circuits, [network.edges] * len(circuits))
    return {
        "tests": tests,
        "ablation": ablation,
        **{f"distance_{name}": value for name, value in distances.items()},
        **{f"idlest_{name}": value for name, value in idlest.items()},
        "control": circuits,
        "distance_control": estimate([mean for mean, _ in far]),
        "verdict": chosen,
    }


@wrong(
    "which_circuit_is_right",
    "Your tests can't tell the right circuit from the one that lacks an input: where both inputs are on, a network "
    "that needs only one of them does as well with a circuit that has only one. Let one be on alone and replace it by "
    "none, or take edges out of both.",
)
def both_or_neither(offer):
    tests = tests_of(offer, ((BOTH, NEITHER),), seed=3) + tests_of(offer, ((BOTH, NEITHER),), seed=4)
    return designed(offer, tests)


@wrong(
    "which_circuit_is_right",
    "You set cut edges to zero. The circuit does not have the edges that carry what is the same on every prompt (where "
    "a token stands, what a head looks at), and without these even the right one can't work: no circuit passes.",
)
def set_to_zero(offer):
    return designed(offer, ablation="zero")


@wrong(
    "which_circuit_is_right",
    "You choose the largest circuit that is near. Everything that is added to a right circuit is near as well: ask "
    "which of its edges do anything.",
)
def the_largest(offer):
    def verdict(offer, distances):
        near = [name for name in "ABC" if sum(distances[name]) < NEAR]
        return max(near, key=lambda name: len(offer.circuits[name]))

    return designed(offer, verdict=verdict)


@wrong(
    "which_circuit_is_right",
    "You choose the smallest circuit, although by your own numbers it is far from the network.",
)
def the_smallest(offer):
    return designed(offer, verdict=lambda offer, distances: min("ABC", key=lambda name: len(offer.circuits[name])))


@wrong(
    "which_circuit_is_right",
    "For each circuit you report its distance in the test that it passes best. One test that it fails is enough.",
)
def best_test(offer):
    return designed(
        offer, pick=min, verdict=lambda offer, distances: sorted("ABC", key=lambda n: len(offer.circuits[n]))[1]
    )


@wrong(
    "which_circuit_is_right",
    "You call an edge idle if there is a test in which it does nothing. An edge of the right circuit, too, has nothing "
    "to do where its input does not vary or another does its work; asked for is what each does at its best.",
)
def idle_in_some_test(offer):
    return designed(
        offer, idle=min, verdict=lambda offer, distances: sorted("ABC", key=lambda n: len(offer.circuits[n]))[1]
    )


@wrong(
    "which_circuit_is_right",
    "Your half-widths are standard errors. A 95 % interval reaches about two of them to either side.",
)
def standard_errors(offer):
    def interval(values):
        mean = sum(values) / len(values)
        variance = sum((x - mean) ** 2 for x in values) / (len(values) - 1)
        return mean, (variance / len(values)) ** 0.5

    return designed(offer, interval=interval)


@wrong(
    "which_circuit_is_right",
    "The two rows of your pairs have different fillers. Then the rest of the network differs too, and a distance is no "
    "longer about the inputs.",
)
def other_fillers(offer):
    tests = [
        ([(a, [*d[:i], y, *d[i + 1 :]]) for (a, b), (c, d), i, y in changed(offer, pairs)], removed)
        for pairs, removed in tests_of(offer)
    ]
    return designed(offer, tests)


def changed(offer, pairs):
    """Each pair with the next one's, and a filler's place where the second row gets another."""
    place = next(i for i in range(7) if i not in offer.places)
    return [(pair, pair, place, pair[1][place] % 5 + 1) for pair in pairs]


@wrong(
    "which_circuit_is_right",
    "Your control circuits have another number of edges than the circuit that you find right. A circuit with more "
    "edges has more chances: compare like with like.",
)
def control_of_another_size(offer):
    rng, edges = random.Random(2), offer.network.edges
    return designed(offer, control=[rng.sample(edges, max(map(len, offer.circuits.values()))) for _ in range(8)])


@wrong(
    "which_circuit_is_right",
    "You draw your control circuits from the edges of the three alone. They are chosen already; what a circuit of this "
    "size does by chance is told by edges drawn from the whole network.",
)
def control_from_the_three(offer):
    rng, offered = random.Random(2), sorted(set().union(*offer.circuits.values()))
    return designed(offer, control=[list(some) for some in rng.sample(list(combinations(offered, 5))[1:-1], 6)])


@wrong(
    "which_circuit_is_right",
    "Your control circuits are pieces of the three. What is left of a circuit is no random one, and tells nothing of "
    "what a circuit of this size does by chance.",
)
def pieces_for_control(offer):
    pieces = [circuit[:3] for circuit in offer.circuits.values()] + [
        circuit[1:4] for circuit in offer.circuits.values()
    ]
    return designed(offer, control=pieces)


@right("which_circuit_is_right")
def with_edges_taken_out(offer):
    """Both inputs on in every test, and one branch after the other taken out; the mean for what is cut."""
    rng, circuits = random.Random(5), list(offer.circuits.values())
    common = set.intersection(*map(set, circuits))
    union = {edge for circuit in circuits for edge in circuit}
    heads = sorted({sender for sender, receiver in union if sender.startswith("a0") and receiver.startswith("m")})
    removed = [[], *([edge for edge in union if head in (edge[0], edge[1].removesuffix(".v"))] for head in heads)]
    assert common
    return designed(offer, [(pairs_of(offer, BOTH, NEITHER, 14, rng), out) for out in removed], ablation="mean")


@right("which_circuit_is_right")
def many_pairs_and_controls(offer):
    kinds = (*ONE_BY_ONE, (FIRST, SECOND), (SECOND, FIRST), (NEITHER, BOTH))
    return designed(offer, tests_of(offer, kinds, n=20, seed=9), random_n=25)
