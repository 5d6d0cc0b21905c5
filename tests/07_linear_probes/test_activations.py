"""Checks for the collection of activations."""

import weakref

import torch
from torch import nn

from utils.course.checking import expect, expect_close, expect_raises
from utils.course.manifest import exercises
from utils.course.runner import run_checks
from utils.patching.hooks import run_with_cache


class Mean(nn.Module):
    """What each position has read so far, on average."""

    def forward(self, x):
        return x.cumsum(1) / torch.arange(1, x.shape[1] + 1, dtype=x.dtype)[:, None]


class Small(nn.Module):
    """Three sites of different widths, and a list of how many texts were run at once."""

    def __init__(self, rng, dtype=torch.float32):
        super().__init__()
        self.embed, self.mean, self.layer = nn.Embedding(11, 3), Mean(), nn.Linear(3, 4)
        self.unembed = nn.Linear(4, 2)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=rng)
        self.to(dtype)
        self.runs = []

    def forward(self, tokens):
        self.runs.append(len(tokens))
        return self.unembed(self.layer(self.mean(self.embed(tokens))))


class Watched(nn.Module):
    """Puts out what it is given; of its memory it keeps track, and of how many batches are held at once."""

    def __init__(self, rng):
        super().__init__()
        self.table = torch.randn(11, 3, generator=rng)
        self.weight = nn.Parameter(torch.randn(3, generator=rng))
        self.site, self.batches, self.held = nn.Identity(), [], 0

    def forward(self, tokens):
        memory = self.table[tokens].numpy().copy()  # its reference is counted by the tensors that are made of it
        self.batches.append(weakref.ref(memory))
        x = self.site(torch.from_numpy(memory))
        del memory
        self.held = max(self.held, sum(batch() is not None for batch in self.batches))
        return x * self.weight  # with a graph, x is kept for the gradient of the weight


class Product(nn.Module):
    """As ``Watched``, and its site is computed from what is watched: a graph of it holds that as well."""

    def __init__(self, rng):
        super().__init__()
        self.watched, self.site = Watched(rng), nn.Identity()

    def forward(self, tokens):
        return self.site(self.watched(tokens))


SITES = ("layer", "embed", "mean")


def drawn(rng, batch=5, pos=7, share=0.4):
    tokens = torch.randint(11, (batch, pos), generator=rng)
    return tokens, torch.rand(batch, pos, generator=rng) < share


class TestCollectActivations:
    exercise = "collect_activations"

    def test_values(self, answer, reference, rng):
        "the chosen tokens of all texts in their order, whatever the batch size"
        model = Small(rng)
        for batch_size in (1, 2, 5, 32):
            tokens, chosen = drawn(rng)
            expect_close(
                answer(model, tokens, SITES, chosen, batch_size=batch_size), reference(model, tokens, SITES, chosen)
            )

    def test_sites(self, answer, rng):
        "one entry for each site, in the order asked for"
        model, (tokens, chosen) = Small(rng), drawn(rng)
        for sites in (["mean"], ["mean", "layer", "embed"], list(SITES)):
            found = answer(model, tokens, sites, chosen)
            expect(list(found) == sites, "The sites are not those asked for, in their order.", actual=list(found))

    def test_none_and_all(self, answer, reference, rng):
        "texts of which no token is chosen, or every one; one text, and one token"
        model = Small(rng)
        tokens, chosen = drawn(rng)
        chosen[1], chosen[3] = False, True
        for wanted in (chosen, torch.zeros_like(chosen), torch.ones_like(chosen)):
            expect_close(answer(model, tokens, SITES, wanted, batch_size=2), reference(model, tokens, SITES, wanted))
        tokens, chosen = drawn(rng, batch=1, pos=1, share=2.0)
        expect_close(answer(model, tokens, SITES, chosen), reference(model, tokens, SITES, chosen))

    def test_a_few_at_a_time(self, answer, rng):
        "no more texts at once than batch_size, and each text once"
        model, (tokens, chosen) = Small(rng), drawn(rng, batch=7)
        for batch_size, runs in ((3, [3, 3, 1]), (7, [7]), (10, [7]), (1, [1] * 7)):
            model.runs.clear()
            answer(model, tokens, SITES, chosen, batch_size=batch_size)
            expect(
                model.runs == runs,
                f"With batch_size={batch_size}, seven texts should be run in batches of {runs}.",
                actual=list(model.runs),
            )
        model.runs.clear()
        answer(model, *drawn(rng, batch=34)[:1], SITES, torch.ones(34, 7, dtype=torch.bool))
        expect(
            model.runs == [32, 2],
            "Without a batch_size, 34 texts should be run in batches of [32, 2].",
            actual=list(model.runs),
        )

    def test_let_go(self, answer, rng):
        "what is not chosen is let go while the next texts are run"
        tokens, chosen = drawn(rng, batch=8)
        chosen[:, 0], chosen[:, 1] = True, False
        for model, watched, sites in (
            ((whole := Watched(rng)), whole, ["site"]),
            ((product := Product(rng)), product.watched, ["site"]),
        ):
            with torch.enable_grad():
                answer(model, tokens, sites, chosen, batch_size=1)
            expect(
                watched.held <= 3,  # this batch, the one before it, and one that somebody's cache still names
                "The activations of many batches are held at the same time: choose in each batch, and keep copies of "
                "the chosen tokens, not views, while the next texts are run.",
                actual=("held", model is whole),
                returned=f"{watched.held} batches of 8 held at once",
                expected="that of the run, and at most those just before it",
            )

    def test_hooks(self, answer, rng):
        "no hook stays on the model"
        model, (tokens, chosen) = Small(rng), drawn(rng)
        answer(model, tokens, SITES, chosen, batch_size=2)
        left = [name for name, module in model.named_modules() if module._forward_hooks or module._forward_pre_hooks]
        expect(
            not left,
            "Hooks of yours are still on the model: every later run goes through them, and they keep what it makes.",
            actual="hooks",
            returned=f"hooks at {', '.join(left)}",
            expected="no hooks",
        )

    def test_no_graph(self, answer, rng):
        "no graph, and no memory but its own"
        model, (tokens, chosen) = Small(rng), drawn(rng)
        chosen[0, 0] = True
        with torch.enable_grad():
            found = answer(model, tokens, SITES, chosen)
        for site in SITES:
            x = found[site]
            expect(
                not x.requires_grad,
                "What is returned holds on to the graph of the whole run, and so to all activations.",
                actual="graph",
            )
            expect(
                x.untyped_storage().nbytes() == x.numel() * x.element_size(),
                "What is returned is a view of more than it shows: the memory of the tokens that were not chosen is "
                "held as well.",
                actual="memory",
            )

    def test_dtype(self, answer, reference, rng):
        "the model's dtype"
        model, (tokens, chosen) = Small(rng, torch.float64), drawn(rng)
        expect_close(answer(model, tokens, SITES, chosen), reference(model, tokens, SITES, chosen), dtype=True)

    def test_bad_input(self, answer, rng):
        "a batch size of 0, and a choice of another shape"
        model, (tokens, chosen) = Small(rng), drawn(rng)
        expect_raises(ValueError, answer, model, tokens, SITES, chosen, batch_size=0)
        expect_raises(ValueError, answer, model, tokens, SITES, chosen[:, :-1])
        expect_raises(ValueError, answer, model, tokens, SITES, chosen[:-1])


def test_choosing_at_the_end_is_seen():
    """No entry of the catalogue, as what a worker keeps of copies can't be seen from the grader."""

    def chosen_at_the_end(model, tokens, sites, chosen, *, batch_size=32):
        if batch_size < 1 or chosen.shape != tokens.shape:
            raise ValueError
        with torch.no_grad():
            caches = [run_with_cache(model, rows, sites)[1] for rows in tokens.split(batch_size)]
        return {site: torch.cat([cache[site] for cache in caches])[chosen] for site in sites}

    report = run_checks(exercises()["collect_activations"], chosen_at_the_end, seed=0)
    assert [failure.check for failure in report.failures] == [
        "what is not chosen is let go while the next texts are run"
    ]
    assert report.diagnosis is None
