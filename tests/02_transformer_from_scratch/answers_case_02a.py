"""Wrong and right designs for the case of part 02a."""

import random
from functools import cache

import torch
from scipy.stats import spearmanr

from utils.course.cases import estimate
from utils.course.catalogue import right, wrong
from utils.data import corpus
from utils.transformer.case_02a import how_often, kind_of, trained_embedding, what_the_embedding_knows

LISTS = ("kind", "frequency")


@cache
def ours():
    return what_the_embedding_knows()


def reported(design):
    """The design with what then comes out, and the verdict that follows."""
    effects, measure = {}, design["measure"]
    for name in LISTS:
        rows = [trained_embedding()[[corpus.encode(word)[0] for word in triple]] for triple in design[name]]
        effects[f"effect_{name}"] = estimate([float(measure(x, y)) - float(measure(x, z)) for x, y, z in rows])
    there = tuple(effects[f"effect_{name}"][0] > effects[f"effect_{name}"][1] for name in LISTS)
    verdict = {(True, True): "both", (True, False): "kind", (False, True): "frequency"}.get(there, "neither")
    return design | effects | {"verdict": verdict}


def changed(**parts):
    return reported(dict(ours()) | {key: part(ours()[key]) if key in LISTS else part for key, part in parts.items()})


def ratio(x, y):
    a, b = how_often()[x], how_often()[y]
    return max(a / b, b / a)


def at_least_as_near(word, alike, other):
    return ratio(word, other) <= ratio(word, alike)


def by_kind(seed, n, *, words=None, fits=at_least_as_near, same_kind=False):
    """Triples for "kind", with the third word's frequency and kind as ``fits`` and ``same_kind`` want them."""
    kinds, taken, found = kind_of(), set(), []
    order = random.Random(seed).sample(list(kinds), len(kinds))
    for word in words or order:
        free = [w for w in order if w not in {word, *taken}]
        thirds = [w for w in free if (kinds[w] == kinds[word]) == same_kind]
        pairs = ((x, y) for x in free if kinds[x] == kinds[word] for y in thirds if x != y and fits(word, x, y))
        pair = None if word in taken or len(found) == n else next(pairs, None)
        if pair:
            found.append((word, *pair))
            taken.update(found[-1])
    return found


@wrong(
    "what_the_embedding_knows",
    "In some of your triples the third word is further from the first in frequency than the second word is. Both kind "
    "and frequency differ then, and the effect can't say which of the two it is about. Nearness is a matter of ratios: "
    "half as frequent is as near as twice as frequent.",
)
def any_word_of_another_kind():
    return changed(kind=lambda triples: by_kind(0, 40, fits=lambda x, y, z: ratio(x, z) > 2 * ratio(x, y)))


@wrong(
    "what_the_embedding_knows",
    "The second and the third word of this triple are about equally frequent, and yet the second is nearer to the "
    "first. To be about as frequent, as the first word or as the second, is not enough: take both ratios to the first "
    "word, and compare them with one another.",
)
def equal_up_to_a_factor():
    def fits(word, alike, other):
        return ratio(alike, other) <= 1.5

    return changed(kind=lambda triples: by_kind(1, 60, fits=fits))


@wrong(
    "what_the_embedding_knows",
    "In a triple of yours in 'kind' all three words are of one kind. Then their kind is no reason why one pair should "
    "be more similar than the other.",
)
def three_of_a_kind():
    return changed(kind=lambda triples: by_kind(0, 40, same_kind=True))


@wrong(
    "what_the_embedding_knows",
    "In a triple of yours in 'kind' the word of the same kind stands third and that of another kind second. The effect "
    "then has the wrong sign.",
)
def the_stranger_second():
    return changed(kind=lambda triples: [(word, other, alike) for word, alike, other in triples])


@wrong(
    "what_the_embedding_knows",
    "In 'frequency' your third word is of another kind than the second. It differs in frequency, too, but which of the "
    "two made the difference nobody can tell: take both from one kind (verbs have frequent and rare words).",
)
def frequency_across_kinds():
    def across(triples):
        words = random.Random(2).sample(list(kind_of()), len(kind_of()))
        taken, found = set(), []
        for word, near, _ in triples:
            taken |= {word, near}
        for word, near, _ in triples:
            far = [w for w in words if kind_of()[w] != kind_of()[near] and ratio(w, word) >= 3 and w not in taken]
            found.append((word, near, far[0]))
            taken.add(far[0])
        return found

    return changed(frequency=across)


@wrong(
    "what_the_embedding_knows",
    "In 'frequency' you have put the word of the other frequency second. The effect then has the wrong sign: how much "
    "more similar the word is to one that is *not* as frequent.",
)
def the_far_word_second():
    return changed(frequency=lambda triples: [(word, far, near) for word, near, far in triples])


def by_frequency(near_factor, far_factor):
    """Triples for "frequency" with other factors than those asked for: first to second, and first to third."""
    words, taken, found = random.Random(4).sample(list(kind_of()), len(kind_of())), set(), []
    for near in words:
        for far in (w for w in words if kind_of()[w] == kind_of()[near] and w != near):
            fits = (w for w in words if near_factor(ratio(w, near)) and far_factor(ratio(w, far)))
            word = next((w for w in fits if w not in {near, far, *taken}), None)
            if word and not taken & {near, far}:
                found.append((word, near, far))
                taken.update(found[-1])
    return found[:20]


@wrong(
    "what_the_embedding_knows",
    "In 'frequency' your second word differs from the first by more than a factor of 1.5. It is nearer than the third, "
    "and yet not about as frequent as the first.",
)
def near_is_not_near():
    return changed(frequency=lambda triples: by_frequency(lambda near: 1.6 <= near <= 2.5, lambda far: far >= 3))


@wrong(
    "what_the_embedding_knows",
    "In 'frequency' your third word differs from the first by less than a factor of 3. The second word is nearer, but "
    "a difference so small would hardly show.",
)
def far_is_not_far():
    return changed(frequency=lambda triples: by_frequency(lambda near: near <= 1.5, lambda far: 2 <= far <= 2.8))


@wrong(
    "what_the_embedding_knows",
    "Your list in 'frequency' uses one word again and again, because it is so frequent. One odd row then makes many "
    "odd triples, and the interval is that of fewer units than you count.",
)
def one_frequent_word_for_all():
    def with_wants(triples):
        near = [w for w, kind in kind_of().items() if kind == "verb, third person" and ratio(w, "wants") > 3]
        found = [(word, second, "wants") for word, second, _ in triples if second in near and ratio(word, "wants") >= 3]
        names = [w for w in kind_of() if kind_of()[w] in ("man", "woman")]
        for second in near:
            word = next((n for n in names if ratio(n, second) <= 1.5 and ratio(n, "wants") >= 3), None)
            if word and all(second != s for _, s, _ in found):
                found.append((word, second, "wants"))
                names.remove(word)
        return found + [t for t in triples if not {t[0], t[1], t[2]} & {x for y in found for x in y}]

    return changed(frequency=with_wants)


@wrong(
    "what_the_embedding_knows",
    "All first words in 'kind' are names. Names are used alike as no other words are, and what holds for them may hold "
    "for nothing else: take several kinds.",
)
def names_only():
    names = [word for word, kind in kind_of().items() if kind in ("man", "woman")]
    return changed(kind=lambda triples: by_kind(0, 30, words=random.Random(0).sample(names, len(names))))


@wrong(
    "what_the_embedding_knows",
    "Eight triples are too few: rows are similar or not for many reasons, and an interval over eight of them excludes "
    "hardly anything.",
)
def eight_triples():
    return changed(kind=lambda triples: triples[:8])


@wrong(
    "what_the_embedding_knows",
    "The rows of your control point where the trained ones do, or very nearly. Made longer or shorter, moved a little "
    "together or blurred a little, they still know all that they knew.",
)
def twice_the_embedding():
    return changed(control=lambda W_E: 2 * W_E)


@wrong(
    "what_the_embedding_knows",
    "Your control exchanges rows within each kind. A row then still tells the kind of its word, and the effect stays: "
    "exchange them among all words.",
)
def exchanged_within_kinds():
    def control(W_E):
        rows = W_E.clone()
        for kind in set(kind_of().values()):
            ids = [corpus.encode(word)[0] for word, k in kind_of().items() if k == kind]
            rows[ids] = W_E[ids[1:] + ids[:1]]
        return rows

    return changed(control=control)


@wrong(
    "what_the_embedding_knows",
    "All rows of your control are the same (ones, zeros, the mean row). There all words are equally similar by "
    "construction, and a control that can't fail controls nothing.",
)
def a_matrix_of_ones():
    return changed(control=torch.ones_like)


@wrong(
    "what_the_embedding_knows",
    "Your control leaves many of the rows as they were trained. It makes the effects smaller and does not take away "
    "what the rows know: exchange all of them, or draw all of them anew.",
)
def every_second_row_exchanged():
    def control(W_E):
        rows = W_E.clone()
        rows[::2] = W_E[::2].flip(0)
        return rows

    return changed(control=control)


@wrong(
    "what_the_embedding_knows",
    "Your control exchanges rows among words that are about equally frequent. A row then still tells how frequent its "
    "word is: exchange them among all words.",
)
def exchanged_within_frequencies():
    def control(W_E):
        order = sorted(range(len(W_E)), key=lambda i: how_often()[corpus.vocabulary()[i]])
        rows, generator = W_E.clone(), torch.Generator().manual_seed(2)
        for start in range(0, len(order), 40):
            ids = torch.tensor(order[start : start + 40])
            rows[ids] = W_E[ids[torch.randperm(len(ids), generator=generator)]]
        return rows

    return changed(control=control)


@wrong(
    "what_the_embedding_knows",
    "Your measure is a distance: the larger, the less similar. Turn its sign round, so that an effect above 0 means "
    "more similar.",
)
def a_distance():
    return changed(measure=lambda x, y: (x - y).norm().item())


@wrong(
    "what_the_embedding_knows",
    "Your measure compares the lengths of the rows, or something else that says nothing about where they point. Two "
    "rows of one length can lie anywhere.",
)
def lengths_compared():
    return changed(measure=lambda x, y: -abs(x.norm() - y.norm()).item())


@wrong(
    "what_the_embedding_knows",
    "Your measure loses the sign: rows that point in opposite directions count as similar. They are as unlike as rows "
    "can be.",
)
def sign_lost():
    return changed(measure=lambda x, y: torch.cosine_similarity(x, y, dim=0).abs().item())


@wrong(
    "what_the_embedding_knows",
    "Your measure compares some coordinates that it draws anew at each call, so the same two rows give another number "
    "each time. Draw them once, or take all.",
)
def coordinates_drawn_anew():
    rng = random.Random(0)

    def measure(x, y):
        some = rng.sample(range(len(x)), 32)
        return torch.cosine_similarity(x[some], y[some], dim=0).item()

    return changed(measure=measure)


@wrong(
    "what_the_embedding_knows",
    "What you report beside each mean is the standard deviation of the triples. The interval of the mean is narrower, "
    "by the root of their number.",
)
def standard_deviations():
    wide = {f"effect_{name}": (ours()[f"effect_{name}"][0], spread(name)) for name in LISTS}
    return dict(ours()) | wide | {"verdict": "neither"}


def spread(name):
    mean, half_width = ours()[f"effect_{name}"]
    return half_width * len(ours()[name]) ** 0.5 / 2


@wrong(
    "what_the_embedding_knows",
    "For you both are there, though the interval of 'frequency' holds 0. That frequency plays no part is not shown by "
    "this, but neither is that it does.",
)
def both_with_an_interval_that_holds_0():
    return dict(ours()) | {"verdict": "both"}


@wrong(
    "what_the_embedding_knows",
    "Your verdict is frequency, which one expects from real embeddings. Your own intervals say the opposite: kind is "
    "clear of 0, and frequency is not.",
)
def frequency_because_it_is_expected():
    return dict(ours()) | {"verdict": "frequency"}


@right("what_the_embedding_knows")
def distances():
    """Minus the distance of the rows, other triples, a random matrix."""

    def control(W_E):
        return 0.02 * torch.randn(W_E.shape, generator=torch.Generator().manual_seed(3))

    def measure(x, y):
        return -(x - y).norm()

    return changed(kind=lambda triples: [list(t) for t in by_kind(5, 80)], control=control, measure=measure)


@right("what_the_embedding_knows")
def rank_correlations():
    """Spearman's correlation of two rows, three triples a kind at most, the rows in reverse order."""
    kinds, few = kind_of(), []
    for word in random.Random(9).sample(list(kinds), len(kinds)):
        if [kinds[w] for w in few].count(kinds[word]) < 3:
            few.append(word)

    def measure(x, y):
        return spearmanr(x.numpy(), y.numpy()).statistic

    return changed(kind=lambda triples: by_kind(9, 60, words=few), control=lambda W_E: W_E.flip(0), measure=measure)
