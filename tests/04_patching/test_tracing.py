"""Checks of causal tracing, the patch that explains nothing, the rank-one edit, and steering."""

import contextlib
from pathlib import Path
from unittest import mock

import torch

from utils.course.checking import expect, expect_close, expect_raises, expect_shape
from utils.course.paths import load_file
from utils.patching import tracing

common = load_file(Path(__file__).with_name("common.py"))
cases, counted, drawn_positions = common.cases, common.counted, common.drawn_positions
expect_refused, metric_of, untouched, CLOSE = (
    common.expect_refused, common.metric_of, common.untouched, common.CLOSE
)  # fmt: skip
# Everything in float64, optimisers included: rounding in another order stays far below this.
DOUBLE = {"rtol": 1e-6, "atol": 1e-7}


class TestCorruptWithNoise:
    exercise = "corrupt_with_noise"

    def inputs(self, rng, n=40, d_model=50):
        """Embeddings of six tokens a prompt, two of which, drawn for each prompt, are the subject's."""
        return torch.randn(n, 6, d_model, generator=rng), torch.rand(n, 6, generator=rng).argsort(1) < 2

    def test_outside(self, answer, rng):
        "tokens outside the subject stay as they are, to the bit, and the subject's do not"
        embeddings, subject = self.inputs(rng)
        noisy = answer(embeddings, subject, 2.0, rng)
        expect_shape(noisy, embeddings.shape)
        gone = bool((noisy[~subject] == 0).all())
        expect(not gone, "Tokens outside the subject came back as zeros: is it the noise alone?", actual=noisy)
        changed = (noisy != embeddings).any(-1)
        expect((changed <= subject).all(), "Tokens outside the subject were changed.", actual=changed)
        expect((changed >= subject).all(), "Some of the subject's tokens were left as they were.", actual=changed)

    def test_size(self, answer, rng):
        "the noise is Gaussian with mean 0 and the standard deviation asked for, whatever that of the embeddings is"
        for std, scale in ((0.5, 1.0), (3.0, 0.2)):
            embeddings, subject = self.inputs(rng, 100, 100)
            embeddings = scale * embeddings
            noisy = answer(embeddings, subject, std, rng)
            expect_shape(noisy, embeddings.shape)
            z = (noisy - embeddings)[subject] / std  # 20,000 numbers
            moments = torch.stack([z.mean(), z.square().mean(), z.pow(4).mean()])
            # Between five and six standard errors of the three moments: 0.0071, 0.01 and 0.069.
            off = (moments - torch.tensor([0.0, 1.0, 3.0])).abs() > torch.tensor([0.038, 0.055, 0.4])
            expect(
                not off.any(),
                "In units of std, your noise has mean, mean square and mean fourth power "
                f"{[round(x, 2) for x in moments.tolist()]}; Gaussian noise has 0, 1 and 3.",
                actual=moments,
            )

    def test_independent(self, answer, rng):
        "independent noise for every prompt, every token and every entry"
        embeddings, subject = torch.randn(40, 6, 50, generator=rng), torch.arange(6).expand(40, 6) // 2 == 1
        noisy = answer(embeddings, subject, 1.0, rng)
        expect_shape(noisy, embeddings.shape)
        added = (noisy - embeddings)[:, 2:4]
        pairs = {
            "the two tokens of a subject": (added[:, 0], added[:, 1]),
            "neighbouring prompts": (added[1:], added[:-1]),
            "neighbouring entries": (added[..., 1:], added[..., :-1]),
        }
        for what, (x, y) in pairs.items():
            # Of 2,000 pairs or more: a standard error of 0.022 at most.
            correlation = ((x * y).mean() / (x.square().mean() * y.square().mean()).sqrt()).item()
            expect(
                abs(correlation) < 0.15,
                f"The noise of {what} has a correlation of {correlation:.2f}; independent noise has one of nearly 0.",
                actual=round(correlation, 2),
            )

    def test_seed(self, answer, rng):
        "the generator decides"
        embeddings, subject = self.inputs(rng)
        first, again, other = (answer(embeddings, subject, 1.0, torch.Generator().manual_seed(s)) for s in (8, 8, 9))
        same, equal = torch.equal(first, again), torch.equal(first, other)
        expect(same, "The same seed gave other noise: something draws from elsewhere.", actual=same)
        expect(not equal, "Two seeds gave the same noise.", actual=equal)
        once, again = (answer(embeddings, subject, 1.0, rng) for _ in range(2))
        repeated = torch.equal(once, again)
        expect(not repeated, "Two draws from one generator are the same draw.", actual=repeated)

    def test_no_noise(self, answer, rng):
        "no noise leaves everything; half and double precision stay what they are"
        for dtype in (torch.float32, torch.float64, torch.float16):
            embeddings = torch.randn(2, 3, 4, generator=rng, dtype=dtype)
            subject = torch.tensor([[True, False, False], [False, True, True]])
            expect_close(answer(embeddings, subject, 0.0, rng), embeddings, dtype=True)

    def test_negative(self, answer, rng):
        "a negative size is refused"
        embeddings, subject = self.inputs(rng, 3, 4)
        for std in (-1.0, -1e-3):
            expect_raises(ValueError, answer, embeddings, subject, std, rng)

    def test_no_subject(self, answer, rng):
        "a prompt without a subject is refused, be it all of them or one of many"
        embeddings, subject = self.inputs(rng, 3, 4)
        subject[1] = False
        for without in (torch.zeros_like(subject), subject):
            expect_raises(ValueError, answer, embeddings, without, 1.0, rng)


@contextlib.contextmanager
def overheard(model, tokens, subject, embedding="hook_embed"):
    """The different embeddings, drowned at the subject, that the runs inside go on with, read at the next block."""
    behind, added = ("blocks.0", model.W_pos[: tokens.shape[1]]) if embedding == "hook_embed" else ("blocks.1", 0.0)
    clean, seen = common.kept(model, tokens, [embedding])[embedding], []

    def listen(module, inputs):
        for copy in (inputs[0] - added).detach().split(len(tokens)):
            if copy.shape != clean.shape or not torch.allclose(copy[~subject], clean[~subject], atol=1e-5):
                continue
            if not any(torch.allclose(copy, x, atol=1e-5) for x in (clean, *seen)):
                seen.append(copy)

    handle = model.get_submodule(behind).register_forward_pre_hook(listen)
    try:
        yield seen
    finally:
        handle.remove()


class TestCausalTrace:
    exercise = "causal_trace"

    def inputs(self, rng, kind="hook_mlp_out", which=slice(None)):
        for model, tokens, _ in list(cases(rng, n_layers=3))[which]:
            start = torch.randint(1, 3, (len(tokens), 1), generator=rng)
            at = torch.arange(tokens.shape[1])
            subject = (at >= start) & (at < start + 2)
            names = [f"blocks.{layer}.{kind}" for layer in range(len(model.blocks))]
            positions = torch.stack([start[:, 0] + 1, drawn_positions(rng, tokens)])
            yield model, tokens, subject, names, positions, metric_of(tokens)

    def traced(self, answer, reference, *case, embedding="hook_embed", **settings):
        """The answer's result, and the reference's with the same noise, in whatever order the answer drew it."""
        settings = {"std": 1.5, "n_draws": 1, "embedding": embedding} | settings
        with overheard(*case[:3], embedding) as draws:
            theirs = answer(*case, generator=torch.Generator().manual_seed(4), **settings)
        with contextlib.ExitStack() as stack:
            if len(draws) == settings["n_draws"]:
                stack.enter_context(mock.patch.object(tracing, "corrupt_with_noise", side_effect=draws))
            ours = reference(*case, generator=torch.Generator().manual_seed(4), **settings)
        return theirs, ours

    def compare(self, answer, reference, rng, parts, *, kind="hook_mlp_out", which=slice(None), **settings):
        for case in self.inputs(rng, kind, which):
            theirs, ours = self.traced(answer, reference, *case, **settings)
            for part in parts:
                expect(isinstance(theirs, dict) and part in theirs, f"Return a dict with {part!r}.", actual=theirs)
                expect_close(theirs[part], ours[part], note=f"The entry {part!r} differs", **CLOSE)

    def test_values(self, answer, reference, rng):
        "the run without noise, the run with it, and one site restored at a time, at each prompt's own position"
        self.compare(answer, reference, rng, ("clean", "noisy", "restored"))

    def test_draws(self, answer, reference, rng):
        "means over several draws, each used for all runs"
        self.compare(answer, reference, rng, ("noisy", "restored"), which=slice(1), n_draws=2)

    def test_embedding(self, answer, reference, rng):
        "noise at another hook point"
        for model, tokens, subject, names, positions, metric in self.inputs(rng, which=slice(1)):
            theirs, ours = self.traced(
                answer, reference, model, tokens, subject, names[-1:], positions[:1], metric,
                embedding="blocks.0.hook_resid_post",
            )  # fmt: skip
            expect_close(theirs["noisy"], ours["noisy"], note="The entry 'noisy' differs", **CLOSE)

    def test_noise(self, answer, rng):
        "every draw is noise of its own on the clean embeddings, and the first is the same however many follow"
        for model, tokens, subject, names, positions, metric in self.inputs(rng, which=slice(1)):
            tokens, subject, positions = tokens.repeat(7, 1), subject.repeat(7, 1), positions.repeat(1, 7)
            with torch.no_grad():
                model.W_E *= 4  # so that the embeddings' own size is not that of the noise
            clean, found = common.kept(model, tokens, ["hook_embed"])["hook_embed"], []
            for n_draws in (1, 3):
                generator = torch.Generator().manual_seed(4)
                with overheard(model, tokens, subject) as draws:
                    answer(
                        model, tokens, subject, names[:1], positions[:1], metric, std=1.5, n_draws=n_draws,
                        generator=generator,
                    )  # fmt: skip
                found.append(draws)
            if [len(draws) for draws in found] != [1, 3]:
                continue  # drawn or stacked in another way: the values are compared above
            for draw in found[1]:
                added = (draw - clean) / 1.5
                drowned = bool((added.abs() > 1e-4).any(-1)[subject].all())
                expect(drowned, "Some of the subject's tokens have no noise.", actual=added)
                # The mean of 252 squares has a standard error of 0.09.
                size = added[subject].square().mean().item()
                expect(
                    abs(size - 1) < 0.5,
                    f"In units of std, the noise of a draw has mean square {size:.2f}; it should be nearly 1 in each.",
                    actual=size,
                )
            same = any(torch.allclose(found[0][0], draw, atol=1e-5) for draw in found[1])
            expect(same, "With the same seed, the noise of a single draw is none of that of three.", actual=found[1])

    def test_window(self, answer, reference, rng):
        "windows of two and three layers, cut off at the ends"
        self.compare(answer, reference, rng, ["restored"], which=slice(1, 2), window=3)
        self.compare(answer, reference, rng, ["restored"], which=slice(1), window=2)

    def test_no_noise(self, answer, rng):
        "without noise there is nothing to restore"
        for case in self.inputs(rng, which=slice(1)):
            result = answer(*case, std=0.0, n_draws=1, generator=rng, window=2)
            expect_close(result["noisy"], result["clean"], **CLOSE)
            expect_close(result["restored"], result["clean"].expand_as(result["restored"]), **CLOSE)

    def test_whole_site(self, answer, rng):
        "a stream that is restored behind the last layer where the answer is read brings all of it back"
        for model, tokens, subject, names, positions, metric in self.inputs(rng, "hook_resid_post", slice(1)):
            ends = torch.full_like(positions[:1], tokens.shape[1] - 1)
            result = answer(model, tokens, subject, names, ends, metric, std=1.5, n_draws=1, generator=rng)
            expect_shape(result["restored"], (len(names), 1, len(tokens)))
            expect_close(result["restored"][-1, 0], result["clean"], **CLOSE)
            common.expect_all_prompts(metric, tokens)

    def test_embedding_restored(self, answer, rng):
        "the embedding of the one drowned token, restored, brings all of it back"
        for model, tokens, _, names, positions, metric in self.inputs(rng, which=slice(1)):
            subject = torch.arange(tokens.shape[1]) == positions[0][:, None]
            names = ["hook_embed", *names]
            result = answer(model, tokens, subject, names, positions[:1], metric, std=1.5, n_draws=1, generator=rng)
            expect_shape(result["restored"], (len(names), 1, len(tokens)))
            expect_close(result["restored"][0, 0], result["clean"], **CLOSE)

    def test_no_window(self, answer, rng):
        "a window of no layers is refused"
        for case in self.inputs(rng, which=slice(1)):
            expect_refused(answer, *case, std=1.0, n_draws=1, generator=rng, window=0)

    def test_no_draws(self, answer, rng):
        "no draws are refused"
        for case in self.inputs(rng, which=slice(1)):
            expect_refused(answer, *case, std=1.0, n_draws=0, generator=rng)

    def test_outside(self, answer, rng):
        "positions outside the prompts are refused, negative ones too"
        for model, tokens, subject, names, positions, metric in self.inputs(rng, which=slice(1)):
            for wrong in common.outside(positions, tokens.shape[1]):
                settings = {"std": 1.0, "n_draws": 1, "generator": rng}
                expect_refused(answer, model, tokens, subject, names, wrong, metric, **settings)

    def test_clean(self, answer, rng):
        "the model is as it was, and nothing hangs in the graph"
        for model, *rest in self.inputs(rng, which=slice(1)):
            with untouched(model):
                result = answer(model, *rest, std=1.0, n_draws=1, generator=rng)
            for part in ("noisy", "restored"):
                common.expect_no_graph(result[part], f"The entry {part!r}")


class TestEmbeddingPatchPitfall:
    exercise = "embedding_patch_pitfall"

    def inputs(self, rng):
        for model, tokens, _ in cases(rng):
            answer = int(torch.randint(model.W_U.shape[1], (), generator=rng))
            direction = model.W_U[:, answer].detach()
            yield model, tokens, drawn_positions(rng, tokens), "blocks.1.hook_resid_post", direction, answer

    def test_divergence(self, answer, reference, rng):
        "how far each prediction moved: KL(before || after)"
        for case in self.inputs(rng):
            for scale in (0.7, -2.0):
                result = answer(*case, scale)
                pair = isinstance(result, tuple) and len(result) == 2
                expect(pair, "Return the share and the divergence.", actual=result)
                expect_close(result[1], reference(*case, scale)[1], rtol=1e-3, atol=1e-4)
            with torch.no_grad():
                case[0].W_U *= 30  # so sure that most probabilities are zero in float32
            expect_close(answer(*case, -2.0)[1], reference(*case, -2.0)[1], rtol=1e-3, atol=1e-2)

    def test_share(self, answer, reference, rng):
        "the share of prompts whose likeliest next token is the answer"
        found, wanted = [], []
        for model, tokens, positions, name, *_ in self.inputs(rng):
            token = int(model(tokens)[0, positions[0]].argmax())  # so that the share before is not 0
            case = model, tokens, positions, name, model.W_U[:, token].detach(), token
            for scale in (0.5, 2.0, 30.0, -1.0):
                found.append(answer(*case, scale)[0])
                wanted.append(reference(*case, scale)[0])
        expect_close(found, wanted, atol=1e-6)

    def test_shares(self, answer, rng):
        "some token is likeliest for every prompt: over the vocabulary the shares add up to 1, pushed or not"
        model, tokens, positions, name, direction, _ = next(self.inputs(rng))
        likeliest = model(tokens)[torch.arange(len(tokens)), positions].argmax(-1)
        now = torch.bincount(likeliest, minlength=model.W_U.shape[1]) / len(tokens)
        for scale in (0.0, 0.7):
            shares = [answer(model, tokens, positions, name, direction, token, scale)[0] for token in range(len(now))]
            if scale == 0.0:
                expect_close(torch.tensor(shares), now, atol=1e-6, note="Without a push, the share of each token")
            expect_close(sum(shares), 1.0, atol=1e-5, note="The shares of all tokens do not add up to 1")

    def test_nothing(self, answer, rng):
        "a push of no length moves nothing, however sure the model is"
        for model, *case in self.inputs(rng):
            expect_close(answer(model, *case, 0.0)[1], torch.zeros(len(case[0])), atol=1e-5)
            with torch.no_grad():
                model.W_U *= 100  # most probabilities are zero in float32 now
            expect_close(answer(model, *case, 0.0)[1], torch.zeros(len(case[0])), atol=1e-2)

    def test_length(self, answer, rng):
        "the length of the direction does not count"
        for *case, direction, token in self.inputs(rng):
            long, short = (answer(*case, length * direction, token, 1.0)[1] for length in (5, 1))
            expect_close(long, short, rtol=1e-3, atol=1e-4)

    def test_short(self, answer, rng):
        "a very short direction is a direction"
        for *case, direction, token in self.inputs(rng):
            usual, *short = (answer(*case, length * direction, token, 1.0)[1] for length in (1, 1e-9, 1e-14))
            for divergence in short:
                expect_close(divergence, usual, rtol=1e-3, atol=1e-4)

    def test_cancelling(self, answer, rng):
        "a direction whose entries add up to zero is a direction"
        for *case, direction, token in self.inputs(rng):
            cancelling = torch.ones_like(direction) - len(direction) * (torch.arange(len(direction)) == 0)
            common.accepted(answer, *case, cancelling, token, 1.0)

    def test_bypass(self, answer, rng):
        "a tensor that also goes past the hook point goes on there as it was"
        model, tokens = common.Bypass(rng), torch.randint(7, (3, 5), generator=rng)
        answer(model, tokens, torch.tensor([1, 0, 3]), "hook", torch.randn(4, generator=rng), 2, 1.5)
        model.expect_as_it_was()

    def test_no_direction(self, answer, rng):
        "a direction of zeros is refused"
        for *case, direction, token in self.inputs(rng):
            expect_refused(answer, *case, 0 * direction, token, 1.0)

    def test_width(self, answer, rng):
        "a direction of another width is refused"
        for *case, direction, token in self.inputs(rng):
            for wrong in (direction[:1], direction[:-1]):
                expect_refused(answer, *case, wrong, token, 1.0)

    def test_outside(self, answer, rng):
        "positions outside the prompts are refused, negative ones too"
        for model, tokens, positions, *case in self.inputs(rng):
            for wrong in common.outside(positions, tokens.shape[1]):
                expect_refused(answer, model, tokens, wrong, *case, 1.0)

    def test_clean(self, answer, rng):
        "the model is as it was, and nothing hangs in the graph"
        for model, *case in self.inputs(rng):
            with untouched(model):
                result = answer(model, *case, 1.0)
            common.expect_no_graph(result[1], "The divergence")


KEYS = "blocks.1.mlp.hook_post"


class TestRomeKeyCovariance:
    exercise = "rome_key_covariance"

    def test_values(self, answer, reference, rng):
        "the mean of k k^T over all positions of all documents, with a ridge"
        for model, tokens, _ in cases(rng):
            for ridge in (0.0, 0.3):
                expect_close(
                    answer(model, tokens, KEYS, ridge=ridge), reference(model, tokens, KEYS, ridge=ridge), **CLOSE
                )

    def test_dtype(self, answer, reference, rng):
        "float32 keys have a float32 matrix"
        for model, tokens, _ in cases(rng):
            expect_close(answer(model, tokens, KEYS), reference(model, tokens, KEYS), dtype=True, **CLOSE)

    def test_chunks(self, answer, reference, rng):
        "chunks of any size, the last one smaller, give the same, and no pass is larger"
        for model, *_ in cases(rng):
            tokens = torch.randint(len(model.W_E), (7, 4), generator=rng)
            wanted = reference(model, tokens, KEYS)
            for chunk in (5, 1):
                with counted(model) as rows:
                    result = answer(model, tokens, KEYS, chunk=chunk)
                expect_close(result, wanted, **CLOSE)
                most = max(rows, default=0)
                expect(most <= chunk, f"A forward pass has {most} documents where chunk is {chunk}.", actual=most)

    def test_definite(self, answer, rng):
        "symmetric, and positive definite even with fewer keys than dimensions"
        for model, *_ in cases(rng, dtype=torch.float64):
            tokens = torch.randint(len(model.W_E), (1, 2), generator=rng)
            moment = answer(model, tokens, KEYS, ridge=0.01)
            expect_close(moment, moment.mT, note="The matrix is not symmetric")
            lowest = torch.linalg.eigvalsh(moment).min().item()
            expect(lowest > 1e-9, "An eigenvalue is zero or less: the matrix has no inverse.", actual=lowest)

    def test_quadratic(self, answer, rng):
        "keys twice as long have a matrix four times as large, ridge included; float64 stays float64"
        for model, tokens, _ in cases(rng, dtype=torch.float64, linear=True):
            before = answer(model, tokens, KEYS, ridge=0.1)
            with torch.no_grad():
                model.blocks[1].mlp.W_in *= 2
                model.blocks[1].mlp.b_in *= 2
            expect_close(answer(model, tokens, KEYS, ridge=0.1), 4 * before.double(), dtype=True, **DOUBLE)

    def test_refused(self, answer, rng):
        "a negative ridge is refused"
        for model, tokens, _ in cases(rng):
            expect_refused(answer, model, tokens, KEYS, ridge=-0.1)

    def test_clean(self, answer, rng):
        "the model is as it was, and nothing hangs in the graph"
        for model, tokens, _ in cases(rng):
            with untouched(model):
                result = answer(model, tokens, KEYS)
            common.expect_no_graph(result, "The matrix")


class TestRomeTargetValue:
    exercise = "rome_target_value"

    def inputs(self, rng, which=slice(None)):
        for model, tokens, _ in list(cases(rng, dtype=torch.float64))[which]:
            ends = torch.full((len(tokens),), tokens.shape[1] - 1)
            ends[0] -= 1
            subject = torch.randint(0, 3, (len(tokens),), generator=rng)
            target = int(torch.randint(model.W_U.shape[1], (), generator=rng))
            others = torch.randint(len(model.W_E), (2, 4), generator=rng)
            keep = (others, torch.tensor([0, 2]), torch.tensor([3, 2]))
            # In the first layer: what the last one writes at the subject, no later position reads.
            yield (model, tokens, subject, ends, target, "blocks.0.hook_mlp_out"), keep

    def test_value(self, answer, reference, rng):
        "the fitted value, with a few of Adam's steps"
        for case, _ in self.inputs(rng):
            settings = {"steps": 4, "lr": 0.2, "decay": 0.0}
            expect_close(answer(*case, **settings), reference(*case, **settings), **DOUBLE)

    def test_nothing(self, answer, reference, rng):
        "without a step: the mean of the old outputs"
        for case, _ in self.inputs(rng):
            expect_close(answer(*case, steps=0), reference(*case, steps=0), **DOUBLE)

    def test_keep(self, answer, reference, rng):
        "with prompts whose predictions should stay"
        for case, keep in self.inputs(rng, slice(1)):
            settings = {"keep": keep, "steps": 3, "decay": 0.0}
            expect_close(answer(*case, **settings), reference(*case, **settings), **DOUBLE)

    def test_decay(self, answer, reference, rng):
        "with a price on the length of the change"
        for case, _ in self.inputs(rng, slice(1, 2)):
            expect_close(answer(*case, decay=3.0, steps=3), reference(*case, decay=3.0, steps=3), **DOUBLE)

    def test_longest(self, answer, reference, rng):
        "with a limit to the length of the change"
        for case, _ in self.inputs(rng, slice(1, 2)):
            settings = {"longest": 0.15, "steps": 3, "lr": 0.3, "decay": 0.0}
            expect_close(answer(*case, **settings), reference(*case, **settings), **DOUBLE)

    def test_target(self, answer, rng):
        "a target outside the vocabulary is refused"
        for case, _ in self.inputs(rng, slice(1)):
            for target in (-1, case[0].W_U.shape[1]):
                expect_refused(answer, *case[:4], target, case[5], steps=1)

    def test_no_room(self, answer, rng):
        "a change that may not have any length is refused"
        for case, _ in self.inputs(rng, slice(1)):
            for longest in (0.0, -1.0):
                expect_refused(answer, *case, longest=longest, steps=1)

    def test_outside(self, answer, rng):
        "positions outside their prompts are refused, negative ones too"
        for (model, tokens, subject, ends, *case), (others, *places) in self.inputs(rng, slice(1)):
            for i, right in enumerate((subject, ends)):
                for wrong in common.outside(right, tokens.shape[1]):
                    places_here = [wrong, ends] if i == 0 else [subject, wrong]
                    expect_refused(answer, model, tokens, *places_here, *case, steps=1)
            for wrong in common.outside(places[0], others.shape[1]):
                expect_refused(answer, model, tokens, subject, ends, *case, keep=(others, wrong, places[1]), steps=1)

    def test_clean(self, answer, rng):
        "the model is as it was, no gradients are left on it, and nothing hangs in the graph"
        for case, keep in self.inputs(rng, slice(1)):
            with untouched(case[0]):
                value = answer(*case, keep=keep, steps=2)
            common.expect_no_graph(value, "The value")


class TestRomeUpdate:
    exercise = "rome_update"

    def inputs(self, rng, dtype=torch.float64):
        for d_mlp, d_model in ((7, 4), (3, 6)):
            shapes = ((d_mlp, d_model), (d_model,), (40, d_mlp), (d_mlp,), (d_model,))
            W, b, keys, key, value = (torch.randn(shape, generator=rng, dtype=dtype) for shape in shapes)
            keys = keys * (1 + torch.arange(d_mlp, dtype=dtype))
            yield W, b, keys.mT @ keys / 40, key, value

    def test_value(self, answer, rng):
        "the key now gives the value"
        for W, b, C, key, value in self.inputs(rng):
            new = answer(W, b, C, key, value)
            expect_shape(new, tuple(W.shape))
            expect_close(key @ new + b, value, note="The new matrix does not give the value for the key", **DOUBLE)

    def test_matrix(self, answer, reference, rng):
        "the whole matrix, entry by entry"
        for case in self.inputs(rng):
            expect_close(answer(*case), reference(*case), **DOUBLE)

    def test_rank(self, answer, rng):
        "the change has rank one"
        for W, b, C, key, value in self.inputs(rng):
            new = answer(W, b, C, key, value)
            expect_shape(new, tuple(W.shape))
            sizes = torch.linalg.svdvals(new - W)
            ratio = (sizes[1] / sizes[0]).item()
            expect(ratio < 1e-8, "The change has more than one direction.", actual=ratio)

    def test_others(self, answer, rng):
        "a key that is unrelated under the covariance gives what it gave"
        for W, b, C, key, value in self.inputs(rng):
            direction = torch.linalg.solve(C, key)
            other = torch.randn(key.shape, generator=rng, dtype=key.dtype)
            other = other - key * (other @ direction) / (key @ direction)
            new = answer(W, b, C, key, value)
            expect_shape(new, tuple(W.shape))
            expect_close(other @ new, other @ W, note="An unrelated key gives something else than before", **DOUBLE)

    def test_again(self, answer, rng):
        "writing what is there already changes nothing"
        for W, b, C, key, _ in self.inputs(rng):
            expect_close(answer(W, b, C, key, key @ W + b), W, **DOUBLE)

    def kinds(self, answer, reference, rng, kind, make):
        for W, b, C, key, value in self.inputs(rng):
            case = W, b, C, make(key), value
            expect_close(common.accepted(answer, *case), reference(*case), note=f"The key is {kind}", **DOUBLE)

    def test_short(self, answer, reference, rng):
        "a short key is a key"
        self.kinds(answer, reference, rng, "a thousand times shorter", lambda key: 1e-3 * key)

    def test_very_short(self, answer, reference, rng):
        "a very short key is a key"
        self.kinds(answer, reference, rng, "very short", lambda key: 1e-18 * key)

    def test_zeros(self, answer, reference, rng):
        "a key with a zero in it, and one with zeros but for one entry, are keys"
        self.kinds(answer, reference, rng, "partly zero", lambda key: key * (torch.arange(len(key)) > 0))
        self.kinds(answer, reference, rng, "nearly all zero", lambda key: key * (torch.arange(len(key)) == 1))

    def test_cancelling(self, answer, reference, rng):
        "a key whose entries add up to zero is a key"

        def cancelling(key):
            return torch.ones_like(key) - len(key) * (torch.arange(len(key)) == 0)

        self.kinds(answer, reference, rng, "zero in sum", cancelling)

    def test_dtype(self, answer, reference, rng):
        "float32 stays float32"
        for W, b, C, key, value in self.inputs(rng, torch.float32):
            well = C + torch.eye(len(C))
            expect_close(
                answer(W, b, well, key, value), reference(W, b, well, key, value), rtol=1e-3, atol=1e-3, dtype=True
            )

    def test_refused(self, answer, rng):
        "a key of zeros is refused"
        for W, b, C, key, value in self.inputs(rng):
            expect_raises(ValueError, answer, W, b, C, 0 * key, value)


class TestSteer:
    exercise = "steer"

    def inputs(self, rng, **more):
        for model, tokens, _ in cases(rng, **more):
            direction = 2 * torch.randn(model.W_E.shape[1], generator=rng, dtype=model.W_E.dtype)
            doses = torch.tensor([0.5, -1.0, 3.0, 0.0], dtype=direction.dtype)
            yield model, tokens, "blocks.0.hook_resid_post", direction, doses, metric_of(tokens)

    def test_values(self, answer, reference, rng):
        "each dose, added at all positions"
        for case in self.inputs(rng):
            expect_close(answer(*case), reference(*case), **CLOSE)

    def test_positions(self, answer, reference, rng):
        "each dose, added at one position of each prompt"
        for case in self.inputs(rng):
            at = drawn_positions(rng, case[1])
            at[0] = 0
            expect_close(answer(*case, positions=at), reference(*case, positions=at), **CLOSE)

    def test_first(self, answer, reference, rng):
        "each dose, added at the first position of every prompt, and at the second"
        for case in self.inputs(rng):
            places = [torch.full((len(case[1]),), at) for at in (0, 1)]
            found = [answer(*case, positions=at) for at in places]
            expect_close(found, [reference(*case, positions=at) for at in places], **CLOSE)

    def test_bypass(self, answer, rng):
        "a tensor that also goes past the hook point goes on there as it was"
        model, tokens = common.Bypass(rng), torch.randint(7, (3, 5), generator=rng)
        case = model, tokens, "hook", torch.randn(4, generator=rng), torch.tensor([1.0, -2.0]), metric_of(tokens)
        for at in (None, torch.tensor([1, 0, 3])):
            answer(*case, positions=at)
        model.expect_as_it_was()

    def test_zero(self, answer, rng):
        "a dose of zero leaves the model as it is"
        for model, tokens, *case, doses, _ in self.inputs(rng):
            one, metric = tokens[:1], metric_of(tokens[:1])
            expect_close(answer(model, one, *case, 0 * doses[:1], metric), metric(model(one))[None], **CLOSE)

    def test_line(self, answer, rng):
        "in a linear model the response is a straight line"
        for *case, _, _ in self.inputs(rng, dtype=torch.float64, linear=True):
            line = answer(*case, torch.arange(4, dtype=torch.float64), lambda z: z[:, -1, 3])
            expect_shape(line, (4, len(case[1])))
            steps = line.diff(dim=0)
            # A curve that is kept in float32 is a line, too.
            expect_close(steps, steps[:1].expand_as(steps), note="The response has a bend", rtol=1e-4, atol=1e-3)

    def test_metric(self, answer, rng):
        "the metric is given the logits of one dose at a time, of all prompts"
        for case in self.inputs(rng):
            answer(*case)
            common.expect_all_prompts(case[-1], case[1])

    def test_width(self, answer, rng):
        "a direction of another width is refused"
        for *case, direction, doses, metric in self.inputs(rng):
            expect_refused(answer, *case, direction[:1], doses, metric)

    def test_outside(self, answer, rng):
        "positions outside the prompts are refused, negative ones too"
        for model, tokens, *case in self.inputs(rng):
            for wrong in common.outside(drawn_positions(rng, tokens), tokens.shape[1]):
                expect_refused(answer, model, tokens, *case, positions=wrong)

    def test_clean(self, answer, rng):
        "the model is as it was, and nothing hangs in the graph"
        for model, *case in self.inputs(rng):
            with untouched(model):
                result = answer(model, *case)
            common.expect_no_graph(result, "The curve")
