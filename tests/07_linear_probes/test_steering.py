"""Checks for setting activations along a direction, and for comparing a probe with a gradient."""

import torch
from torch import nn

from utils.course.checking import expect, expect_close, expect_raises, expect_shape
from utils.patching.networks import SmallTransformer

CLOSE = {"rtol": 1e-3, "atol": 1e-4}
NAME = "blocks.0.hook_resid_post"


def cases(rng):
    for i, sizes in enumerate(({"n_layers": 2}, {"n_layers": 3, "d_model": 5, "n_heads": 2, "d_head": 3})):
        model = SmallTransformer(rng, **sizes)
        tokens = torch.randint(len(model.W_E), (3 + i, 5 + i), generator=rng)
        positions = torch.randint(tokens.shape[1], (len(tokens),), generator=rng)
        positions[0], positions[1] = 0, tokens.shape[1] - 1
        yield model, tokens, positions, model.W_E.shape[1]


def metric(logits):
    return logits[:, -1, 2] - 0.5 * logits[:, -1, 0]


class Stream(nn.Module):
    """Embeddings that pass a hook point and come out as they are; the same tensor also goes past."""

    def __init__(self, rng, d=4):
        super().__init__()
        self.W_E, self.hook = nn.Parameter(torch.randn(7, d, generator=rng)), nn.Identity()

    def forward(self, tokens):
        stream = self.W_E[tokens] * 1.0
        passed = self.hook(stream)
        return torch.cat([passed, stream], dim=-1)


class TestSteerWithProbe:
    exercise = "steer_with_probe"

    def test_values(self, answer, reference, rng):
        "several directions of other lengths, several doses, another position in each prompt"
        for model, tokens, positions, d in cases(rng):
            directions = torch.randn(3, d, generator=rng) * torch.tensor([[2.0], [0.3], [5.0]])
            doses = torch.tensor([-2.0, 0.0, 0.5, 3.0])
            case = model, tokens, NAME, directions, torch.randn(d, generator=rng), doses, metric, positions
            expect_close(answer(*case), reference(*case), **CLOSE)

    def test_one(self, answer, reference, rng):
        "one direction, one dose: three dimensions all the same"
        for model, tokens, positions, d in cases(rng):
            case = model, tokens, NAME, torch.randn(1, d, generator=rng), torch.randn(d, generator=rng)
            case = *case, torch.tensor([1.5]), metric, positions
            expect_shape(answer(*case), (1, 1, len(tokens)))
            expect_close(answer(*case), reference(*case), **CLOSE)

    def test_where_it_ends(self, answer, rng):
        "dose 1 is half a length of the first direction from the centre, whatever was there; the rest stays"
        model, tokens, positions = Stream(rng), torch.randint(7, (3, 5), generator=rng), torch.tensor([4, 0, 2])
        directions, centre = torch.tensor([[0.0, 6.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.1]]), torch.tensor([9.0, 1, 2, 3])
        for row, entry in ((0, 1), (1, 3)):
            for other in range(4):
                values = answer(
                    model, tokens, "hook", directions, centre, torch.tensor([1.0, -1.0]),
                    lambda out, at=other: out[torch.arange(3), positions, at], positions,
                )  # fmt: skip
                before = model.W_E[tokens].detach()[torch.arange(3), positions, other]
                if other == entry:
                    ends = centre[entry] + torch.tensor([[3.0], [-3.0]]).expand(2, 3)
                    expect_close(values[row], ends, note="The activations end elsewhere along the direction.", **CLOSE)
                else:
                    expect_close(values[row], before.expand(2, 3), note="Something else has moved.", **CLOSE)

    def test_past_the_hook(self, answer, rng):
        "other positions stay, and so does a tensor that goes past the hook point"
        model, tokens, positions = Stream(rng), torch.randint(7, (3, 5), generator=rng), torch.tensor([4, 0, 2])
        seen = []

        def watch(out):
            seen.append(out.detach().clone())
            return out.sum((1, 2))

        answer(
            model, tokens, "hook", torch.randn(2, 4, generator=rng), torch.zeros(4), torch.tensor([2.0]), watch,
            positions,
        )  # fmt: skip
        expect(len(seen) == 2, "The metric is to be asked once for each direction and dose.", actual=len(seen))
        elsewhere = torch.ones(3, 5, dtype=torch.bool)
        elsewhere[torch.arange(3), positions] = False
        for out in seen:
            expect_close(out[..., 4:], model.W_E[tokens].detach(), note="What goes past the hook point has changed.")
            expect_close(out[elsewhere][:, :4], model.W_E[tokens].detach()[elsewhere], note="Other positions moved.")

    def test_other_hooks(self, answer, reference, rng):
        "other hooks act in the same runs, and first"
        for model, tokens, positions, d in cases(rng):
            hooks = [(NAME, lambda x: 2 * x + 1), ("blocks.1.hook_resid_post", lambda x: -x)]
            case = model, tokens, NAME, torch.randn(2, d, generator=rng), torch.randn(d, generator=rng)
            case = *case, torch.tensor([1.0, -3.0]), metric, positions
            expect_close(answer(*case, hooks=hooks), reference(*case, hooks=hooks), **CLOSE)

    def test_no_graph(self, answer, rng):
        "the result carries no graph, and the model is as it was"
        for model, tokens, positions, d in cases(rng):
            before = model(tokens).detach()
            case = model, tokens, NAME, torch.randn(2, d, generator=rng), torch.randn(d, generator=rng)
            found = answer(*case, torch.tensor([1.0]), metric, positions)
            expect_shape(found, (2, 1, len(tokens)))
            expect(not found.requires_grad, "The result holds on to a graph.", actual="graph")
            expect_close(model(tokens).detach(), before, note="The model puts out something else afterwards.")

    def test_bad_input(self, answer, rng):
        "positions outside the prompts and directions of length 0 are refused"
        for model, tokens, positions, d in cases(rng):
            directions, centre, doses = torch.randn(2, d, generator=rng), torch.zeros(d), torch.ones(1)
            for wrong in (-1, tokens.shape[1]):
                at = positions.clone()
                at[-1] = wrong
                expect_raises(ValueError, answer, model, tokens, NAME, directions, centre, doses, metric, at)
            directions = torch.stack([directions[0], torch.zeros(d)])
            expect_raises(ValueError, answer, model, tokens, NAME, directions, centre, doses, metric, positions)


class TestProbeVsGradientDirection:
    exercise = "probe_vs_gradient_direction"

    def test_values(self, answer, reference, rng):
        "each prompt's own gradient, at its own position"
        for model, tokens, positions, d in cases(rng):
            case = model, tokens, NAME, 3 * torch.randn(d, generator=rng), metric, positions
            expect_close(answer(*case), reference(*case), **CLOSE)

    def test_known(self, answer, rng):
        "1 along what is read, -1 against it, 0 beside it, whatever the lengths"
        model, tokens, positions = Stream(rng), torch.randint(7, (2, 3), generator=rng), torch.tensor([2, 1])
        read = torch.tensor([1.0, -2.0, 0.0, 0.5])

        def metric(out):
            return 5 * out[torch.arange(2), positions, :4] @ read

        for direction, cosine in ((7 * read, 1.0), (-0.1 * read, -1.0), (torch.tensor([0.0, 0, 3, 0]), 0.0)):
            found = answer(model, tokens, "hook", direction, metric, positions)
            expect_close(found, torch.full((2,), cosine), atol=1e-5)

    def test_nothing_is_read(self, answer, rng):
        "0, and not NaN, for a prompt whose metric does not depend on the position"
        model, tokens = Stream(rng), torch.randint(7, (2, 3), generator=rng)

        def metric(out):
            return out[:, 1, 0] * 2.0

        found = answer(model, tokens, "hook", torch.tensor([1.0, 0, 0, 0]), metric, torch.tensor([1, 2]))
        expect_close(found, torch.tensor([1.0, 0.0]), atol=1e-5)

    def test_small_gradients(self, answer, rng):
        "a gradient of 1e-10 has a direction like any other"
        model, tokens, positions = Stream(rng), torch.randint(7, (2, 3), generator=rng), torch.tensor([2, 1])

        def metric(out):
            return 1e-10 * out[torch.arange(2), positions, 0]

        found = answer(model, tokens, "hook", torch.tensor([1.0, 1.0, 0, 0]), metric, positions)
        expect_close(found, torch.full((2,), 0.5**0.5), atol=1e-4)

    def test_without_gradients(self, answer, reference, rng):
        "frozen weights, gradients switched off, and no graph in the result"
        for model, tokens, positions, d in cases(rng):
            model.requires_grad_(False)
            case = model, tokens, NAME, torch.randn(d, generator=rng), metric, positions
            with torch.no_grad():
                found = answer(*case)
            expect_close(found, reference(*case), **CLOSE)
            expect(not found.requires_grad, "The result holds on to a graph.", actual="graph")
            asking = [name for name, weight in model.named_parameters() if weight.requires_grad]
            expect(not asking, "The model's frozen weights ask for gradients afterwards.", actual="not frozen")

    def test_no_weight_is_touched(self, answer, rng):
        "no weight has a gradient afterwards"
        for model, tokens, positions, d in cases(rng):
            answer(model, tokens, NAME, torch.randn(d, generator=rng), metric, positions)
            left = [name for name, weight in model.named_parameters() if weight.grad is not None]
            expect(not left, "Gradients have been left on the model's weights.", actual="left on weights")
