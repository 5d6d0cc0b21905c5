"""What the checks of made features share: draws from torch's global generator, and shares."""

import torch

from utils.course.checking import expect


def from_global(draw):
    """What is drawn from torch's global generator at a seed, at the same again, and at another; it is put back."""
    with torch.random.fork_rng(devices=[]):
        found = []
        for seed in (3, 3, 4):
            torch.manual_seed(seed)
            found.append(draw())
        return found


def expect_shares(found, wanted, tolerance):
    """Expect each feature to be on about as often as its probability says. Only which are off, and to which side, tells
    one mistake from another: shares are random."""
    share = (found != 0).float().mean(1)
    side = ((share - wanted).sign() * ((share - wanted).abs() > tolerance)).int().tolist()
    expect(
        not any(x for row in side for x in row),
        "The share of examples with the feature on differs.",
        actual=side,
        returned=f"shares {rounded(share)}",
        expected=f"about {rounded(wanted)}",
    )


def rounded(rows):
    return [[round(x, 3) for x in row] for row in rows.tolist()]
