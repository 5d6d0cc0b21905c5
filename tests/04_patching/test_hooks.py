"""Checks of hooks and metrics: run_with_hooks, run_with_cache, logit_difference, normalized_patching_metric."""

from pathlib import Path

import torch

from utils.course.checking import AnswerRaised, expect, expect_close, expect_raises, expect_same_gradients
from utils.course.paths import load_file

common = load_file(Path(__file__).with_name("common.py"))
accepted, cases, counted, untouched = common.accepted, common.cases, common.counted, common.untouched


class Edit:
    """What a hook does, with a formula for the report's "called with"."""

    def __init__(self, formula, function):
        self.formula, self.function = formula, function

    def __call__(self, activation):
        return self.function(activation)

    def __repr__(self):
        return f"x -> {self.formula}"


PLUS_ONE = Edit("x + 1", lambda x: x + 1)


def expect_named(answer, model, tokens, hooks, name):
    """Expect a ValueError whose message has the hook point's name."""
    messages = []

    def run():
        try:
            return answer(model, tokens, hooks)
        except AnswerRaised as raised:
            messages.append(str(raised.__cause__))
            raise

    expect_raises(ValueError, run)
    expect(
        name in messages[0],
        "Your error does not say which hook point is meant. Among twenty names that is the first thing to know.",
        returned=repr(messages[0]),
        expected=f"a message with {name!r}",
        actual="no name",
    )


class TestRunWithHooks:
    exercise = "run_with_hooks"

    def test_without(self, answer, rng):
        "without hooks: the model's own output"
        for model, tokens, _ in cases(rng):
            for some in (tokens, tokens[:1, :1]):
                expect_close(answer(model, some, []), model(some))

    def test_replaced(self, answer, reference, rng):
        "what a hook returns goes on in place of what the submodule put out"
        for model, tokens, _ in cases(rng):
            for name in ("blocks.1.attn.hook_z", "blocks.1.mlp", "blocks.0"):
                hooks = [(name, Edit("0.3 * x.flip(0) - 1", lambda x: 0.3 * x.flip(0) - 1))]
                expect_close(answer(model, tokens, hooks), reference(model, tokens, hooks), note=f"Hook at {name!r}")

    def test_bypass(self, answer, reference, rng):
        "a tensor that also goes past the hook point goes on there as it was"
        model, tokens = common.Bypass(rng), torch.randint(7, (3, 5), generator=rng)
        hooks = [("hook", Edit("-x", lambda x: -x))]
        expect_close(
            answer(model, tokens, hooks), reference(model, tokens, hooks),
            note="What goes past the hook point has changed too",
        )  # fmt: skip

    def test_itself(self, answer, rng):
        "the very tensor that a hook returns goes on, and no copy of it"
        model, tokens = common.Recurrent(rng), torch.randint(7, (3, 5), generator=rng)
        returned, read = [], []

        def edit(activation):
            returned.append(activation + 1)
            return returned[-1]

        model.pair.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
        answer(model, tokens, [("hook", Edit("x + 1", edit))])
        expect(
            bool(returned) and bool(read) and read[-1] is returned[-1],
            "The module behind the hook point reads another tensor than the one that your hook returned: a copy. Who "
            "keeps what a hook returned, and asks for the gradient with respect to it, expects it to be the one that "
            "goes on.",
            actual="another tensor",
            returned="another tensor",
            expected="the tensor that the hook returned",
        )

    def test_several(self, answer, reference, rng):
        "several hooks: at several names, and one after the other at the same"
        for model, tokens, _ in cases(rng):
            hooks = [("hook_embed", PLUS_ONE), ("blocks.1.mlp.hook_post", Edit("2 * x", lambda x: 2 * x))]
            hooks += [("hook_embed", Edit("3 * x", lambda x: 3 * x))]
            hooks += [("blocks.0.hook_mlp_out", Edit("x.roll(1, 1)", lambda x: x.roll(1, 1)))]
            expect_close(answer(model, tokens, tuple(hooks)), reference(model, tokens, hooks))

    def test_gradients(self, answer, reference, rng):
        "gradients reach from the output back to what a hook put in"
        for model, tokens, _ in cases(rng):
            nudge = torch.zeros(model.W_E.shape[1], requires_grad=True)
            hooks = [("blocks.0.hook_mlp_out", Edit("x + nudge", lambda x, nudge=nudge: x + nudge))]
            expected = torch.autograd.grad(reference(model, tokens, hooks).square().sum(), nudge)[0]
            out, slope = answer(model, tokens, hooks), None
            if out.requires_grad:
                (slope,) = torch.autograd.grad(out.square().sum(), nudge, allow_unused=True)
            expect(slope is not None, "No gradient flows from the output back to the hook.", actual="cut graph")
            expect_close(slope, expected, rtol=1e-4, atol=1e-3)  # sums of some hundred terms of size one to ten

    def test_through(self, answer, reference, rng):
        "gradients reach through a hook what came before it"
        for model, tokens, _ in cases(rng):
            nudge = torch.zeros(model.W_E.shape[1], requires_grad=True)
            hooks = [("hook_embed", Edit("x + nudge", lambda x, nudge=nudge: x + nudge))]
            hooks += [("blocks.1.hook_resid_post", Edit("2 * x", lambda x: 2 * x))]
            expected = torch.autograd.grad(reference(model, tokens, hooks).square().sum(), nudge)[0]
            out, slope = answer(model, tokens, hooks), None
            if out.requires_grad:
                (slope,) = torch.autograd.grad(out.square().sum(), nudge, allow_unused=True)
            expect(slope is not None, "No gradient flows through a hook to what came before it.", actual="cut graph")
            expect_close(slope, expected, rtol=1e-4, atol=1e-2)

    def test_gone(self, answer, rng):
        "afterwards none of its hooks is left, and those that were there before still are"
        for model, tokens, _ in cases(rng):
            hooks = [("hook_embed", PLUS_ONE), ("blocks.1.hook_attn_out", Edit("0 * x", lambda x: 0 * x))]
            with untouched(model):
                answer(model, tokens, hooks)

    def test_once(self, answer, rng):
        "the model runs once"
        for model, tokens, _ in cases(rng):
            with counted(model) as rows:
                answer(model, tokens, [("hook_embed", PLUS_ONE)])
            runs = len(rows)
            # A run that lost the watcher's own hook counts as none, and is no business of this check.
            expect(runs <= 1, f"Your function runs the model {runs} times.", actual=runs, expected="1 run")

    def test_others(self, answer, reference, rng):
        "a hook that somebody else has put on the same submodule acts first"
        for model, tokens, _ in cases(rng):
            for name in ("hook_embed", "blocks.1.mlp"):
                model.get_submodule(name).register_forward_hook(lambda module, inputs, output: 0.5 * output - 1)
                hooks = [(name, Edit("x ** 2", lambda x: x.square()))]
                expected = reference(model, tokens, hooks)
                expect_close(answer(model, tokens, hooks), expected, note=f"Another hook was at {name!r} before")

    def test_twice(self, answer, reference, rng):
        "a submodule that runs twice is replaced twice"
        model, tokens = common.Twice(rng), torch.randint(7, (3, 5), generator=rng)
        for edit in (Edit("x + 1", lambda x: x + 1), Edit("-x", lambda x: -x)):
            expect_close(answer(model, tokens, [("hook", edit)]), reference(model, tokens, [("hook", edit)]))

    def test_gone_after_an_exception(self, answer, rng):
        "an exception in a hook comes through, and still no hook is left"

        def burst(activation):
            raise ZeroDivisionError("on purpose")

        for model, tokens, _ in cases(rng):
            hooks = [("blocks.0.hook_mlp_out", PLUS_ONE), ("blocks.1.hook_mlp_out", Edit("1 / 0", burst))]
            with untouched(model, " that ended with an exception"):
                expect_raises(ZeroDivisionError, answer, model, tokens, hooks)

    def test_unknown(self, answer, rng):
        "a name that the model does not have is refused, by its name, and nothing is left behind"
        for model, tokens, _ in cases(rng):
            for name in ("blocks.0.hook_mlp_outt", "hook_mlp_out"):
                with untouched(model, " with a wrong name"):
                    expect_named(answer, model, tokens, [("hook_embed", PLUS_ONE), (name, PLUS_ONE)], name)

    def test_silent(self, answer, rng):
        "a hook that never fires is refused, by its name, also where others have fired"
        for model, tokens, _ in cases(rng):
            silent = ("not_run", PLUS_ONE)
            for hooks in ([silent], [("hook_embed", PLUS_ONE), silent]):
                with untouched(model):
                    expect_named(answer, model, tokens, hooks, "not_run")

    def refused(self, answer, rng, *edits):
        for model, tokens, _ in cases(rng):
            for edit in edits:
                with untouched(model, " that ended with an exception"):
                    expect_named(answer, model, tokens, [("blocks.0.hook_mlp_out", edit)], "blocks.0.hook_mlp_out")

    def test_returned(self, answer, rng):
        "a hook that returns no tensor is refused, by its name"
        self.refused(answer, rng, Edit("None", lambda x: None), Edit("0.0", lambda x: 0.0))

    def test_shape(self, answer, rng):
        "a hook that returns a tensor of another shape is refused, by its name"
        edits = Edit("x[:1]", lambda x: x[:1]), Edit("x[..., :1]", lambda x: x[..., :1]), Edit("x.mT", lambda x: x.mT)
        self.refused(answer, rng, *edits, Edit("x[0]", lambda x: x[0]))

    def test_tuple(self, answer, rng):
        "a submodule that puts out a tuple is refused, by its name"
        model, tokens = common.Recurrent(rng), torch.randint(7, (3, 5), generator=rng)
        for edit in (Edit("x", lambda x: x), Edit("zeros [3, 5, 4]", lambda x: torch.zeros(3, 5, 4))):
            with untouched(model, " that ended with an exception"):
                expect_named(answer, model, tokens, [("hook", PLUS_ONE), ("pair", edit)], "pair")


class TestRunWithCache:
    exercise = "run_with_cache"
    # In another order than the model's, whose own differs from that of its list of modules.
    NAMES = (
        "blocks.1.hook_resid_post",
        "hook_embed",
        "blocks.0.attn.hook_z",
        "blocks.1.mlp",
        "blocks.0.hook_resid_pre",
    )

    def run_once(self, answer, model, tokens, names):
        with counted(model) as rows:
            result = answer(model, tokens, names)
        runs = len(rows)
        expect(runs <= 1, f"Your function runs the model {runs} times.", actual=runs, expected="1 run")
        return result

    def test_values(self, answer, reference, rng):
        "the outputs of the submodules that were asked for, and of no others"
        for model, tokens, _ in cases(rng):
            result = answer(model, tokens, self.NAMES)
            expect(isinstance(result, tuple) and len(result) == 2, "Return the output and the cache.", actual=result)
            expect_close(result[1], reference(model, tokens, self.NAMES)[1])

    def test_result(self, answer, rng):
        "the model's output is what it is without a cache, and one run is enough"
        for model, tokens, _ in cases(rng):
            for names in ([], ["hook_embed"], list(self.NAMES)):
                expect_close(self.run_once(answer, model, tokens, names)[0], model(tokens))

    def test_order(self, answer, rng):
        "the cache has these names, in their order"
        for model, tokens, _ in cases(rng):
            for names in (self.NAMES, self.NAMES[2:], []):
                keys = list(answer(model, tokens, names)[1])
                expect_close(keys, list(names), note="The cache's names are not `names` in their order.")

    def test_gradients(self, answer, reference, rng):
        "what is kept is what the run went on with: gradients reach it from the output, on every way"
        names = ["blocks.0.hook_mlp_out", "hook_embed"]

        def slopes(logits, cache):
            return torch.autograd.grad(logits.square().sum(), [cache[name] for name in names], allow_unused=True)

        for model, tokens, _ in cases(rng):
            # Not counted: a hook that sees the output, before the cache is there, knows no way from one to the other.
            logits, cache = answer(model, tokens, names)
            expect_close(cache, reference(model, tokens, names)[1])
            kept = all(cache[name].requires_grad for name in names)
            expect(kept, "What you keep is cut off the graph.", actual="cut")
            expect(logits.requires_grad, "The output that you return is cut off the graph.", actual="cut output")
            found = slopes(logits, cache)
            expect(
                all(slope is not None for slope in found),
                "No gradient flows from the output to what you kept: the run went on with another tensor.",
                actual="a copy",
            )
            expect_close(
                found, slopes(*reference(model, tokens, names)), rtol=1e-4, atol=1e-3,
                note="The gradient with respect to what you keep differs: one of the ways to the output is cut",
            )  # fmt: skip

    def test_unknown(self, answer, rng):
        "a name that is not there is refused"
        for model, tokens, _ in cases(rng):
            common.expect_refused(answer, model, tokens, ["hook_embed", "blocks.7.hook_mlp_out"])

    def test_silent(self, answer, rng):
        "a name that is there and never runs is refused"
        for model, tokens, _ in cases(rng):
            for names in (["not_run"], ["hook_embed", "not_run"]):
                common.expect_refused(answer, model, tokens, names)

    def test_tuple(self, answer, rng):
        "a submodule that puts out a tuple is refused"
        model, tokens = common.Recurrent(rng), torch.randint(7, (3, 5), generator=rng)
        common.expect_refused(answer, model, tokens, ["hook", "pair"])

    def test_others(self, answer, reference, rng):
        "what a hook that somebody else has put there returns is what is kept"
        for model, tokens, _ in cases(rng):
            for name in ("hook_embed", "blocks.1.mlp"):
                model.get_submodule(name).register_forward_hook(lambda module, inputs, output: 0.5 * output - 1)
                expected = reference(model, tokens, [name])[1]
                expect_close(answer(model, tokens, [name])[1], expected, note="Another hook was there before")

    def test_twice(self, answer, reference, rng):
        "of a submodule that runs twice, the last output is kept"
        model, tokens = common.Twice(rng), torch.randint(7, (3, 5), generator=rng)
        expect_close(answer(model, tokens, ["hook"]), reference(model, tokens, ["hook"]))

    def test_gone(self, answer, rng):
        "no hook is left, also when the model fails"
        for model, tokens, _ in cases(rng):
            with untouched(model):
                answer(model, tokens, self.NAMES)
            too_long = torch.zeros(1, 2 * len(model.W_pos), dtype=torch.long)
            with untouched(model, " that ended with an exception"):
                expect_raises(RuntimeError, answer, model, too_long, ["hook_embed"])


def logit_cases(rng, dtype=torch.float32):
    for batch, pos, d_vocab in ((4, 6, 9), (7, 3, 5), (1, 1, 2)):
        logits = 3 * torch.randn(batch, pos, d_vocab, generator=rng, dtype=dtype)
        answers = torch.randint(d_vocab, (batch,), generator=rng)
        foils = (answers + 1 + torch.randint(d_vocab - 1, (batch,), generator=rng)) % d_vocab
        # The first prompt doesn't end in the last column: whoever takes its end for everybody's would read that.
        start = int(torch.randint(max(pos - 1, 1), (), generator=rng))
        yield logits, answers, foils, (torch.arange(batch) + start) % pos


class TestLogitDifference:
    exercise = "logit_difference"

    def test_values(self, answer, reference, rng):
        "one number a prompt: answer minus foil, at the prompt's own position"
        for case in logit_cases(rng):
            expect_close(answer(*case), reference(*case))

    def test_swap(self, answer, rng):
        "answer and foil exchanged: the same with the other sign"
        for logits, answers, foils, positions in logit_cases(rng):
            there, back = answer(logits, answers, foils, positions), answer(logits, foils, answers, positions)
            expect_close(there, -back)

    def test_shift(self, answer, rng):
        "a constant added to all logits of a position changes nothing"
        for logits, answers, foils, positions in logit_cases(rng, torch.float64):
            shift = 5 * torch.randn(*logits.shape[:2], 1, generator=rng, dtype=torch.float64)
            expect_close(
                answer(logits + shift, answers, foils, positions), answer(logits, answers, foils, positions),
                rtol=1e-9, atol=1e-9,
            )  # fmt: skip

    def test_far_apart(self, answer, reference, rng):
        "logits so far apart that the probability of one of them rounds to zero"
        for logits, answers, foils, positions in logit_cases(rng):
            case = 200 * logits, answers, foils, positions
            expect_close(answer(*case), reference(*case), rtol=1e-5, atol=1e-2)

    def test_gradients(self, answer, reference, rng):
        "gradients reach the logits, and float64 stays float64"
        for case in logit_cases(rng, torch.float64):
            expect_close(answer(*case), reference(*case), dtype=True)
            expect_same_gradients(answer, reference, *case, rng=rng)

    def outside(self, answer, rng, bad):
        for logits, answers, foils, positions in logit_cases(rng):
            for row in (0, 2):
                wrong = positions.clone()
                wrong[row % len(wrong)] = bad if bad < 0 else logits.shape[1]
                expect_raises(ValueError, answer, logits, answers, foils, wrong)

    def test_negative(self, answer, rng):
        "a negative position is refused"
        self.outside(answer, rng, -1)

    def test_behind_the_end(self, answer, rng):
        "a position behind the last one is refused"
        self.outside(answer, rng, 1)


def metric_cases(rng, dtype=torch.float32):
    for shape in ((4, 3, 5), (6, 2), (7,), (1,)):
        clean, corrupted = (torch.randn(shape[-1:], generator=rng, dtype=dtype) for _ in range(2))
        clean, corrupted = 0.3 * clean + 4, 0.3 * corrupted + 1
        yield 3 * torch.randn(shape, generator=rng, dtype=dtype), clean, corrupted
        yield 3 * torch.randn(shape, generator=rng, dtype=dtype), corrupted, clean


class TestNormalizedPatchingMetric:
    exercise = "normalized_patching_metric"

    def test_endpoints(self, answer, rng):
        "the clean run scores 1, the corrupted one 0, half-way 0.5"
        for _, clean, corrupted in metric_cases(rng):
            patched = torch.stack([clean, corrupted, (clean + corrupted) / 2])
            expect_close(accepted(answer, patched, clean, corrupted), torch.tensor([1.0, 0.0, 0.5]), atol=1e-5)

    def test_values(self, answer, reference, rng):
        "one share for each patch, whatever the leading dimensions, also below 0 and above 1"
        for case in metric_cases(rng):
            expect_close(accepted(answer, *case), reference(*case), rtol=1e-4, atol=1e-5)

    def test_a_prompt_without_gap(self, answer, reference, rng):
        "a prompt on which the two runs agree, nearly or wholly, does not decide the result"
        for patched, clean, corrupted in metric_cases(rng):
            for own_gap in (1e-3, 0.0) if len(clean) > 1 else ():
                clean = clean.clone()
                clean[0] = corrupted[0] + own_gap
                found = accepted(answer, patched, clean, corrupted)
                expect_close(
                    found, reference(patched, clean, corrupted), rtol=1e-4, atol=1e-5,
                    note="One prompt on which clean and corrupted agree is enough to spoil your shares.",
                )  # fmt: skip

    def test_affine(self, answer, rng):
        "units do not matter: a metric that is scaled and shifted gives the same shares"
        for patched, clean, corrupted in metric_cases(rng, torch.float64):
            moved = [-2.5 * x + 7 for x in (patched, clean, corrupted)]
            expect_close(accepted(answer, *moved), accepted(answer, patched, clean, corrupted), rtol=1e-8, atol=1e-8)

    def test_gradients(self, answer, reference, rng):
        "gradients reach the patched metric"
        for patched, clean, corrupted in metric_cases(rng, torch.float64):
            expect_same_gradients(
                lambda x, c=clean, k=corrupted: accepted(answer, x, c, k),
                lambda x, c=clean, k=corrupted: reference(x, c, k),
                patched,
                rng=rng,
            )

    def test_no_gap(self, answer, rng):
        "two runs with the same mean are refused"
        patched = torch.randn(3, 4, generator=rng)
        same = torch.randn(4, generator=rng)
        expect_raises(ValueError, answer, patched, same, same.clone())
        expect_raises(ValueError, answer, patched, same, same.flip(0) + 1e-8)
        for gap in (5e-7, -5e-7):
            expect_raises(ValueError, answer, patched.double(), same.double() + gap, same.double())

    def test_small_gap(self, answer, reference, rng):
        "a small gap of either sign is a gap"
        for gap in (1e-3, -1e-3):
            corrupted = torch.randn(4, generator=rng, dtype=torch.float64)
            case = (torch.randn(3, 4, generator=rng, dtype=torch.float64), corrupted + gap, corrupted)
            expect_close(accepted(answer, *case), reference(*case), rtol=1e-6)
