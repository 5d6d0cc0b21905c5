"""Checks for two dictionaries beside each other, and for trained against random networks."""

import torch

from utils.course.checking import expect, expect_close, expect_raises


def lengths(rng, n):
    return 0.3 + 2 * torch.rand(n, 1, generator=rng)


def noisy_copies(rng, n_a, n_b, d, noise):
    """Two dictionaries, the second a noisy copy of the first in another order, and more latents behind it."""
    encoder, decoder = torch.randn(d, n_a, generator=rng), torch.randn(n_a, d, generator=rng)
    order = torch.randperm(n_a, generator=rng)
    encoder_b = torch.randn(d, n_b, generator=rng)
    decoder_b = torch.randn(n_b, d, generator=rng)
    each = (
        2 * noise * torch.rand(2, n_a, generator=rng)
    )  # some latents change more where they read, some where they write
    encoder_b[:, :n_a] = encoder[:, order] + each[0] * torch.randn(d, n_a, generator=rng)
    decoder_b[:n_a] = decoder[order] + each[1][:, None] * torch.randn(n_a, d, generator=rng)
    return encoder, decoder, encoder_b * lengths(rng, n_b).T, decoder_b * lengths(rng, n_b)


class TestDictionaryAgreement:
    exercise = "dictionary_agreement"

    def test_values(self, answer, reference, rng):
        "noisy copies in another order, of other lengths, with further latents; several thresholds"
        for n_a, n_b, d, noise in ((25, 30, 10, 0.8), (20, 20, 8, 0.8), (1, 3, 4, 0.3), (15, 30, 5, 0.7)):
            dictionaries = noisy_copies(rng, n_a, n_b, d, noise)
            for threshold in (0.8, 0.5, 0.9):
                expect_close(answer(*dictionaries, threshold), reference(*dictionaries, threshold))
            expect_close(answer(*dictionaries), reference(*dictionaries))

    def test_the_same_in_another_order(self, answer, rng):
        "a dictionary agrees with itself, in another order and with other lengths"
        expect_close(answer(*noisy_copies(rng, 7, 7, 9, 0.0), 0.95), torch.ones(7, dtype=torch.bool))

    def test_decoders_alone_are_not_enough(self, answer, rng):
        "the same decoder with the encoders handed out in another order: nothing is shared"
        encoder, decoder = torch.eye(6) * 2, torch.linalg.qr(torch.randn(6, 6, generator=rng))[0]
        shifted = encoder.roll(1, dims=1)
        expect_close(answer(encoder, decoder, shifted, decoder, 0.5), torch.zeros(6, dtype=torch.bool))
        expect_close(answer(decoder.T, encoder, decoder.T, shifted.T, 0.5), torch.zeros(6, dtype=torch.bool))

    def test_opposite_directions(self, answer):
        "a latent that points the opposite way is another one"
        one = torch.eye(3)
        expect_close(answer(one, one, -one, -one, 0.3), torch.zeros(3, dtype=torch.bool))

    def test_found_twice(self, answer):
        "two latents of the first dictionary can't share one of the second"
        decoder = torch.tensor([[1.0, 0, 0], [0.95, 0.3, 0]])
        other = torch.tensor([[1.0, 0.1, 0], [0, 0, 1.0]])
        found = answer(decoder.T, decoder, other.T, other, 0.7)
        expect_close(found.sum(), torch.tensor(1))


class TestRandomModelTest:
    exercise = "random_model_test"

    def test_values(self, answer, reference, rng):
        "several metrics, with more and fewer values, and two levels of confidence"
        for n, m, k in ((3, 5, 4), (2, 2, 1), (6, 3, 2)):
            trained = {f"m{i}": (torch.randn(n, generator=rng) + i).tolist() for i in range(k)}
            random = {f"m{i}": (2 * torch.randn(m, generator=rng)).tolist() for i in reversed(range(k))}
            for confidence in (0.95, 0.8):
                found = answer(trained, random, confidence=confidence)
                ours = reference(trained, random, confidence=confidence)
                expect(
                    isinstance(found, dict) and list(found) == list(ours),
                    "The answer is to be a dict with the metrics in the order of `trained`.", actual="keys",
                    returned=str(list(found) if isinstance(found, dict) else type(found).__name__),
                )  # fmt: skip
                for name, (difference, half_width, apart) in ours.items():
                    expect_close(float(found[name][0]), difference, note=f"The difference of {name!r}.")
                    expect_close(float(found[name][1]), half_width, note=f"The half-width of {name!r}.")
                    expect_close(bool(found[name][2]), apart, note=f"Whether {name!r} tells them apart.")

    def test_by_hand(self, answer):
        "one metric: a difference of 4, both variances 1, 3 values each, 4 degrees of freedom"
        found = answer({"a": [5.0, 6.0, 7.0]}, {"a": [1.0, 2.0, 3.0]})["a"]
        expect_close([float(found[0]), float(found[1])], [4.0, 2.776445 * (2 / 3) ** 0.5], atol=1e-4)
        expect_close(bool(found[2]), True)

    def test_worse_is_apart_too(self, answer):
        "a metric on which the random networks do better tells them apart as well"
        found = answer({"a": [1.0, 1.1, 0.9]}, {"a": [5.0, 5.1, 4.9]})["a"]
        expect_close((float(found[0]) < 0, bool(found[2])), (True, True))

    def test_bad_input(self, answer):
        "other metrics on one side than on the other are refused"
        expect_raises(ValueError, answer, {"a": [1.0, 2.0]}, {"b": [1.0, 2.0]})
        expect_raises(ValueError, answer, {"a": [1.0, 2.0]}, {"a": [1.0, 3.0], "b": [1.0, 2.0]})
