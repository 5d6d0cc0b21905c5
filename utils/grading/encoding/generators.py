"""Whether a generator of random numbers may have come into a state by being drawn from."""

import struct

import numpy as np
import torch
from torch import Tensor

from utils.grading.encoding.messages import BadMessage

MAX_BLOCKS = 4000  # of 624 draws that one call may take from a generator
_USED, _BLOCK = slice(8, 24), slice(24, 24 + 624 * 8)  # where these are in a generator's state


def expect_reachable(generator: torch.Generator, state: Tensor) -> None:
    """Refuse a state that drawing from the generator does not lead to: one whose draws the other side has chosen.

    A state of torch's Mersenne twister is a block of 624 numbers, how much of it is used up, and at most one normal
    number that is left over.
    """
    ahead = torch.Generator()
    ahead.set_state(generator.get_state())
    block = torch.empty(624, dtype=torch.int32)
    if len(state) != len(ahead.get_state()):
        raise BadMessage("a generator's state of another size")
    for _ in range(MAX_BLOCKS):
        now = ahead.get_state()
        if torch.equal(now[_BLOCK], state[_BLOCK]):
            break
        block.random_(generator=ahead)
    else:
        raise BadMessage("a generator in a state that drawing from it does not lead to")
    used, left_over = state[_USED].numpy(), state[_BLOCK.stop :].numpy()
    left, seeded, following = struct.unpack("<iiQ", used.tobytes())
    numbers = np.frombuffer(left_over.tobytes()[: len(left_over) // 8 * 8], dtype=np.float64)
    if not 0 < left <= 624 or seeded != 1 or following > 624 or not np.all(np.abs(numbers) < 40):
        raise BadMessage("a generator in a state that it never is in")
