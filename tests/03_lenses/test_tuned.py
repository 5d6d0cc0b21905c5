"""Checks for the tuned lens and its training."""

import copy
from pathlib import Path

import torch

from utils.course.checking import expect, expect_close, expect_raises, expect_shape
from utils.course.paths import load_file
from utils.lenses.measures import lens_kl
from utils.lenses.stream import logit_lens
from utils.lenses.tuned import TunedLens
from utils.models.config import TransformerConfig

common = load_file(Path(__file__).with_name("common.py"))
SIZES = ((2, 5), (3, 4))  # sites and width
CFG = TransformerConfig(d_model=6, n_layers=2, n_heads=1, d_head=2, d_mlp=3, n_ctx=4, d_vocab=9)


def random_lens(rng, n_sites, d_model, size=0.1):
    lens = TunedLens(n_sites, d_model)
    lens.load_state_dict({name: size * torch.randn(w.shape, generator=rng) for name, w in lens.state_dict().items()})
    return lens


def related_stack(rng, batch=4, pos=3):
    """Sites that hold the final stream turned by a random map, each its own, and shifted: a lens can undo that."""
    final = 2.0 * torch.randn(batch, pos, CFG.d_model, generator=rng)
    maps = torch.randn(CFG.n_layers, CFG.d_model, CFG.d_model, generator=rng)
    return torch.stack([final @ m + 1.0 for m in maps] + [final])


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def expect_trained_alike(theirs, ours):
    """The same A and b, but for an entry or two whose gradient is so small that Adam's eps decides how far it goes."""
    for name in ("A", "b"):
        states = [lens.state_dict()[name] for lens in (theirs, ours)]
        if (~torch.isclose(*states, rtol=1e-4, atol=1e-4)).sum() > 2:
            expect_close(*states, note=f"{name} differs after training", rtol=1e-4, atol=1e-4)


class TestTunedLens:
    exercise = "TunedLens"

    def test_parameters(self, answer):
        "the parameters A and b, and nothing else"
        for n_sites, d_model in SIZES:
            state = answer(n_sites, d_model).state()
            shapes = {name: tuple(value.shape) for name, value in state.items()}
            expected = {"A": (n_sites, d_model, d_model), "b": (n_sites, d_model)}
            expect(
                shapes == expected,
                "The parameters' names or shapes differ.",
                actual=sorted(shapes.items()),
                expected=str(expected),
            )
        names = sorted(answer(2, 3).parameter_names())
        expect(
            names == ["A", "b"],
            "A and b must be parameters, so that an optimiser finds them.",
            actual=names,
            returned=f"parameters: {', '.join(names) or 'none'}",
            expected="parameters: A, b",
        )

    def test_new_lens_is_the_identity(self, answer, rng):
        "a new lens gives back what it is given"
        for n_sites, d_model in SIZES:
            stack = torch.randn(n_sites, 2, 3, d_model, generator=rng)
            expect_close(answer(n_sites, d_model)(stack).detach(), stack, rtol=0, atol=0)

    def test_values(self, answer, reference, rng):
        "with weights: h + h A + b, site by site, for any number of dimensions in between"
        for n_sites, d_model in SIZES:
            state = {"A": torch.randn(n_sites, d_model, d_model, generator=rng)}
            state["b"] = torch.randn(n_sites, d_model, generator=rng)
            theirs, ours = answer(n_sites, d_model), reference(n_sites, d_model)
            theirs.load(state)
            ours.load_state_dict(state)
            for shape in ((n_sites, d_model), (n_sites, 7, d_model), (n_sites, 2, 6, d_model)):
                stack = torch.randn(shape, generator=rng)
                expect_close(theirs(stack).detach(), ours(stack).detach())

    def test_sites_apart(self, answer, rng):
        "one site's translator has no say in another site"
        lens = answer(3, 4)
        stack = torch.randn(3, 5, 4, generator=rng)
        state = {"A": torch.zeros(3, 4, 4), "b": torch.zeros(3, 4)}
        state["A"][1], state["b"][1] = torch.randn(4, 4, generator=rng), torch.randn(4, generator=rng)
        lens.load(state)
        out = lens(stack).detach()
        expect_shape(out, (3, 5, 4))
        expect_close(out[[0, 2]], stack[[0, 2]], note="Weights of site 1 changed sites 0 or 2")
        expect_close(out[1], stack[1] + stack[1] @ state["A"][1] + state["b"][1], note="Site 1 differs")

    def test_gradients(self, answer, reference, rng):
        "gradients reach both parameters, and the stack"
        weights = torch.randn(3, 2, 4, generator=rng)
        stack = torch.randn(3, 2, 4, generator=rng).requires_grad_()
        theirs, ours = answer(3, 4), reference(3, 4)
        out = theirs(stack)
        expect_shape(out, (3, 2, 4))
        expect(out.requires_grad, "The result carries no graph.", actual="requires_grad=False")
        (out * weights).sum().backward()
        expect(stack.grad is not None, "The stack gets no gradient.", actual="no gradient for the stack")
        expect_close(stack.grad, weights, note="The stack's gradient differs: a new lens passes it on as it is")
        (ours(stack) * weights).sum().backward()
        expected = {tuple(p.shape): p.grad for p in ours.parameters()}
        for parameter in theirs.parameters():
            expect(parameter.grad is not None, "A parameter gets no gradient.", actual="no gradient")
            expect_close(parameter.grad, expected[tuple(parameter.shape)], note="A gradient differs")

    def test_wrong_stack(self, answer, rng):
        "a stack of more or fewer sites is refused"
        lens = answer(3, 4)
        for n_sites in (1, 2, 4):
            expect_raises(ValueError, lens, torch.randn(n_sites, 2, 4, generator=rng))


class TestTrainTunedLens:
    exercise = "train_tuned_lens"
    changes_models = True  # that is what it is for

    def test_losses(self, answer, reference, rng):
        "the loss of each site before each step"
        model, stack = common.SmallModel(rng, CFG).double(), related_stack(rng).double()
        lens = random_lens(rng, 2, 6).double()
        same = copy.deepcopy(lens)
        settings = {"n_steps": 5, "n_rows": 8, "lr": 0.05}
        losses = answer(lens, model, stack, generator=seeded(3), **settings)
        expect_shape(losses, (5, 2))
        # In float64 right answers agree to 1e-7 (losses may be kept in float32); another schedule differs by 1e-2.
        expected = reference(same, model, stack, generator=seeded(3), **settings)
        expect_close(losses, expected, rtol=1e-3, atol=1e-5)

    def test_first_loss(self, answer, rng):
        "the first losses are the logit lens's mean divergences on the rows that were drawn"
        model, stack = common.SmallModel(rng, CFG), related_stack(rng, batch=3, pos=4)
        losses = answer(TunedLens(2, 6), model, stack, n_steps=1, n_rows=5, lr=0.1, generator=seeded(7))
        expect_shape(losses, (1, 2))
        drawn = torch.randint(12, (5,), generator=seeded(7))
        with torch.no_grad():
            logits = logit_lens(model, stack.flatten(1, 2)[:, drawn])
            expect_close(losses[0], lens_kl(logits[:-1], logits[-1]).mean(-1), rtol=1e-3, atol=1e-4)

    def test_learns(self, answer, reference, rng):
        "what the lens says of the whole stack afterwards"
        model, stack = common.SmallModel(rng, CFG), related_stack(rng, batch=8, pos=5)
        theirs, ours = TunedLens(2, 6), TunedLens(2, 6)
        settings = {"n_steps": 30, "n_rows": 20, "lr": 0.1}
        answer(theirs, model, stack, generator=seeded(1), **settings)
        reference(ours, model, stack, generator=seeded(1), **settings)
        with torch.no_grad():
            final = logit_lens(model, stack[-1])
            before = lens_kl(logit_lens(model, stack[:-1]), final).mean((1, 2))
            after = lens_kl(logit_lens(model, theirs(stack[:-1])), final).mean((1, 2))
            best = lens_kl(logit_lens(model, ours(stack[:-1])), final).mean((1, 2))
        # The reference removes most of the divergence; another order of sums leads to nearly the same place.
        expect(
            (after <= best + 0.15 * before).all(),
            "After training, the lens is further from the final distribution than the same training makes it.",
            actual=after,
            expected=f"at most {[round(v, 3) for v in (best + 0.15 * before).tolist()]}, before: "
            f"{[round(v, 3) for v in before.tolist()]}",
        )

    def test_learning_rate_falls(self, answer, reference, rng):
        "the translators after the steps, which optimiser and learning rate decide"
        model, stack = common.SmallModel(rng, CFG).double(), related_stack(rng).double()
        theirs = random_lens(rng, 2, 6, size=1.0).double()
        ours = copy.deepcopy(theirs)
        settings = {"n_steps": 4, "n_rows": 12, "lr": 0.05}
        answer(theirs, model, stack, generator=seeded(5), **settings)
        reference(ours, model, stack, generator=seeded(5), **settings)
        # Adam moves an entry by about lr a step, however small its gradient. In float64 that is the same for everybody.
        expect_trained_alike(theirs, ours)

    def test_model_untouched(self, answer, rng):
        "the model's weights stay, what is frozen stays frozen, and no gradients are left; losses carry no graph"
        model, stack = common.SmallModel(rng, CFG), related_stack(rng)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        losses = answer(TunedLens(2, 6), model, stack, n_steps=2, n_rows=4, lr=0.1, generator=seeded(2))
        for name, value in model.state_dict().items():
            expect(torch.equal(value, before[name]), f"The model's {name} has changed.", actual=name)
        with_gradients = [name for name, p in model.named_parameters() if p.grad is not None]
        expect(
            not with_gradients,
            f"The model's {' and '.join(with_gradients[:2])} got gradients, which the next person to train it adds to.",
            actual=sorted(with_gradients),
        )
        frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
        expect(not frozen, "The model's weights can't be trained any more.", actual=frozen)
        expect_shape(losses, (2, 2))
        expect(not losses.requires_grad, "The losses carry a graph.", actual="requires_grad=True")

    def test_frozen_model(self, answer, rng):
        "somebody has frozen a part of the model and left gradients in another: both stay as they are"
        model, stack = common.SmallModel(rng, CFG), related_stack(rng)
        model.unembed.requires_grad_(False)
        model.ln_final.w.grad = torch.ones(6)
        answer(TunedLens(2, 6), model, stack, n_steps=2, n_rows=4, lr=0.1, generator=seeded(2))
        thawed = [name for name, p in model.named_parameters() if p.requires_grad and name.startswith("unembed")]
        expect(not thawed, "Weights that were frozen can be trained again.", actual=thawed)
        frozen = [name for name, p in model.named_parameters() if not p.requires_grad and "unembed" not in name]
        expect(not frozen, "Weights that could be trained are frozen.", actual=frozen)
        left = model.ln_final.w.grad
        expect(
            left is not None and torch.equal(left, torch.ones(6)),
            "The model had gradients before, and they are not what they were.",
            actual="gone" if left is None else "changed",
            returned="no gradient" if left is None else str(left.tolist()),
            expected="a gradient of ones, as it was",
        )

    def test_earlier_gradients(self, answer, reference, rng):
        "a gradient that was in the lens before has no say"
        model, stack = common.SmallModel(rng, CFG).double(), related_stack(rng).double()
        theirs, ours = TunedLens(2, 6).double(), TunedLens(2, 6).double()
        for parameter in theirs.parameters():
            parameter.grad = 5.0 * torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
        settings = {"n_steps": 2, "n_rows": 6, "lr": 0.1}
        answer(theirs, model, stack, generator=seeded(4), **settings)
        reference(ours, model, stack, generator=seeded(4), **settings)
        expect_trained_alike(theirs, ours)

    def test_wrong_lens(self, answer, rng):
        "a lens with too many or too few translators is refused"
        for n_sites in (1, 3):
            lens = TunedLens(n_sites, 6)
            settings = {"n_steps": 1, "n_rows": 4, "lr": 0.1, "generator": seeded(2)}
            expect_raises(ValueError, answer, lens, common.SmallModel(rng, CFG), related_stack(rng), **settings)

    def test_half_precision(self, answer, rng):
        "half precision is refused, in the lens, the model or the stack"
        settings = {"n_steps": 1, "n_rows": 4, "lr": 0.1}
        for dtype in (torch.float16, torch.bfloat16):
            for which in range(3):
                lens, model, stack = TunedLens(2, 6), common.SmallModel(rng, CFG), related_stack(rng)
                case = [value.to(dtype) if i == which else value for i, value in enumerate((lens, model, stack))]
                expect_raises(ValueError, answer, *case, generator=seeded(2), **settings)
