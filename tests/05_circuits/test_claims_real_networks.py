"""What part 05a says of SmolLM2-135M, measured again; the figures are those of this file of 4-bit weights."""

import itertools
import random

import pytest
import torch

from utils.circuits.detectors import duplicate_token_score, induction_score, previous_token_score
from utils.circuits.knockout import mean_outputs, without_heads
from utils.circuits.repeats import loss_by_position, repeated_random_tokens


def top(scores, n):
    return [divmod(i, scores.shape[1]) for i in scores.flatten().argsort(descending=True)[:n].tolist()]


def test_the_same_circuit_and_one_head_that_matters(smollm2):
    rows = [
        repeated_random_tokens(6, 24, torch.arange(1000, 40_000), 0, torch.Generator().manual_seed(seed))
        for seed in (0, 1)
    ]
    tokens, means = rows[0], mean_outputs(smollm2, rows[1])
    logits, patterns = without_heads(smollm2, tokens, [], means)
    losses = loss_by_position(logits, tokens)
    induction = torch.stack([induction_score(p, tokens).mean(0) for p in patterns])
    previous = torch.stack([previous_token_score(p).mean(0) for p in patterns])
    duplicate = torch.stack([duplicate_token_score(p, tokens).mean(0) for p in patterns])

    def loss(heads):
        found = loss_by_position(without_heads(smollm2, tokens, heads, means)[0], tokens)
        return found[:, 26:].mean().item()

    whole = losses[:, 26:].mean().item()
    assert losses[:, 1:25].mean().item() == pytest.approx(14.6, abs=0.7) and whole == pytest.approx(2, abs=0.5)
    best = top(induction, 5)
    assert best[0] == (18, 6) and induction[18, 6] > 0.85 and duplicate.max() > 0.7
    assert loss(best[:1]) == pytest.approx(3.1, abs=0.6)
    assert loss(best) == pytest.approx(5.4, abs=0.9)
    assert loss(top(previous, 3)) == pytest.approx(8.8, abs=0.8)
    taken = {*best, *top(previous, 5), *top(duplicate, 5)}
    others = [pair for pair in itertools.product(range(30), range(9)) if pair not in taken]
    assert loss(top(duplicate, 5)) < whole + 0.5
    assert loss(random.Random(0).sample(others, 5)) < whole + 0.5
