"""What parts 05a and 05b say of SmolLM2-135M, measured again; the figures are those of this file of 4-bit weights."""

import itertools
import random

import pytest
import torch

from utils.circuits.detectors import duplicate_token_score, induction_score, previous_token_score
from utils.circuits.effects import heads_replaced, outputs_at
from utils.circuits.ioi import WEB_NAMES, WEB_TEXTS, answer_difference, ioi_dataset, text_templates
from utils.circuits.knockout import mean_outputs, without_heads
from utils.circuits.repair import self_repair
from utils.circuits.repeats import loss_by_position, repeated_random_tokens
from utils.circuits.roles import copy_score, duplicate_token_effect, name_mover_scores, s_inhibition_effect
from utils.patching.hooks import run_with_hooks


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


# Part 05b: the notebook's scenes and names, and others of both.

OTHER_TEXTS = (
    "The friends <1> and <2> came home late. <3> passed the salt to",
    "At the party, <1> and <2> danced all night, and <3> sold a ticket to",
    "One evening <1> met <2> near the river, and in the end <3> lent the boat to",
    "As <1> and <2> were cleaning the kitchen, <3> threw a towel to",
    "Last summer <1> and <2> lived in London, where <3> bought a ring for",
    "Once <1> and <2> arrived at school, <3> read a story to",
)
OTHER_NAMES = (
    "Michael", "Robert", "William", "Richard", "Thomas", "Daniel", "Matthew", "Anthony", "Andrew", "Joshua", "Kevin",
    "Brian", "George", "Edward", "Elizabeth", "Susan", "Jessica", "Karen", "Nancy", "Lisa", "Margaret", "Sandra",
)  # fmt: skip
MOVERS, NEGATIVE, INHIBIT = [(23, 0), (23, 1), (23, 2), (23, 7)], [(24, 4)], [(20, 0), (19, 2)]
DUPLICATE = [(8, 1), (2, 4), (9, 2), (5, 6), (14, 3), (8, 0), (15, 7), (9, 4)]
INDUCTION = [(17, 4), (17, 5), (13, 7), (18, 6), (18, 4)]


@pytest.fixture(scope="module", params=["the notebook's", "others"])
def web_gifts(request, smollm2):
    texts, names = (WEB_TEXTS, WEB_NAMES) if request.param == "the notebook's" else (OTHER_TEXTS, OTHER_NAMES)
    ids = [smollm2.to_tokens(f" {name}", prepend_bos=False)[0] for name in names]
    people = torch.stack([name[0] for name in ids if len(name) == 1])
    return ioi_dataset(text_templates(smollm2, texts), people, 12, torch.Generator().manual_seed(7))


def lead(network, gifts, hooks=()):
    prompts, at = gifts
    with torch.no_grad():
        return answer_difference(run_with_hooks(network, prompts["clean"], list(hooks)), prompts["clean"], at)


def test_thirteen_heads_at_s2_carry_the_lead(smollm2, web_gifts):
    prompts, at = web_gifts
    whole = lead(smollm2, web_gifts)
    assert whole.mean() > 2.5 and (whole > 0).float().mean() > 0.85
    alone = [duplicate_token_effect(smollm2, prompts, at, heads).mean() for heads in (DUPLICATE, INDUCTION)]
    both = duplicate_token_effect(smollm2, prompts, at, DUPLICATE + INDUCTION).mean()
    assert both / whole.mean() > 0.8 and min(alone) > 0.25 * whole.mean() and max(alone) < 0.9 * both
    every = [pair for pair in itertools.product(range(19), range(9)) if pair not in DUPLICATE + INDUCTION]
    others = random.Random(1).sample(every, 13)
    assert abs(duplicate_token_effect(smollm2, prompts, at, others).mean()) < 0.1 * whole.mean()


def test_the_signal_to_the_movers_is_a_place(smollm2, web_gifts):
    prompts, at = web_gifts
    clean, rows, whole = prompts["clean"], torch.arange(12), lead(smollm2, web_gifts).mean()
    change = s_inhibition_effect(smollm2, prompts, at, INHIBIT, MOVERS)
    assert change["to IO"].mean() < -0.1 and change["to S"].mean() > 0.05
    turned, strangers = clean.clone(), prompts["random names"].clone()
    turned[rows, at["IO"]], turned[rows, at["S1"]] = clean[rows, at["S1"]], clean[rows, at["IO"]]
    strangers[rows, at["S2"]] = strangers[rows, at["S1"]]
    fall = {}
    for name, donor in (("place", turned), ("name", strangers), ("both", prompts["giver swapped"])):
        hooks = heads_replaced(INHIBIT, outputs_at(smollm2, donor, at["END"]), at["END"])
        fall[name] = (whole - lead(smollm2, web_gifts, hooks).mean()).item()
    assert fall["both"] > 0.8 * whole and fall["place"] > 0.8 * fall["both"] and fall["name"] < 0.2 * fall["both"]
    pair = [(16, 3), (21, 5)]
    hooks = heads_replaced(pair, outputs_at(smollm2, prompts["giver swapped"], at["END"]), at["END"])
    assert abs(whole - lead(smollm2, web_gifts, hooks).mean()) < 0.1 * whole


def test_movers_copy_and_the_repair_is_copy_suppression_undone(smollm2, web_gifts):
    prompts, at = web_gifts
    scores = {name: values.mean(0) for name, values in name_mover_scores(smollm2, prompts["clean"], at).items()}
    ids = torch.stack([smollm2.to_tokens(f" {name}", prepend_bos=False)[0][0] for name in WEB_NAMES])
    short = torch.cat([prompts["clean"][:1, :2].expand(len(ids), -1), ids[:, None]], dim=1)
    for pair in MOVERS:
        assert scores["direct"][pair] > 0.1 and scores["to IO"][pair] > scores["to S"][pair]
        assert copy_score(smollm2, *pair, short) > 0.4
    assert scores["direct"].flatten().argmax() == 23 * 9 + 3 and scores["to S"][23, 3] > 0.3
    for pair in ((23, 3), (24, 4)):
        assert copy_score(smollm2, *pair, short, sign=-1) > 0.9
    assert scores["direct"][24, 4] < -0.2 and scores["to IO"][24, 4] > 0.4
    strangers = outputs_at(smollm2, prompts["random names"], at["END"])
    mean = strangers.mean(0, keepdim=True)
    share = {}
    for name, heads, outputs in (
        ("mean", MOVERS, mean), ("resampled", MOVERS, strangers), ("and negative", MOVERS + NEGATIVE, mean),
    ):  # fmt: skip
        found = self_repair(smollm2, prompts["clean"], at, heads, outputs)
        rising = found["heads"].mean(0)
        share[name] = 1 - (found["fall"].mean() / found["lost"].mean()).item()
        if name == "and negative":
            assert rising.max() < 0.35
        else:
            assert rising.flatten().argmax() == 24 * 9 + 4 and rising[24, 4] > 0.5
            assert rising[24, 4] > 2 * rising.flatten().sort().values[-2]
    assert share["mean"] > share["resampled"] + 0.2
    silenced = s_inhibition_effect(smollm2, prompts, at, MOVERS, NEGATIVE, source="random names")
    assert silenced["to IO"].mean() < -0.3
