import torch

from utils.course.checking import expect_close, expect_raises, expect_same_gradients


class TestDouble:
    exercise = "double"

    def test_values(self, answer, reference, rng):
        "twice the input, for two shapes"
        for shape in ((3, 4), (5,)):
            x = torch.randn(shape, generator=rng)
            expect_close(answer(x), reference(x))

    def test_gradients(self, answer, reference, rng):
        "gradients flow"
        expect_same_gradients(answer, reference, torch.randn(4, generator=rng), rng=rng)


class TestQuadruple:
    exercise = "quadruple"

    def test_values(self, answer, reference, rng):
        "four times the input"
        x = torch.randn(2, 3, generator=rng)
        expect_close(answer(x), reference(x))


class TestScaffolded:
    exercise = "scaffolded"

    def test_values(self, answer, reference, rng):
        "plus one, doubled n times"
        x = torch.randn(2, 3, generator=rng)
        for n in (0, 1, 3):
            expect_close(answer(x, n), reference(x, n))

    def test_bad_input(self, answer):
        "x has to be something that one can be added to"
        expect_raises(TypeError, answer, "three", 1)


class TestScale:
    exercise = "Scale"

    def test_values(self, answer, rng):
        "weight and bias, both away from their defaults"
        module = answer(3)
        module.load({"w": torch.randn(3, generator=rng), "b": torch.randn(3, generator=rng)})
        x = torch.randn(4, 3, generator=rng)
        expect_close(module(x), module.state()["w"] * x + module.state()["b"])
