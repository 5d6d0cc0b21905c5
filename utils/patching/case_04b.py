"""The case of part 04b: which part of the model brings the names, and which says whose turn it is."""

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from utils.course.cases import estimate
from utils.data.corpus import encode
from utils.data.prompts import giving_roles, ioi_prompts, token_id
from utils.data.world import NAMES
from utils.patching.hooks import run_with_cache, run_with_hooks


class Gift(NamedTuple):
    """Who gives and who should get, in a text about two people that breaks off before the second."""

    giver: str
    receiver: str
    receiver_first: bool


def gift_of(text: str) -> Gift:
    """Read who gives, who should get, and whether the receiver is named before the giver.

    Raises:
        ValueError: If a word is not in the vocabulary, the people named are not two, or it is not one of them who
            gives, behind an opening that names both.
    """
    roles = giving_roles(text)
    if len(roles.said) != 2 or not set(roles.said) <= set(NAMES):
        raise ValueError(f"{text!r} names {len(roles.said)} people ({', '.join(roles.said)}), and should name two")
    if roles.giver is None or max(places[0] for places in roles.said.values()) >= roles.giver_at:
        raise ValueError(f"in {text!r} nobody gives who was named beside another before")
    first, second = roles.said
    receiver = second if roles.giver == first else first
    return Gift(roles.giver, receiver, receiver == first)


def swap_heads(
    model: nn.Module, texts: Sequence[str], donors: Sequence[str], heads: Sequence[tuple[int, int]]
) -> Float[Tensor, "text d_vocab"]:
    """Logits behind each text while these heads' outputs at its last token are those that they have on its donor.

    Args:
        model: The course model.
        texts: What the model reads.
        donors: For each text one of as many words.
        heads: Pairs (layer, head), both counted from 0; with none, nothing is swapped.

    Raises:
        ValueError: If a text and its donor differ in length, or a word is not in the vocabulary.
    """
    rows, theirs = ([[0, *encode(text)] for text in side] for side in (texts, donors))
    if list(map(len, rows)) != list(map(len, theirs)):
        raise ValueError("a text and its donor need as many words")
    longest, ends = max(map(len, rows)), torch.tensor([len(row) - 1 for row in rows])
    tokens, others = (torch.tensor([row + [0] * (longest - len(row)) for row in side]) for side in (rows, theirs))
    layers = sorted({layer for layer, _ in heads})
    index = torch.arange(len(rows))

    def write(layer: int, source: Tensor) -> Callable[[Tensor], Tensor]:
        def swapped(z: Tensor) -> Tensor:
            changed = z.clone()
            for head in (head for other, head in heads if other == layer):
                changed[index, ends, head] = source[index, ends, head]
            return changed

        return swapped

    with torch.no_grad():
        names = {layer: f"blocks.{layer}.attn.hook_z" for layer in layers}
        _, cache = run_with_cache(model, others, list(names.values()))
        hooks = [(name, write(layer, cache[name])) for layer, name in names.items()]
        return run_with_hooks(model, tokens, hooks)[index, ends]


def who_brings_the_name(model: nn.Module) -> dict[str, object]:
    """Design an experiment: what do head 1.3 and the eight heads of layers 2 and 3 contribute to the answer?

    Three readings are open. "chain": head 1.3 tells the later heads who gives, and they write the name of the other, so
    that what they write is the chosen name. "division": the later heads bring the names, whoever gives; head 1.3
    decides between them by other routes. "disturbance": neither carries anything in particular, and only the stand-ins
    of the ablations disturbed the model. A pair is a prompt and a donor that differ in one word. Some heads are given
    the output, at the last token, that they have on the donor, and one asks whether the donor's answer comes.

    Args:
        model: The course model.

    Returns:
        A dict with these keys:

        "other_giver", "other_receiver": Lists of at least 10 pairs of texts (prompt, donor). Every text is about two of
            the world's names, says both in its opening and then that one of them gives; the model's answer is the other
            one. In "other_giver" the donor says that the other of the two gives. In "other_receiver" the donor names
            another receiver, who is not in the prompt. No other word differs. Within a list, no two prompts are built
            alike (the same text but for names, places, things and adjectives), and both orders occur at least 3 times:
            the receiver named first, the giver named first.
        "measure": A function ``measure(logits, answer, own)`` of the logits [d_vocab] behind a prompt, the donor's
            answer and the prompt's own (words). It returns a number, the larger the more ``answer`` is said. In every
            pair it is larger for the donor's run than for the prompt's. From the one to the other is the way of which
            shares are told. On average over a list, half of the way is about where both answers are equally likely: for
            the mean of the two runs' probabilities the measure is between a quarter and three quarters. And it is not
            above three quarters behind scenes about other people, where neither is the answer.
        "control_heads": At least four heads, a list of pairs (layer, head), none of them under suspicion. Swapped, they
            take the measure at most a quarter of that way in both lists, on average.
        "head_giver", "head_receiver": With head 1.3 swapped, for the two lists: the share of the way from the prompt's
            measure (0) to the donor's (1). Each pair's own share; their mean and the half-width of its 95 % interval.
        "later_giver", "later_receiver": The same with all eight heads of layers 2 and 3 swapped.
        "verdict": "chain", "division" or "disturbance", the one reading that predicts for all four shares whether the
            donor's answer comes (interval above 1/2) or does not (interval below 1/2); "undecided" if none does.
    """
    rng, later = random.Random(0), [(layer, head) for layer in (2, 3) for head in range(4)]
    control = [(layer, head) for layer in (0, 1) for head in range(4) if (layer, head) != (1, 3)]
    other_giver, other_receiver = [], []
    for prompt in list({prompt.unit: prompt for prompt in ioi_prompts(300, 0)}.values())[:24]:
        before, after = prompt.text.rsplit(prompt.foil, 1)
        someone = rng.choice([name for name in NAMES if name not in (prompt.answer, prompt.foil)])
        other_giver.append((prompt.text, before + prompt.answer + after))
        other_receiver.append((prompt.text, prompt.text.replace(prompt.answer, someone)))

    def measure(logits: Tensor, answer: str, own: str) -> float:
        return logits.softmax(-1)[token_id(answer)].item()

    def shares(pairs: Sequence[tuple[str, str]], heads: Sequence[tuple[int, int]]) -> tuple[float, float]:
        prompts, donors = zip(*pairs, strict=True)
        runs = [
            swap_heads(model, prompts, donors, []),
            swap_heads(model, prompts, donors, heads),
            swap_heads(model, donors, donors, []),
        ]
        found = []
        for prompt, donor, *logits in zip(prompts, donors, *runs, strict=True):
            words = gift_of(donor).receiver, gift_of(prompt).receiver
            own, swapped, whole = (measure(x, *words) for x in logits)
            found.append((swapped - own) / (whole - own))
        return estimate(found)

    lists = {"giver": other_giver, "receiver": other_receiver}
    found = {f"head_{name}": shares(pairs, [(1, 3)]) for name, pairs in lists.items()}
    found |= {f"later_{name}": shares(pairs, later) for name, pairs in lists.items()}
    comes = {name: mean > 0.5 for name, (mean, half) in found.items() if abs(mean - 0.5) > half}
    predicted = {
        "chain": (True, False, True, True),
        "division": (True, False, False, True),
        "disturbance": (False,) * 4,
    }
    fits = [reading for reading, values in predicted.items() if comes == dict(zip(found, values, strict=True))]
    return {
        "other_giver": other_giver,
        "other_receiver": other_receiver,
        "measure": measure,
        "control_heads": control,
        **found,
        "verdict": fits[0] if fits else "undecided",
    }
