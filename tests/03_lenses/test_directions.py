"""Checks for the influence of directions, and for the basis that a reader depends on most."""

import torch

from utils.course.checking import expect, expect_close, expect_raises, expect_same_gradients, expect_shape
from utils.lenses.directions import direction_influence


def random_reader(rng, d_model, d_vocab, dtype=torch.float64):
    """A linear reader with a bias."""
    weights = torch.randn(d_model, d_vocab, generator=rng, dtype=dtype) / d_model**0.5
    bias = torch.randn(d_vocab, generator=rng, dtype=dtype)
    return lambda resid: resid @ weights + bias


def planted_reader(rng, d_model=12, d_vocab=14, strengths=(3.0, 1.5, 0.6)):
    """A reader of a few orthogonal directions, each with its strength, and these directions."""
    basis, _ = torch.linalg.qr(torch.randn(d_model, d_model, generator=rng, dtype=torch.float64))
    planted = basis.T[: len(strengths)]
    out, _ = torch.linalg.qr(torch.randn(d_vocab, d_vocab, generator=rng, dtype=torch.float64))
    out = out - out.mean(dim=0)  # a softmax does not see the mean
    out = (out / out.norm(dim=0)).T[: len(strengths)]
    weights = sum(s * v[:, None] * o[None] for s, v, o in zip(strengths, planted, out, strict=True))
    return (lambda resid: resid @ weights), planted


def stream(rng, *shape):
    return torch.randn(shape, generator=rng, dtype=torch.float64) + 1.5


def white_stream(rng, n, d_model):
    """Vectors whose coordinates vary alike along every direction, so that only the reader tells directions apart."""
    raw = torch.randn(n, d_model, generator=rng, dtype=torch.float64)
    raw = raw - raw.mean(0)
    return raw @ torch.linalg.inv(torch.linalg.cholesky(raw.T @ raw / n)).T


class Counted:
    """A reader that counts how often it is asked, and keeps the streams for which a gradient is wanted."""

    def __init__(self, read):
        self.read, self.total, self.with_graph = read, 0, []

    def __call__(self, resid):
        self.total += 1
        if resid.requires_grad:
            self.with_graph.append(resid.detach())
        return self.read(resid)

    def tried(self, resid):
        """The directions that were taken out of ``resid``, one after the other."""
        return [torch.linalg.svd(resid - changed).Vh[0] for changed in self.with_graph]


class TestDirectionInfluence:
    exercise = "direction_influence"

    def test_shape(self, answer, rng):
        "one number for each direction"
        for shape, n in (((7, 5), 3), ((2, 3, 4), 1), ((1, 4), 2)):
            directions = torch.randn(n, shape[-1], generator=rng, dtype=torch.float64)
            expect_shape(answer(random_reader(rng, shape[-1], 8), stream(rng, *shape), directions), (n,))

    def test_values(self, answer, reference, rng):
        "the mean divergence when a coordinate stops varying"
        for shape, n in (((8, 5), 3), ((2, 3, 6), 4)):
            read, resid = random_reader(rng, shape[-1], 7), stream(rng, *shape)
            directions = torch.randn(n, shape[-1], generator=rng, dtype=torch.float64)
            expect_close(answer(read, resid, directions), reference(read, resid, directions))

    def test_reader_of_texts(self, answer, reference, rng):
        "a reader that looks along the positions of a text, as a model does, gets the stream in its shape"
        linear = random_reader(rng, 5, 7)
        resid, directions = stream(rng, 3, 4, 5), torch.randn(2, 5, generator=rng, dtype=torch.float64)

        def read(resid):
            return linear(resid.cumsum(dim=1))

        expect_close(answer(read, resid, directions), reference(read, resid, directions))

    def test_length_and_sign(self, answer, rng):
        "a direction counts as a direction: its length and sign do not matter"
        read, resid = random_reader(rng, 5, 7), stream(rng, 9, 5)
        direction = torch.randn(1, 5, generator=rng, dtype=torch.float64)
        found = answer(read, resid, direction)
        for factor in (-1.0, 0.01, 30.0, 1e-14):
            expect_close(answer(read, resid, factor * direction), found, note=f"{factor:g} times the direction differs")

    def test_unread(self, answer, rng):
        "a direction that is not read has no influence, and neither has one that never varies"
        read, planted = planted_reader(rng)
        resid = stream(rng, 10, 12)
        unread = torch.linalg.svd(planted).Vh[-1:]
        expect_close(
            answer(read, resid, unread), torch.zeros(1, dtype=torch.float64), note="Nobody reads it", atol=1e-10
        )
        constant = resid + (2.0 - resid @ planted[0])[:, None] * planted[0]
        found = answer(read, constant, planted[:1])
        expect_close(
            found,
            torch.zeros(1, dtype=torch.float64),
            note="A coordinate that never varies can be replaced",
            atol=1e-10,
        )

    def test_each_alone(self, answer, rng):
        "each direction is ablated alone"
        read, resid = random_reader(rng, 5, 7), stream(rng, 9, 5)
        directions = torch.randn(3, 5, generator=rng, dtype=torch.float64)
        found = answer(read, resid, directions)
        expect_shape(found, (3,))
        expect_close(answer(read, resid, directions[1:2])[0], found[1])

    def test_gradients(self, answer, reference, rng):
        "gradients for the directions"
        read, resid = random_reader(rng, 5, 7), stream(rng, 9, 5)
        directions = torch.randn(2, 5, generator=rng, dtype=torch.float64)
        expect_same_gradients(
            lambda v: answer(read, resid, v), lambda v: reference(read, resid, v), directions, rng=rng
        )

    def test_zero(self, answer, rng):
        "a direction of length zero is refused"
        directions = torch.stack([torch.ones(5), torch.zeros(5)]).double()
        expect_raises(ValueError, answer, random_reader(rng, 5, 7), stream(rng, 9, 5), directions)


class TestCausalBasis:
    exercise = "causal_basis"

    def settings(self, rng, n_steps=40):
        seed = int(torch.randint(1000, (), generator=rng))
        return {"n_steps": n_steps, "lr": 0.3, "generator": torch.Generator().manual_seed(seed)}

    def test_orthonormal(self, answer, rng):
        "directions of length one, at right angles, without a graph"
        read, resid = random_reader(rng, 5, 7), stream(rng, 12, 5)
        for n in (1, 3, 5):
            basis = answer(read, resid, n, **self.settings(rng, n_steps=5))
            expect_shape(basis, (n, 5))
            expect(not basis.requires_grad, "The directions carry a graph.", actual="requires_grad=True")
            lengths = basis.norm(dim=-1)
            expect(
                (lengths - 1).abs().max() < 1e-6,
                "The directions do not have length one.",
                actual="other lengths",
                returned=f"lengths {[round(length, 2) for length in lengths.tolist()]}",
                expected="1",
            )
            expect_close(basis @ basis.T, torch.eye(n, dtype=torch.float64), note="They are not orthonormal", atol=1e-6)

    def test_finds_what_is_read(self, answer, rng):
        "the directions that a reader was given, the most influential first, from several starts"
        for _ in range(2):
            read, planted = planted_reader(rng, strengths=(3.0, 1.5, 0.75))
            basis = answer(read, white_stream(rng, 100, 12), 3, **self.settings(rng))
            expect_shape(basis, (3, 12))
            # The divergence is not quite quadratic and the steps are few, so that cosines lie between 0.93 and 1. A
            # random direction has one above 0.85 in one case of two thousand.
            cosines = (basis * planted).sum(-1).abs()
            expect(
                (cosines > 0.85).all(),
                "The first directions are not those that the reader depends on.",
                actual=cosines,
                expected="cosines above 0.85 with the directions that are read",
            )

    def test_as_influential(self, answer, rng):
        "influence close to that of the directions which were planted"
        read, planted = planted_reader(rng)
        resid = white_stream(rng, 100, 12)
        basis = answer(read, resid, 2, **self.settings(rng))
        expect_shape(basis, (2, 12))
        found, wanted = (direction_influence(read, resid, v).detach() for v in (basis, planted[:2]))
        expect(
            (found >= 0.6 * wanted).all(),
            "Your directions have less influence than directions that the reader was made of.",
            actual=found,
            expected=f"at least 0.6 times {[round(v, 4) for v in wanted.tolist()]}",
        )

    def test_number_of_steps(self, answer, rng):
        "as many steps for each direction as were asked for"
        resid = stream(rng, 12, 5)
        for n, n_steps in ((1, 7), (3, 4)):
            read = Counted(random_reader(rng, 5, 7))
            expect_shape(answer(read, resid, n, **self.settings(rng, n_steps=n_steps)), (n, 5))
            expect(
                read.total >= n * n_steps,
                f"For {n} direction(s) and n_steps={n_steps} the reader was asked {read.total} times: you take fewer "
                "steps than that.",
                actual="fewer",
            )
            # A last look at what was found is anybody's right.
            expect(
                len(read.with_graph) <= n * (n_steps + 2),
                f"For {n} direction(s) and n_steps={n_steps} the reader gave {len(read.with_graph)} gradients: "
                "you take more steps than that.",
                actual="more",
            )

    def test_one_after_the_other(self, answer, rng):
        "the search for the first direction is done before the next one begins"
        read, resid = Counted(random_reader(rng, 8, 7)), stream(rng, 20, 8)
        answer(read, resid, 3, n_steps=4, lr=1e-3, generator=torch.Generator().manual_seed(1))
        tried = read.tried(resid)[:4]
        alike = [float((a @ b).abs()) for a, b in zip(tried, tried[1:], strict=False)]
        expect(
            all(cosine > 0.9 for cosine in alike),
            "In four short steps one direction hardly turns, and your first four are at large angles: you look for "
            "several at once.",
            actual="several at once",
            returned=f"cosines {[round(cosine, 2) for cosine in alike]}",
            expected="cosines above 0.9 from each step to the next",
        )

    def test_order(self, answer, rng):
        "the directions in the order in which they were found"
        read, resid = Counted(random_reader(rng, 8, 7)), stream(rng, 20, 8)
        basis = answer(read, resid, 6, n_steps=2, lr=1e-3, generator=torch.Generator().manual_seed(1))
        expect_shape(basis, (6, 8))
        # In two short steps no direction goes far, so that the last one of a search is nearly the one that was tried.
        nearest = [(basis @ tried).abs().max(0) for tried in read.tried(resid)]
        order = list(dict.fromkeys(int(place) for cosine, place in nearest if cosine > 0.9))
        expect(
            order == sorted(order),
            "Your directions come in another order than that in which they were found.",
            actual="another order",
            returned=f"row {order[0]} was searched for first, then rows {', '.join(map(str, order[1:]))}",
            expected="row 0 first, then 1, and so on",
        )

    def test_whole_stream(self, answer, rng):
        "in every search one direction is taken out of the stream, and nothing else"
        read, resid = Counted(random_reader(rng, 8, 7)), stream(rng, 20, 8)
        answer(read, resid, 3, n_steps=3, lr=0.01, generator=torch.Generator().manual_seed(1))
        ranks = [int((torch.linalg.svdvals(resid - changed) > 1e-6).sum()) for changed in read.with_graph]
        expect(
            max(ranks, default=1) <= 1,
            "The stream that you hand to the reader lacks more than the direction that is tried. Its influence on "
            "`resid` as it came is asked for, also where other directions have been found before.",
            actual="more than one",
            returned=f"up to {max(ranks, default=1)} directions are missing",
            expected="1 direction",
        )

    def searches(self, answer, rng, lr, d_model=64):
        """The directions that were tried, search by search, in steps so short that hardly anything turns."""
        read, resid = random_reader(rng, d_model, 64), stream(rng, 20, d_model)
        counted = Counted(read)
        answer(counted, resid, 2, n_steps=12, lr=lr, generator=torch.Generator().manual_seed(1))
        found = []
        for tried in counted.tried(resid):
            if found and (cosine := tried @ found[-1][-1]).abs() > 0.7:
                found[-1].append(tried * cosine.sign())
            else:
                found.append([tried])
        return read, resid, [search for search in found if len(search) > 1]

    def test_first_step(self, answer, rng):
        "the first step is Adam's, from a start of length 1"
        lr = 1e-3
        for first, second, *_ in self.searches(answer, rng, lr)[2][:1]:
            # Adam's first step has the length lr in each coordinate of 64, so 8 lr in all, and little of it lies along
            # the start. The start of a normal draw is about 8 long.
            turned = float((second - first * (first @ second)).norm()) / lr
            expect(
                3 < turned < 16,
                f"Your first step turns the direction by {turned:.2g} times the learning rate. Adam's turns one of "
                "length 1 by 8 times as much, in 64 dimensions: is your start of another length?",
                actual="long" if turned < 3 else "short",
                returned=f"{turned:.2g} times lr",
                expected="about 8 times lr",
            )

    def test_new_start(self, answer, rng):
        "each search starts from a draw of its own"
        searches = self.searches(answer, rng, 1e-3)[2]
        if len(searches) > 1:
            (first, *_, last), (second, *_) = searches[:2]
            again = first - last * (last @ first)  # what is left of the first start if it is used once more
            cosine = float((again / again.norm()) @ second)
            # Two random directions in 64 dimensions have such a cosine once in 10^9 cases.
            expect(
                abs(cosine) < 0.7,
                "Your second search starts where the first one did: what it starts from is the first start without "
                "the direction that was found.",
                actual="one start",
                returned=f"a cosine of {abs(cosine):.2f} with what is left of the first start",
                expected="about 0",
            )

    def test_new_optimizer(self, answer, rng):
        "each search has an optimiser of its own"
        for _ in range(4):  # in one draw of fifteen, the old gradient happens to lie along the new one
            read, resid, searches = self.searches(answer, rng, 1e-3)
            for start, second, *_ in searches[:2]:
                leaf = start.clone().requires_grad_()
                [slope] = torch.autograd.grad(direction_influence(read, resid, leaf[None])[0], leaf)
                if len(searches) > 1:
                    slope = slope - searches[0][-1] * (searches[0][-1] @ slope) * (start is searches[1][0])
                step = second - start * (start @ second)
                cosine = abs(float(step @ slope / step.norm() / slope.norm()))
                # The signs of a gradient in 64 dimensions have a cosine of about 0.8 with it, and of 0.7 at the least.
                expect(
                    cosine > 0.6,
                    "The first step of a search hardly goes along the gradient there: it goes on with what the "
                    "optimiser remembers of the search before.",
                    actual="old moments",
                    returned=f"a cosine of {cosine:.2f} between the step and the gradient",
                    expected="about 0.8, as the first step of a new Adam has",
                )

    def test_learning_rate(self, answer, rng):
        "steps as long as the learning rate says"
        read, resid = random_reader(rng, 8, 7), stream(rng, 12, 8)
        near, nearer, far = (
            answer(read, resid, 2, n_steps=3, lr=lr, generator=torch.Generator().manual_seed(1))
            for lr in (1e-4, 1e-6, 0.5)
        )
        for basis in (near, nearer, far):
            expect_shape(basis, (2, 8))
        expect(
            (near - nearer).abs().max() < 0.01,
            "With learning rates of nearly nothing, the directions should stay at their starts.",
            actual="moved",
        )
        expect(
            (near - far).abs().max() > 0.05,
            "A learning rate of 0.5 and one of 0.0001 should lead to different directions.",
            actual="the same",
        )

    def test_stream_of_texts(self, answer, rng):
        "a stream [batch, pos, d_model] is as good as a list of vectors, and its mean counts nothing"
        read, planted = planted_reader(rng)
        far_away = 5.0 * torch.linalg.svd(planted).Vh[-1]  # along this direction, nobody reads
        resid = white_stream(rng, 100, 12).reshape(20, 5, 12) + far_away
        basis = answer(read, resid, 2, **self.settings(rng))
        expect_shape(basis, (2, 12))
        cosines = (basis * planted[:2]).sum(-1).abs()
        expect((cosines > 0.85).all(), "The first directions are not those that are read.", actual=cosines)

    def test_starts(self, answer, rng):
        "the starts come from the generator: the same starts lead to the same directions, others to others"
        read, resid = random_reader(rng, 8, 7), stream(rng, 12, 8)
        same, again, other = (
            answer(read, resid, 2, n_steps=1, lr=0.01, generator=torch.Generator().manual_seed(seed))
            for seed in (1, 1, 2)
        )
        for basis in (same, again, other):
            expect_shape(basis, (2, 8))
        expect_close(again, same, note="Twice the same generator, and two different results")
        expect(
            (other - same).abs().max() > 0.01,
            "With other starts and one short step, the directions should be others.",
            actual=other - same,
        )

    def test_reader_of_texts(self, answer, rng):
        "a reader that looks along the positions of a text gets the stream in its shape"
        read, shapes = random_reader(rng, 5, 7), set()

        def watching(resid):
            shapes.add(tuple(resid.shape))
            return read(resid)

        expect_shape(answer(watching, stream(rng, 3, 4, 5), 2, **self.settings(rng, n_steps=2)), (2, 5))
        expect(
            shapes == {(3, 4, 5)},
            "The reader was given a stream of another shape than `resid` has.",
            actual=sorted(shapes),
        )

    def test_bad_number(self, answer, rng):
        "no directions, or more than there are dimensions, are refused"
        for n in (0, 6):
            expect_raises(
                ValueError, answer, random_reader(rng, 5, 7), stream(rng, 9, 5), n, **self.settings(rng, n_steps=1)
            )
