"""Checks of the loss, the schedule and the training step."""

import copy
import math

import torch
from torch import nn

from utils.course.checking import (
    Mismatch,
    expect,
    expect_close,
    expect_raises,
    expect_same_gradients,
    expect_shape,
)
from utils.transformer.training import cross_entropy_per_token


def documents(rng, batch, pos, d_vocab, scale=2.0):
    """Random logits and the tokens they belong to; every token occurs, so that a constant offset shows."""
    logits = scale * torch.randn(batch, pos, d_vocab, generator=rng) + torch.randn(batch, pos, 1, generator=rng)
    return logits, torch.randint(d_vocab, (batch, pos), generator=rng)


class TestCrossEntropyPerToken:
    exercise = "cross_entropy_per_token"

    def test_values(self, answer, reference, rng):
        "each position is scored on the token after it"
        for sizes in ((3, 5, 11), (2, 8, 4), (4, 2, 7)):
            logits, tokens = documents(rng, *sizes)
            expect_close(answer(logits, tokens), reference(logits, tokens))

    def test_certain(self, answer, rng):
        "sure and right costs 0, sure and wrong costs the gap, knowing nothing costs log d_vocab"
        tokens = torch.stack([torch.randperm(9, generator=rng)[:6] for _ in range(2)])
        sure = torch.zeros(2, 6, 9)
        sure[:, :-1] = 60.0 * nn.functional.one_hot(tokens[:, 1:], 9)
        expect_close(
            answer(sure, tokens),
            torch.zeros(2, 5),
            note="Logits that are sure of the next token should cost nothing.",
        )
        expect_close(
            answer(torch.zeros(2, 6, 9), tokens),
            torch.full((2, 5), math.log(9)),
            note="Equal logits are a uniform distribution: log d_vocab nats at every position.",
        )

    def test_large_logits(self, answer, reference, rng):
        "logits of several hundred give finite losses"
        logits, tokens = documents(rng, 2, 4, 6)
        logits = logits.double()  # float32 would round the losses, each formula otherwise
        expect_close(
            answer(logits + 800, tokens),
            reference(logits, tokens),
            note="Adding 800 to all logits changes no probability, and so no loss.",
        )

    def test_rows_apart(self, answer, reference, rng):
        "predictions whose logits lie on very different levels do not disturb each other"
        logits, tokens = documents(rng, 3, 5, 6)
        logits, apart = logits.double(), torch.tensor([-800.0, 0.0, 800.0], dtype=torch.float64)
        levels = apart[torch.randint(3, (3, 5, 1), generator=rng)]
        levels[0, :3, 0] = apart
        expect_close(
            answer(logits + levels, tokens),
            reference(logits, tokens),
            note="Each position's logits were moved by a number of its own, which changes no probability",
        )

    def test_small_probabilities(self, answer, reference, rng):
        "a token of tiny probability has a large, finite loss"
        logits, tokens = documents(rng, 2, 4, 6, scale=300.0)
        logits = logits - logits.amax(-1, keepdim=True)
        expect_close(
            answer(logits, tokens),
            reference(logits, tokens),
            rtol=1e-4,
            atol=1e-3,
            note="The model calls the token all but impossible: the loss is in the hundreds.",
        )

    def test_one_token(self, answer, rng):
        "texts of one token have nothing to predict: no losses"
        logits, tokens = documents(rng, 3, 1, 7)
        expect_shape(answer(logits, tokens), (3, 0), "Three texts of one token each should give a tensor [3, 0].")

    def test_gradients(self, answer, reference, rng):
        "gradients reach the logits"
        logits, tokens = documents(rng, 2, 5, 7)
        expect_same_gradients(
            lambda logits: answer(logits, tokens), lambda logits: reference(logits, tokens), logits, rng=rng
        )

    def test_dtype_and_layout(self, answer, reference, rng):
        "float64 stays float64 and float32 float32; strided logits are fine"
        logits, tokens = documents(rng, 5, 3, 7)
        for dtype in (torch.float64, torch.float32):
            strided = logits.to(dtype).transpose(0, 1).contiguous().transpose(0, 1)
            expect_close(answer(strided, tokens), reference(strided, tokens), dtype=True)

    def test_bad_input(self, answer, rng):
        "logits and tokens of different lengths are refused"
        logits, tokens = documents(rng, 2, 6, 7)
        expect_raises(ValueError, answer, logits[:, :-1], tokens)
        expect_raises(ValueError, answer, logits[:1], tokens)


class TestLrSchedule:
    exercise = "lr_schedule"

    def test_values(self, answer, reference, rng):
        "the whole curve, with a floor and without"
        drawn = torch.rand(2, generator=rng, dtype=torch.float64).tolist()
        for settings in (
            {"max_lr": 0.3, "n_warmup": 4, "n_steps": 15, "min_lr": 0.1},
            {"max_lr": 2e-3, "n_warmup": 7, "n_steps": 30},
            {"max_lr": 1 + drawn[0], "n_warmup": 5, "n_steps": 22, "min_lr": 0.5 * drawn[1]},
        ):
            rates = [answer(step, **settings) for step in range(settings["n_steps"])]
            expect_close(rates, [reference(step, **settings) for step in range(settings["n_steps"])])

    def test_landmarks(self, answer):
        "above 0 at step 0, max_lr exactly once, half-way down in the middle"
        settings = {"max_lr": 0.8, "n_warmup": 3, "n_steps": 13, "min_lr": 0.2}
        expect_close(
            answer(0, **settings),
            0.2,
            note="Step 0 takes the first of n_warmup + 1 equal parts of the climb.",
        )
        expect_close(answer(3, **settings), 0.8, note="Step n_warmup should have max_lr.")
        expect_close(
            answer(8, **settings),
            0.5,
            note="Half-way down the cosine, the rate is the mean of max_lr and min_lr.",
        )

    def test_no_warmup(self, answer, reference):
        "n_warmup = 0 starts at max_lr"
        settings = {"max_lr": 0.1, "n_warmup": 0, "n_steps": 5, "min_lr": 0.01}
        expect_close(
            [answer(step, **settings) for step in range(5)],
            [reference(step, **settings) for step in range(5)],
        )

    def test_after_the_end(self, answer):
        "the rate stays at min_lr from step n_steps on"
        for step in (20, 21, 27, 500):
            expect_close(
                answer(step, max_lr=0.5, n_warmup=6, n_steps=20, min_lr=0.03),
                0.03,
                note="From step n_steps on the rate is min_lr; the cosine does not go up again.",
            )

    def test_type(self, answer):
        "a Python float comes back"
        rate = answer(2, max_lr=1, n_warmup=1, n_steps=9)
        expect(
            isinstance(rate, float),
            "A learning rate goes into an optimizer's settings: return a Python float.",
            actual=type(rate).__name__,
            expected="float",
        )

    def test_negative_step(self, answer):
        "a negative step is refused"
        for step in (-1, -4):
            expect_raises(ValueError, answer, step, max_lr=1.0, n_warmup=2, n_steps=10)

    def test_endless_warmup(self, answer):
        "a warm-up that never ends is refused, and one of fewer than no steps"
        for step, n_warmup, n_steps in ((3, 12, 10), (3, 10, 10), (3, -1, 10), (0, 0, 0)):
            expect_raises(ValueError, answer, step, max_lr=1.0, n_warmup=n_warmup, n_steps=n_steps)


def bigram_model(rng, d_vocab, d_model, scale=1.0):
    """A small language model with random weights: tokens [batch, pos] -> logits [batch, pos, d_vocab]."""
    model = nn.Sequential(nn.Embedding(d_vocab, d_model), nn.Linear(d_model, d_vocab))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=rng))
    return model


def trained(step_function, model, make_optimizer, batches, lrs):
    """The losses that a training step returns over some batches, and a copy of the model after them."""
    model = copy.deepcopy(model)
    optimizer = make_optimizer(model)
    losses = [step_function(model, optimizer, tokens, lr) for tokens, lr in zip(batches, lrs, strict=True)]
    return losses, [parameter.detach().clone() for parameter in model.parameters()]


def compare(answer, reference, rng, make_optimizer, *, scale, lrs, note, sizes=(11, 5), batch=(3, 6)):
    model = bigram_model(rng, *sizes, scale=scale)
    batches = [torch.randint(sizes[0], batch, generator=rng) for _ in lrs]
    _, expected = trained(reference, model, make_optimizer, batches, lrs)
    _, found = trained(answer, model, make_optimizer, batches, lrs)
    expect_close(found, expected, note=note, rtol=1e-4, atol=1e-5)


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=100.0)


def two_groups(model):
    """Two parameter groups with rates that are wrong until they are set."""
    return torch.optim.SGD([{"params": model[0].parameters(), "lr": 7.0}, {"params": model[1].parameters(), "lr": 0.0}])


class TestTrainStep:
    exercise = "train_step"

    def test_one_step(self, answer, reference, rng):
        "one step of gradient descent moves the parameters down the gradient by lr"
        compare(
            answer,
            reference,
            rng,
            sgd,
            scale=0.1,
            lrs=[0.5],
            sizes=(13, 6),
            batch=(24, 11),  # so many that the gradient is far too short to be clipped
            note="After one step of plain gradient descent the parameters should be theta - lr * gradient "
            "of the mean loss.",
        )

    def test_loss(self, answer, reference, rng):
        "the mean loss before the step comes back, as a Python float"
        model, tokens = bigram_model(rng, 9, 4), torch.randint(9, (2, 7), generator=rng)
        expected = reference(copy.deepcopy(model), sgd(model), tokens, 0.1)
        loss = answer(model, sgd(model), tokens, 0.1)
        if not isinstance(loss, float):
            raise Mismatch(
                "Return a Python float; a loss tensor that is kept in a list keeps its whole graph alive.",
                actual=type(loss).__name__,
                returned=type(loss).__name__,
                expected="float",
            )
        expect_close(loss, expected, rtol=1e-5, note="This is not the mean over all predicted tokens, before the step.")

    def test_several_steps(self, answer, reference, rng):
        "each step uses the gradient of its own batch only"
        compare(
            answer,
            reference,
            rng,
            sgd,
            scale=0.4,
            lrs=[0.5, 0.4, 0.3],
            note="After three steps the parameters differ.",
        )

    def test_stale_gradients(self, answer, reference, rng):
        "gradients that somebody left in .grad do not count"
        model, tokens = bigram_model(rng, 10, 4, scale=0.4), torch.randint(10, (2, 6), generator=rng)
        found, expected = copy.deepcopy(model), copy.deepcopy(model)
        for one in (found, expected):
            cross_entropy_per_token(one(tokens.flip(1)), tokens.flip(1)).mean().backward()
        answer(found, sgd(found), tokens, 0.5)
        reference(expected, sgd(expected), tokens, 0.5)
        for theirs, ours in zip(found.parameters(), expected.parameters(), strict=True):
            expect_close(
                theirs.detach(),
                ours.detach(),
                note="The parameters' .grad held the gradient of another batch when your function was called, and this "
                "step should not follow it",
                rtol=1e-4,
                atol=1e-5,
            )

    def test_learning_rate(self, answer, reference, rng):
        "every parameter group gets the rate of this step"
        compare(
            answer,
            reference,
            rng,
            two_groups,
            scale=0.4,
            lrs=[0.3, 0.05],
            note="The optimizer has two parameter groups, and both should use the lr of this step.",
        )

    def test_small_gradient(self, answer, reference, rng):
        "a gradient of norm below 1 is followed as it is"
        model, expected = bigram_model(rng, 9, 4, scale=0.1), int(torch.randint(9, (), generator=rng))
        with torch.no_grad():
            model[1].bias[expected] += 6.0  # so that it is nearly sure of what comes
        found, wanted = copy.deepcopy(model), copy.deepcopy(model)
        tokens = torch.full((3, 6), expected)
        answer(found, sgd(found), tokens, 10.0)
        reference(wanted, sgd(wanted), tokens, 10.0)
        for theirs, ours in zip(found.parameters(), wanted.parameters(), strict=True):
            expect_close(
                theirs.detach(),
                ours.detach(),
                note="The model is nearly sure of every token here, and right, so that the gradient of the mean loss "
                "is short: there is nothing to clip",
                rtol=1e-4,
                atol=1e-5,
            )

    def test_clipping(self, answer, reference, rng):
        "a gradient of norm above 1 is scaled down to 1 as a whole"
        for make_optimizer in (sgd, two_groups):
            compare(
                answer,
                reference,
                rng,
                make_optimizer,
                scale=6.0,
                lrs=[1.0],
                note="The gradient's norm over all parameters is far above 1 here, and the step should have length lr.",
            )

    def test_optimizer(self, answer, reference, rng):
        "the optimizer does the step: AdamW with weight decay"
        compare(
            answer,
            reference,
            rng,
            lambda model: torch.optim.AdamW(model.parameters(), lr=9.0, weight_decay=0.2, eps=1e-3),
            scale=0.7,
            lrs=[0.02, 0.05],
            note="With AdamW the parameters differ after two steps.",
        )

    def test_graph(self, answer, rng):
        "the loss falls on a batch that is seen again and again"
        model, tokens = bigram_model(rng, 8, 8, scale=0.3), torch.randperm(8, generator=rng).reshape(1, 8)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0)
        losses = [float(torch.as_tensor(answer(model, optimizer, tokens, 0.1)).detach()) for _ in range(10)]
        expect_shape(torch.tensor(losses), (10,))
        expect(
            losses[-1] < 0.5 * losses[0],
            "On one batch, again and again, the loss should fall by half in ten steps.",
            actual=losses[-1],
            expected=f"below {0.5 * losses[0]:.3g}, from {losses[0]:.3g} at first",
        )
