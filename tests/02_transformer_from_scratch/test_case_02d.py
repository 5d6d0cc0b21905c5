"""The check of the case of part 02d: a test of equality is tried on what it should notice and on what it should not."""

import copy
from functools import cache

import torch

from utils.course.cases import design_of, expect_function_of_input, lent
from utils.course.checking import Mismatch, expect, plain
from utils.data.corpus import vocabulary
from utils.transformer.case_02c import course_transformer
from utils.transformer.case_02d import rewrites
from utils.transformer.model import Transformer

KEYS = {
    "texts": "list",
    "measure": "callable",
    "exact": "callable",
    "damage": "callable",
    "limit": "number",
    "altered": "list",
}
MOST_TOKENS, SMALL, ROUNDING = 1000, 0.01, 1e-3
# In float64 nothing is left of rounding but that of the rewritten weights to float32, 1e-5 in a log-probability.
EXACT, LOOKED_AT = 3e-4, 4
UNNOTICED = {
    "B": "Model B has another last position: the row of W_pos for position 95 is zero. {value}, and your limit is "
    "{limit}: your design does not notice. Who is asked a question that only position 95 answers?",
    "C": "All logits of model C are a hundredth larger: it is a little surer of everything. {value}, and your limit is "
    "{limit}: your design does not notice.",
    "E": "Model E reads one word, 'Cusco', as another. {value}, and your limit is {limit}: your design does not "
    "notice.",
}
CRIED = {
    "A": "In model A heads and neurons stand in another order, and their sum is the same. {value}, and your limit is "
    "{limit}: what you see is rounding.",
    "D": "Model D has its norms folded and its value biases carried to b_O: by algebra the same. {value}, and your "
    "limit is {limit}: what you see is rounding.",
    "F": "In model F one number has been added to all logits of a position. No probability changes by that. {value}, "
    "and your limit is {limit}: you measure logits, and not what is predicted.",
}


class TestWhichRewritesAlteredTheFunction:
    exercise = "which_rewrites_altered_the_function"

    def test_design(self, answer):
        "a test of equality that lets pass what is the same, and notices what is not"
        model, rewritten = models()
        with lent(model, *rewritten.values()):
            design = design_of(answer, KEYS, model, rewritten)
            tokens = tokens_of(design["texts"], model.cfg)
            measure, limit = design["measure"], float(plain(design["limit"]))
            own, _ = expect_function_of_input(measure, [(model, x, tokens[:2]) for x in (model, rewritten["C"])])
            expect(
                abs(own) <= 1e-9 or abs(own) < limit / 10,
                f"Your measure of a model and itself is {own:.3g}. It should be 0: it measures something else than a "
                "difference.",
                actual="not a difference",
                returned=f"{own:.3g}",
                expected="0",
            )
            log_probs = predictions(model, tokens)
            expect_exact(design, model, tokens, log_probs, limit)
            expect_damage(design, model, tokens, log_probs, limit)
            values = {letter: number(measure(model, other, tokens)) for letter, other in rewritten.items()}
            for letter, value in values.items():
                expect_a_size(value, 0.01 * max(map(abs, values.values())), f"model {letter}")
            expect_sees(values, limit, len(tokens[0]) == model.cfg.n_ctx)
            expect_every_word(measure, model, tokens, limit)
        expect_verdict(design, values, limit)


@cache
def models():
    return course_transformer(), rewrites()


def tokens_of(texts, cfg):
    rows = [plain(row) for row in texts]
    rows = [list(row) if isinstance(row, list | tuple) else row for row in rows]
    expect(
        bool(rows)
        and all(isinstance(row, list) and row and len(row) == len(rows[0]) for row in rows)
        and all(type(plain(i)) is int and 0 <= plain(i) < cfg.d_vocab for row in rows for i in row),
        f"A text is a list of token ids from 0 to {cfg.d_vocab - 1}, and all texts have one length.",
        actual="texts",
        returned=repr(rows)[:150],
    )
    expect(
        len(rows[0]) <= cfg.n_ctx,
        f"Your texts have {len(rows[0])} tokens, and the model takes in {cfg.n_ctx} at most.",
        actual="too long",
        returned=f"{len(rows[0])} tokens in a text",
    )
    expect(
        len(rows) * len(rows[0]) <= MOST_TOKENS,
        f"Your texts are {len(rows)} of {len(rows[0])} tokens, and the test should do with {MOST_TOKENS} in all.",
        actual="too many tokens",
        returned=f"{len(rows)} × {len(rows[0])}",
    )
    return torch.tensor([[plain(i) for i in row] for row in rows])


def predictions(model, tokens):
    with torch.no_grad():
        return model(tokens).log_softmax(-1)


def number(value):
    return float(plain(value))


def loaded(rewrite, model, key):
    """The model with rewritten weights, and whether any of them is another tensor."""
    state = {name: weight.clone() for name, weight in model.state_dict().items()}
    new = rewrite({name: weight.clone() for name, weight in state.items()})
    fits = isinstance(new, dict) and new.keys() == state.keys()
    if not fits or any(getattr(new[name], "shape", None) != state[name].shape for name in state):
        raise Mismatch(
            f"Your {key!r} returns no state dict with the names and shapes of the model's, so it can't be loaded.",
            actual=("state", key),
            returned=type(new).__name__,
        )
    other = Transformer(model.cfg)
    other.load_state_dict(new)
    return other.requires_grad_(False), any(not torch.equal(new[name], state[name]) for name in state)


def largest_change(ours, theirs):
    return (ours - theirs).abs().max().item()


def divergence(ours, theirs):
    return (ours.exp() * (ours - theirs)).sum(-1).mean().abs().item()


def expect_exact(design, model, tokens, log_probs, limit):
    other, touched = loaded(design["exact"], model, "exact")
    expect(
        touched,
        "Your 'exact' gives the weights back as they were. Then there is no rounding either, and the control can't "
        "show how much of it your measure sees.",
        actual="exact: nothing done",
    )
    apart = largest_change(log_probs, predictions(other, tokens))
    expect(
        apart < ROUNDING,
        f"Your 'exact' changes what the model predicts, a log-probability on your texts by {apart:.2g}. It is no "
        "example of a rewrite that keeps the function.",
        actual="exact: not exact",
        returned=f"{apart:.3g}",
        expected="rounding",
    )
    wide = [predictions(copy.deepcopy(m).double(), tokens[:LOOKED_AT]) for m in (model, other)]
    apart = largest_change(*wide)
    expect(
        apart < EXACT,
        f"Your 'exact' changes little, and is not exact: computed in float64, where rounding is far smaller, a "
        f"log-probability on your texts still changes by {apart:.2g}. By algebra it should not change at all.",
        actual="exact: nearly",
        returned=f"{apart:.3g} in float64",
        expected="nothing but the rounding of the new weights",
    )
    value = number(design["measure"](model, other, tokens))
    expect(
        value <= limit,
        f"Your own 'exact' measures {value:.3g}, above your limit of {limit:.3g}. Sums in another order come out a "
        "little different: the limit has to be above rounding.",
        actual="limit below rounding",
        returned=f"{value:.3g}",
        expected=f"at most {limit:.3g}",
    )


def expect_a_size(value, rounding, of):
    expect(
        value >= -max(rounding, 1e-6),
        f"Your measure of {of} is {value:.3g}, below 0. A difference is to be the larger the more the two differ, and "
        "0 where they don't: a negative number is above no limit.",
        actual="negative",
        returned=f"{value:.3g}",
        expected="0 or more",
    )


def expect_damage(design, model, tokens, log_probs, limit):
    other, _ = loaded(design["damage"], model, "damage")
    theirs = predictions(other, tokens)
    most, apart = largest_change(log_probs, theirs), divergence(log_probs, theirs)
    expect(
        most > ROUNDING,
        f"Your 'damage' does none: on your texts no log-probability changes by more than {most:.2g}. A control that "
        "has nothing to find shows nothing.",
        actual="damage: none",
        returned=f"{most:.3g}",
        expected=f"more than {ROUNDING}",
    )
    expect(
        apart <= SMALL,
        f"Your 'damage' changes the predictions by {apart:.2g} nats on average. Any design would see that; the "
        f"question is whether yours sees a small one, of {SMALL} nats at most.",
        actual="damage: gross",
        returned=f"{apart:.3g} nats",
        expected=f"at most {SMALL} nats",
    )
    value = number(design["measure"](model, other, tokens))
    expect_a_size(value, 0.0, "your own 'damage'")
    expect(
        value > limit,
        f"Your own 'damage' measures {value:.3g}, not above your limit of {limit:.3g}. By your rule it has kept the "
        "function.",
        actual="damage: unnoticed",
        returned=f"{value:.3g}",
        expected=f"above {limit:.3g}",
    )


def expect_sees(values, limit, to_the_end):
    for sentences, wrong in ((CRIED, lambda value: value > limit), (UNNOTICED, lambda value: value <= limit)):
        for letter, sentence in sentences.items():
            told = sentence.format(value=f"Your measure gives {values[letter]:.3g}", limit=f"{limit:.3g}")
            expect(
                not wrong(values[letter]),
                told,
                actual=("cried" if sentences is CRIED else "unnoticed", letter, to_the_end, values[letter] == 0),
                returned=", ".join(f"{letter} {value:.3g}" for letter, value in values.items()),
            )


def expect_every_word(measure, model, tokens, limit):
    missing = sorted(set(range(model.cfg.d_vocab)) - set(tokens.flatten().tolist()))
    if not missing:
        return
    state = {name: weight.clone() for name, weight in model.state_dict().items()}
    state["embed.W_E"][missing[0]] = state["embed.W_E"][(missing[0] + 7) % model.cfg.d_vocab]
    other = Transformer(model.cfg)
    other.load_state_dict(state)
    value = number(measure(model, other.requires_grad_(False), tokens))
    expect(
        value > limit,
        f"A rewrite that reads {vocabulary()[missing[0]]!r} as another word goes unnoticed: none of your texts has it. "
        f"They leave {len(missing)} of {model.cfg.d_vocab} words out.",
        actual="a word",
        returned=f"{value:.3g}",
        expected=f"above {limit:.3g}",
    )


def expect_verdict(design, values, limit):
    follows = {letter for letter, value in values.items() if value > limit}
    said = {str(plain(letter)) for letter in design["altered"]}
    expect(
        said == follows,
        "Your list of altered models does not follow from your numbers: it should hold those whose measure is above "
        "the limit, and no others.",
        actual=("verdict", sorted(said ^ follows)),
        returned=", ".join(sorted(said)) or "none",
        expected=", ".join(sorted(follows)),
    )


def test_the_mean_loss_does_not_tell_the_six_apart():
    """The text's number: to three digits all six have the loss of the model itself, on 64 documents."""
    from utils.data import corpus

    tokens = torch.as_tensor(corpus.corpus(64, corpus.HELD_OUT_SEED + 7)).long()
    losses = []
    for model in (models()[0], *models()[1].values()):
        log_probs = predictions(model, tokens)[:, :-1]
        losses.append(-log_probs.gather(-1, tokens[:, 1:, None]).mean().item())
    assert max(losses) - min(losses) < 5e-4
