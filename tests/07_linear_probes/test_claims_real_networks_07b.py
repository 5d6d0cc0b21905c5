"""What part 07b says of SmolLM2-135M, measured again; the figures are those of this file of 4-bit weights."""

import math
import random

import pytest
import torch

from utils.data.world import DAYS, MONTHS
from utils.patching.hooks import run_with_cache
from utils.probes.circular import circular_probe, ring_score
from utils.probes.erasing import ablate_direction
from utils.probes.fit import mass_mean_probe
from utils.probes.steering import steer_with_probe

SITE = "blocks.26.hook_resid_post"


@pytest.fixture(scope="module", autouse=True)
def no_graphs():
    with torch.no_grad():
        yield


def sentences(n, seed):
    rng, found = random.Random(seed), []
    for i in range(n):
        speaker, who = rng.sample(("Anna", "Paul", "Mary", "Tom", "John", "Sarah", "Peter", "Kate"), 2)
        verb = rng.choice(("likes", "found", "wants", "needs", "saw", "lost"))
        kind = rng.choice(("old", "new", "small", "green"))
        body = f"{who} {verb} the {kind} {rng.choice(('garden', 'house', 'river', 'letter', 'piano', 'boat', 'lamp'))}"
        found.append(f'{speaker} said, "{body}' if i % 2 == 0 else f"{speaker} said that {body}")
    return found, torch.arange(n) % 2 == 0


def padded(network, prompts):
    rows = [network.to_tokens(prompt)[0] for prompt in prompts]
    longest = max(map(len, rows))
    tokens = torch.stack([torch.cat([r, r.new_zeros(longest - len(r))]) for r in rows])
    return tokens, torch.tensor([len(r) - 1 for r in rows])


def test_the_quotation_is_used_late_and_not_alone(smollm2):
    (fit_on, fit_inside), (ask, inside) = sentences(32, 0), sentences(16, 1)
    (fit_tokens, fit_end), (tokens, end) = padded(smollm2, fit_on), padded(smollm2, ask)
    decoded = {i: smollm2.tokenizer.decode([i]).strip() for i in range(smollm2.cfg.d_vocab)}
    closing = torch.tensor([i for i, word in decoded.items() if word in ('."', ',"', '!"', '?"', '"')])
    plain = torch.tensor([i for i, word in decoded.items() if word in (".", ",")])

    def closes(logits):
        z = logits[torch.arange(16), end].log_softmax(-1)
        return z[:, closing].logsumexp(1) - z[:, plain].logsumexp(1)

    def apart(values):
        return (values[inside].mean() - values[~inside].mean()).item()

    x = run_with_cache(smollm2, fit_tokens, [SITE])[1][SITE][torch.arange(32), fit_end]
    probe = mass_mean_probe(x, fit_inside)
    centre = (x[fit_inside].mean(0) + x[~fit_inside].mean(0)) / 2
    as_it_is = closes(smollm2(tokens))
    without = closes(ablate_direction(smollm2, tokens, [SITE], probe.direction[None], about=centre, positions=end))
    assert apart(as_it_is) == pytest.approx(4.4, abs=0.8) and apart(without) == pytest.approx(2, abs=0.7)
    chance = torch.randn(3, 576, generator=torch.Generator().manual_seed(0))
    directions = torch.cat([probe.direction[None], -probe.direction[None], chance])
    steered = steer_with_probe(smollm2, tokens, SITE, directions, centre, torch.tensor([2.0]), closes, end)[:, 0]
    assert steered[0, ~inside].mean() > as_it_is[~inside].mean() + 3.5
    assert steered[1, inside].mean() < as_it_is[inside].mean() - 1.5
    assert steered[2:, ~inside].mean() < as_it_is[~inside].mean() + 0.7


def error_left_out(points, order=None):
    n = len(points)
    steps, every, found = (torch.arange(n) if order is None else order), torch.arange(n), []
    for i in range(n):
        probe = circular_probe(points[every != i], steps[every != i], n, 1e-2)
        away = probe(points[i]) - 2 * math.pi * steps[i] / n
        found.append((torch.remainder(away + math.pi, 2 * math.pi) - math.pi).abs().rad2deg())
    return torch.stack(found).mean().item()


def test_circles_that_no_sum_goes_round(smollm2):
    generator = torch.Generator().manual_seed(0)
    for names in (DAYS, MONTHS):
        n = len(names)
        ids = torch.tensor([smollm2.to_tokens(f" {name}", prepend_bos=False)[0, 0] for name in names])
        tokens = torch.cat([smollm2.to_tokens("We met on").expand(n, -1), ids[:, None]], dim=1)
        site = "blocks.18.hook_resid_post"
        for points in (smollm2.W_E[ids], run_with_cache(smollm2, tokens, [site])[1][site][:, -1]):
            orders = [torch.randperm(n, generator=generator) for _ in range(15)]
            assert error_left_out(points) < 35
            assert min(error_left_out(points, order) for order in orders) > 1.5 * error_left_out(points)
            assert ring_score(points) > 1.4 * 2 / (n - 1)
    ids = torch.tensor([smollm2.to_tokens(f" {name}", prepend_bos=False)[0, 0] for name in DAYS])
    hits = 0
    for step, count in enumerate(("One day", "Two days", "Three days"), start=1):
        tokens = torch.cat([smollm2.to_tokens(f"{count} after {day} is") for day in DAYS])
        hits += int((smollm2(tokens)[:, -1, ids].argmax(1) == (torch.arange(7) + step) % 7).sum())
    assert hits <= 7
