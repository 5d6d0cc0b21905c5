"""What part 04a says of two sites at once, and of the parts of attention, on pairs that its seeds do not draw."""

import random

import pytest
import torch

from utils.data.prompts import encode_prompts, fact_prompt, ioi_prompts, named_landmark, token_id
from utils.data.world import CITIES, landmarks
from utils.models.course_model import load_course_model
from utils.patching.hooks import run_with_cache, run_with_hooks
from utils.patching.logic import denoise
from utils.patching.metrics import logit_difference, normalized_patching_metric

FIRST, LAST, END = 2, 3, 6


@pytest.fixture(scope="module")
def model():
    return load_course_model().requires_grad_(False)


@pytest.fixture(scope="module")
def facts():
    rng, chosen = random.Random(12), []
    for x in rng.sample(landmarks(), 40):
        unlike = [y for y in landmarks() if y.first != x.first and y.second != x.second and y.city != x.city]
        chosen.append((fact_prompt(x, "city", 0), fact_prompt(rng.choice(unlike), "city", 0)))
    return list(zip(*chosen, strict=True))


def test_the_words_of_a_name_are_an_and_and_a_chain_is_less_than_its_parts(model, facts):
    clean, corrupted = map(encode_prompts, facts)
    answers, cities = (torch.tensor([token_id(x) for x in xs]) for xs in ([p.answer for p in facts[0]], CITIES))

    def metric(logits):
        own = logits[:, END].gather(1, answers[:, None])[:, 0]
        return own - (logits[:, END, cities].sum(1) - own) / (len(cities) - 1)

    def brought(*chosen):
        _, cache = run_with_cache(model, clean, [name for name, _ in chosen])

        def writing(name, slot):
            return lambda x: torch.cat([x[:, :slot], cache[name][:, slot : slot + 1], x[:, slot + 1 :]], dim=1)

        logits = run_with_hooks(model, corrupted, [(name, writing(name, slot)) for name, slot in chosen])
        return normalized_patching_metric(metric(logits), metric(model(clean)), metric(model(corrupted))).item()

    def added_and_both(a, b):
        return brought(a) + brought(b), brought(a, b)

    stream, attention = ("blocks.0.hook_resid_post", LAST), [(f"blocks.{i}.hook_attn_out", END) for i in range(4)]
    assert added_and_both(("blocks.0.hook_resid_post", FIRST), stream) == pytest.approx((0.38, 1.0), abs=0.15)
    assert added_and_both(stream, ("blocks.1.hook_attn_out", LAST)) == pytest.approx((0.25, 0.78), abs=0.15)
    assert added_and_both(*attention[2:]) == pytest.approx((0.93, 1.0), abs=0.1)
    added, both = added_and_both(attention[3], ("blocks.3.hook_mlp_out", END))
    assert both < added - 0.1


def parts_of_attention(model, clean, corrupted, metric):
    """The share that comes back by layer and query, key, value, pattern."""
    ends = metric(model(clean)), metric(model(corrupted))
    points = [[f"blocks.{layer}.attn.hook_{part}" for part in ("q", "k", "v", "pattern")] for layer in range(4)]
    restored = [[metric(denoise(model, clean, corrupted, [point])) for point in row] for row in points]
    return torch.stack([torch.stack([normalized_patching_metric(x, *ends) for x in row]) for row in restored])


def test_facts_pass_through_values_alone(model, facts):
    answers, foils = (torch.tensor([token_id(p.answer) for p in prompts]) for prompts in facts)
    ends = torch.full((len(answers),), END)
    shares = parts_of_attention(
        model, *map(encode_prompts, facts), lambda logits: logit_difference(logits, answers, foils, ends)
    )
    assert shares[:, [0, 1, 3]].abs().max() < 0.04
    assert shares[:, 2].tolist() == pytest.approx([0.07, 0.29, 0.40, 0.60], abs=0.1)


def test_the_giver_passes_through_a_value_in_layer_1_and_turns_the_queries_of_layer_3(model):
    scenes = ioi_prompts(60, seed=5)
    clean, rows = encode_prompts(scenes), torch.arange(60)
    giver, taker, ends = (torch.tensor([p.at[role] for p in scenes]) for role in ("S2", "IO", "END"))
    corrupted = clean.clone()
    corrupted[rows, giver] = clean[rows, taker]
    shares = parts_of_attention(
        model, clean, corrupted, lambda x: logit_difference(x, clean[rows, taker], clean[rows, giver], ends)
    )
    assert shares[1].tolist() == pytest.approx([0, 0, 1, 0], abs=0.05)
    assert shares[3].tolist() == pytest.approx([0.33, 0, 0, 0.33], abs=0.08)


@torch.no_grad()
@pytest.mark.parametrize(("n", "low", "high"), [(0, 0.65, 0.95), (1, 0.1, 0.5), (4, 0.0, 0.25)])
def test_a_donor_from_another_place_brings_its_landmark_and_is_not_looked_at(model, n, low, high):
    """Behind n other scenes in front of the prompt; moved along, or with the patterns held, the fact comes."""
    rng, site, probabilities = random.Random(5), "blocks.1.hook_resid_post", {"plain": [], "held": [], "moved": []}
    scenes = [f"{p.text} {p.answer}. " for p in ioi_prompts(200, seed=6)]
    for i in range(40):
        relation, wording, x = rng.choice(("builder", "material", "city")), rng.randrange(6), rng.choice(landmarks())
        unlike = [y for y in landmarks() if y.first != x.first and y.second != x.second]
        y = rng.choice([y for y in unlike if getattr(y, relation) != getattr(x, relation)])
        front, donor = "".join(scenes[4 * i : 4 * i + n]), fact_prompt(x, relation, wording).text
        prompt = front + fact_prompt(y, relation, wording).text
        at, answer = named_landmark(prompt)[1], token_id(getattr(x, relation))
        patterns = [f"blocks.{layer}.attn.hook_pattern" for layer in (2, 3)]
        _, own = run_with_cache(model, model.to_tokens(prompt), patterns)
        held = [(name, lambda _, pattern=own[name]: pattern) for name in patterns]
        for kind, text, hooks in (("plain", donor, []), ("held", donor, held), ("moved", front + donor, [])):
            there = run_with_cache(model, model.to_tokens(text), [site])[1][site][:, named_landmark(text)[1]]
            put = (site, lambda x, there=there, at=at: x.index_put((torch.tensor([0]), torch.tensor([at])), there))
            logits = run_with_hooks(model, model.to_tokens(prompt), [put, *hooks])
            probabilities[kind].append(logits[0, -1].softmax(-1)[answer].item())
    found = {kind: sum(values) / len(values) for kind, values in probabilities.items()}
    assert low <= found["plain"] < high, found
    assert 0.6 < found["held"] < 0.95, found
    assert 0.65 < found["moved"] < 0.95, found
