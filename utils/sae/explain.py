"""Automated interpretability: a rule proposed for a latent from its examples, and the scores that rule has to pass.

An *explainer* is any function that gets tokens and where the latent is on, and returns something that can say of other
tokens where the latent will be on. The one here knows rules about words; ``utils.sae.language_model`` asks a language
model.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

NO_WORD = -1  # stands in a table of words where there is none


class Explanation(NamedTuple):
    """A rule that says where a latent is on. It has words, or a state, or both, in which case both must hold.

    Attributes:
        words: Ids of words in ascending order, one of which must stand at ``offset``; empty if the rule has no words.
        offset: Where the word stands: 0 for the place itself, -1 for the place before it, and so on.
        state: The name of a state that must hold at the place, such as "inside quotation marks"; "" for none.
        f1: How well the rule fits the examples that it was made from.
    """

    words: tuple[int, ...]
    offset: int
    state: str
    f1: float


def best_word_set(words: Int[Tensor, " n"], on: Bool[Tensor, " n"], most: int) -> tuple[tuple[int, ...], float]:
    """The words that tell best, by themselves, where a latent is on: those whose set has the highest F1.

    The rule "the word is one of these" says yes at every place with such a word. Its F1 is

        2 · (places where it says yes and the latent is on) / (places where it says yes + places where it is on).

    To try all sets is out of the question, and not needed: if words are put in order of the share of their places where
    the latent is on, one of the beginnings of this list has the highest F1 of all sets. Words of equal share: the one
    with more places first, and of as many the one with the smaller id. If that set has more words than allowed, the
    best shorter beginning is taken; it need not be the best set of so few words, as rare words may come first.

    Args:
        words: The word at each place. A negative number stands for no word, which is never in the set; its places count
            all the same, where the latent is on.
        on: Whether the latent is on there.
        most: How many words the set may have, at least 1.

    Returns:
        The ids of the best of the first 1, 2 … ``most`` words of the list, in ascending order, and its F1; of equal
        F1 the smallest. Words with which the latent is never on are not in it. If it is nowhere on with any word: an
        empty set, and 0.
    """
    real = words >= 0
    size = int(words.max()) + 1 if real.any() else 0
    seen = torch.bincount(words[real], minlength=size)
    active = torch.bincount(words[real & on], minlength=size)
    candidates = active.nonzero()[:, 0].tolist()
    order = sorted(candidates, key=lambda w: (-(active[w] / seen[w]).item(), -seen[w].item(), w))
    best, best_f1, said, right = (), 0.0, 0, 0
    for i, word in enumerate(order[:most]):
        said, right = said + seen[word].item(), right + active[word].item()
        f1 = 2 * right / (said + on.sum().item())
        if f1 > best_f1:
            best, best_f1 = tuple(sorted(order[: i + 1])), f1
    return best, best_f1


def explain_feature(
    tokens: Int[Tensor, "doc pos"],
    on: Bool[Tensor, "doc pos"],
    states: Mapping[str, Bool[Tensor, "doc pos"]],
    *,
    n_back: int = 2,
    most: int = 12,
) -> Explanation:
    """Propose the rule that fits best where a latent is on.

    The candidates, in this order:

    1. each state by itself, in the order of ``states``;
    2. for each offset 0, -1 … ``-n_back``: "the word there is one of …", with the best set of at most ``most`` words.
       At the first positions of a document there is no such word, and the rule does not hold;
    3. for each state, in order: the state holds *and* the word at the place itself is one of …, with the best set of at
       most ``most`` words for that.

    Args:
        tokens: Documents of word ids.
        on: Where the latent is on.
        states: What else is known of each place, by name; there may be none.
        n_back: How many words back the rules look.
        most: How many words a rule may list.

    Returns:
        The candidate whose F1 (as ``best_word_set`` has it, over all places) is highest; of equal ones the first. A
        rule without words has offset 0. If no candidate has an F1 above 0: ``Explanation((), 0, "", 0.0)``.
    """
    total = on.sum().item()
    best = Explanation((), 0, "", 0.0)
    candidates = []
    for name, holds in states.items():
        said = holds.sum().item() + total
        candidates.append(Explanation((), 0, name, 2 * (holds & on).sum().item() / said if said else 0.0))
    for offset in range(0, -n_back - 1, -1):
        there = torch.full_like(tokens, -1)
        there[:, -offset:] = tokens[:, : max(0, tokens.shape[1] + offset)]
        words, f1 = best_word_set(there.flatten(), on.flatten(), most)
        candidates.append(Explanation(words, offset, "", f1))
    for name, holds in states.items():
        words, f1 = best_word_set(tokens.masked_fill(~holds, -1).flatten(), on.flatten(), most)
        candidates.append(Explanation(words, 0, name, f1))
    for candidate in candidates:
        if candidate.f1 > best.f1:
            best = candidate
    return best


def applies(
    explanation: Explanation, tokens: Int[Tensor, "doc pos"], states: Mapping[str, Bool[Tensor, "doc pos"]]
) -> Bool[Tensor, "doc pos"]:
    """Where a rule says that its latent is on. A rule with neither words nor state holds nowhere."""
    if not explanation.words and not explanation.state:
        return torch.zeros_like(tokens, dtype=torch.bool)
    holds = states[explanation.state] if explanation.state else torch.ones_like(tokens, dtype=torch.bool)
    if not explanation.words:
        return holds
    back = -explanation.offset
    there = torch.full_like(tokens, NO_WORD)
    there[:, back:] = tokens[:, : max(0, tokens.shape[1] - back)]
    return holds & torch.isin(there, torch.tensor(explanation.words))


def in_words(explanation: Explanation, vocabulary: Sequence[str]) -> str:
    """A rule as a sentence."""
    listed = ", ".join(vocabulary[word] for word in explanation.words)
    where = {0: "the word is", -1: "the word before is", -2: "two words before stands"}.get(
        explanation.offset, f"{-explanation.offset} words before stands"
    )
    parts = [explanation.state] if explanation.state else []
    if listed:
        parts.append(f"{where} {'one of ' if len(explanation.words) > 1 else ''}{listed}")
    return ", and ".join(parts) or "never"


def detection_score(guesses: Float[Tensor, " n"], on: Bool[Tensor, " n"]) -> float:
    """How well guesses tell places where a latent is on from places where it is off: the area under the ROC curve.

    That is the chance that, of one place where the latent is on and one where it is off, both drawn at random, the
    guess is higher for the first; if both guesses are equal, it counts one half. It does not depend on how many places
    of either kind there are. For guesses of yes and no it is the mean of the share of on-places with a yes and the
    share of off-places with a no, the balanced accuracy.

    Args:
        guesses: The higher, the rather is the latent on; of any dtype, Booleans included.
        on: Whether it is.

    Returns:
        From 0 to 1; 0.5 is chance.

    Raises:
        ValueError: If the latent is on everywhere, or nowhere.
    """
    if on.all() or not on.any():
        raise ValueError("places of both kinds are needed, on and off")
    values, places = guesses.double().unique(return_inverse=True)
    n_on = torch.bincount(places[on], minlength=len(values)).double()
    n_off = torch.bincount(places[~on], minlength=len(values)).double()
    below = n_off.cumsum(0) - n_off
    return (n_on @ (below + n_off / 2) / (n_on.sum() * n_off.sum())).item()


def simulation_score(simulated: Float[Tensor, " n"], actual: Float[Tensor, " n"]) -> float:
    """How well simulated activations follow the real ones: Pearson's correlation.

    It asks for more than detection: not only where, but how strongly. A simulation in another unit, or with another
    zero, scores the same.

    Args:
        simulated: What an explanation makes us expect at each place.
        actual: The latent's activations there.

    Returns:
        From -1 to 1; 0 if either is the same everywhere, since then nothing follows anything.

    Source: Bills et al. (2023), "Language models can explain neurons in language models", who score by it.
    """
    a, b = (values.double() - values.double().mean() for values in (simulated, actual))
    if (simulated == simulated[0]).all() or (actual == actual[0]).all():
        return 0.0
    return (a @ b / (a.norm() * b.norm())).item()
