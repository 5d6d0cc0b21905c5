"""What part 07b says of the course model, of a network with two copies and of the adder, measured again."""

import math
import random

import pytest
import torch

from utils.course.cases import estimate
from utils.data.corpus import quote_clause, words
from utils.data.prompts import Prompt, quote_prompts, token_id
from utils.data.world import NAMES, VERBS
from utils.models.course_model import load_course_model
from utils.models.modular_addition import load_modular_addition, modular_addition_data
from utils.models.phenomena.calendar import accuracies, averaged_by_answer, places
from utils.models.phenomena.measuring import to_batch, untrained
from utils.patching.hooks import run_with_cache, run_with_hooks
from utils.probes.activations import collect_activations
from utils.probes.circular import circular_probe, frequency_plane, ring_score, rotate_in_plane
from utils.probes.erasing import ablate_direction, amnesic_effect, iterated_nullspace, project_out
from utils.probes.fit import logistic_probe, mass_mean_probe
from utils.probes.planted import TwoCopies
from utils.probes.quotes import evenly_by_word, quote_texts
from utils.probes.steering import probe_vs_gradient_direction, steer_with_probe

SITE, ATTENTION = "blocks.2.hook_resid_post", "blocks.3.hook_attn_out"
NOW, PAST = (torch.tensor([token_id(verb[form]) for verb in VERBS]) for form in (1, 2))


@pytest.fixture(scope="module", autouse=True)
def no_graphs():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model():
    return load_course_model().requires_grad_(False)


def build_of(text):
    opening, rest = text.split(' said: "')
    last = rest.split('" ')[-1]
    return 8 * ('"' in rest) + 4 * ("." in opening) + 2 * ("." in last) + (text.split()[-2] == "The")


class Scenes:
    """Prompts that stop before a verb, with the model's states and behaviour at their ends."""

    def __init__(self, model, n, seed):
        prompts = quote_prompts(n, seed)
        self.model, self.batch = model, to_batch(prompts)
        self.inside = torch.tensor([prompt.kind == ("inside",) for prompt in prompts])
        self.builds = torch.tensor([build_of(prompt.text) for prompt in prompts])
        self.end = self.batch.at["END"]

    def at_end(self, site=SITE):
        _, cache = run_with_cache(self.model, self.batch.tokens, [site])
        return cache[site][self.batch.rows(), self.end]

    def tense(self, logits):
        z = logits[self.batch.rows(), self.end].log_softmax(-1)
        return z[:, NOW].logsumexp(1) - z[:, PAST].logsumexp(1)

    def lead_without(self, directions, about, hooks=(), everywhere=False):
        logits = ablate_direction(
            self.model, self.batch.tokens, [SITE], directions, about=about, hooks=hooks,
            positions=None if everywhere else self.end,
        )  # fmt: skip
        return self.tense(logits) * torch.where(self.inside, 1.0, -1.0)

    def by_build(self, values, chosen=slice(None)):
        return estimate([values[chosen][self.builds[chosen] == b].mean().item() for b in self.builds[chosen].unique()])


class Fitted:
    def __init__(self, model, seed):
        scenes, tested = Scenes(model, 600, seed), Scenes(model, 300, seed + 1)
        self.x, self.y, self.x_test, self.y_test = scenes.at_end(), scenes.inside, tested.at_end(), tested.inside
        self.middle = (self.x[self.y].mean(0) + self.x[~self.y].mean(0)) / 2
        self.attention = scenes.at_end(ATTENTION).mean(0)
        self.means, self.logistic = mass_mean_probe(self.x, self.y), logistic_probe(self.x, self.y)

    def cut(self, asked):
        def edit(x):
            return x.index_put((asked.batch.rows(), asked.end), self.attention)

        return [(ATTENTION, edit)]

    def accuracy(self, probe, x_test=None):
        return ((probe(self.x_test if x_test is None else x_test) > 0) == self.y_test).float().mean().item()


@pytest.fixture(scope="module", params=[11, 31])
def fitted(model, request):
    """The notebook's scenes, and others."""
    return Fitted(model, request.param)


@pytest.fixture(scope="module", params=[13, 33])
def asked(model, request):
    return Scenes(model, 96, request.param)


@pytest.fixture(scope="module")
def all_words(model):
    texts = quote_texts(12, seed=0)
    chosen = evenly_by_word(texts, seed=0)
    x = collect_activations(model, texts.tokens, [SITE], chosen)[SITE]
    return logistic_probe(x, texts.inside[chosen])


@pytest.fixture(scope="module")
def draws():
    return torch.randn(8, 128, generator=torch.Generator().manual_seed(3))


def cosine(a, b):
    return torch.nn.functional.cosine_similarity(a, b, dim=0).item()


def test_three_directions_decode_and_differ(fitted, all_words):
    for probe in (fitted.means, fitted.logistic, all_words):
        assert fitted.accuracy(probe) > 0.98
    assert cosine(fitted.logistic.direction, fitted.means.direction) > 0.85
    assert 0.35 < cosine(all_words.direction, fitted.means.direction) < 0.65


def test_the_difference_of_means_takes_all_and_the_logistic_direction_hardly_anything(fitted):
    def again(direction):
        left, left_test = (project_out(x, direction[None], about=fitted.middle) for x in (fitted.x, fitted.x_test))
        return fitted.accuracy(logistic_probe(left, fitted.y), left_test)

    assert again(fitted.means.direction) < 0.66
    assert again(fitted.logistic.direction) > 0.95


def test_what_the_directions_cost(fitted, asked, all_words, draws):
    intact = asked.lead_without(torch.zeros(0, 128), fitted.middle)
    assert intact.min() > 0 and asked.by_build(intact)[0] == pytest.approx(9.2, abs=0.3)
    by_chance = torch.stack([asked.lead_without(one[None], fitted.middle) for one in draws])
    cost = {}
    for name, probe in (("means", fitted.means), ("logistic", fitted.logistic), ("07a's", all_words)):
        left = asked.lead_without(probe.direction[None], fitted.middle)
        found = amnesic_effect(intact, left, by_chance, asked.builds)
        assert found["low"] > 0 and abs(found["random"]) < 0.1 and found["p"] == pytest.approx(1 / 9)
        assert (left < 0).float().mean() < 0.05
        cost[name] = found["effect"]
    assert cost["means"] == pytest.approx(3.8, abs=0.7) and cost["logistic"] == pytest.approx(3.4, abs=0.7)
    assert cost["07a's"] < 0.35 * cost["logistic"]


def test_many_directions_cost_no_more_than_one(fitted, asked):
    directions, accuracy = iterated_nullspace(fitted.x, fitted.y, fitted.x_test, fitted.y_test, 24, logistic_probe)
    assert accuracy[1] > 0.95 and accuracy[8] > 0.7
    until = next(k for k, share in enumerate(accuracy.tolist()) if share <= 0.6)
    assert 11 <= until <= 24
    one = asked.by_build(asked.lead_without(fitted.means.direction[None], fitted.middle))[0]
    many = asked.by_build(asked.lead_without(directions, fitted.middle))[0]
    assert abs(one - many) < 0.5
    random_ones = torch.randn(24, 128, generator=torch.Generator().manual_seed(1))
    assert asked.by_build(asked.lead_without(random_ones, fitted.middle))[0] > 8

    def replaced(x):
        return x.index_put((asked.batch.rows(), asked.end), fitted.x.mean(0))

    nothing_left = asked.lead_without(torch.zeros(0, 128), fitted.middle, [(SITE, replaced)])
    assert asked.by_build(nothing_left)[0] == pytest.approx(4.8, abs=0.9)


def test_two_routes_and_no_third(fitted, asked, draws, model):
    _, cache = run_with_cache(model, asked.batch.tokens, ["blocks.3.attn.hook_pattern"])
    looked = cache["blocks.3.attn.hook_pattern"][asked.batch.rows(), :, asked.end]
    given = (looked * (asked.batch.tokens == token_id('"'))[:, None]).sum(-1).mean(0)
    assert given[3] > 0.9 and given[:3].max() < 0.15
    cut, none, own = fitted.cut(asked), torch.zeros(0, 128), fitted.means.direction[None]
    attention = asked.lead_without(none, fitted.middle, cut)
    assert (attention < 0).float().mean() < 0.03 and asked.by_build(attention)[0] == pytest.approx(6, abs=0.7)
    both = asked.lead_without(own, fitted.middle, cut)
    assert abs(asked.by_build(both)[0]) < 0.8 and 0.4 < (both < 0).float().mean() < 0.6
    assert both[asked.inside].mean() > 1 and both[~asked.inside].mean() < -0.7  # the present, on both sides
    for one in draws[:3]:
        chance = asked.lead_without(one[None], fitted.middle, cut)
        assert abs(asked.by_build(chance)[0] - asked.by_build(attention)[0]) < 0.5


def test_dose_and_response(fitted, asked, draws, model):
    answers = model.W_U[:, NOW].mean(1) - model.W_U[:, PAST].mean(1)
    directions = torch.cat([fitted.means.direction[None], answers[None], draws[:4]])
    doses = torch.tensor([-2.0, 0.0, 1.0, 2.0])
    case = model, asked.batch.tokens, SITE, directions, fitted.middle, doses, asked.tense, asked.end
    found = steer_with_probe(*case)
    outside, within = (found[..., side].mean(-1) for side in (~asked.inside, asked.inside))
    assert outside[0].diff().min() > 0 and outside[0, 1] < -2 and outside[0, 2] > 1.5
    assert outside[0, 3] > 6 and outside[1, 3] > 4 and within[0, 0] < -3
    assert outside[2:].max() < -5 and within[2:].min() > 4


def stops(n, seed):
    rng, found = random.Random(seed), []
    for i in range(n):
        said, after = (quote_clause(rng, side, rng.choice(NAMES)) for side in (True, False))
        text = f'{rng.choice(NAMES)} said: "{said}.' + ("" if i % 2 == 0 else f'" {after}.')
        found.append(Prompt(text, '"', None, {"END": len(words(text))}))
    return to_batch(found), torch.arange(n) % 2 == 0


@pytest.mark.parametrize("seed", [5, 6])
def test_the_verbs_direction_is_not_the_quotations(fitted, asked, model, draws, seed):
    batch, inside = stops(64, seed)

    def mark(logits):
        p = logits[batch.rows(), batch.at["END"]].softmax(-1)[:, token_id('"')].double()
        return p.clamp(1e-12, 1 - 1e-12).logit().float()

    x = run_with_cache(model, batch.tokens, [SITE])[1][SITE][batch.rows(), batch.at["END"]]
    own, middle = mass_mean_probe(x, inside).direction, (x[inside].mean(0) + x[~inside].mean(0)) / 2
    untouched = mark(model(batch.tokens))
    assert untouched[inside].mean() > 1 and untouched[~inside].mean() < -8
    both, doses = torch.stack([fitted.means.direction, own]), torch.tensor([2.0])
    marks = steer_with_probe(model, batch.tokens, SITE, both, middle, doses, mark, batch.at["END"])[:, 0, ~inside].mean(
        -1
    )
    case = model, asked.batch.tokens, SITE, both, fitted.middle, doses, asked.tense, asked.end
    tenses = steer_with_probe(*case)[:, 0, ~asked.inside].mean(-1)
    assert marks[0] < -5 and tenses[0] > 6  # the verb's direction: tense, and no mark
    assert marks[1] > 0.5 and tenses[1] < -1  # the full stop's: mark, and no tense
    assert 0.4 < cosine(*both) < 0.68


def test_cosines_follow_the_costs(fitted, asked, all_words, model, draws):
    def mean_of(direction):
        return probe_vs_gradient_direction(model, asked.batch.tokens, SITE, direction, asked.tense, asked.end).mean()

    means, logistic, words_ = (mean_of(p.direction) for p in (fitted.means, fitted.logistic, all_words))
    assert means > 0.4 and logistic > 0.38 and 0.15 < words_ < 0.35
    assert max(abs(mean_of(one)) for one in draws) < 0.2


def test_two_copies():
    inputs = torch.arange(1, 201)[:, None] * torch.tensor([1, -1]).repeat(100)[:, None]
    feature, here = inputs[:, 0] > 0, torch.zeros(200, dtype=torch.long)
    for saturated in (False, True):
        network = TwoCopies(saturated)
        x = run_with_cache(network, inputs, ["hook_state"])[1]["hook_state"][:, 0]
        probe = logistic_probe(x, feature)
        own = probe.direction / probe.direction.norm()
        across = own - own[0] * torch.eye(3)[0]
        assert ((probe(x) > 0) == feature).all()

        def left(direction, network=network, x=x):
            out = ablate_direction(network, inputs, ["hook_state"], direction[None], about=x.mean(0))[:, 0, 0]
            return (out * torch.where(feature, 1.0, -1.0)).mean().item()

        def along(direction, network=network):
            case = network, inputs, "hook_state", direction, lambda out: out[:, 0, 0], here
            return probe_vs_gradient_direction(*case).mean().item()

        assert left(own) < 0.3 and left(across) > 0.95 and abs(left(torch.eye(3)[0])) < 0.05
        assert along(own) == pytest.approx(0.0 if saturated else 0.4, abs=0.03)
        assert along(torch.eye(3)[0]) == pytest.approx(0.0 if saturated else 1.0, abs=0.03)


def error_left_out(points, order=None):
    n = len(points)
    steps, every, found = (torch.arange(n) if order is None else order), torch.arange(n), []
    for i in range(n):
        probe = circular_probe(points[every != i], steps[every != i], n, 1e-2)
        away = probe(points[i]) - 2 * math.pi * steps[i] / n
        found.append((torch.remainder(away + math.pi, 2 * math.pi) - math.pi).abs().rad2deg())
    return torch.stack(found).mean().item()


def test_averaging_draws_the_ring_of_weekdays(model):
    null = [places(untrained(model, seed), "day") for seed in range(2)]
    ours = places(model, "day")
    for layer in range(4):
        site = f"layer {layer}"
        for points in null:
            assert ring_score(averaged_by_answer(points[site])[0]) > 0.7
            assert torch.stack([ring_score(x) for x in points[site]]).mean() < 0.45
        assert torch.stack([ring_score(x) for x in ours[site]]).mean() < 0.6
    right = accuracies(model)
    assert right["day after, unseen"]["value"] == 0 and right["day before, unseen"]["value"] == 0


def test_months_have_a_ring_and_weekdays_hardly(model):
    orders = [torch.randperm(12, generator=torch.Generator().manual_seed(seed)) for seed in range(40)]
    months, days = places(model, "month"), places(model, "day")
    for site, most, margin in (("W_U", 15, 30), ("W_E", 45, 0)):
        points = months[site][0]
        assert error_left_out(points) < most
        assert min(error_left_out(points, order) for order in orders) > error_left_out(points) + margin
    assert error_left_out(days["W_U"][0]) > 65 and error_left_out(days["W_E"][0]) > 90


def test_the_adder_goes_round_all_its_circles():
    adder, sums = load_modular_addition().requires_grad_(False), modular_addition_data()
    points = adder.W_E[:59]
    by_share = sorted(range(1, 30), key=lambda f: -ring_score(points, f).item())
    assert by_share[0] == 1 and sum(ring_score(points, f) for f in by_share[:9]) == pytest.approx(0.91, abs=0.02)

    def turned(planes, frequencies, step):
        def turn(embedded):
            x = embedded[:, 0]
            for f, plane in zip(frequencies, planes, strict=True):
                x = rotate_in_plane(x, plane, 2 * math.pi * f * step / 59, points.mean(0))
            return torch.cat([x[:, None], embedded[:, 1:]], dim=1)

        said = run_with_hooks(adder, sums.tokens, [("hook_embed", turn)])[:, -1].argmax(-1)
        return [(said == (sums.answers + k) % 59).float().mean().item() for k in (step, 0)]

    own = [frequency_plane(points, f) for f in by_share]
    for step in (2, 10, -7):
        assert turned(own[:9], by_share[:9], step)[0] > 0.98
        moved, stayed = turned(own[:1], by_share[:1], step)
        assert moved < 0.01 and stayed > 0.98
        assert turned(own[-9:], by_share[-9:], step)[1] > 0.75
    no_planes = torch.linalg.qr(torch.randn(64, 18, generator=torch.Generator().manual_seed(5)))[0].T.reshape(9, 2, 64)
    assert turned(no_planes, by_share[:9], 2)[1] > 0.7
    train, left_out = torch.randperm(59, generator=torch.Generator().manual_seed(2)).split([44, 15])
    for f, least, most in ((by_share[0], 0, 12), (by_share[-1], 50, 180)):
        probe = circular_probe(points[train], train * f, 59, 1e-2)
        away = probe(points[left_out]) - 2 * math.pi * left_out * f / 59
        error = (torch.remainder(away + math.pi, 2 * math.pi) - math.pi).abs().rad2deg().mean()
        assert least <= error <= most
