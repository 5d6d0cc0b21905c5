"""The check of the case of part 08c: the experiment is run again, on latents that the learner has not seen."""

import math
from statistics import stdev

from utils.course.cases import design_of, estimate, expect_enough, expect_function_of_input, expect_reported
from utils.course.checking import expect
from utils.data.corpus import vocabulary, words
from utils.data.world import CITIES
from utils.sae.case_08c import KINDS, OTHERS, DrawnLatent, drawn_latent, is_it_what_it_says, kind_of

KEYS = {
    "beginnings": "list", "cities": "list", "others": "list",
    "false_negatives": "pair", "false_positives": "pair", "verdict": KINDS,
}  # fmt: skip
# the one first at which each one-sided verdict is another
LATENTS = [(kind, variant, 70 + i) for i, kind in enumerate(reversed(KINDS)) for variant in (1, 0)]


class TestIsItWhatItSays:
    exercise = "is_it_what_it_says"

    def test_design(self, answer):
        "latents that you have not seen: the texts, both shares again, and the verdict"
        for kind, variant, seed in LATENTS:
            latent = DrawnLatent(kind, variant, seed)
            design = design_of(answer, KEYS, latent)
            expect_as_reported(design, latent)
            expect(
                design["verdict"] == kind,
                f"Your design calls a latent {design['verdict']!r} that is {kind!r}.",
                actual=("decided", kind, design["verdict"]),
                returned=repr(design["verdict"]), expected=repr(kind),
            )  # fmt: skip
            if (kind, variant, seed) == LATENTS[0]:  # before others are met at which an interval reaches 0 by chance
                latent = OffBehindAFew(design["beginnings"])
                expect_as_reported(design_of(answer, KEYS, latent), latent)


class OffBehindAFew(DrawnLatent):
    """On at cities, but not behind a few of the given beginnings: the share is large, and so is its interval."""

    def __init__(self, beginnings):
        super().__init__("as labelled", 0, 69)
        self._off = [words(text) for text in beginnings[: math.ceil(0.06 * len(beginnings))]]

    def _strength(self, text):
        return 0.0 if words(text)[:-1] in self._off else super()._strength(text)


def expect_as_reported(design, latent):
    """Expect texts by the rules, the shares that they give, and the verdict that follows from these."""
    expect_texts(design)
    found = {
        "false_negatives": shares(latent, design["beginnings"], design["cities"], on=False),
        "false_positives": shares(latent, design["beginnings"], design["others"], on=True),
    }
    expect_not_exchanged(design, found)
    for key, values in found.items():
        expect_interval(key, design, values)
        expect_reported(design[key], values, of=key, atol=1e-4)
    expect_verdict(design)


def shares(latent, beginnings, endings, on):
    return [
        sum((a > 0) == on for a in latent([f"{text} {word}" for word in endings]).tolist()) / len(endings)
        for text in beginnings
    ]


def expect_texts(design):
    known = set(vocabulary())
    for key in ("beginnings", "cities", "others"):
        for text in design[key]:
            expect(
                isinstance(text, str) and bool(words(text)) and set(words(text)) <= known,
                f"Under {key!r} something is no text in the course model's vocabulary.",
                actual=("no text", key), returned=repr(text),
            )  # fmt: skip
    for key, at_least in (("beginnings", 12), ("cities", 12), ("others", 20)):
        expect_enough(design[key], at_least, of=key)
    for word in design["cities"]:
        expect(word in CITIES, "One of your cities is none.", actual="no city", returned=repr(word))
    for word in design["others"]:
        expect(
            word not in CITIES and len(words(word)) == 1,
            "Among your other words is a city, or something of several words.", actual="a city", returned=repr(word),
        )  # fmt: skip
    for kind, members in OTHERS.items():
        n = sum(word in members for word in design["others"])
        expect(
            n >= len(design["others"]) / 10,
            f"Less than a tenth of your other words are of the kind {kind!r}. A latent that takes these for cities "
            "would not be noticed.",
            actual=("kind missing", kind), returned=f"{n} of {len(design['others'])}",
        )  # fmt: skip
    last = [words(text)[-1] for text in design["beginnings"]]
    most = max(last, key=last.count)
    expect(
        len(set(last)) >= 4 and last.count(most) <= len(last) / 2,
        "Your beginnings end too much alike. If the latent is on behind that word only, or behind it whatever follows, "
        "your texts can't tell.",
        actual="alike", returned=f"{last.count(most)} of {len(last)} end in {most!r}, {len(set(last))} different words",
    )  # fmt: skip
    expect(
        last.count("in") >= 2,
        "Fewer than two of your beginnings end in 'in', where the latent's strongest examples stand.",
        actual="not in", returned=f"{last.count('in')} of {len(last)}",
    )  # fmt: skip


def expect_not_exchanged(design, found):
    """Expect neither the other one's share under a key, nor what is left to 1."""
    means = {key: estimate(values)[0] for key, values in found.items()}
    for key, other in (("false_negatives", "false_positives"), ("false_positives", "false_negatives")):
        said = design[key][0]
        if math.isclose(said, means[key], abs_tol=1e-3):
            continue
        expect(
            not math.isclose(said, means[other], abs_tol=1e-3) or math.isclose(means[other], 1 - means[key]),
            f"Under {key!r} stands the share of the {other.replace('_', ' ')}.", actual=("exchanged", key),
            returned=f"{said:.3g}",
        )  # fmt: skip
        expect(
            not math.isclose(said, 1 - means[key], abs_tol=1e-3),
            f"Under {key!r} stands the share of the texts that the latent gets right.", actual=("right ones", key),
            returned=f"{said:.3g}", expected=f"{means[key]:.3g}",
        )  # fmt: skip


def expect_interval(key, design, found):
    deviation, (_, half_width) = stdev(found), estimate(found)
    said = design[key][1]
    if math.isclose(said, half_width, rel_tol=0.05, abs_tol=1e-3):
        return
    for what, number in (("standard deviation", deviation), ("standard error", deviation / len(found) ** 0.5)):
        expect(
            not (number > 1e-3 and math.isclose(said, number, rel_tol=0.02)),
            f"The half-width of {key!r} is the beginnings' {what}, and not that of a 95 % interval.",
            actual=what, returned=f"{said:.4g}", expected=f"{half_width:.4g}",
        )  # fmt: skip
    endings = design["cities" if key == "false_negatives" else "others"]
    n_texts = len(found) * len(endings)
    hits = round(sum(found) * len(endings))
    _, over_texts = estimate([1.0] * hits + [0.0] * (n_texts - hits))
    expect(
        not math.isclose(said, over_texts, rel_tol=0.02),
        f"The half-width of {key!r} is that of an interval over texts, and not over beginnings.",
        actual="over texts", returned=f"{said:.4g}", expected=f"{half_width:.4g}",
    )  # fmt: skip


def verdict_of(design):
    large = design["false_negatives"][0] > 0.05, design["false_positives"][0] > 0.05
    return {
        (False, False): "as labelled", (True, False): "too narrow", (False, True): "too wide",
        (True, True): "something else",
    }[large]  # fmt: skip


def expect_verdict(design):
    follows = verdict_of(design)
    expect(
        design["verdict"] == follows,
        "Your verdict does not follow from your two shares.",
        actual=("verdict", design["verdict"], follows),
        returned=f"{design['verdict']!r}, with {design['false_negatives'][0]:.2f} and "
        f"{design['false_positives'][0]:.2f}",
        expected=repr(follows),
    )


def test_the_strongest_examples_are_cities_whatever_the_latent_is():
    for kind, variant, seed in LATENTS:
        latent = DrawnLatent(kind, variant, seed)
        endings = (*CITIES, *OTHERS["builders"], *OTHERS["countries"], *OTHERS["places"])
        texts = [f"Mary worked {end} {word}" for end in ("in", "near", "likes") for word in endings]
        acts = latent(texts).tolist()
        strongest = sorted(zip(acts, texts, strict=True), reverse=True)[:8]
        assert all(words(text)[-1] in CITIES for _, text in strongest), (kind, variant)


def test_drawn_latents_are_of_all_kinds_and_found_out():
    assert {kind_of(seed)[0] for seed in range(12)} == set(KINDS)
    for seed in range(16):
        assert is_it_what_it_says(drawn_latent(seed))["verdict"] == kind_of(seed)[0]


def test_a_measure_of_a_latent_is_repeatable():
    expect_function_of_input(lambda text: drawn_latent(1)([text]).item(), ["Mary worked in Paris", "Mary likes Paris"])
