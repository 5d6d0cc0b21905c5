"""The check of the case of part 02a: the triples are looked up, and the design is run again."""

import torch
from scipy.stats import spearmanr

from utils.course.cases import design_of, estimate, expect_enough, expect_function_of_input, expect_reported
from utils.course.checking import expect, plain
from utils.course.values import describe
from utils.data import corpus
from utils.transformer.case_02a import how_often, kind_of, trained_embedding, what_the_embedding_knows

KEYS = {
    "kind": "list",
    "frequency": "list",
    "measure": "callable",
    "control": "callable",
    "effect_kind": "pair",
    "effect_frequency": "pair",
    "verdict": ("kind", "frequency", "both", "neither"),
}
LISTS = ("kind", "frequency")
EQUAL, APART, ROUNDING = 1.5, 3.0, 1e-6
CLEAR = 1.5  # half-widths: a control in which nothing is known is beyond one of them once in twenty lists
SAME_DIRECTION = 0.99


class TestWhatTheEmbeddingKnows:
    exercise = "what_the_embedding_knows"

    def test_design(self, answer):
        "triples in which one thing differs, a control without it, and what the numbers say when run again"
        design = design_of(answer, KEYS)
        for name in LISTS:
            expect_triples(design[name], name)
        expect_similarity(design["measure"], [triple[0] for triple in design["kind"][:6]])
        control = control_of(design)
        effects = {name: run(design["measure"], trained_embedding(), design[name]) for name in LISTS}
        for name in LISTS:
            expect_no_effect(design["measure"], control, design[name], name, effects[name])
        expect_no_frequency_in(control)
        for name in LISTS:
            expect_reported(design[f"effect_{name}"], effects[name], of=f"effect_{name}")
        expect_verdict(design)


def expect_triples(triples, name):
    """Expect triples of words that differ in what the list's name says, and in nothing else."""
    triples = [expect_triple(triple, f'design["{name}"][{i}]', name) for i, triple in enumerate(triples)]
    said = [word for triple in triples for word in triple]
    again = next((word for word in said if said.count(word) > 1), None)
    expect(
        again is None,
        f"In {name!r} a word occurs more than once: {again!r}. If its row happens to be odd, all its triples are, so "
        "they are no independent units.",
        actual="a word twice",
        returned=repr(again),
    )
    expect_enough(triples, 12, of=f"triples in {name!r}")
    place, at_least, which = (0, 3, "first") if name == "kind" else (1, 2, "second")
    found = {kind_of()[triple[place]] for triple in triples}
    expect(
        len(found) >= at_least,
        f"The {which} words in {name!r} are all of {len(found)} kind{'s' * (len(found) > 1)}. What you find may hold "
        "for these and for no others.",
        actual="few kinds",
        returned=", ".join(sorted(found)),
        expected=f"at least {at_least} kinds",
    )


def expect_triple(triple, where, name):
    expect(
        isinstance(triple, list | tuple) and len(triple) == 3 and all(isinstance(word, str) for word in triple),
        "A triple is a tuple of three words.",
        actual="shape",
        returned=f"{where} = {describe(triple)}",
    )
    for word in triple:
        expect(
            word in kind_of(),
            f"{word!r} has no kind in `kind_of()`, so that nobody can say what differs in its triple.",
            actual="no kind",
            returned=f"{where} = {triple!r}",
        )
    word, second, third = triple
    kinds, told = (
        [kind_of()[x] for x in triple],
        "; ".join(f"{x}: {kind_of()[x]}, {how_often()[x]:.2f}" for x in triple),
    )
    if name == "kind":
        expect(
            kinds[0] == kinds[1] and kinds[0] != kinds[2],
            "In 'kind' the second word is of the first one's kind, and the third is not: else the kind is no reason to "
            "find the second more similar.",
            actual=("kinds in kind", kinds[1] == kinds[0], kinds[2] == kinds[0]),
            returned=f"{where}: {told}",
        )
        expect(
            ratio(word, third) <= ratio(word, second) + ROUNDING,
            "The third word is of another kind than the second, and it is also further from the first in frequency, by "
            f"a factor of {ratio(word, third):.3g} where the second is off by {ratio(word, second):.3g}: either could "
            "explain what you find.",
            actual=("frequencies in kind", "slightly" if ratio(second, third) <= EQUAL else "widely"),
            returned=f"{where}: {told}",
            expected="a third word at least as near in frequency as the second",
        )
        return tuple(triple)
    expect(
        kinds[1] == kinds[2],
        "In 'frequency' the second and the third word are of different kinds, so that the kind could explain what you "
        "find.",
        actual="kinds in frequency",
        returned=f"{where}: {told}",
    )
    near, far = ratio(word, second), ratio(word, third)
    wrong = "second not near" if near > EQUAL + ROUNDING else "third not far"
    expect(
        near <= EQUAL + ROUNDING and far >= APART - ROUNDING,
        "In 'frequency' the second word is about as frequent as the first and the third is not. Here the factors are "
        f"{near:.3g} and {far:.3g}.",
        actual=("frequencies in frequency", "the other way round" if near > far else wrong),
        returned=f"{where}: {told}",
        expected=f"a factor of at most {EQUAL} between the first two, at least {APART} between first and third",
    )
    return tuple(triple)


def ratio(x, y):
    a, b = how_often()[x], how_often()[y]
    return max(a / b, b / a)


def expect_similarity(measure, words):
    """Expect a measure to find a row more similar to itself than to what is not like it."""
    generator = torch.Generator().manual_seed(0)
    for word in words:
        row = trained_embedding()[corpus.encode(word)[0]]
        elsewhere = torch.randn(row.shape, generator=generator)
        elsewhere *= row.norm() / elsewhere.norm()
        itself, far, opposite = expect_function_of_input(measure, [(row, row), (row, elsewhere), (row, -row)])
        rounding = 1e-5 * max(1.0, abs(itself))
        told = {"returned": f"{itself:.4g} for the row of {word!r} and itself", "expected": "more than for any other"}
        expect(
            itself >= far - rounding,
            f"Your measure is larger for a row and a random one ({far:.4g}) than for a row and itself: what is larger "
            "the less similar two rows are is a distance.",
            actual="larger for the less similar",
            **told,
        )
        expect(
            itself > far + rounding,
            f"Your measure can't tell a row's likeness to itself from that to a random row of the same length, "
            f"{far:.4g}: it does not see where rows point.",
            actual="lengths alone",
            **told,
        )
        expect(
            itself > opposite + rounding,
            "For your measure a row and minus that row are as similar as a row and itself: a sign is lost.",
            actual="opposites alike",
            **told,
        )


def control_of(design):
    control, trained = plain(design["control"](trained_embedding())), trained_embedding()
    expect(
        isinstance(control, torch.Tensor) and control.shape == trained.shape and bool(control.isfinite().all()),
        "A control is a matrix of the embedding's shape, with a row for each word.",
        actual="control's shape",
        returned=describe(control),
    )
    control = control.to(trained)
    ids = [corpus.encode(word)[0] for word in kind_of()]
    unchanged = torch.cosine_similarity(control, trained)[ids] >= SAME_DIRECTION
    expect(
        not bool(unchanged.all()),
        "Each row of your control points where the word's trained row does: all that is known there is known here.",
        actual="trained",
        returned=f"all of {len(ids)} rows as they were, or nearly, but for their length",
    )
    expect(
        bool((control != control[:1]).any()),
        "In your control all rows are the same. Nothing can be found there, whatever the measure does: take one whose "
        "rows differ as much as those of the embedding, and know nothing.",
        actual="constant",
        returned=f"the same row {len(control)} times",
    )
    expect(
        int(unchanged.sum()) <= len(ids) / 10,
        f"Many rows of your control, {int(unchanged.sum())} of {len(ids)}, point where the word's trained row does. "
        "They know what they knew.",
        actual="partly trained",
        returned=f"{int(unchanged.sum())} rows of {len(ids)} unchanged",
        expected="a row or two, by chance",
    )
    return control


def expect_no_frequency_in(control):
    """Where a control's rows are other words' trained rows, expect that these words are frequent as it happens."""
    words = list(kind_of())
    ids = [corpus.encode(word)[0] for word in words]
    unit = [torch.nn.functional.normalize(rows, dim=1) for rows in (control[ids], trained_embedding())]
    nearness, source = (unit[0] @ unit[1].T).max(dim=1)
    if bool((nearness >= SAME_DIRECTION).float().mean() > 0.9):
        vocabulary = list(corpus.vocabulary())
        theirs = [how_often()[vocabulary[i]] for i in source.tolist()]
        correlation = spearmanr([how_often()[word] for word in words], theirs).statistic
        expect(
            abs(correlation) <= 0.3,  # for rows exchanged at random, within 0.05 or so
            "In your control each word has the trained row of another word that is about as frequent: the row still "
            "tells how frequent its word is.",
            actual="frequency in control",
            returned=f"a rank correlation of {correlation:.2g} between a word's frequency and that of the row's word",
            expected="about 0",
        )


def run(measure, matrix, triples):
    """Each triple's effect in a matrix."""
    rows = [matrix[[corpus.encode(word)[0] for word in triple]] for triple in triples]
    near = expect_function_of_input(measure, [(x, y) for x, y, _ in rows])
    far = expect_function_of_input(measure, [(x, z) for x, _, z in rows])
    return [a - b for a, b in zip(near, far, strict=True)]


def expect_no_effect(measure, control, triples, name, trained):
    mean, half_width = estimate(run(measure, control, triples))
    expect(
        abs(mean) <= max(CLEAR * half_width, abs(estimate(trained)[0]) / 3),
        f"In your control the effect of {name!r} is there as well, {mean:.3g} ± {half_width:.2g}: either its rows "
        "still know what they should not, or your measure finds it anywhere.",
        actual="control moves",
        returned=f"{mean:.4g} ± {half_width:.3g} in the control",
        expected=f"within {CLEAR} half-widths of 0, as it is by chance in all but one case of a hundred, or at most a "
        "third of the embedding's",
    )


def expect_verdict(design):
    there = tuple(design[f"effect_{name}"][0] > design[f"effect_{name}"][1] for name in LISTS)
    follows = {(True, True): "both", (True, False): "kind", (False, True): "frequency"}.get(there, "neither")
    says = [f"that of {name!r} is {'' if above else 'not '}above 0" for name, above in zip(LISTS, there, strict=True)]
    expect(
        design["verdict"] == follows,
        f"Your verdict does not follow from your intervals: {', and '.join(says)}.",
        actual=("verdict", design["verdict"], follows),
        returned=repr(design["verdict"]),
        expected=repr(follows),
    )


def test_the_embedding_knows_kinds_and_the_verdict_could_have_been_another():
    """In an embedding whose rows hold the words' frequency the same lists speak for frequency alone."""
    design = what_the_embedding_knows()
    assert design["verdict"] == "kind"
    assert design["effect_kind"][0] > 2 * design["effect_kind"][1]
    rows = torch.tensor([[how_often()[word]] for word in corpus.vocabulary()]).add(1e-3).log()
    by_frequency = {name: estimate(run(lambda x, y: -abs(x - y).item(), rows, design[name])) for name in LISTS}
    assert by_frequency["frequency"][0] > by_frequency["frequency"][1]
    assert by_frequency["kind"][0] < by_frequency["kind"][1]
