"""Checks for the two exercises on which chapter 00 shows the machinery."""

import torch
from torch import nn

from utils.course.checking import (
    AnswerRaised,
    Mismatch,
    expect,
    expect_close,
    expect_raises,
    expect_same_gradients,
)


class TestRowMeans:
    exercise = "row_means"

    def test_values(self, answer, reference, rng):
        "one mean for each row, in batches of two shapes"
        for shape in ((2, 3, 5), (4, 6, 2)):
            x = torch.randn(shape, generator=rng) + torch.arange(shape[2])
            expect_close(answer(x), reference(x))

    def test_square(self, answer, reference, rng):
        "matrices with as many rows as columns; matrices with one column"
        for shape in ((3, 4, 4), (2, 3, 1), (1, 1, 1)):
            x = torch.randn(shape, generator=rng)
            expect_close(answer(x), reference(x))

    def test_dtype(self, answer, reference, rng):
        "float64 and a memory layout that is not contiguous"
        x = torch.randn(5, 2, 3, generator=rng, dtype=torch.float64).permute(1, 2, 0)
        expect_close(answer(x), reference(x), dtype=True)

    def test_gradients(self, answer, reference, rng):
        "gradients flow back to the batch"
        expect_same_gradients(answer, reference, torch.randn(2, 3, 4, generator=rng), rng=rng)


def network(rng, width=4, hidden=5):
    """Two linear layers in a block, the second unit of which has a name of two parts."""
    model = nn.Sequential()
    model.add_module("first", nn.Linear(3, width))
    model.add_module("block", nn.Sequential(nn.Tanh(), nn.Linear(width, hidden), nn.Sigmoid()))
    model.add_module("last", nn.Linear(hidden, 2))
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=rng)
    return model


def hooks(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


class TestRecordActivation:
    exercise = "record_activation"

    def test_values(self, answer, rng):
        "the output of the named layer, at every depth"
        for sizes in ((4, 5), (6, 3)):
            model, x = network(rng, *sizes), torch.randn(7, 3, generator=rng)
            first = model.first(x)
            expect_close(answer(model, "first", x), first)
            expect_close(answer(model, "block.1", x), model.block[1](model.block[0](first)))
            expect_close(answer(model, "block", x), model.block(first))
            expect_close(answer(model, "last", x), model(x))

    def test_leaves_the_model_alone(self, answer, rng):
        "the same model gives the same output afterwards"
        model, x = network(rng), torch.randn(2, 3, generator=rng)
        before = model(x)
        answer(model, "block.1", x)
        expect_close(model(x), before, note="The model computes something else after your function has run.")

    def test_removes_its_hook(self, answer, rng):
        "no hook is left on the model, and none of somebody else's is taken away"
        model, x = network(rng), torch.randn(2, 3, generator=rng)
        model.last.register_forward_hook(lambda module, inputs, output: None)
        answer(model, "block.1", x)
        left = hooks(model)
        expect(
            left == 1,
            "The model had one hook before, of somebody else's, and should have just that one.",
            actual=left,
            returned=f"{left} hooks",
            expected="1 hook",
        )

    def test_exception(self, answer, rng):
        "the hook is removed when the run ends with an exception"
        model = network(rng)
        try:
            answer(model, "first", torch.randn(2, 9, generator=rng))
        except AnswerRaised:
            pass
        else:
            raise Mismatch("The model can't take this input; its exception should come through.")
        left = hooks(model)
        expect(
            left == 0,
            "The run failed, and your hook is still on the model. It fires in every later run.",
            actual=left,
            returned=f"{left} hook left",
            expected="no hook left",
        )

    def test_gradients(self, answer, reference, rng):
        "gradients flow back through the recorded activation"
        model = network(rng)
        expect_same_gradients(
            lambda x: answer(model, "block.1", x),
            lambda x: reference(model, "block.1", x),
            torch.randn(2, 3, generator=rng),
            rng=rng,
        )

    def test_unknown_name(self, answer, rng):
        "a name that the model does not have raises AttributeError"
        expect_raises(AttributeError, answer, network(rng), "middle", torch.randn(2, 3, generator=rng))
