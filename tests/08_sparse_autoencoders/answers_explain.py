"""Wrong and right answers for the rule-based explainer and the scores of explanations."""

import torch
from scipy.stats import mannwhitneyu

from utils.course.catalogue import right, wrong
from utils.sae.explain import Explanation, best_word_set


def word_set(
    words, on, most, *, order=None, all_on=True, all_said=True, keep_equal=False, negative=False, ascending=True
):
    real = words >= (-1 if negative else 0)
    ids = words[real & on].unique().tolist()
    seen = {w: int((words == w).sum()) for w in ids}
    active = {w: int(((words == w) & on).sum()) for w in ids}
    key = order or (lambda seen, active, w: (-active[w] / seen[w], -seen[w], w))
    ids.sort(key=lambda w: key(seen, active, w))
    total = int(on.sum()) if all_on else int((on & real).sum())
    best, top = (), 0.0
    for k in range(1, min(most, len(ids)) + 1):
        said = sum(seen[w] for w in ids[:k])
        hit = sum(active[w] for w in ids[:k])
        f1 = 2 * hit / (said + total) if all_said else hit / total
        if f1 > top or (keep_equal and f1 == top > 0):
            best, top = tuple(sorted(ids[:k]) if ascending else ids[:k]), f1
    return best, top


@wrong(
    "best_word_set",
    "You order words by how often the latent is on at them. A frequent word like 'the' is first then, although "
    "the latent is off at most of its places.",
)
def by_count(words, on, most):
    return word_set(words, on, most, order=lambda seen, active, w: (-active[w], -seen[w], w))


@wrong(
    "best_word_set",
    "Places without a word are left out of your count. Where the latent is on there, the rule misses it.",
)
def forgets_no_word(words, on, most):
    return word_set(words, on, most, all_on=False)


@wrong(
    "best_word_set",
    "You always take as many words as allowed, also where fewer have a higher F1.",
)
def as_many_as_allowed(words, on, most):
    ids = word_set(words, on, most)
    if not ids[0]:
        return ids
    found = sorted(
        words[on & (words >= 0)].unique().tolist(),
        key=lambda w: (-on[words == w].float().mean().item(), -int((words == w).sum()), w),
    )[:most]
    says = torch.isin(words, torch.tensor(found))
    return tuple(sorted(found)), 2 * (says & on).sum().item() / (says.sum() + on.sum()).item()


@wrong(
    "best_word_set",
    "You choose by recall: what a rule says in vain costs nothing, so longer lists always win.",
)
def by_recall(words, on, most):
    return word_set(words, on, most, all_said=False)


@wrong(
    "best_word_set",
    "'No word' is in your set, as if it were one.",
)
def no_word_is_a_word(words, on, most):
    return word_set(words, on, most, negative=True)


@wrong(
    "best_word_set",
    "Of words with equal shares you take the one with the smaller id; the commoner one comes first.",
)
def ties_by_id(words, on, most):
    return word_set(words, on, most, order=lambda seen, active, w: (-active[w] / seen[w], w))


@wrong(
    "best_word_set",
    "Of sets with equal F1 you return the largest, and not the smallest.",
)
def largest_of_equals(words, on, most):
    return word_set(words, on, most, keep_equal=True)


@wrong(
    "best_word_set",
    "Your words are in the order in which they were chosen, and not in ascending order of their ids.",
)
def not_sorted(words, on, most):
    return word_set(words, on, most, ascending=False)


@right("best_word_set")
def stops_early(words, on, most):
    best = ((), 0.0)
    for k in range(1, most + 1):
        found = as_many_as_allowed(words, on, k)
        if found[1] < best[1]:
            break
        best = found if found[1] > best[1] else best
    return best


@right("best_word_set")
def in_plain_python(words, on, most):
    return word_set(words, on, most)


def explained(tokens, on, states, n_back=2, most=12, *, search=best_word_set, kinds=("state", "words", "both"),
              offsets=None, later=False, within=None):  # fmt: skip
    found = []
    for kind in kinds:
        if kind == "state":
            for name, holds in states.items():
                total = (holds.sum() + on.sum()).item()
                found.append(Explanation((), 0, name, 2 * (holds & on).sum().item() / total if total else 0.0))
        elif kind == "words":
            for back in range(n_back + 1) if offsets is None else offsets(n_back):
                there = torch.full_like(tokens, -1)
                for p in range(tokens.shape[1]):
                    if 0 <= p - back < tokens.shape[1]:
                        there[:, p] = tokens[:, p - back]
                ids, f1 = search(there.flatten(), on.flatten(), most)
                found.append(Explanation(ids, -back, "", f1))
        else:
            for name, holds in states.items():
                if within:
                    ids, f1 = within(tokens, on, holds, most)
                else:
                    ids, f1 = search(torch.where(holds, tokens, -1).flatten(), on.flatten(), most)
                found.append(Explanation(ids, 0, name, f1))
    found = [e for e in found if e.f1 > 0]
    if not found:
        return Explanation((), 0, "", 0.0)
    top = max(e.f1 for e in found)
    same = [e for e in found if e.f1 == top]
    return same[-1 if later else 0]


@wrong(
    "explain_feature",
    "Your words look forward: offset -1 is the word before the place, which the model has read, and not the one "
    "behind it.",
)
def forward(tokens, on, states, *, n_back=2, most=12):
    found = explained(tokens, on, states, n_back, most, offsets=lambda n: range(0, -n - 1, -1))
    return found._replace(offset=-abs(found.offset))


@wrong(
    "explain_feature",
    "Your rules look at the word itself and never at those before it.",
)
def only_here(tokens, on, states, *, n_back=2, most=12):
    return explained(tokens, on, states, 0, most)


@wrong(
    "explain_feature",
    "You look one word too few back: `n_back` words before the place are looked at besides the place itself.",
)
def one_too_few(tokens, on, states, *, n_back=2, most=12):
    return explained(tokens, on, states, n_back, most, offsets=range)


@wrong(
    "explain_feature",
    "Your offsets are positive: the word before the place has offset -1.",
)
def positive_offsets(tokens, on, states, *, n_back=2, most=12):
    found = explained(tokens, on, states, n_back, most)
    return found._replace(offset=-found.offset)


@wrong(
    "explain_feature",
    "For a state with words you take over the words that are best without the state. Which words are best depends on "
    "whether the state must hold as well.",
)
def words_without_the_state(tokens, on, states, *, n_back=2, most=12):
    def taken_over(t, o, holds, m):
        ids, _ = best_word_set(t.flatten(), o.flatten(), m)
        says = holds & torch.isin(t, torch.tensor(ids, dtype=torch.long))
        total = (says.sum() + o.sum()).item()
        return ids, 2 * (says & o).sum().item() / total if total else 0.0

    return explained(tokens, on, states, n_back, most, within=taken_over)


@wrong(
    "explain_feature",
    "You move the documents round: the word before a document's first one is then its last.",
)
def rolled(tokens, on, states, *, n_back=2, most=12):
    def words(back):
        return best_word_set(tokens.roll(back, 1).flatten(), on.flatten(), most)

    plain = explained(tokens, on, states, 0, most)
    others = [Explanation(ids, -back, "", f1) for back in range(1, n_back + 1) for ids, f1 in [words(back)]]
    both = [plain, *others]
    return max(both, key=lambda e: e.f1)


@wrong(
    "explain_feature",
    "A state and a word together are no candidate of yours.",
)
def no_conjunction(tokens, on, states, *, n_back=2, most=12):
    return explained(tokens, on, states, n_back, most, kinds=("state", "words"))


@wrong(
    "explain_feature",
    "A state by itself is no candidate of yours.",
)
def no_state(tokens, on, states, *, n_back=2, most=12):
    return explained(tokens, on, states, n_back, most, kinds=("words", "both"))


@wrong(
    "explain_feature",
    "You judge a state with words inside the state only. What the latent does outside, where the rule is silent, "
    "does not count then.",
)
def judged_inside(tokens, on, states, *, n_back=2, most=12):
    return explained(
        tokens, on, states, n_back, most, within=lambda t, o, holds, m: best_word_set(t[holds], o[holds], m)
    )


@wrong(
    "explain_feature",
    "Of equal rules you return the last and not the first, which is the simpler.",
)
def last_of_equals(tokens, on, states, *, n_back=2, most=12):
    return explained(tokens, on, states, n_back, most, later=True)


@wrong(
    "explain_feature",
    "Your rules may list twelve words, whatever `most` says.",
)
def twelve_words(tokens, on, states, *, n_back=2, most=12):
    return explained(tokens, on, states, n_back, 12)


@right("explain_feature")
def collected_first(tokens, on, states, *, n_back=2, most=12):
    return explained(tokens, on, states, n_back, most)


def checked(guesses, on):
    if bool(on.all()) or not bool(on.any()):
        raise ValueError("both kinds")
    return guesses.double()


@wrong(
    "detection_score",
    "Your score is the share of places that are right at a threshold. If nearly all are off, 'never' is right "
    "nearly always.",
)
def accuracy(guesses, on):
    g = checked(guesses, on)
    return ((g > g.mean()) == on).double().mean().item()


@wrong(
    "detection_score",
    "A tie counts as lost with you: 'never' then scores 0 and not one half.",
)
def ties_lost(guesses, on):
    g = checked(guesses, on)
    return (g[on][:, None] > g[~on]).double().mean().item()


@wrong(
    "detection_score",
    "A tie counts as won with you: 'never' then scores 1.",
)
def ties_won(guesses, on):
    g = checked(guesses, on)
    return (g[on][:, None] >= g[~on]).double().mean().item()


@wrong(
    "detection_score",
    "Your score is high where guesses are high at places that are off: it is the wrong way round.",
)
def reversed_score(guesses, on):
    g = checked(guesses, on)
    return 1 - mannwhitneyu(g[on].numpy(), g[~on].numpy()).statistic / (on.sum() * (~on).sum()).item()


@wrong(
    "detection_score",
    "You call a guess above a fixed number a yes and forget by how much. The order of the guesses on either side of it "
    "is lost, and guesses may have any size.",
)
def at_one_half(guesses, on):
    says = checked(guesses, on) > 0.5
    return ((says[on].double().mean() + (~says[~on]).double().mean()) / 2).item()


@wrong(
    "detection_score",
    "You call a guess above 0 a yes and forget by how much. The order of the guesses on either side of it is lost, and "
    "guesses may have any size.",
)
def above_zero(guesses, on):
    says = checked(guesses, on) > 0
    return ((says[on].double().mean() + (~says[~on]).double().mean()) / 2).item()


@wrong(
    "detection_score",
    "Equal guesses get different ranks with you, by where they stand in the list: a tie is then won or lost by "
    "accident. Each should count one half.",
)
def ties_by_place(guesses, on):
    g, n_on = checked(guesses, on), int(on.sum())
    ranks = g.argsort(stable=True).argsort() + 1
    return (ranks[on].sum().item() - n_on * (n_on + 1) / 2) / (n_on * (len(on) - n_on))


@wrong(
    "detection_score",
    "You put the guesses in order, strongest first, and take each as a step of the curve, equal ones as well: which of "
    "them comes first is then decided by where they stand in the list. Equal guesses make one step.",
)
def steps_of_equals(guesses, on):
    g = checked(guesses, on)
    hits = on[g.argsort(descending=True, stable=True)].double()
    return (hits.cumsum(0)[hits == 0].sum() / (hits.sum() * (1 - hits).sum())).item()


@wrong(
    "detection_score",
    "Where only one kind of place is there, your function goes on regardless.",
)
def not_refused(guesses, on):
    if on.all() or not on.any():
        return 0.5
    return (
        mannwhitneyu(guesses[on].double().numpy(), guesses[~on].double().numpy()).statistic
        / (on.sum() * (~on).sum()).item()
    )


@right("detection_score")
def all_pairs(guesses, on):
    g = checked(guesses, on)
    gap = g[on][:, None] - g[~on]
    return ((gap > 0).double() + (gap == 0).double() / 2).mean().item()


def centred(a, b):
    return a.double() - a.double().mean(), b.double() - b.double().mean()


def constant(a, b):
    return bool((a == a[0]).all() or (b == b[0]).all())


@wrong(
    "simulation_score",
    "You take the cosine of the two and not their correlation: take their means away first. Where nothing is "
    "below 0, a cosine is never negative, whatever follows what.",
)
def cosine(simulated, actual):
    if constant(simulated, actual):
        return 0.0
    return torch.nn.functional.cosine_similarity(simulated.double(), actual.double(), dim=0).item()


@wrong(
    "simulation_score",
    "Where nothing varies you get NaN. Nothing follows anything there: 0.",
)
def not_a_number(simulated, actual):
    a, b = centred(simulated, actual)
    return (a @ b / (a.norm() * b.norm())).item() if not constant(simulated, actual) else float("nan")


@wrong(
    "simulation_score",
    "Where the activations are the same everywhere you get NaN; for a simulation that is, you have seen to it.",
)
def guards_the_simulation_only(simulated, actual):
    if bool((simulated == simulated[0]).all()):
        return 0.0
    return not_a_number(simulated, actual)


@wrong(
    "simulation_score",
    "You have the covariance, which changes with the unit: divide by both standard deviations.",
)
def covariance(simulated, actual):
    a, b = centred(simulated, actual)
    return 0.0 if constant(simulated, actual) else (a * b).mean().item()


@wrong(
    "simulation_score",
    "You take the square of the correlation: a simulation that is high where the latent is low scores as well as "
    "a good one.",
)
def squared(simulated, actual):
    a, b = centred(simulated, actual)
    return 0.0 if constant(simulated, actual) else (a @ b / (a.norm() * b.norm())).item() ** 2


@wrong(
    "simulation_score",
    "You correlate ranks and not activations.",
)
def of_ranks(simulated, actual):
    if constant(simulated, actual):
        return 0.0
    a, b = centred(*(values.argsort().argsort() for values in (simulated, actual)))
    return (a @ b / (a.norm() * b.norm())).item()


@wrong(
    "simulation_score",
    "Your standard deviations divide by n - 1 and your covariance by n (or the other way round): the correlation "
    "of a thing with itself is then not 1.",
)
def mixed_n(simulated, actual):
    a, b = centred(simulated, actual)
    return 0.0 if constant(simulated, actual) else ((a * b).mean() / (a.std() * b.std())).item()


@right("simulation_score")
def by_corrcoef(simulated, actual):
    both = torch.stack([simulated, actual]).double()
    if len(both[0]) < 2 or constant(simulated, actual):
        return 0.0
    return torch.corrcoef(both)[0, 1].item()
