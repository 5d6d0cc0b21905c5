"""What part 05d says of twenty heads of SmolLM2-135M; the figures are those of this file of 4-bit weights."""

import random

import torch

from utils.circuits.judging import circuit_faithfulness
from utils.circuits.stability import random_circuits
from utils.patching.hooks import run_with_cache, run_with_hooks

FORMS = (
    "When {a} and {b} went to the store, {s} gave a drink to",
    "Then {a} and {b} sat in the garden, and {s} handed a book to",
    "After {a} and {b} left the office, {s} sent a letter to",
    "While {a} and {b} were at the beach, {s} threw a ball to",
)
PEOPLE = ("Mary", "John", "Anna", "Peter", "Tom", "Paul", "James", "Sarah", "David", "Laura")


def gifts(model, seed):
    """Tokens of the prompts, with another giver, and about other people; answers, foils, ends."""
    rng, rows, answers, foils = random.Random(seed), [[], [], []], [], []
    for form in FORMS:
        for i in range(3):
            a, b, *_ = rng.sample(PEOPLE, 5)
            s, io = (a, b) if i % 2 else (b, a)
            c, d, e = rng.sample([name for name in PEOPLE if name not in (a, b)], 3)
            for texts, people in zip(rows, ((a, b, s), (a, b, io), (c, d, e)), strict=True):
                texts.append(form.format(a=people[0], b=people[1], s=people[2]))
            answers.append(model.to_single_token(f" {io}"))
            foils.append(model.to_single_token(f" {s}"))
    ends = torch.tensor([model.to_tokens(text).shape[1] - 1 for text in rows[0]])
    return [model.to_tokens(x, padding_side="right") for x in rows], torch.tensor(answers), torch.tensor(foils), ends


def test_twenty_heads_by_three_ablations(smollm2):
    (clean, giver, others), answers, foils, ends = gifts(smollm2, 0)
    n_layers, n_heads = smollm2.cfg.n_layers, smollm2.cfg.n_heads
    sites = [f"blocks.{layer}.attn.hook_z" for layer in range(n_layers)]
    heads = [(layer, head) for layer in range(n_layers) for head in range(n_heads)]

    def metric(logits):
        rows = torch.arange(len(clean))
        return logits[rows, ends, answers] - logits[rows, ends, foils]

    with torch.no_grad():
        cut = {"giver": run_with_cache(smollm2, giver, sites)[1], "others": run_with_cache(smollm2, others, sites)[1]}
    cut["zero"] = {name: torch.zeros_like(z) for name, z in cut["giver"].items()}
    seen = {}
    with torch.enable_grad():
        hooks = [(sites[0], lambda z: z.detach().requires_grad_())]
        hooks += [(name, lambda z, name=name: seen.setdefault(name, z)) for name in sites]
        slopes = torch.autograd.grad(metric(run_with_hooks(smollm2, clean, hooks)).sum(), list(seen.values()))
    effect = torch.stack(
        [
            ((seen[name] - cut["giver"][name]).detach() * slope).sum((1, 3)).mean(0)
            for name, slope in zip(sites, slopes, strict=True)
        ]
    )
    chosen = [heads[i] for i in effect.flatten().abs().argsort(descending=True)[:20].tolist()]

    def score_under(replaced):
        def score(kept):
            def writing(layer, name):
                gone = torch.tensor([h for h in range(n_heads) if (layer, h) not in kept], dtype=torch.long)
                return lambda z: z.index_copy(2, gone, replaced[name][:, :, gone])

            with torch.no_grad():
                hooks = [(name, writing(layer, name)) for layer, name in enumerate(sites)]
                return metric(run_with_hooks(smollm2, clean, hooks))

        return score

    shares = {name: circuit_faithfulness(score_under(z), chosen, heads)[0] for name, z in cut.items()}
    assert 0.4 < shares["giver"] < 0.9
    assert shares["others"] < shares["giver"] - 0.15 and abs(shares["zero"]) < 0.1
    (drawn,) = random_circuits(chosen, heads, lambda head: head[0], 1, torch.Generator().manual_seed(0))
    assert 0.25 < circuit_faithfulness(score_under(cut["giver"]), drawn, heads)[0] < 0.65
