"""Checks for clamping a latent and counting side effects."""

import math

import torch

from utils.course.checking import expect, expect_close, expect_raises
from utils.sae.autoencoder import SparseAutoencoder
from utils.sae.topk import TopKSAE

SIZES = ((3, 4, 5, 9), (1, 1, 7, 4), (2, 6, 3, 3))  # batch, pos, d, latents


def randomised(sae, rng):
    """All parameters random, the decoder's rows of several lengths."""
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng))
    return sae.requires_grad_(False)


def dictionaries(rng, d, n):
    return randomised(SparseAutoencoder(d, n), rng), randomised(TopKSAE(d, n, 2), rng)


class TestClampFeature:
    exercise = "clamp_feature"

    def test_values(self, answer, reference, rng):
        "random dictionaries, two kinds; latents that are on and off, several values"
        for batch, pos, d, n in SIZES:
            x = 2 * torch.randn(batch, pos, d, generator=rng)
            for sae in dictionaries(rng, d, n):
                for latent, value in ((0, 3.0), (n - 1, 0.5), (1, 0.0)):
                    expect_close(answer(sae, latent, value)(x.clone()), reference(sae, latent, value)(x))

    def test_the_error_stays(self, answer, rng):
        "what the dictionary doesn't explain stays; the change is along the latent's direction alone"
        sae, _ = dictionaries(rng, 6, 8)
        x = torch.randn(2, 3, 6, generator=rng)
        change = answer(sae, 4, 7.0)(x.clone()) - x
        expect_close(change, (7.0 - sae(x)[1][..., 4])[..., None] * sae.W_dec[4])

    def test_nothing_to_do(self, answer, rng):
        "clamped to what it is, the latent changes nothing; a latent that is off can be set to 0 for free"
        for sae in dictionaries(rng, 5, 8):
            x = torch.randn(1, 6, 5, generator=rng)
            z = sae(x)[1]
            here, latent = divmod(int(z.flatten().argmax()), 8)
            expect_close(answer(sae, latent, z[0, here, latent].item())(x.clone())[0, here], x[0, here])
            off = (z[0] == 0).nonzero()[0]
            expect_close(answer(sae, int(off[1]), 0.0)(x.clone())[0, off[0]], x[0, off[0]])

    def test_positions(self, answer, reference, rng):
        "only where it is asked for"
        for batch, pos, d, n in SIZES:
            sae, _ = dictionaries(rng, d, n)
            x = torch.randn(batch, pos, d, generator=rng)
            for share in (0.5, 0.0, 1.1):
                where = torch.rand(batch, pos, generator=rng) < share
                expect_close(
                    answer(sae, 1, 4.0, positions=where)(x.clone()), reference(sae, 1, 4.0, positions=where)(x)
                )  # fmt: skip

    def test_another_batch(self, answer, reference, rng):
        "one hook for batches of other sizes: the latent is looked up in what comes"
        sae, _ = dictionaries(rng, 4, 6)
        hook, ours = answer(sae, 2, 5.0), reference(sae, 2, 5.0)
        for batch, pos in ((2, 3), (1, 5)):
            x = torch.randn(batch, pos, 4, generator=rng)
            expect_close(hook(x.clone()), ours(x))

    def test_activation_is_left(self, answer, rng):
        "the activation that the hook is given stays as it was"
        sae, _ = dictionaries(rng, 4, 6)
        x = torch.randn(2, 3, 4, generator=rng)
        for positions in (None, torch.ones(2, 3, dtype=torch.bool)):
            given = x.clone()
            answer(sae, 2, 5.0, positions=positions)(given)
            expect(
                torch.equal(given, x), "Your hook has written into the activation that it was given.",
                actual="written into", returned="another activation", expected="the activation as it was",
            )  # fmt: skip

    def test_bad_input(self, answer, rng):
        "a negative value is refused, before the hook is called"
        sae, _ = dictionaries(rng, 4, 6)

        def taken(*args):
            answer(*args)
            return "a hook"

        expect_raises(ValueError, taken, sae, 2, -0.5)


class TestSideEffects:
    exercise = "side_effects"

    def test_values(self, answer, reference, rng):
        "random logits, several numbers of wanted words"
        for batch, pos, vocab, n in ((3, 5, 11, 4), (1, 2, 6, 1), (4, 3, 5, 3)):
            before = 2 * torch.randn(batch, pos, vocab, generator=rng)
            after = before + torch.randn(batch, pos, vocab, generator=rng)
            wanted = torch.randperm(vocab, generator=rng)[:n]
            tokens = torch.randint(vocab, (batch, pos), generator=rng)
            tokens[0, -1] = next(i for i in range(vocab) if i not in wanted.tolist())
            found, ours = answer(before, after, tokens, wanted), reference(before, after, tokens, wanted)
            expect(
                isinstance(found, dict) and set(found) == set(ours),
                "The three numbers are to stand in a dict, under 'wanted', 'others' and 'loss'.",
                actual="keys", returned=str(list(found) if isinstance(found, dict) else type(found).__name__),
            )  # fmt: skip
            for key in ours:
                expect_close(float(found[key]), float(ours[key]), note=f"This is {key!r}.", atol=2e-5)

    def test_nothing_changed(self, answer, rng):
        "where the logits move by a constant for each position, nothing has changed"
        before = torch.randn(2, 4, 7, generator=rng)
        after = before + 3 * torch.randn(2, 4, 1, generator=rng)
        found = answer(before, after, torch.tensor([[0, 1, 2, 3], [4, 5, 6, 0]]), torch.tensor([5]))
        expect_close([float(found[k]) for k in ("wanted", "others", "loss")], [0.0, 0.0, 0.0], atol=1e-5)

    def test_only_the_wanted_words(self, answer, rng):
        "if the wanted words alone are raised, the others have not moved among each other, and the loss has risen"
        before = torch.randn(3, 4, 8, generator=rng)
        wanted = torch.tensor([6, 1])
        after = before.clone()
        after[..., wanted] += 4
        found = answer(before, after, torch.tensor([[0, 2, 3, 4]] * 3), wanted)
        expect_close(float(found["others"]), 0.0, atol=1e-5)
        expect(
            found["wanted"] > 0.2 and found["loss"] > 0.2,
            "The wanted words went up and took their share from the right ones.", actual="no cost",
        )  # fmt: skip

    def test_all_next_words_are_wanted(self, answer, rng):
        "without a next word that is not wanted there is no loss to speak of: NaN"
        before, after = torch.randn(2, 2, 3, 5, generator=rng)
        found = answer(before, after, torch.tensor([[0, 3, 1], [4, 1, 3]]), torch.tensor([1, 3]))
        expect(
            math.isnan(float(found["loss"])), "There is no next word to take a loss over, and yours is a number.",
            actual="a number", returned=f"{float(found['loss']):.4g}", expected="nan",
        )  # fmt: skip
