"""Wrong and right designs for the case of part 02b."""

import random
from functools import cache

import torch
from scipy.special import stdtrit

from utils.course.cases import estimate
from utils.course.catalogue import right, wrong
from utils.data import corpus
from utils.transformer.attention import attention_pattern
from utils.transformer.case_02b import READS, beginnings, read_by_heads, says, trained_head, what_a_look_at_bos_is_for


@cache
def ours():
    return what_a_look_at_bos_is_for()


def our_design():
    return dict(ours())


def at_the_end(text, head):
    weights = trained_head(*head)
    _, stream = read_by_heads(text, head[0])
    return attention_pattern(stream, *(weights[name] for name in READS))[0, -1]


def reported(design):
    """The design with what then comes out, and the verdict that follows from it."""
    measure, head = design["measure"], tuple(design["head"])
    fetched, kept_away = [], []
    for text, _, other, position in design["trials"]:
        silent = measure(says(text), says(text, head, silent=0))
        fetched.append(measure(says(other), says(other, head, silent=position)) / 2 - silent)
        kept_away.append(measure(says(text), says(text, head, hidden=0)) - 2 * silent)
    effects = estimate(fetched), estimate(kept_away)
    signs = [(mean > half) - (mean < -half) for mean, half in effects]
    verdict = "source" if signs[0] < 0 else {1: "valve", -1: "rest"}.get(signs[0] * signs[1], "undecided")
    return design | {"effect_silent": effects[0], "effect_hidden": effects[1], "verdict": verdict}


def changed(**parts):
    """Our design with parts of it replaced, and what then comes out reported as it is."""
    design = our_design()
    return reported(design | {key: part(design[key]) if key == "trials" else part for key, part in parts.items()})


def trials_for(head, texts, n, gap=0.1, least=0.5):
    """Trials for a head, each text with the other text that is nearest in weight."""
    ends = [(text, at_the_end(text, head)) for text in texts]
    free = [end for end in ends if end[1].argmax() > 0 and end[1].max() >= least]
    found = []
    for text, weights in ends:
        if weights[0] < max(least, 0.5) or not free or len(found) == n:
            continue
        nearest = min(free, key=lambda end: abs(end[1].max() - weights[0]))
        if abs(nearest[1].max() - weights[0]) < gap and weights[1:].min() <= 0.02:
            free = [end for end in free if end[0] != nearest[0]]
            found.append((text, 1 + weights[1:].argmin().item(), nearest[0], nearest[1].argmax().item()))
    return found


@wrong(
    "what_a_look_at_bos_is_for",
    "You compare <bos> at one weight with words at another. Then the weight differs as well as what is looked at, and "
    "it alone could make the difference. Choose, for each text, a word with the weight that <bos> has there.",
)
def words_with_little_weight():
    def lighter(trials):
        found = []
        for text, control, other, _ in trials:
            weights = at_the_end(other, (3, 1))
            order = (1 + weights[1:].argsort()).tolist()
            found.append((text, control, other, next(at for at in order if at + 1 != order[-1])))
        return found

    return changed(trials=lighter)


@wrong(
    "what_a_look_at_bos_is_for",
    "At the end of some of your texts the head has less than half of its weight on <bos>, and there little can be "
    "learnt about what a look at it is for. Choose texts by the weight that <bos> has at their end.",
)
def wherever_it_looks():
    def turned(trials):
        return [(other, 1 + at_the_end(other, (3, 1))[1:].argmin().item(), other, at) for _, _, other, at in trials]

    return changed(trials=turned)


@wrong(
    "what_a_look_at_bos_is_for",
    "As the word that is looked at you give position 0 of the other text. That is <bos> again, and the comparison with "
    "itself tells you nothing.",
)
def bos_against_bos():
    return changed(trials=lambda trials: [(t, c, trials[i - 1][0], 0) for i, (t, c, _, _) in enumerate(trials)])


@wrong(
    "what_a_look_at_bos_is_for",
    "Your control is the token that the head looks at most. A control is the place where nothing should happen: a word "
    "with next to no weight.",
)
def the_control_is_looked_at():
    return changed(trials=lambda trials: [(text, 0, *rest) for text, _, *rest in trials])


@wrong(
    "what_a_look_at_bos_is_for",
    "The head looks at your control, if less than at another token. A control is the place where nothing should "
    "happen: a word with next to no weight.",
)
def the_control_is_glanced_at():
    def second(text):
        return 1 + at_the_end(text, (3, 1))[1:].argmax().item()

    trials = trials_for((3, 1), beginnings(160, seed=0), 30)
    return changed(
        trials=lambda _: [(t, second(t), *rest) for t, _, *rest in trials if at_the_end(t, (3, 1))[second(t)] > 0.03]
    )


@wrong(
    "what_a_look_at_bos_is_for",
    "You seem to count positions without <bos>: the word behind the one that you name has the weight you look for. "
    "Position 0 is <bos>, and the first word is at 1.",
)
def counted_without_bos():
    def one_less(trials):
        return [(text, control, other, position - 1) for text, control, other, position in trials if position > 1]

    return changed(trials=one_less)


@wrong(
    "what_a_look_at_bos_is_for",
    "Six trials are too few: most changes are small and some are large, and an interval over six of them excludes "
    "hardly anything.",
)
def six_trials():
    return changed(trials=lambda trials: trials[:6])


@wrong(
    "what_a_look_at_bos_is_for",
    "All your texts end alike. The head does the same at all of these ends, so you have one observation many times.",
)
def one_kind_of_end():
    def ends(trials):
        found = []
        for first in ("Amber", "Crystal", "Iron", "Silver", "Golden", "Royal", "Marble", "Lion", "Eagle", "Rose"):
            for second in ("Tower", "Palace", "Gate"):
                text = f"The {first} {second} is located in"
                weights = at_the_end(text, (3, 1))
                near = [t for t in trials if abs(at_the_end(t[2], (3, 1))[t[3]] - weights[0]) < 0.1]
                if weights[0] >= 0.5 and near and weights.min() <= 0.02:
                    trials = [t for t in trials if t[2] != near[0][2]]
                    found.append((text, 1 + weights[1:].argmin().item(), *near[0][2:]))
        return found

    return changed(trials=ends)


@wrong(
    "what_a_look_at_bos_is_for",
    "Your measure counts the words whose rank has changed. Nearly all change places at the slightest touch, so that "
    "a twentieth of a change counts as much as the whole: measure how much changes, not whether.",
)
def ranks_that_change():
    return changed(measure=lambda before, after: (before.argsort() != after.argsort()).float().mean().item())


@wrong(
    "what_a_look_at_bos_is_for",
    "Your measure is the surprise at the word that was likeliest before. It is not 0 where nothing has changed; take "
    "the difference to what it was.",
)
def surprise_afterwards():
    return changed(measure=lambda before, after: -after[before.argmax()].item())


@wrong(
    "what_a_look_at_bos_is_for",
    "Your measure says by how much the word that was likeliest has become less so, and is negative where it gains. "
    "Whether it gains or loses, the change is felt: take the size of the difference.",
)
def what_the_likeliest_loses():
    return changed(measure=lambda before, after: (before - after)[before.argmax()].item())


@wrong(
    "what_a_look_at_bos_is_for",
    "Your measure compares how sure the model is before and after. It can be as sure of another word: compare what it "
    "expects, word by word.",
)
def how_sure_it_is():
    def measure(before, after):
        return abs((before.exp() * before).sum() - (after.exp() * after).sum()).item()

    return changed(measure=measure)


@wrong(
    "what_a_look_at_bos_is_for",
    "Your measure looks at a hundred words that each call draws anew, so the same trial gives another number each "
    "time. Draw them once, or take all: the probabilities are at hand.",
)
def of_words_drawn_anew():
    rng = random.Random(0)

    def measure(before, after):
        drawn = rng.sample(range(len(before)), 100)
        return (before[drawn].exp() - after[drawn].exp()).abs().sum().item()

    return changed(measure=measure)


@wrong(
    "what_a_look_at_bos_is_for",
    "What you report beside each mean is the standard deviation of the trials. The interval of the mean is narrower, "
    "by the root of their number.",
)
def standard_deviations():
    design = our_design()
    wide = {key: (design[key][0], design[key][1] * len(design["trials"]) ** 0.5 / 2.05) for key in EFFECTS}
    return design | wide | {"verdict": "undecided"}


EFFECTS = ("effect_silent", "effect_hidden")


@wrong(
    "what_a_look_at_bos_is_for",
    "You compare the word with <bos> as they are. The docstring asks for half of the word's effect, so that a clear "
    "difference means less than half, and not just less.",
)
def without_the_half():
    design = our_design()
    head, measure, fetched = design["head"], design["measure"], []
    for text, _, other, position in design["trials"]:
        word = measure(says(other), says(other, head, silent=position))
        fetched.append(word - measure(says(text), says(text, head, silent=0)))
    return design | {"effect_silent": estimate(fetched)}


@wrong(
    "what_a_look_at_bos_is_for",
    "Your numbers show that little is handed over, and from that alone you conclude that the head rests. Whether its "
    "weight could as well go elsewhere is what the second effect says: read that, too.",
)
def rest_from_the_first_effect_alone():
    return our_design() | {"verdict": "rest"}


@wrong(
    "what_a_look_at_bos_is_for",
    "The weight on <bos> is large, but that is where you began, and no evidence that something is fetched there. Your "
    "own first effect says that a word with this weight hands over more than twice as much.",
)
def source_because_of_the_weight():
    return our_design() | {"verdict": "source"}


@right("what_a_look_at_bos_is_for")
def log_probabilities_of_head_3_0():
    """Another head, other texts, and the spread of all log-probabilities' changes as the measure."""

    def measure(before, after):
        return (after - before).std()

    trials = trials_for((3, 0), beginnings(160, seed=7), 20)
    return reported({"head": [3, 0], "trials": [list(t) for t in trials], "measure": measure})


@right("what_a_look_at_bos_is_for")
def divergence_of_head_2_1():
    """A head of another layer, whole scenes cut behind their first comma or "and", and the root of the divergence."""
    rng, texts = random.Random(3), []
    while len(texts) < 160:
        said = corpus.words(corpus.scene(rng))
        ends = [i for i, word in enumerate(said) if word in (",", "and", "the", "to") and i > 2]
        text = " ".join(said[: 1 + rng.choice(ends or [len(said) - 1])][:60])
        if text not in texts:
            texts.append(text)

    def measure(before, after):
        return float((before.exp() * (before - after)).sum().clamp(min=0)) ** 0.5

    return reported({"head": (2, 1), "trials": trials_for((2, 1), texts, 25), "measure": measure})


@right("what_a_look_at_bos_is_for")
def what_was_likeliest():
    """The change of the likeliest word's probability, a normal interval, tensors for numbers."""

    def measure(before, after):
        best = before.argmax()
        return (before[best].exp() - after[best].exp()).abs()

    design = reported({"head": (3, 1), "trials": trials_for((3, 1), beginnings(200, seed=11), 30), "measure": measure})
    n = len(design["trials"])
    narrower = 1.96 / float(stdtrit(n - 1, 0.975))
    return design | {key: (torch.tensor(design[key][0]), design[key][1] * narrower) for key in EFFECTS}
