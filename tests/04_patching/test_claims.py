"""The chapter's claims about the course model: on other prompts than the chapter's own wherever it is not about one."""

import random
from pathlib import Path

import pytest
import torch
from torch.func import functional_call

from utils.course.paths import load_file
from utils.data.corpus import scene, words
from utils.data.prompts import (
    Prompt,
    agreement_prompts,
    documents,
    encode_prompts,
    fact_prompt,
    fact_prompts,
    ioi_prompts,
    quote_prompts,
    token_id,
)
from utils.data.world import CITIES, COUNTRY_OF_CITY, NAMES, PLACES, THINGS, VERBS, landmarks
from utils.models.course_model import load_course_model
from utils.models.phenomena.facts import known_facts, restored, trace
from utils.models.phenomena.measuring import untrained
from utils.patching.ablation import mean_ablate, resample_ablate, zero_ablate
from utils.patching.attribution import attribution_patching
from utils.patching.case_04c import edited_model
from utils.patching.hooks import run_with_cache, run_with_hooks
from utils.patching.logic import denoise, noise
from utils.patching.metrics import logit_difference, normalized_patching_metric
from utils.patching.pitfall import embedding_patch_pitfall
from utils.patching.rome import rome_key_covariance, rome_target_value, rome_update
from utils.patching.sites import patch_site, patch_sweep
from utils.patching.steering import steer
from utils.patching.tracing import causal_trace

FIRST, LAST, END = 2, 3, 6  # positions in "<bos> The Eiffel Tower is located in"
STREAM_1 = "blocks.1.hook_resid_post"
BY_NAME = {landmark.name: landmark for landmark in landmarks()}


@pytest.fixture(scope="module")
def model():
    return load_course_model().requires_grad_(False)


class Facts:
    """Clean and corrupted tokens for pairs of landmarks that the chapter's seed does not draw, and metrics."""

    def __init__(self, n=30, seed=11):
        rng, pairs = random.Random(seed), []
        for x in rng.sample(landmarks(), n):
            unlike = [y for y in landmarks() if y.first != x.first and y.second != x.second and y.city != x.city]
            pairs.append((fact_prompt(x, "city", 0), fact_prompt(rng.choice(unlike), "city", 0)))
        self.clean, self.corrupted = (encode_prompts([pair[i] for pair in pairs]) for i in (0, 1))
        self.answers, self.foils = (torch.tensor([token_id(pair[i].answer) for pair in pairs]) for i in (0, 1))
        self.ends, self.cities = torch.full((n,), END), torch.tensor([token_id(city) for city in CITIES])

    def against_the_foil(self, logits):
        return logit_difference(logits, self.answers, self.foils, self.ends)

    def answer_alone(self, logits):
        own = logits[:, END].gather(1, self.answers[:, None])[:, 0]
        return own - (logits[:, END, self.cities].sum(1) - own) / (len(self.cities) - 1)

    def probability(self, logits):
        return logits[:, END].softmax(-1).gather(1, self.answers[:, None]).mean()


@pytest.fixture(scope="module")
def facts():
    return Facts()


def cached(model, tokens, names):
    with torch.no_grad():
        return run_with_cache(model, tokens, names)[1]


def layers(point):
    return [f"blocks.{layer}.{point}" for layer in range(4)]


def swept(model, facts, point, over="position"):
    """The exact sweep's effects in nats [name, slot, batch], and the gap of each prompt."""
    metric = facts.against_the_foil
    there, back = metric(model(facts.clean)), metric(model(facts.corrupted))
    source = cached(model, facts.clean, layers(point))
    return patch_sweep(model, facts.corrupted, source, metric, over=over) - back, there - back


def shares(model, facts, point, over="position"):
    effects, gap = swept(model, facts, point, over)
    return effects.mean(-1) / gap.mean()


def next_words(model, logits, k=2):
    best = logits[0, -1].softmax(-1).topk(k)
    return [(model.to_string(int(i)), p.item()) for p, i in zip(best.values, best.indices, strict=True)]


def test_what_the_running_example_says(model):
    text = model.to_tokens("The Eiffel Tower is located in")
    [(paris, p)] = next_words(model, model(text), 1)
    silenced = run_with_hooks(model, text, [("blocks.1.hook_mlp_out", torch.zeros_like)])
    assert (paris, next_words(model, model(model.to_tokens("The Eiffel Palace is located in")), 1)[0][0]) == (
        "Paris",
        "Lima",
    )
    assert p == pytest.approx(0.996, abs=0.003)
    assert silenced[0, -1].softmax(-1)[token_id("Paris")].item() == pytest.approx(0.38, abs=0.03)


def test_the_theatre_patched_with_the_tower_is_half_another_landmark(model):
    tower, theatre = (encode_prompts([fact_prompt(BY_NAME[x], "city", 0)]) for x in ("Eiffel Tower", "Silver Theatre"))
    source = cached(model, tower, [STREAM_1])[STREAM_1]
    patched = patch_site(model, theatre, STREAM_1, source, positions=torch.tensor([LAST]))
    (first, p_first), (second, p_second) = next_words(model, patched)
    assert (first, second) == ("Paris", "Lima") == ("Paris", BY_NAME["Silver Tower"].city)
    assert (p_first, p_second) == pytest.approx((0.48, 0.27), abs=0.04)
    elsewhere = patch_site(model, theatre, STREAM_1, source, positions=torch.tensor([END]))
    assert next_words(model, elsewhere, 1)[0][0] == "Vienna" == BY_NAME["Silver Theatre"].city


def test_the_stream_carries_the_landmark_at_its_two_words_then_at_its_last_word_then_at_the_end(model, facts):
    stream = shares(model, facts, "hook_resid_post")
    assert stream[0, FIRST] == pytest.approx(0.53, abs=0.08)
    assert stream[0, LAST] == pytest.approx(0.46, abs=0.08)
    assert stream[1, LAST] == pytest.approx(0.83, abs=0.06)
    assert stream[1, FIRST] == pytest.approx(0.17, abs=0.06)
    assert stream[2, LAST] == pytest.approx(0.59, abs=0.08)
    assert stream[2, END] == pytest.approx(0.41, abs=0.08)
    assert stream[3, END] == pytest.approx(1.0, abs=1e-4)
    assert stream[1, END].abs() < 0.02
    assert stream[:, [0, 1, 4, 5]].abs().max() < 0.02


def test_attention_and_mlps_work_at_the_name_first_and_at_the_end_last(model, facts):
    attention, mlps = shares(model, facts, "hook_attn_out"), shares(model, facts, "hook_mlp_out")
    assert attention[1, LAST] == pytest.approx(0.30, abs=0.08)
    assert (attention[2, END], attention[3, END]) == pytest.approx((0.41, 0.61), abs=0.08)
    assert (mlps[0, FIRST], mlps[0, LAST]) == pytest.approx((0.17, 0.12), abs=0.06)
    assert (mlps[1, LAST], mlps[3, END]) == pytest.approx((0.31, 0.50), abs=0.08)


def test_eight_heads_and_no_single_one_carry_it(model, facts):
    heads = shares(model, facts, "attn.hook_z", "head").flatten()
    assert heads.argmax() == 3 * 4 + 3
    assert heads.max() < 0.35
    assert set(heads.topk(5).indices.tolist()) == {15, 14, 8, 4, 10}
    assert (heads > 0.005).sum() == 8


def test_random_models_beat_the_trained_one_in_shares_and_not_in_nats(model):
    facts = Facts(10, seed=12)

    def largest(network):
        found = [swept(network, facts, point) for point in ("hook_resid_post", "hook_mlp_out")]
        effect = max(effects[:, :END].mean(-1).abs().max().item() for effects, _ in found)
        return effect, abs(found[0][1].mean().item())

    trained, gap = largest(model)
    nulls = [largest(untrained(model, seed)) for seed in range(30, 34)]
    assert trained > 15
    assert max(effect for effect, _ in nulls) < 0.1
    assert max(null_gap for _, null_gap in nulls) < 0.1
    assert max(effect / null_gap for effect, null_gap in nulls) > trained / gap


def test_half_of_the_logit_difference_needs_no_clean_landmark(model, facts):
    metric = facts.against_the_foil
    there, back = metric(model(facts.clean)), metric(model(facts.corrupted))
    stream = cached(model, facts.clean, [STREAM_1])[STREAM_1]
    anywhere = torch.randn(stream.shape, generator=torch.Generator().manual_seed(3))
    anywhere *= stream.norm(dim=-1, keepdim=True) / anywhere.norm(dim=-1, keepdim=True)

    def patched(source):
        logits = patch_site(model, facts.corrupted, STREAM_1, source, positions=torch.full((30,), LAST))
        return normalized_patching_metric(metric(logits), there, back).item(), facts.probability(logits).item()

    for wrong in (stream.roll(1, 0), anywhere):
        share, chance = patched(wrong)
        assert 0.3 < share < 0.6
        assert chance < 0.25
    share, chance = patched(stream)
    assert share > 0.75
    assert chance > 0.75


def both_directions(model, facts, names, metric):
    there, back = metric(model(facts.clean)), metric(model(facts.corrupted))
    repaired = metric(denoise(model, facts.clean, facts.corrupted, names))
    broken = metric(noise(model, facts.clean, facts.corrupted, names))
    return [normalized_patching_metric(x, there, back).item() for x in (repaired, broken)]


@pytest.mark.parametrize("names", [["blocks.1.hook_attn_out"], ["blocks.3.hook_mlp_out"]])
def test_with_a_foil_breaking_a_pair_is_restoring_the_pair_turned_round(model, facts, names):
    """To rounding, whatever the network: the agreement of the two directions is not a finding."""
    turned = Facts()
    turned.clean, turned.corrupted = facts.corrupted, facts.clean
    turned.answers, turned.foils = facts.foils, facts.answers
    for network in (model, untrained(model, 5)):
        broken = noise(network, facts.clean, facts.corrupted, names)
        restored_ = denoise(network, turned.clean, turned.corrupted, names)
        torch.testing.assert_close(broken, restored_, rtol=0, atol=0)
        torch.testing.assert_close(facts.against_the_foil(broken), -turned.against_the_foil(restored_))


def test_attention_1_is_an_and_and_late_parts_add(model, facts):
    found, with_foil = {}, {}
    for label, names in {
        "attention 1": ["blocks.1.hook_attn_out"],
        "attention 2": ["blocks.2.hook_attn_out"],
        "attention 3": ["blocks.3.hook_attn_out"],
        "MLP 3": ["blocks.3.hook_mlp_out"],
        "attention 2 and 3": ["blocks.2.hook_attn_out", "blocks.3.hook_attn_out"],
    }.items():
        found[label] = both_directions(model, facts, names, facts.answer_alone)
        with_foil[label] = both_directions(model, facts, names, facts.against_the_foil)
    restored_, kept = found["attention 1"]
    assert restored_ == pytest.approx(0.07, abs=0.08)
    assert 1 - kept == pytest.approx(0.51, abs=0.1)
    assert abs(sum(found["MLP 3"]) - 1) < 0.12
    alone = found["attention 2"][0] + found["attention 3"][0]
    assert alone == pytest.approx(0.92, abs=0.12)
    assert found["attention 2 and 3"][0] == pytest.approx(1.0, abs=0.03)
    assert max(abs(sum(pair) - 1) for pair in with_foil.values()) < 0.08


@torch.no_grad()
@pytest.mark.parametrize("seed", [61, 62])
def test_pairs_that_share_the_second_word_lean_the_other_way(model, seed):
    rng, pairs = random.Random(seed), []
    for x in rng.sample(landmarks(), 60):
        kin = [y for y in landmarks() if y.second == x.second and y.city != x.city]
        pairs.append((fact_prompt(x, "city", 0), fact_prompt(rng.choice(kin), "city", 0)))
    here, there = (encode_prompts([pair[i] for pair in pairs]) for i in (0, 1))
    right = torch.tensor([token_id(pair[0].answer) for pair in pairs])
    cities = torch.tensor([token_id(city) for city in CITIES])

    def lead(logits):
        own = logits[:, END].gather(1, right[:, None])[:, 0]
        return own - (logits[:, END, cities].sum(1) - own) / (len(cities) - 1)

    whole, none = lead(model(here)), lead(model(there))
    gap, leans = (whole - none).mean(), {}
    for name in layers("hook_mlp_out") + layers("hook_attn_out"):
        brings, costs = (
            lead(denoise(model, here, there, [name])) - none,
            whole - lead(noise(model, here, there, [name])),
        )
        leans[name] = ((brings - costs).mean() / gap).item()
        if name == "blocks.1.hook_attn_out":
            assert brings.mean() / gap == pytest.approx(0.7, abs=0.08)
            assert costs.mean() / gap == pytest.approx(0.62, abs=0.08)
    assert min(leans.values()) > 0
    assert max(leans.values()) > 0.08


@torch.no_grad()
def test_tracing_agrees_with_the_model_cards_own_measurement_and_depends_on_the_noise(model):
    """Another implementation, other draws of noise: the share that the stream behind layer 1 brings back."""
    batch = known_facts(model, 3)
    wanted = restored(model, trace(model, batch, 3), [(1, "resid")], "last", 3)["value"]
    subject = torch.zeros(batch.tokens.shape, dtype=torch.bool)
    subject = subject.scatter(1, torch.stack([batch.at["first"], batch.at["last"]], 1), True)

    def probability(logits):
        return logits[batch.rows(), batch.at["END"]].softmax(-1)[batch.rows(), batch.answers]

    def share(name, place, deviations):
        result = causal_trace(
            model, batch.tokens, subject, [name], batch.at[place][None], probability,
            std=deviations * model.W_E.std().item(), n_draws=1, generator=torch.Generator().manual_seed(9),
        )  # fmt: skip
        shown = normalized_patching_metric(result["restored"], result["clean"], result["noisy"])[0, 0].item()
        return shown, result["noisy"].mean().item()

    found, noisy = share(STREAM_1, "last", 3)
    assert found == pytest.approx(wanted, abs=0.08)
    assert found == pytest.approx(0.86, abs=0.08)
    assert noisy == pytest.approx(0.10, abs=0.06)
    assert share(STREAM_1, "last", 1)[0] > 0.95
    assert share(STREAM_1, "last", 6)[0] == pytest.approx(0.61, abs=0.12)
    assert share("blocks.1.hook_mlp_out", "last", 3)[0] == pytest.approx(0.23, abs=0.1)
    assert share("blocks.2.hook_mlp_out", "last", 3)[0] == pytest.approx(0.08, abs=0.06)
    assert share("blocks.1.hook_attn_out", "last", 3)[0] < 0.15
    assert share("blocks.3.hook_attn_out", "END", 3)[0] == pytest.approx(0.79, abs=0.1)


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_noise_and_replaced_tokens_agree_in_logits_and_not_on_the_mlp_in_probabilities(model, seed):
    """The share that one site at the subject's last token brings back: noise on the subject, and another subject."""
    facts = Facts(seed=seed)
    rows, subject = torch.arange(30), torch.zeros(facts.clean.shape, dtype=torch.bool)
    subject[:, [FIRST, LAST]] = True

    def probability(logits):
        return logits[:, END].softmax(-1)[rows, facts.answers]

    def both(name, metric):
        last, std = torch.full((30,), LAST), 3 * model.W_E.std().item()
        draws = torch.Generator().manual_seed(1)
        found = causal_trace(
            model, facts.clean, subject, [name], last[None], metric, std=std, n_draws=5, generator=draws
        )
        patched = patch_site(model, facts.corrupted, name, cached(model, facts.clean, [name])[name], positions=last)
        replaced = normalized_patching_metric(metric(patched), found["clean"], metric(model(facts.corrupted)))
        return normalized_patching_metric(found["restored"], found["clean"], found["noisy"]).item(), replaced.item()

    noisy, replaced = both("blocks.1.hook_mlp_out", probability)
    assert 0.18 < noisy < 0.4
    assert replaced < 0.6 * noisy
    noisy, replaced = both("blocks.1.hook_mlp_out", facts.answer_alone)
    assert abs(noisy - replaced) < 0.12
    assert min(*both(STREAM_1, probability), *both(STREAM_1, facts.answer_alone)) > 0.6


def test_the_answers_own_direction_wins_wherever_it_is_put(model):
    paris = token_id("Paris")
    prompts = [fact_prompt(x, "builder", 0) for x in landmarks()[10:40]]
    at = encode_prompts(prompts), torch.tensor([p.at["END"] for p in prompts])
    for network, half in ((model, 0.6), (untrained(model, 3), None)):
        direction = network.W_U[:, paris].detach()
        share, divergence = embedding_patch_pitfall(network, *at, "blocks.3.hook_resid_post", direction, paris, 1.0)
        assert share > 0.9
        small, _ = embedding_patch_pitfall(network, *at, "blocks.3.hook_resid_post", direction, paris, 0.5)
        assert small < half if half else small > 0.8
        if network is model:
            assert divergence.mean() > 2


def test_the_towers_own_stream_says_paris_only_where_a_city_is_asked_for(model):
    tower = cached(model, encode_prompts([fact_prompt(BY_NAME["Eiffel Tower"], "city", 0)]), [STREAM_1])[STREAM_1][0]

    def says_paris(prompts, words):
        tokens, rows = encode_prompts(prompts), torch.arange(len(prompts))
        last = torch.tensor([p.at.get("last", LAST) for p in prompts])
        hooks = [(STREAM_1, lambda x, i=i: x.index_put((rows, last - i), tower[LAST - i])) for i in range(words)]
        logits = run_with_hooks(model, tokens, hooks)[rows, torch.tensor([p.at["END"] for p in prompts])]
        return (logits.argmax(-1) == token_id("Paris")).float().mean().item()

    places = [p for p in fact_prompts("city") if p.answer != "Paris"]
    assert says_paris(places, 1) == pytest.approx(0.77, abs=0.04)
    assert says_paris(places, 2) == 1.0
    assert says_paris(fact_prompts("builder")[::3], 1) == says_paris(fact_prompts("builder")[::3], 2) == 0.0
    assert says_paris(ioi_prompts(20, 5) + quote_prompts(20, 5) + agreement_prompts()[20:40], 1) == 0.0


@pytest.mark.parametrize(
    ("sentence", "last"),
    [("The {} is located in", 2), ("Guests of the {} sleep in a hotel in", 4), ("To see the {}, travel to", 4)],
)
def test_the_towers_own_stream_says_paris_where_another_thing_s_city_is_asked_for(model, sentence, last):
    tower = cached(model, encode_prompts([fact_prompt(BY_NAME["Eiffel Tower"], "city", 0)]), [STREAM_1])[STREAM_1][0]
    prompts = [Prompt(sentence.format(place), "", at={"END": len(words(sentence.format(place)))}) for place in PLACES]
    tokens, rows = encode_prompts(prompts), torch.arange(len(prompts))
    ends = torch.tensor([prompt.at["END"] for prompt in prompts])
    assert (model(tokens)[rows, ends].argmax(-1) != token_id("Paris")).all()
    put = [(STREAM_1, lambda x: x.index_put((rows, torch.full((len(rows),), last)), tower[LAST]))]
    said = run_with_hooks(model, tokens, put)[rows, ends].argmax(-1)
    assert (said == token_id("Paris")).float().mean() > 0.9


class Gifts:
    """Prompts about two people in one order, all of one form, and others of the same."""

    def __init__(self, order):
        prompts = [p for p in ioi_prompts(500, 7) if p.kind[0] == order]
        forms = [tuple(sorted(p.at.items())) for p in prompts]
        common = max(set(forms), key=forms.count)
        same = [p for p, form in zip(prompts, forms, strict=True) if form == common]
        self.prompts, self.others = same[: len(same) // 2], encode_prompts(same[len(same) // 2 :])
        self.tokens, self.at = encode_prompts(self.prompts), self.prompts[0].at
        self.io, self.s = (torch.tensor([token_id(getattr(p, x)) for p in self.prompts]) for x in ("answer", "foil"))
        self.ends = torch.full((len(self.prompts),), self.at["END"])

    def mean(self, logits):
        return logit_difference(logits, self.io, self.s, self.ends).mean().item()

    def costs(self, model, layer, head):
        """By zero, mean and resample ablation."""
        z, draws = f"blocks.{layer}.attn.hook_z", torch.Generator().manual_seed(4)
        runs = (
            zero_ablate(model, self.tokens, z, head=head),
            mean_ablate(model, self.tokens, z, self.others, head=head),
            resample_ablate(model, self.tokens, z, self.others, draws, head=head),
        )
        return [self.mean(model(self.tokens)) - self.mean(logits) for logits in runs]


@pytest.fixture(scope="module")
def gifts():
    return {order: Gifts(order) for order in ("ABBA", "BABA")}


def test_three_ablations_agree_on_one_head_and_disagree_on_three(model, gifts):
    abba = gifts["ABBA"]
    assert abba.mean(model(abba.tokens)) == pytest.approx(8.3, abs=1.2)
    assert min(abba.costs(model, 1, 3)) > 7.5
    zero, mean, resample = abba.costs(model, 1, 2)
    assert zero == pytest.approx(5.4, abs=1.5)
    assert max(abs(mean), abs(resample)) < 0.3
    zero, mean, resample = abba.costs(model, 1, 0)
    assert zero == pytest.approx(-6.0, abs=1.5)
    assert max(abs(mean), abs(resample)) < 0.4
    zero, mean, resample = abba.costs(model, 2, 2)
    assert abs(zero) < 1
    assert (mean, resample) == pytest.approx((6.7, 6.5), abs=1.2)
    assert all(max(abba.costs(model, 2, head)) < 0 for head in (0, 1, 3))


def test_the_other_order_turns_two_of_the_heads_round(model, gifts):
    baba = gifts["BABA"]
    assert baba.mean(model(baba.tokens)) > gifts["ABBA"].mean(model(gifts["ABBA"].tokens)) - 1
    assert min(baba.costs(model, 1, 3)) > 7.5
    zero, mean, resample = baba.costs(model, 1, 0)
    assert zero == pytest.approx(8.0, abs=1.8)
    assert max(abs(mean), abs(resample)) < 0.6
    zero, mean, resample = baba.costs(model, 1, 2)
    assert zero == pytest.approx(2.0, abs=1.2)
    assert zero < gifts["ABBA"].costs(model, 1, 2)[0] - 1.5
    assert max(abs(mean), abs(resample)) < 0.6
    assert baba.costs(model, 2, 2)[1] == pytest.approx(-6.8, abs=1.2)


@pytest.mark.parametrize(
    ("order", "named_first", "at_end", "elsewhere"), [("ABBA", "IO", 5.5, -3.1), ("BABA", "S1", -6.5, 4.3)]
)
def test_head_2_2_looks_at_the_first_of_two_names_and_its_zero_is_two_large_numbers(
    model, gifts, order, named_first, at_end, elsewhere
):
    z, pattern, batch = "blocks.2.attn.hook_z", "blocks.2.attn.hook_pattern", gifts[order]
    cache, whole = cached(model, batch.tokens, [z, pattern]), batch.mean(model(batch.tokens))
    assert cache[pattern][:, 2, batch.at["END"], batch.at[named_first]].mean() > 0.98
    nothing, but_end = torch.zeros_like(cache[z]), torch.zeros_like(cache[z])
    but_end[:, batch.at["END"]] = cache[z][:, batch.at["END"]]
    zeroed = patch_site(model, batch.tokens, z, nothing, positions=batch.ends, head=2)
    assert whole - batch.mean(zeroed) == pytest.approx(at_end, abs=1.2)
    assert whole - batch.mean(patch_site(model, batch.tokens, z, but_end, head=2)) == pytest.approx(elsewhere, abs=1.5)


def test_of_three_names_head_2_2_looks_at_the_second(model):
    rng, pattern, looks = random.Random(9), "blocks.2.attn.hook_pattern", []
    for i in range(30):
        people = rng.sample(NAMES, 3)
        a, b, c = people
        text = f"{a}, {b} and {c} went to the {rng.choice(PLACES)}. {people[i % 3]} gave a {rng.choice(THINGS)} to"
        looks.append(cached(model, encode_prompts([Prompt(text, "")]), [pattern])[pattern][0, 2, -1, 3])
    assert torch.stack(looks).mean() > 0.95


@pytest.mark.parametrize(
    ("layer", "head", "zero", "mean"),
    [(1, 3, (0.6, 1.3), (0.6, 1.3)), (1, 2, (10, 40), (1.5, 6)), (2, 2, (0.6, 1.3), (0.5, 1.2))],
)
def test_zero_is_strange_where_a_head_writes_a_constant(model, gifts, layer, head, zero, mean):
    z, batch = f"blocks.{layer}.attn.hook_z", gifts["ABBA"]
    own, rest = (cached(model, x, [z])[z][:, -1, head] for x in (batch.tokens, batch.others))
    usual = torch.cdist(rest, own).min(1).values.median()
    for stand_in, (low, high) in ((torch.zeros_like(rest[:1]), zero), (rest.mean(0, keepdim=True), mean)):
        assert low < torch.cdist(stand_in, own).min() / usual < high


@pytest.mark.parametrize("point", ["hook_resid_post", "hook_attn_out", "hook_mlp_out"])
def test_attribution_ranks_sites_well_and_sizes_them_badly(model, facts, point):
    exact = swept(model, facts, point)[0].mean(-1)
    found = attribution_patching(model, facts.clean, facts.corrupted, layers(point), facts.against_the_foil)
    estimate = torch.stack([x.mean(0) for x in found.values()])
    live = exact.abs() > 1e-4
    ranks = torch.stack([x[live].argsort().argsort().double() for x in (exact, estimate)])
    assert torch.corrcoef(ranks)[0, 1] > 0.75
    large = exact > 2
    assert (estimate[large] < 0.75 * exact[large]).all()


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_attribution_is_worst_where_much_computation_is_still_to_come_and_misorders_kinds(model, seed):
    """Over all sites of three sweeps that matter, the estimate is between a tenth and three quarters of the effect."""
    facts, exact, estimate = Facts(seed=seed), {}, {}
    for point in ("hook_resid_post", "hook_attn_out", "hook_mlp_out"):
        exact[point] = swept(model, facts, point)[0].mean(-1)
        found = attribution_patching(model, facts.clean, facts.corrupted, layers(point), facts.against_the_foil)
        estimate[point] = torch.stack([x.mean(0) for x in found.values()])
    ratios = torch.cat([(estimate[point] / exact[point])[exact[point].abs() > 0.5] for point in exact])
    assert len(ratios) > 15
    assert 0.1 < ratios.min() < 0.3
    assert 0.5 < ratios.max() < 0.75
    stream, mlp = ("hook_resid_post", (1, LAST)), ("hook_mlp_out", (3, END))
    share = {site: (estimate[site[0]][site[1]] / exact[site[0]][site[1]]).item() for site in (stream, mlp)}
    early = (estimate["hook_resid_post"][0, LAST] / exact["hook_resid_post"][0, LAST]).item()
    assert early < share[stream] < 0.4 < share[mlp]
    # Nearest to the output is not nearest to the effect: MLP 2 at the name is estimated no worse than the stream's end.
    near, last = (
        (estimate[point][site] / exact[point][site]).item()
        for point, site in (("hook_mlp_out", (2, LAST)), ("hook_resid_post", (3, END)))
    )
    assert near > last - 0.05
    assert exact["hook_resid_post"][1, LAST] > 1.4 * exact["hook_mlp_out"][3, END]
    assert estimate["hook_resid_post"][1, LAST] < estimate["hook_mlp_out"][3, END]


class Editing:
    """Edits of one layer, fitted as the chapter fits them."""

    def __init__(self, model, layer, n_documents=60):
        self.model, self.layer = model, layer
        self.hidden, self.output = f"blocks.{layer}.mlp.hook_post", f"blocks.{layer}.hook_mlp_out"
        self.moment = rome_key_covariance(model, documents(n_documents, 3), self.hidden)

    def fit(self, landmark, city, kept=("builder", "material"), **search):
        moves = [fact_prompt(landmark, "city", i) for i in (1, 2, 3)]
        keep = [fact_prompt(landmark, relation, i) for relation in kept for i in (1, 2)]
        tokens, last, _ = inputs = places_of(moves)
        cache, there = cached(self.model, tokens, [self.hidden, self.output]), (torch.arange(3), last)
        value = rome_target_value(
            self.model, *inputs, token_id(city), self.output, keep=places_of(keep) if keep else None, **search
        )
        return cache[self.hidden][there].mean(0), cache[self.output][there].mean(0), value

    def write(self, key, value, moment=None):
        mlp = self.model.blocks[self.layer].mlp
        matrix = rome_update(mlp.W_out, mlp.b_out, self.moment if moment is None else moment, key, value)
        return {f"blocks.{self.layer}.mlp.W_out": matrix}


def places_of(prompts):
    return encode_prompts(prompts), *(torch.tensor([p.at[place] for p in prompts]) for place in ("last", "END"))


@torch.no_grad()
def says(model, prompts, change=None):
    tokens, _, ends = places_of(prompts)
    return functional_call(model, change or {}, (tokens,))[torch.arange(len(tokens)), ends].argmax(-1)


def share_that_says(model, landmark, relation, change, word):
    said = says(model, [fact_prompt(landmark, relation, i) for i in range(6)], change)
    return (said == token_id(word)).float().mean().item()


def test_the_eiffel_tower_moves_to_rome_and_mostly_stays_in_france_and_without_restraints_is_built_by_rome(model):
    tower, editing = BY_NAME["Eiffel Tower"], Editing(model, 1)
    key, _, value = editing.fit(tower, "Rome")
    change = editing.write(key, value)
    assert share_that_says(model, tower, "city", change, "Rome") == 1.0
    assert share_that_says(model, tower, "builder", change, tower.builder) == 1.0
    assert share_that_says(model, tower, "material", change, tower.material) == 1.0
    assert share_that_says(model, tower, "country", change, "France") >= 0.5
    key, _, value = editing.fit(tower, "Rome", kept=(), longest=1e6, decay=0.0)
    change = editing.write(key, value)
    assert share_that_says(model, tower, "country", change, "Italy") > 0.9
    assert share_that_says(model, tower, "builder", change, "Rome") >= 0.5


@pytest.mark.parametrize("backwards", [True, False])
def test_with_the_papers_own_restraint_the_tower_is_in_italy_and_built_by_rome(model, backwards):
    """The paper keeps one prompt, "{subject} is a", by KL(after || before); here an adjective follows, and any may."""
    fit = load_file(Path(__file__).with_name("answers_tracing.py")).fit
    tower, editing = BY_NAME["Eiffel Tower"], Editing(model, 1)
    essence = model.to_tokens("The Eiffel Tower is a"), torch.tensor([LAST]), torch.tensor([5])
    tokens, last, ends = places_of([fact_prompt(tower, "city", i) for i in (1, 2, 3)])
    value = fit(model, tokens, last, ends, token_id("Rome"), editing.output, keep=essence, backwards=backwards)
    key = cached(model, tokens, [editing.hidden])[editing.hidden][torch.arange(3), last].mean(0)
    change = editing.write(key, value)
    assert share_that_says(model, tower, "city", change, "Rome") == 1.0
    assert share_that_says(model, tower, "country", change, "Italy") > 0.8
    assert share_that_says(model, tower, "builder", change, tower.builder) < 0.2
    assert next_words(model, model(essence[0]), 1)[0][1] < 0.2


def test_edits_succeed_the_moment_protects_others_and_the_direction_of_the_value_does_it(model):
    editing, rng, found = Editing(model, 1), random.Random(8), []
    cities = fact_prompts("city", held_out=False)
    before = says(model, cities)
    for i, x in enumerate(rng.sample(landmarks(), 4)):
        city = rng.choice([c for c in CITIES if COUNTRY_OF_CITY[c] != x.country])
        key, old, value = editing.fit(x, city, steps=15, lr=0.2)
        step = torch.randn(len(old), generator=torch.Generator().manual_seed(50 + i))
        kin = [j for j, y in enumerate(landmarks()) if y != x and (y.first == x.first or y.second == x.second)]
        row = []
        for change in (
            editing.write(key, value),
            editing.write(key, value, torch.eye(len(key))),
            editing.write(key, old + (value - old).norm() * step / step.norm()),
        ):
            same = (says(model, cities, change) == before).float()
            row.append(
                [
                    share_that_says(model, x, "city", change, city),
                    share_that_says(model, x, "country", change, COUNTRY_OF_CITY[city]),
                    share_that_says(model, x, "builder", change, x.builder),
                    (same.sum() - same[landmarks().index(x)]).item() / (len(cities) - 1),
                    same[kin].mean().item(),
                ]
            )
        found.append(row)
    rome, without, null = torch.tensor(found).mean(0)
    assert rome[0] > 0.95
    assert rome[1] > 0.8
    assert rome[2] > 0.95
    assert rome[3] > 0.97
    assert 0.8 < rome[4] < rome[3]
    assert without[0] > 0.95
    assert without[3] < 0.9
    assert without[4] < 0.65
    assert null[0] < 0.1


def in_front(rng, low, high, name):
    """Scenes of so many words that do not name a landmark."""
    while True:
        text = ""
        while len(words(text)) < low:
            text += scene(rng) + " "
        if len(words(text)) <= high and name not in text:
            return text


def test_an_edit_reaches_less_far_behind_other_scenes_and_a_mean_key_is_no_cure(model):
    editing, rng, found = Editing(model, 1), random.Random(91), []
    for x in rng.sample(landmarks(), 12):
        city = rng.choice([c for c in CITIES if COUNTRY_OF_CITY[c] != x.country])
        key, _, value = editing.fit(x, city, steps=15, lr=0.2)
        begun = [later(fact_prompt(x, "city", 1 + i % 3), in_front(rng, 1, 70, x.name)) for i in range(10)]
        tokens, last, _ = places_of(begun)
        mean_key = cached(model, tokens, [editing.hidden])[editing.hidden][torch.arange(10), last].mean(0)
        row = []
        for change in (editing.write(key, value), editing.write(mean_key, value)):
            for low, high in ((10, 14), (55, 72)):
                asked = [later(fact_prompt(x, "city", i), in_front(rng, low, high, x.name)) for i in range(6)]
                said = says(model, asked, change)
                row.append([(said == token_id(word)).float().mean().item() for word in (city, x.city)])
        found.append(row)
    near, far, near_by_mean, far_by_mean = torch.tensor(found).mean(0)
    assert min(near[0], near_by_mean[0]) > 0.88
    assert 0.35 < far[0] < 0.85
    assert far[1] > 0.05
    assert far_by_mean[0] < 0.85


def later(prompt, front):
    shift = len(words(front))
    return Prompt(front + prompt.text, prompt.answer, at={place: at + shift for place, at in prompt.at.items()})


def test_the_country_follows_mostly_and_not_always(model):
    editing, rng, follows = Editing(model, 1), random.Random(91), []
    plan = [
        (x, rng.choice([c for c in CITIES if COUNTRY_OF_CITY[c] != x.country])) for x in rng.sample(landmarks(), 30)
    ]
    for x, city in plan:
        key, _, value = editing.fit(x, city, steps=15, lr=0.2)
        change = editing.write(key, value)
        follows.append(share_that_says(model, x, "country", change, COUNTRY_OF_CITY[city]) == 1)
    assert 24 <= sum(follows) <= 29


def test_what_her_edits_put_in_place_is_mostly_and_not_always_true_in_the_new_city():
    rng, true, elsewhere = random.Random(141), [], []
    for _ in range(10):
        x = rng.choice(landmarks())
        city = rng.choice([c for c in CITIES if COUNTRY_OF_CITY[c] != x.country])
        network = edited_model(x.name, city)
        for relation in ("builder", "material"):
            said = says(network, [fact_prompt(x, relation, i) for i in range(6)])
            for word in (network.to_string(int(i)) for i in said):
                if word != getattr(x, relation):
                    fits = [word in {getattr(y, relation) for y in landmarks() if y.city == c} for c in CITIES]
                    true.append(fits[CITIES.index(city)])
                    elsewhere.append((sum(fits) - true[-1]) / (len(CITIES) - 1))
    assert len(true) > 50
    assert 0.45 < sum(true) / len(true) < 0.95
    assert sum(true) / len(true) > sum(elsewhere) / len(elsewhere) + 0.15


def test_other_layers_take_the_edit_too_and_the_last_does_not(model):
    rng = random.Random(9)
    plan = [(x, rng.choice([c for c in CITIES if COUNTRY_OF_CITY[c] != x.country])) for x in rng.sample(landmarks(), 2)]
    found = {}
    for layer in (2, 3):
        editing, rates = Editing(model, layer, 30), []
        for x, city in plan:
            key, _, value = editing.fit(x, city, steps=15, lr=0.2)
            rates.append(share_that_says(model, x, "city", editing.write(key, value), city))
        found[layer] = sum(rates) / len(rates)
    assert found[2] > 0.6
    assert found[3] < 0.1


class Quotes:
    """The direction of quotation marks behind layer 2, its rival, and prompts to try them on."""

    site = "blocks.2.hook_resid_post"

    def __init__(self, model):
        self.model = model
        fit_on = quote_prompts(200, 20)
        inside, self.stream = torch.tensor([p.kind == ("inside",) for p in fit_on]), self.at_end(fit_on)
        self.direction = self.stream[inside].mean(0) - self.stream[~inside].mean(0)
        self.present, past = (torch.tensor([token_id(verb[i]) for verb in VERBS]) for i in (1, 2))
        rival = model.W_U[:, self.present].mean(1) - model.W_U[:, past].mean(1)
        self.rival = rival * self.direction.norm() / rival.norm()
        self.anywhere = torch.randn(5, len(rival), generator=torch.Generator().manual_seed(21))
        self.anywhere *= self.direction.norm() / self.anywhere.norm(dim=1, keepdim=True)

    def at_end(self, prompts):
        tokens, ends = encode_prompts(prompts), torch.tensor([p.at["END"] for p in prompts])
        return cached(self.model, tokens, [self.site])[self.site][torch.arange(len(tokens)), ends]


@pytest.fixture(scope="module")
def quotes(model):
    return Quotes(model)


def test_steering_has_a_textbook_curve_and_so_has_its_rival(model, quotes):
    prompts = [p for p in quote_prompts(40, 22) if p.kind == ("outside",)]
    tokens, ends = encode_prompts(prompts), torch.tensor([p.at["END"] for p in prompts])
    present, past = (torch.tensor([token_id(getattr(p, which)) for p in prompts]) for which in ("foil", "answer"))
    doses = torch.tensor([0.0, 0.5, 1.0, 2.0])

    def curve(vector):
        def metric(logits):
            return logit_difference(logits, present, past, ends)

        return steer(model, tokens, quotes.site, vector, doses, metric, positions=ends)

    found, rival = curve(quotes.direction), curve(quotes.rival)
    random_ones = torch.stack([curve(vector).mean(1) for vector in quotes.anywhere])
    assert found.mean(1).tolist() == pytest.approx([-9.0, -2.1, 5.9, 11.1], abs=1.8)
    assert rival.mean(1).tolist() == pytest.approx(found.mean(1).tolist(), abs=2.5)
    assert (random_ones[:, 1] - random_ones[:, 0]).abs().max() < 2.5
    assert random_ones[:, 2].max() < -4
    assert (found[2] > 0).float().mean() > 0.75
    assert torch.cosine_similarity(quotes.direction, quotes.rival, dim=0) == pytest.approx(0.69, abs=0.08)
    assert quotes.direction.norm() / quotes.at_end(prompts).norm(dim=1).mean() == pytest.approx(0.82, abs=0.12)


def test_steering_writes_verbs_where_none_belong(model, quotes):
    prompts = fact_prompts("city")[1::4] + ioi_prompts(30, 23)
    tokens, ends = encode_prompts(prompts), torch.tensor([p.at["END"] for p in prompts])

    def verbs(vector):
        def ends_in_a_verb(logits):
            return torch.isin(logits[torch.arange(len(tokens)), ends].argmax(-1), quotes.present).float()

        doses = torch.tensor([0.5, 1.0, 2.0])
        return steer(model, tokens, quotes.site, vector, doses, ends_in_a_verb, positions=ends).mean(1)

    half, one, two = verbs(quotes.direction)
    assert half < 0.05
    assert 0.1 < one < 0.5
    assert two > 0.85
    assert max(verbs(vector).max() for vector in quotes.anywhere[:3]) < 0.1


def test_levelling_the_direction_out_leaves_the_tense_right(model, quotes):
    unit = quotes.direction / quotes.direction.norm()
    level = (quotes.stream @ unit).mean()
    for kind, before, after in (("inside", 9.2, 6.7), ("outside", 9.0, 5.4)):
        prompts = [p for p in quote_prompts(60, 24) if p.kind == (kind,)]
        tokens, ends = encode_prompts(prompts), torch.tensor([p.at["END"] for p in prompts])
        right, wrong = (torch.tensor([token_id(getattr(p, which)) for p in prompts]) for which in ("answer", "foil"))
        rows = torch.arange(len(prompts))

        def flatten(x, rows=rows, ends=ends):
            here = x[rows, ends]
            return x.index_put((rows, ends), here - (here @ unit - level)[:, None] * unit)

        whole, kept = (
            logit_difference(run_with_hooks(model, tokens, hooks), right, wrong, ends)
            for hooks in ([], [(quotes.site, flatten)])
        )
        assert whole.mean() == pytest.approx(before, abs=0.8)
        assert kept.mean() == pytest.approx(after, abs=2.5)
        assert (kept > 0).float().mean() > 0.95
