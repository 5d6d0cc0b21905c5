"""The detectors against transformer_lens's head detector, and on heads that are set by hand."""

import torch
from transformer_lens.head_detector import detect_head

from utils.circuits.by_hand import two_head_induction_by_hand
from utils.circuits.detectors import duplicate_token_score, induction_score, previous_token_score
from utils.circuits.knockout import attention_of_all_heads
from utils.circuits.networks import attention_only
from utils.circuits.repeats import repeated_random_tokens
from utils.models.course_model import load_course_model


def rows(n, period, seed):
    return repeated_random_tokens(n, period, torch.arange(2, 666), 0, torch.Generator().manual_seed(seed))


def test_the_library_sees_the_same_heads():
    """Its score is the share of all attention, also of queries with nothing to find: half of it is our mean."""
    model, tokens = load_course_model(), rows(1, 40, 0)
    ours = {
        "previous_token_head": torch.stack([previous_token_score(p)[0] for p in attention_of_all_heads(model, tokens)]),
        "duplicate_token_head": torch.stack(
            [duplicate_token_score(p, tokens)[0] for p in attention_of_all_heads(model, tokens)]
        ),
        "induction_head": torch.stack([induction_score(p, tokens)[0] for p in attention_of_all_heads(model, tokens)]),
    }
    n_pos = tokens.shape[1]
    for kind, queries in (("previous_token_head", n_pos - 2), ("duplicate_token_head", 40), ("induction_head", 40)):
        theirs = detect_head(model, model.to_string(tokens[0, 1:]), kind, exclude_bos=False, error_measure="mul")
        expected = ours[kind] * queries / n_pos
        # Of the previous token they also count position 1, which gives at most 1 / n_pos more.
        slack = 1 / n_pos if kind == "previous_token_head" else 1e-4
        torch.testing.assert_close(theirs, expected.detach(), atol=slack, rtol=1e-3)


def test_heads_by_hand_score_1():
    tokens = rows(5, 20, 1)
    _, patterns = attention_only(two_head_induction_by_hand(666, 41), tokens)
    assert previous_token_score(patterns[0]).min() > 0.999
    assert induction_score(patterns[1], tokens).min() > 0.999
    assert duplicate_token_score(patterns[1], tokens).max() < 0.001
