"""The check of the case of part 10b: the learner's protocol is run again on the course model."""

import math
from functools import cache

import torch

from utils.capstone.controls import refutation_test
from utils.capstone.many import holm, sign_flip_test
from utils.capstone.number import tokens_of
from utils.capstone.protocol import first_half, lead_of, pair_effects
from utils.course.cases import design_of, expect_enough, expect_reported, lent
from utils.course.checking import expect
from utils.data.corpus import words as words_of
from utils.models.course_model import load_course_model
from utils.patching.hooks import run_with_cache
from utils.probes.erasing import ablate_direction, amnesic_effect
from utils.probes.evaluate import probe_by_layer
from utils.probes.fit import least_squares_probe, mass_mean_probe

LISTS = ("texts", "present", "templates", "words", "places", "up", "down", "named", "others", "control", "random")
KEYS = {
    "feature": "text", "would_refute": "text", **dict.fromkeys(LISTS, "list"), "chosen": "number",
    "p_adjusted": "number",
    **dict.fromkeys(("accuracy", "baseline", "control_accuracy", "effect", "effect_named", "effect_others"), "pair"),
    "verdict": ("stands", "refuted", "open"),
}  # fmt: skip


@cache
def model():
    return load_course_model().requires_grad_(False)


class TestMyFeature:
    exercise = "my_feature"

    def test_design(self, answer):
        "templates, places, probe, baseline, control, correction, removal and refutation, each run again"
        with lent(model()):
            design = design_of(answer, KEYS, model())
            expect_texts(design)
            present, templates = expect_labels(design)
            expect_pairs(design)
            readable = expect_places(design)
            expect_probes(design, present, templates, readable)
            expect_removal(design, present, templates, readable)
            expect_refutation(design)


def known(text):
    vocabulary = set(model().tokenizer.get_vocab())
    return isinstance(text, str) and bool(text.strip()) and set(words_of(text)) <= vocabulary


def expect_texts(design):
    texts = design["texts"]
    strange = [text for text in [*texts, *design["up"], *design["down"]] if not known(text)]
    expect(
        not strange,
        "A text has a word that the course model does not know.",
        actual="unknown",
        returned=str(strange[:1]),
    )
    n = len(texts)
    expect(n == len(set(texts)), "Two of your texts are the same. A copy adds no evidence.", actual="copies")
    expect_enough(range(n), 32, of="texts")
    for key in ("present", "templates", "words", "control"):
        expect(len(design[key]) == n, f"{key!r} has not one entry for each text.", actual=("length", key))
    up, down = set(design["up"]), set(design["down"])
    single = all(len(words_of(word)) == 1 for word in up | down)
    expect(up and down and not up & down and single, "'up' and 'down' are different single words.", actual="words")


def expect_labels(design):
    present = torch.tensor([bool(value) for value in design["present"]])
    templates = torch.tensor([int(value) for value in design["templates"]])
    names = templates.unique()
    expect_enough(names.tolist(), 8, of="templates")
    for name in names:
        expect(
            present[templates == name].unique().numel() == 2,
            "In one of your templates all texts have the same label: to know the template is to know the label.",
            actual=("one label", len(names) == len(templates)),
        )  # fmt: skip
    return present, templates


def expect_pairs(design):
    for key in ("named", "others"):
        pairs = [tuple(pair) for pair in design[key]]
        well = all(len(pair) == 2 and pair[0] != pair[1] and all(map(known, pair)) for pair in pairs)
        expect(well, f"{key!r} are pairs of two different texts of words that the model knows.", actual=("pairs", key))
        expect_enough(pairs, 8, of=f"pairs of {key!r}")
    both = {frozenset(pair) for pair in design["named"]} & {frozenset(pair) for pair in design["others"]}
    expect(not both, "A pair is in 'named' and in 'others': the feature differs in it, or not.", actual="in both")


def expect_places(design):
    """Expect places that the model has; returns what it holds there and before, and the texts as tokens."""
    places = [tuple(place) for place in design["places"]]
    tokens, end = tokens_of(model(), list(design["texts"]))
    points = dict(model().named_modules())
    fits = all(len(p) == 2 and p[0] in points and 0 <= int(p[1]) < int(end.min()) for p in places)
    expect(fits, "'places' are pairs of a hook point and how many tokens before the end.", actual="places")
    expect(len(set(places)) == len(places), "You count a place twice.", actual="place twice")
    expect(2 <= len(places) <= 12, "Look at 2 to 12 places.", actual=("places", len(places) < 2))
    expect(design["chosen"] in range(len(places)), "'chosen' is the number of a place, from 0.", actual="chosen")
    sites = list(dict.fromkeys(["hook_embed", *(site for site, _ in places)]))
    with torch.no_grad():
        logits, cache = run_with_cache(model(), tokens, sites)
    rows = torch.arange(len(end))

    def held(site, back):
        return cache[site][rows, end - int(back)]

    return places, held, tokens, end, logits


def by_template(x, labels, templates):
    if bool((x == x[0]).all()):
        return torch.full((len(templates.unique()),), 0.5)
    return probe_by_layer({"x": x}, labels, templates, least_squares_probe)["x"]


def expect_probes(design, present, templates, readable):
    places, held, *_ = readable
    chosen = int(design["chosen"])
    found = [by_template(held(*place), present, templates) for place in places]
    base = [by_template(held("hook_embed", back), present, templates) for _, back in places]
    seen = mass_mean_fit(held(*places[chosen]), present)
    expect(
        not (math.isclose(design["accuracy"][0], seen, abs_tol=1e-6) and abs(seen - found[chosen].mean()) > 0.01),
        "Your accuracy is the one on the texts that a probe is fitted to. On whole templates held out "
        "least_squares_probe has another.",
        actual="fitted texts", returned=f"{design['accuracy'][0]:.3f}",
    )  # fmt: skip
    expect_reported(design["accuracy"], found[chosen].tolist(), of="accuracy", atol=5e-3)
    expect_reported(design["baseline"], base[chosen].tolist(), of="baseline", atol=5e-3)
    control = torch.tensor([bool(value) for value in design["control"]])
    by_word = {word: set() for word in design["words"]}
    for word, label in zip(design["words"], control.tolist(), strict=True):
        by_word[word].add(label)
    expect(
        all(len(labels) == 1 for labels in by_word.values()) and control.unique().numel() == 2,
        "Your control labels are no control task: each word has one label, wherever it stands, and both labels occur.",
        actual="control labels",
    )  # fmt: skip
    expect(
        not (torch.equal(control, present) or torch.equal(control, ~present)),
        "Your control labels are the feature itself.", actual="control is the feature",
    )  # fmt: skip
    expect_reported(
        design["control_accuracy"], by_template(held(*places[chosen]), control, templates).tolist(),
        of="control_accuracy", atol=5e-3,
    )  # fmt: skip
    p = sign_flip_test(torch.stack(found) - torch.stack(base))
    adjusted = holm(p)[1][chosen].item()
    said = design["p_adjusted"]
    expect(
        math.isclose(said, adjusted, rel_tol=0.02, abs_tol=1e-6),
        "Your p-value is not the one after Holm's correction for all the places that you looked at.",
        actual=("p", math.isclose(said, p[chosen].item(), rel_tol=0.02)),
        returned=f"{said:.5f}", expected=f"{adjusted:.5f}, from {len(places)} places",
    )  # fmt: skip


def mass_mean_fit(x, present):
    return ((least_squares_probe(x, present)(x) > 0) == present).float().mean().item()


def expect_removal(design, present, templates, readable):
    places, held, tokens, end, logits = readable
    site, back = places[int(design["chosen"])]
    x, fitted = held(site, back), first_half(templates)
    own, about = mass_mean_probe(x[fitted], present[fitted]).direction, x[fitted].mean(0)
    tokens, end, logits = tokens[~fitted], end[~fitted], logits[~fitted]
    random = design["random"]
    well = all(isinstance(row, torch.Tensor) and row.shape == own.shape and row.isfinite().all() for row in random)
    expect(well, f"'random' are directions of {len(own)} numbers.", actual="random rows")
    expect(
        len(random) >= 19, "You have fewer than nineteen random directions: p can't be 0.05 then.",
        actual="few random", returned=str(len(random)),
    )  # fmt: skip
    rows = torch.stack([row.float() for row in random])
    length = (rows.norm(dim=1) / own.norm() - 1).abs().max().item()
    expect(length <= 0.0101, "Your random directions have not the length of the direction.", actual="lengths")
    cosine = torch.cosine_similarity(rows, own[None]).abs().max().item()
    expect(cosine <= 0.9, "One of your random directions is the direction itself: it is no control.", actual="own")
    among = torch.cosine_similarity(rows[:, None], rows[None], dim=2).tril(-1).abs().max().item()
    expect(among <= 0.9, "Two of your random directions are the same. A copy is no further draw.", actual="same rows")
    toward = torch.where(present[~fitted], 1.0, -1.0)

    def measure(out):
        return toward * lead_of(model(), out, end, list(design["up"]), list(design["down"]))

    with torch.no_grad():
        out = [
            measure(ablate_direction(model(), tokens, [site], one[None], about=about, positions=end - int(back)))
            for one in (own, *rows)
        ]
    found = amnesic_effect(measure(logits), out[0], torch.stack(out[1:]), templates[~fitted])
    half_width = found["high"] - found["effect"]
    mean, half = design["effect"]
    expect(
        not (abs(mean - found["drop"]) < 1e-4 and abs(found["random"]) > 0.02 + 0.1 * half_width),
        "Your effect is the whole cost. What random directions cost is to be taken off.", actual="whole cost",
    )  # fmt: skip
    expect(
        abs(mean - found["effect"]) <= max(0.1 * half_width, 0.02)
        and 0.8 * half_width - 0.01 <= half <= 1.1 * half_width + 0.01,
        f"Run again, removing the direction costs {found['effect']:.3g} ± {half_width:.2g} nats beyond random ones.",
        actual=("effect", abs(mean - found["effect"]) < 0.02, half > half_width), returned=f"{mean:.3g} ± {half:.2g}",
    )  # fmt: skip


def expect_refutation(design):
    found = {
        key: pair_effects(model(), [tuple(pair) for pair in design[key]], list(design["up"]), list(design["down"]))
        for key in ("named", "others")
    }
    for key, values in found.items():
        expect_reported(design[f"effect_{key}"], values.tolist(), of=f"effect_{key}", atol=0.01)
    verdict = refutation_test(found["named"], {"others": found["others"]})[1]
    expect(
        design["verdict"] == verdict, f"By the rule of refutation_test the name is {verdict!r}.",
        actual=("verdict", design["verdict"], verdict), returned=repr(design["verdict"]),
    )  # fmt: skip
