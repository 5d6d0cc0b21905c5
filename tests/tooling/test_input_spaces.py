"""No exercise can be answered from a table: its checks draw inputs from spaces too large to tabulate.

A grader's seed is secret, but a check that only ever asks for one of a hundred inputs needs no secret: whoever has
written down the hundred answers passes. Small sizes may come too, but not alone. Here each exercise's checks run with
many seeds, and some kind of call that they make has to bring, each time, an input that never came before; or else a
table of what they ask for has to be larger than a submission may be.
"""

import hashlib
import inspect
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from torch import nn

from utils.course.checking import Answer
from utils.course.manifest import exercises
from utils.course.runner import _call_check, check_class, check_methods, own_settings, own_state
from utils.grading.batch import MAX_FILE

pytestmark = pytest.mark.slow
SEEDS = 60  # of so many draws two are the same, most of the time, if there are fewer than 2,500 to draw from


class Recording(Answer):
    """The reference, with a note of all that it is asked for, by the kind of call, and how much it answers."""

    def __init__(self, exercise):
        super().__init__(exercise.reference, may_change_inputs=exercise.may_change_inputs)
        self.asked = {}

    def _run(self, function, label, signature, args, kwargs):
        weights = function if isinstance(function, nn.Module) else None
        key = [fingerprint([weights, args, sorted(kwargs.items())], values) for values in (False, True)]
        result = super()._run(function, label, signature, args, kwargs)
        self.asked[tuple(key)] = result.numel() if isinstance(result, torch.Tensor) else 8 * len(repr(result))
        return result


def fingerprint(value, values=True):
    """Equal for equal values, and nothing about where they lie in memory; or of their kinds and shapes alone."""
    if isinstance(value, torch.Tensor):
        data = value.detach().resolve_conj().clone(memory_format=torch.contiguous_format).flatten()
        data = data.view(torch.uint8).numpy().tobytes() if values and not value.is_meta and value.numel() else b""
        return f"{value.dtype}{tuple(value.shape)}{hashlib.sha256(data).hexdigest()}"
    if isinstance(value, np.ndarray | np.generic):
        return f"{value.dtype}{value.shape}{hashlib.sha256(value.tobytes()).hexdigest() if values else ''}"
    if isinstance(value, nn.Module):
        return fingerprint(value.state_dict(), values)
    if isinstance(value, torch.Generator):
        return fingerprint(value.get_state(), values)
    if isinstance(value, dict):
        return str([(fingerprint(key, values), fingerprint(item, values)) for key, item in value.items()])
    if isinstance(value, list | tuple):
        return str([fingerprint(item, values) for item in value])
    if isinstance(value, str | int | float | bool | complex | None):
        return repr(value) if values else type(value).__name__
    if isinstance(value, set | frozenset):
        return str(sorted(fingerprint(item, values) for item in value))
    if inspect.isfunction(value):  # what it draws on; itself, if it is recursive, no second time
        held = [cell.cell_contents for cell in value.__closure__ or ()]
        return value.__name__ + fingerprint([item for item in held if item is not value], values)
    if isinstance(value, type) or not hasattr(value, "__dict__"):
        return type(value).__name__
    return type(value).__name__ + fingerprint(vars(value), values)


def asked_for(exercise, seed):
    """What each check asks for: by its title, inputs with the size of what is answered."""
    found = {}
    for title, method in check_methods(check_class(exercise)).items():
        answer = Recording(exercise)
        with own_settings(), own_state(seed):
            _call_check(method, answer, exercise, seed)
        found[title] = answer.asked
    return found


def kinds_of_calls(exercise, n_seeds=SEEDS):
    """By check, and by the kind of call in it: how many inputs were drawn, how many pairs of these were the same, and
    how many bits an answer takes at least.

    What half of the seeds have in common is no draw.
    """
    times, sizes = defaultdict(Counter), {}
    for seed in range(1000, 1000 + n_seeds):
        for title, asked in asked_for(exercise, seed).items():
            sizes |= asked
            for kind, key in asked:
                times[title, ""][kind, key] += 1
                times[title, kind][kind, key] += 1
    found = {}
    for group, counted in times.items():
        drawn = {key: n for key, n in counted.items() if n < n_seeds / 2}
        repeated = sum(n * (n - 1) // 2 for n in drawn.values())
        found[group] = sum(drawn.values()), repeated, sum(map(sizes.get, drawn)) / max(len(drawn), 1)
    return found


def too_large(drawn, repeated, size, n_seeds=SEEDS):
    """Whether no table holds what is drawn from: nothing came twice; or it has more bits than a submission may have."""
    return drawn >= n_seeds and (not repeated or drawn**2 / (2 * repeated) * size / 8 > MAX_FILE)


# A case's function takes nothing: its design is the answer, and is run.
@pytest.mark.parametrize("name", [name for name, exercise in exercises().items() if not exercise.case])
def test_inputs_come_from_a_space_that_no_table_holds(name):
    found = kinds_of_calls(exercises()[name])
    assert any(too_large(*kind) for kind in found.values()), found


def test_a_hundred_inputs_are_noticed():
    """As ``causal_mask`` once had them."""
    draws = torch.randint(129, 200, (SEEDS,), generator=torch.Generator().manual_seed(0)).tolist()
    repeated = sum(n * (n - 1) // 2 for n in Counter(draws).values())
    assert not too_large(SEEDS, repeated, 165**2)
