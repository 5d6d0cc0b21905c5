"""Checks for what weights alone say: copying and composition."""

import torch

from utils.course.checking import expect, expect_close, expect_raises, expect_shape

CLOSE = {"rtol": 1e-6, "atol": 1e-6}  # in float64


def normal(rng, *shape):
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


class TestOvCopyingScore:
    exercise = "ov_copying_score"

    def head(self, rng, d_vocab=13, d_model=7, d_head=4):
        return (
            normal(rng, d_vocab, d_model), normal(rng, d_model, d_head), normal(rng, d_head, d_model),
            normal(rng, d_model, d_vocab),
        )  # fmt: skip

    def test_values(self, answer, reference, rng):
        "random heads, whose eigenvalues are complex and of both signs"
        for sizes in ({}, {"d_vocab": 9, "d_model": 6, "d_head": 5}, {"d_head": 1}):
            head = self.head(rng, **sizes)
            found = answer(*head)
            expect_shape(found, ())
            expect(not found.is_complex(), "The score is a real number.", actual=str(found.dtype))
            expect_close(found, reference(*head), **CLOSE)

    def test_copies_and_suppresses(self, answer, rng):
        "1 for a head that copies every token, -1 for one that suppresses every token"
        embed, W_V, _, _ = self.head(rng)
        read = embed @ W_V
        for sign in (1.0, -1.0):
            W_O, W_U = torch.zeros(4, 7, dtype=torch.float64), torch.zeros(7, 13, dtype=torch.float64)
            W_O[:, :4], W_U[:4] = torch.eye(4), sign * read.T
            expect_close(answer(embed, W_V, W_O, W_U), torch.tensor(sign, dtype=torch.float64), **CLOSE)

    def test_a_ring(self, answer):
        "a head that makes each token predict the next of a ring copies nothing: 0"
        eye = torch.eye(5, dtype=torch.float64)
        expect_close(answer(eye, eye, eye.roll(1, 0), eye), torch.tensor(0.0, dtype=torch.float64), **CLOSE)

    def test_a_turn(self, answer):
        "a head that turns two tokens' plane by an angle whose cosine is 0.6"
        eye, turn = torch.eye(2, dtype=torch.float64), torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
        expect_close(answer(eye, eye, turn, eye), torch.tensor(0.6, dtype=torch.float64), **CLOSE)

    def test_size_does_not_matter(self, answer, rng):
        "a head with ten times the weights has the same score"
        embed, W_V, W_O, W_U = self.head(rng)
        expect_close(answer(embed, 10 * W_V, W_O, W_U), answer(embed, W_V, W_O, W_U), **CLOSE)


class TestCompositionScore:
    exercise = "composition_score"

    def matrices(self, rng, d_model=8, d_head=3):
        return tuple(normal(rng, d_model, d_head) @ normal(rng, d_head, d_model) for _ in range(2))

    def expect_values(self, answer, reference, rng, kind):
        for sizes in ((8, 3), (5, 5), (4, 1)):
            writer, reader = self.matrices(rng, *sizes)
            found = answer(writer, reader, kind)
            expect_shape(found, ())
            expect_close(found, reference(writer, reader, kind), **CLOSE)

    def test_queries(self, answer, reference, rng):
        "Q: random heads, of which the later one asks with what the earlier one has written"
        self.expect_values(answer, reference, rng, "Q")

    def test_keys(self, answer, reference, rng):
        "K: random heads, of which the later one compares with what the earlier one has written"
        self.expect_values(answer, reference, rng, "K")

    def test_handed_on(self, answer, reference, rng):
        "V: random heads, of which the later one hands on what the earlier one has written"
        self.expect_values(answer, reference, rng, "V")

    def test_where_the_writer_writes(self, answer):
        "a head that writes into one dimension, and readers that read there, or read elsewhere"
        writer = torch.zeros(3, 3, dtype=torch.float64)
        writer[0, 1] = 2.0  # takes from dimension 0, writes into 1
        for kind, row, column in (("Q", 1, 2), ("K", 2, 1), ("V", 1, 0)):
            reader = torch.zeros(3, 3, dtype=torch.float64)
            reader[row, column] = 5.0
            expect_close(answer(writer, reader, kind), torch.tensor(1.0, dtype=torch.float64), **CLOSE)
            expect_close(answer(writer, reader.T.contiguous(), kind), torch.tensor(0.0, dtype=torch.float64), **CLOSE)

    def test_size_does_not_matter(self, answer, rng):
        "the score is the same if either matrix is ten times as large"
        writer, reader = self.matrices(rng)
        for kind in "QKV":
            expect_close(answer(10 * writer, reader, kind), answer(writer, 10 * reader, kind), **CLOSE)
            expect_close(answer(10 * writer, reader, kind), answer(writer, reader, kind), **CLOSE)

    def test_bad_input(self, answer, rng):
        "another kind is refused"
        for kind in ("OV", "", "q"):
            expect_raises(ValueError, answer, *self.matrices(rng), kind)
