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
    expect_shape,
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
        "the dtype is that of x, and the memory layout does not matter"
        for dtype in (torch.float64, torch.float32):
            x = torch.randn(5, 2, 3, generator=rng, dtype=dtype).permute(1, 2, 0)
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
        model.block.eval()
        before, modes = model(x), [module.training for module in model.modules()]
        answer(model, "block.1", x)
        expect_close(model(x), before, note="The model computes something else after your function has run.")
        expect(
            [module.training for module in model.modules()] == modes,
            "The model was in training mode, one of its blocks was not, and your function changed that.",
            actual=[module.training for module in model.modules()],
            expected="the modes as they were",
        )

    def test_one_run(self, answer, rng):
        "the model runs once, as it would without you: with its own output and everybody's hooks"
        model, x, outputs = network(rng), torch.randn(2, 3, generator=rng), []
        model.register_forward_pre_hook(lambda module, inputs: (2 * inputs[0],))
        model.register_forward_hook(lambda module, inputs, output: outputs.append(output))
        runs, handed_on = [], []
        model.block[1].register_forward_hook(lambda module, inputs, output: runs.append(1))
        model.block[2].register_forward_pre_hook(lambda module, inputs: handed_on.append(inputs[0]))
        recorded = answer(model, "block.1", x)
        n_runs = len(runs)
        expect_close(
            recorded,
            model.block[:2](model.first(2 * x)),
            note="Somebody's hook on the model doubles its input; it should do so in your run as well.",
        )
        expect(
            len(outputs) == 1,
            "A hook on the model itself should have fired once, in one call of the model.",
            actual=len(outputs),
            returned=f"{len(outputs)} calls",
            expected="1 call",
        )
        expect(
            n_runs == 1,
            "The submodule itself should run once, as a part of this one call.",
            actual=("runs of the submodule", n_runs),
            returned=f"{n_runs} runs",
            expected="1 run",
        )
        listening = "Listening changed the model's own output: what a hook returns replaces it."
        expect_close(outputs[0], model(x), note=listening)
        expect_close(handed_on[0], recorded, note="The next module was handed something else than what was recorded.")
        expect(
            handed_on[0].requires_grad or not recorded.requires_grad,
            "What your hook hands on has no graph any more: what a hook returns replaces the module's output.",
            actual="handed on without a graph",
            returned="an output that was cut off",
        )

    def test_mode(self, answer, rng):
        "a model in training mode runs in training mode: its dropout drops"
        model = nn.Sequential(nn.Linear(3, 64), nn.Dropout(0.5), nn.Linear(64, 2))
        model[0].bias.data.fill_(1.0)
        recorded = answer(model, "1", torch.randn(2, 3, generator=rng))
        expect_shape(recorded, (2, 64))
        n_dropped = int((recorded == 0).sum())
        expect(
            n_dropped > 0,
            "The model was given in training mode, where its dropout sets half of the numbers to 0, and none of the "
            "128 is: it ran in another mode.",
            actual=n_dropped,
            returned="no number set to 0",
            expected="about half of them",
        )

    def test_removes_its_hook(self, answer, rng):
        "no hook is left on the model, and none of somebody else's is taken away"
        model, x = network(rng), torch.randn(2, 3, generator=rng)
        for module in (model.last, model.block[1]):
            module.register_forward_hook(lambda module, inputs, output: None)
        answer(model, "block.1", x)
        left = hooks(model)
        expect(
            left == 2,
            "The model had two hooks before, of somebody else's, one of them on this submodule, and should have these.",
            actual=left,
            returned=f"{left} hook{'s' if left != 1 else ''}",
            expected="2 hooks",
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

    def test_weights(self, answer, reference, rng):
        "gradients reach the weights of the model that was given, and these stay trainable"
        model, x = network(rng), torch.randn(2, 3, generator=rng)
        recorded = answer(model, "block.1", x)
        expect_shape(recorded, (2, 5))
        asks = [parameter.requires_grad for parameter in model.parameters()]
        expect(all(asks), "After the run some of the model's parameters ask for no gradient any more.", actual=asks)
        parameters = [model.first.weight, model.block[1].bias]
        found = [None, None]
        if recorded.requires_grad:
            found = torch.autograd.grad(recorded.sum(), parameters, allow_unused=True)
        expect(
            all(gradient is not None for gradient in found),
            "No gradient reaches the model's own weights: it is not this model that was run, or its graph is cut.",
            actual=[gradient is not None for gradient in found],
            returned="no gradient",
            expected="a gradient",
        )
        wanted = torch.autograd.grad(reference(model, "block.1", x).sum(), parameters)
        for gradient, ours in zip(found, wanted, strict=True):
            expect_close(gradient, ours, note="The gradient for the model's weights differs")

    def test_unknown_name(self, answer, rng):
        "a name that the model does not have raises AttributeError"
        for name in ("middle", "1"):  # there is a block.1
            expect_raises(AttributeError, answer, network(rng), name, torch.randn(2, 3, generator=rng))
