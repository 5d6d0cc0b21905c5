"""Wrong answers for reading sparse features back, each with its sentence, and right ones."""

import math

import torch

from utils.course.catalogue import right, wrong
from utils.superposition.recovery import compressed_recovery, matching_pursuit, support_recovered


def unit(rows):
    return rows / rows.norm(dim=1, keepdim=True)


# relu_readout


@wrong("relu_readout", "A direction of length 2 is read four times too high: divide by the squared length.")
def undivided(x, dictionary, threshold):
    return torch.relu(x @ dictionary.T - threshold)


@wrong(
    "relu_readout",
    "You divide by the length. A feature of height z along a direction of length 2 then reads 2 z: divide by "
    "the squared "
    "length.",
)
def by_length(x, dictionary, threshold):
    return torch.relu(x @ unit(dictionary).T - threshold)


@wrong("relu_readout", "The threshold is added in your answer: noise is let in by it, and not kept out.")
def threshold_added(x, dictionary, threshold):
    return torch.relu(x @ (dictionary / dictionary.square().sum(1, keepdim=True)).T + threshold)


@wrong(
    "relu_readout",
    "Readings above the threshold keep their full height in your answer. That is another reader (a JumpReLU); this one "
    "subtracts the threshold from all of them.",
)
def kept_height(x, dictionary, threshold):
    read = x @ (dictionary / dictionary.square().sum(1, keepdim=True)).T
    return torch.where(read > threshold, read, 0.0)


@wrong("relu_readout", "Readings below 0 come out as they are: the ReLU is missing.")
def without_relu(x, dictionary, threshold):
    return x @ (dictionary / dictionary.square().sum(1, keepdim=True)).T - threshold


@wrong("relu_readout", "The threshold changes nothing in your answer: it is subtracted from no reading.")
def without_threshold(x, dictionary, threshold):
    return torch.relu(x @ (dictionary / dictionary.square().sum(1, keepdim=True)).T)


@wrong(
    "relu_readout",
    "You subtract the threshold first and divide by the squared length afterwards: along a long direction it then "
    "counts for less. It belongs to the reading.",
)
def threshold_divided(x, dictionary, threshold):
    return torch.relu((x @ dictionary.T - threshold) / dictionary.square().sum(1))


@wrong("relu_readout", "The threshold is subtracted behind the ReLU: readings below 0 come out.")
def behind_the_relu(x, dictionary, threshold):
    return torch.relu(x @ (dictionary / dictionary.square().sum(1, keepdim=True)).T) - threshold


@right("relu_readout")
def feature_by_feature(x, dictionary, threshold):
    return torch.stack([(x @ row / (row @ row) - threshold).clamp(min=0) for row in dictionary], 1)


@right("relu_readout")
def with_einsum(x, dictionary, threshold):
    read = torch.einsum("bd,nd->bn", x, dictionary) / torch.einsum("nd,nd->n", dictionary, dictionary)
    return torch.nn.functional.relu(read - threshold)


# matching_pursuit


def pursuit(x, dictionary, n_steps, nonnegative=False, *, choose=None, share=None, add=True, again=True):
    codes = torch.zeros(len(x), len(dictionary), dtype=x.dtype)
    for row in range(len(x)):
        left, used = x[row].clone(), []
        for _ in range(n_steps):
            fits = (unit(dictionary) if choose is None else choose(dictionary)) @ left
            fits = fits if nonnegative else fits.abs()
            if not again and len(used) < len(dictionary):
                fits[used] = -torch.inf
            i = int(fits.argmax())
            used.append(i)
            atom = dictionary[i]
            a = left @ atom / (atom @ atom) if share is None else share(left, atom)
            a = a.clamp(min=0) if nonnegative else a
            codes[row, i] = codes[row, i] + a if add else a
            left = left - a * atom
    return codes


@wrong(
    "matching_pursuit",
    "Long directions are chosen too often: compare r · d_i / ‖d_i‖, in which a direction's length has no say.",
)
def by_product(x, dictionary, n_steps, nonnegative=False):
    return pursuit(x, dictionary, n_steps, nonnegative, choose=lambda rows: rows)


@wrong(
    "matching_pursuit",
    "Where a direction is chosen a second time its code is overwritten. What it got before still counts: add.",
)
def overwritten(x, dictionary, n_steps, nonnegative=False):
    return pursuit(x, dictionary, n_steps, nonnegative, add=False)


@wrong(
    "matching_pursuit",
    "No direction is chosen twice in your answer. In matching pursuit it may be: later steps disturb what earlier ones "
    "had settled.",
)
def never_again(x, dictionary, n_steps, nonnegative=False):
    return pursuit(x, dictionary, n_steps, nonnegative, again=False)


@wrong(
    "matching_pursuit",
    "Without `nonnegative` you still take the largest product with its sign: a direction with a large negative "
    "share is "
    "passed over.",
)
def signed_choice(x, dictionary, n_steps, nonnegative=False):
    codes = torch.zeros(len(x), len(dictionary), dtype=x.dtype)
    rows, length = torch.arange(len(x)), dictionary.norm(dim=1)
    for _ in range(n_steps):
        fits = (x - codes @ dictionary) @ unit(dictionary).T
        i = fits.argmax(1)
        a = fits[rows, i] / length[i]
        codes[rows, i] += a.clamp(min=0) if nonnegative else a
    return codes


@wrong(
    "matching_pursuit",
    "You choose all directions by what they share with x itself. The next choice should look at what is left.",
)
def from_x(x, dictionary, n_steps, nonnegative=False):
    codes = torch.zeros(len(x), len(dictionary), dtype=x.dtype)
    fits = x @ unit(dictionary).T
    order = (fits if nonnegative else fits.abs()).argsort(1, descending=True)
    for row in range(len(x)):
        left = x[row].clone()
        for i in order[row, :n_steps]:
            a = left @ dictionary[i] / dictionary[i].square().sum()
            a = a.clamp(min=0) if nonnegative else a
            codes[row, i] += a
            left = left - a * dictionary[i]
    return codes


@wrong("matching_pursuit", "With `nonnegative` your codes are no different: the argument is not used.")
def ignores_nonnegative(x, dictionary, n_steps, nonnegative=False):
    return matching_pursuit(x, dictionary, n_steps)


@wrong(
    "matching_pursuit",
    "Your codes belong to directions of length 1. x ≈ z @ dictionary, with the directions as they are given: "
    "divide once "
    "more by the length.",
)
def of_unit_directions(x, dictionary, n_steps, nonnegative=False):
    return matching_pursuit(x, dictionary, n_steps, nonnegative) * dictionary.norm(dim=1)


@wrong(
    "matching_pursuit",
    "With `nonnegative`, where every direction points against what is left, a code comes out negative: take a = 0.",
)
def negative_share_kept(x, dictionary, n_steps, nonnegative=False):
    if not nonnegative:
        return matching_pursuit(x, dictionary, n_steps)
    codes = torch.zeros(len(x), len(dictionary), dtype=x.dtype)
    rows, length = torch.arange(len(x)), dictionary.norm(dim=1)
    for _ in range(n_steps):
        fits = (x - codes @ dictionary) @ unit(dictionary).T
        i = fits.argmax(1)
        codes[rows, i] += fits[rows, i] / length[i]
    return codes


@wrong(
    "matching_pursuit",
    "With `nonnegative` you choose as without it, by the size of the product, and cut off negative codes: a step that "
    "chose an opposite direction is lost. Choose by the product itself.",
)
def chosen_by_size(x, dictionary, n_steps, nonnegative=False):
    codes = torch.zeros(len(x), len(dictionary), dtype=x.dtype)
    rows, length = torch.arange(len(x)), dictionary.norm(dim=1)
    for _ in range(n_steps):
        fits = (x - codes @ dictionary) @ unit(dictionary).T
        i = fits.abs().argmax(1)
        a = fits[rows, i] / length[i]
        codes[rows, i] += a.clamp(min=0) if nonnegative else a
    return codes


@wrong("matching_pursuit", "One choice is made for all rows together. Each row is decomposed by itself.")
def one_choice_for_all(x, dictionary, n_steps, nonnegative=False):
    codes = torch.zeros(len(x), len(dictionary), dtype=x.dtype)
    for _ in range(n_steps):
        fits = (x - codes @ dictionary) @ unit(dictionary).T
        i = int((fits if nonnegative else fits.abs()).sum(0).argmax())
        a = fits[:, i] / dictionary[i].norm()
        codes[:, i] += a.clamp(min=0) if nonnegative else a
    return codes


@right("matching_pursuit")
def cut_off_at_the_end(x, dictionary, n_steps, nonnegative=False):
    """A negative share can only come in the first step: the direction chosen last always has a share of 0."""
    codes, left, length = torch.zeros(len(x), len(dictionary), dtype=x.dtype), x, dictionary.norm(dim=1)
    rows = torch.arange(len(x))
    for _ in range(n_steps):
        fits = left @ dictionary.T / length
        i = (fits if nonnegative else fits.abs()).argmax(1)
        a = fits[rows, i] / length[i]
        codes[rows, i] += a
        left = left - a[:, None] * dictionary[i]
    return codes.clamp(min=0) if nonnegative else codes


@right("matching_pursuit")
def row_by_row(x, dictionary, n_steps, nonnegative=False):
    return pursuit(x, dictionary, n_steps, nonnegative)


@right("matching_pursuit")
def with_the_gram_matrix(x, dictionary, n_steps, nonnegative=False):
    length = dictionary.norm(dim=1)
    gram = unit(dictionary) @ dictionary.T
    fits = x @ unit(dictionary).T
    codes = torch.zeros_like(fits)
    for _ in range(n_steps):
        i = (fits if nonnegative else fits.abs()).argmax(1, keepdim=True)
        a = fits.gather(1, i) / length[i]
        a = a.relu() if nonnegative else a
        codes = codes.scatter_add(1, i, a)
        fits = fits - a * gram.T[i[:, 0]]
    return codes


# compressed_recovery


def refuse(dictionary, k):
    if k < 0 or k > min(dictionary.shape):
        raise ValueError("k")


def orthogonal(x, dictionary, k, choose=None, mask=True):
    refuse(dictionary, k)
    codes = torch.zeros(len(x), len(dictionary), dtype=x.dtype)
    for row in range(len(x)):
        chosen, left = [], x[row]
        for _ in range(k):
            fits = ((unit(dictionary) if choose is None else choose(dictionary)) @ left).abs()
            fits[chosen] = -1
            chosen.append(int(fits.argmax()))
            solution = torch.linalg.pinv(dictionary[chosen].T) @ x[row]
            left = x[row] - solution @ dictionary[chosen]
            codes[row] = 0
            codes[row, chosen] = solution
    return codes


@wrong(
    "compressed_recovery",
    "Earlier codes stay as they were when a direction is added: that is plain matching pursuit. Fit all chosen "
    "directions "
    "anew, to x.",
)
def plain_pursuit(x, dictionary, k):
    refuse(dictionary, k)
    return pursuit(x, dictionary, k, again=False)


@wrong("compressed_recovery", "Long directions are chosen too often: compare r · d_i / ‖d_i‖.")
def product_decides(x, dictionary, k):
    return orthogonal(x, dictionary, k, choose=lambda rows: rows)


@wrong(
    "compressed_recovery",
    "You choose all k directions at once, by what they share with x. After each choice what is left should be "
    "looked at "
    "again.",
)
def all_at_once(x, dictionary, k):
    refuse(dictionary, k)
    chosen = (x @ unit(dictionary).T).abs().topk(k, 1).indices
    codes = torch.zeros(len(x), len(dictionary), dtype=x.dtype)
    for row in range(len(x)):
        codes[row, chosen[row]] = torch.linalg.pinv(dictionary[chosen[row]].T) @ x[row]
    return codes


@wrong("compressed_recovery", "A k above the number of dimensions or of features, or below 0, goes through.")
def without_validation(x, dictionary, k):
    return compressed_recovery(x, dictionary, max(0, min(k, *dictionary.shape)))


@wrong(
    "compressed_recovery",
    "Your codes belong to directions of length 1: x ≈ z @ dictionary, with the directions as they are given.",
)
def codes_of_unit_directions(x, dictionary, k):
    return compressed_recovery(x, dictionary, k) * dictionary.norm(dim=1)


@wrong(
    "compressed_recovery", "Only positive products are chosen. A code may be negative here: take the absolute value."
)
def only_positive(x, dictionary, k):
    refuse(dictionary, k)
    codes = torch.zeros(len(x), len(dictionary), dtype=x.dtype)
    for row in range(len(x)):
        chosen, left = [], x[row]
        for _ in range(k):
            fits = unit(dictionary) @ left
            fits[chosen] = -torch.inf
            chosen.append(int(fits.argmax()))
            solution = torch.linalg.pinv(dictionary[chosen].T) @ x[row]
            left = x[row] - solution @ dictionary[chosen]
            codes[row] = 0
            codes[row, chosen] = solution
    return codes


@wrong(
    "compressed_recovery",
    "You choose as plain matching pursuit does and fit all codes anew only at the end. The residual by which the next "
    "direction is chosen has to come from the fit.",
)
def fitted_at_the_end(x, dictionary, k):
    refuse(dictionary, k)
    codes = torch.zeros(len(x), len(dictionary), dtype=x.dtype)
    for row in range(len(x)):
        chosen, left = [], x[row]
        for _ in range(k):
            fits = (unit(dictionary) @ left).abs()
            fits[chosen] = -1
            chosen.append(int(fits.argmax()))
            atom = dictionary[chosen[-1]]
            left = left - left @ atom / (atom @ atom) * atom
        if chosen:
            codes[row, chosen] = torch.linalg.pinv(dictionary[chosen].T) @ x[row]
    return codes


@wrong(
    "compressed_recovery",
    "In each step you fit the chosen directions to what is left, and return this fit: what they had of x before is "
    "lost. Fit them to x.",
)
def fitted_to_what_is_left(x, dictionary, k):
    refuse(dictionary, k)
    codes = torch.zeros(len(x), len(dictionary), dtype=x.dtype)
    for row in range(len(x)):
        chosen, left = [], x[row]
        for _ in range(k):
            fits = (unit(dictionary) @ left).abs()
            fits[chosen] = -1
            chosen.append(int(fits.argmax()))
            solution = torch.linalg.pinv(dictionary[chosen].T) @ left
            left = left - solution @ dictionary[chosen]
            codes[row, chosen] = solution
    return codes


@right("compressed_recovery")
def a_second_choice_ignored(x, dictionary, k):
    """Without a mask: what is left is orthogonal to what was chosen, but where it is rounding alone."""
    refuse(dictionary, k)
    codes = torch.zeros(len(x), len(dictionary), dtype=x.dtype)
    for row in range(len(x)):
        chosen, left = [], x[row]
        for _ in range(k):
            i = int((unit(dictionary) @ left).abs().argmax())
            chosen = chosen if i in chosen else [*chosen, i]
            codes[row, chosen] = torch.linalg.pinv(dictionary[chosen].T) @ x[row]
            left = x[row] - codes[row] @ dictionary
    return codes


@right("compressed_recovery")
def rows_and_pseudo_inverses(x, dictionary, k):
    return orthogonal(x, dictionary, k)


@right("compressed_recovery")
def with_an_orthonormal_basis(x, dictionary, k):
    refuse(dictionary, k)
    out = []
    for row in x:
        chosen, left, basis = [], row.clone(), []
        for _ in range(k):
            fits = (dictionary @ left).abs() / dictionary.norm(dim=1)
            fits[chosen] = -1
            chosen.append(int(fits.argmax()))
            new = dictionary[chosen[-1]].clone()
            for _ in range(2):
                for b in basis:
                    new = new - (b @ new) * b
            basis.append(new / new.norm())
            left = left - (basis[-1] @ left) * basis[-1]
        code = torch.zeros(len(dictionary), dtype=x.dtype)
        if k:
            code[chosen] = torch.linalg.lstsq(dictionary[chosen].T, row[:, None]).solution[:, 0]
        out.append(code)
    return torch.stack(out)


# guaranteed_sparsity


def coherence(dictionary):
    cosines = (unit(dictionary) @ unit(dictionary).T).abs()
    cosines.fill_diagonal_(0)
    return cosines.max().item()


def bound(mu, n):
    return n if mu == 0 else min(n, math.ceil((1 + 1 / mu) / 2) - 1)


@wrong(
    "guaranteed_sparsity",
    "Directions of other lengths than 1 are not normalised: the coherence is a cosine, at most 1.",
)
def not_cosines(dictionary):
    products = (dictionary @ dictionary.T).abs()
    products.fill_diagonal_(0)
    return bound(products.max().item(), len(dictionary))


@wrong(
    "guaranteed_sparsity", "A negative cosine counts for nothing in your answer: opposite directions are the same line."
)
def signed_coherence(dictionary):
    cosines = unit(dictionary) @ unit(dictionary).T
    cosines.fill_diagonal_(0)
    return bound(max(cosines.max().item(), 0), len(dictionary))


@wrong(
    "guaranteed_sparsity",
    "Orthogonal directions have a coherence of 0, by which you divide or say 0: all can be found.",
)
def nothing_for_orthogonal(dictionary):
    mu = coherence(dictionary)
    return 0 if mu == 0 else bound(mu, len(dictionary))


@wrong("guaranteed_sparsity", "You round to the nearest whole number: that is above the bound as often as below.")
def rounded(dictionary):
    mu = coherence(dictionary)
    return len(dictionary) if mu == 0 else min(len(dictionary), round((1 + 1 / mu) / 2))


@wrong("guaranteed_sparsity", "Your number is about twice too large: (1 + 1 / μ) is halved.")
def not_halved(dictionary):
    mu = coherence(dictionary)
    return len(dictionary) if mu == 0 else min(len(dictionary), math.ceil(1 + 1 / mu) - 1)


@wrong(
    "guaranteed_sparsity", "Your number is no whole one: the largest whole number below (1 + 1 / μ) / 2 is asked for."
)
def not_whole(dictionary):
    mu = coherence(dictionary)
    return float(len(dictionary)) if mu == 0 else min(float(len(dictionary)), (1 + 1 / mu) / 2)


@wrong(
    "guaranteed_sparsity",
    "Where directions are nearly orthogonal you promise more active features than there are features.",
)
def more_than_there_are(dictionary):
    mu = coherence(dictionary)
    return len(dictionary) if mu == 0 else math.ceil((1 + 1 / mu) / 2) - 1


@wrong(
    "guaranteed_sparsity",
    "A direction is compared with itself, too: the largest cosine is then always 1.",
)
def compared_with_itself(dictionary):
    return bound((unit(dictionary) @ unit(dictionary).T).abs().max().item() + 1e-9, len(dictionary))


@wrong("guaranteed_sparsity", "Your number lies above the bound: the largest whole number *below* it is asked for.")
def rounded_up(dictionary):
    mu = coherence(dictionary)
    return len(dictionary) if mu == 0 else min(len(dictionary), math.ceil((1 + 1 / mu) / 2))


@right("guaranteed_sparsity")
def by_pairs(dictionary):
    largest = 0.0
    for i, a in enumerate(dictionary):
        for b in dictionary[:i]:
            largest = max(largest, abs(float(torch.nn.functional.cosine_similarity(a, b, dim=0, eps=1e-12))))
    if largest == 0:
        return len(dictionary)
    k = 0
    while k + 1 < (1 + 1 / largest) / 2 and k < len(dictionary):
        k += 1
    return k


@right("guaranteed_sparsity")
def above_the_diagonal(dictionary):
    cosines = torch.corrcoef(torch.cat([dictionary, -dictionary], 1))  # rows with mean 0: correlation is cosine
    mu = cosines.triu(1).abs().max().item()
    return len(dictionary) if mu < 1e-12 else min(len(dictionary), math.ceil((1 + 1 / mu) / 2) - 1)


# support_recovered


def top_k(codes, truth, size=torch.abs, zeros_count=False, ties=False):
    found = []
    for code, true in zip(size(codes), truth, strict=True):
        on = true != 0
        weakest = code[on].min() if on.any() else torch.tensor(torch.inf)
        other = code[~on].max() if (~on).any() else torch.tensor(-1.0 if zeros_count else 0.0)
        other = other if zeros_count else other.clamp(min=0)
        found.append(bool(weakest >= other) if ties else bool(weakest > other))
    return torch.tensor(found)


@wrong(
    "support_recovered",
    "You ask for exactly the same set of codes that are not 0. A weak code too many does no harm here, if all "
    "true ones "
    "are stronger.",
)
def same_nonzero(codes, truth):
    return ((codes != 0) == (truth != 0)).all(1)


@wrong("support_recovered", "A negative code counts as weak in your answer. Take its absolute value.")
def with_sign(codes, truth):
    return top_k(codes, truth, size=lambda c: c)


@wrong("support_recovered", "A tie counts as recovered in your answer; the true feature should have the larger code.")
def ties_count(codes, truth):
    return top_k(codes, truth, ties=True) & (codes.abs().masked_fill(truth == 0, 1) > 0).all(1)


@wrong(
    "support_recovered",
    "Where all features are on, a code of 0 counts as found: there is none that is off to be stronger than.",
)
def zero_is_found(codes, truth):
    return top_k(codes, truth, zeros_count=True)


@wrong("support_recovered", "You ask that the values agree. Only which features are found counts here.")
def values_agree(codes, truth):
    return support_recovered(codes, truth) & torch.isclose(codes, truth, atol=0.05).all(1)


@wrong("support_recovered", "You take the number of active features of the first row for all rows.")
def k_of_the_first(codes, truth):
    k = int((truth[0] != 0).sum())
    mask = torch.zeros_like(truth, dtype=torch.bool).scatter(1, codes.abs().topk(k, 1).indices, True)
    return (mask == (truth != 0)).all(1) & support_recovered(codes, truth)


@wrong(
    "support_recovered",
    "Where a feature that is off ties with one that is on, your answer depends on which of the two stands first. A tie "
    "is not recovered.",
)
def by_the_first_k(codes, truth):
    found = []
    for code, true in zip(codes.abs(), truth, strict=True):
        wanted = set(true.nonzero().flatten().tolist())
        order = code.argsort(descending=True, stable=True).tolist()
        found.append(set(order[: len(wanted)]) == wanted and all(code[i] > 0 for i in wanted))
    return torch.tensor(found)


@wrong(
    "support_recovered",
    "One feature that is on and strongest suffices in your answer. All that are on have to be stronger than all that "
    "are off.",
)
def one_is_enough(codes, truth):
    on, size = truth != 0, codes.abs()
    return (size.masked_fill(~on, 0).amax(1) > size.masked_fill(on, 0).amax(1)) | ~on.any(1)


@right("support_recovered")
def one_row_after_another(codes, truth):
    return top_k(codes, truth)


@right("support_recovered")
def by_sets(codes, truth):
    found = []
    for code, true in zip(codes.abs(), truth, strict=True):
        wanted = set(true.nonzero().flatten().tolist())
        order = code.argsort(descending=True).tolist()
        k = len(wanted)
        good = set(order[:k]) == wanted and all(code[i] > 0 for i in wanted)
        if good and 0 < k < len(code):
            good = bool(code[order[k - 1]] > code[order[k]])
        found.append(good)
    return torch.tensor(found)


# dictionary_match


@wrong(
    "dictionary_match", "An opposite direction matches perfectly in your answer. It is another feature: leave the sign."
)
def of_any_sign(found, truth):
    return (unit(truth) @ unit(found).T).abs().amax(1)


@wrong(
    "dictionary_match", "For each direction that was found you say how near a true one is. Ask it the other way round."
)
def the_other_way_round(found, truth):
    return (unit(found) @ unit(truth).T).amax(1)


@wrong("dictionary_match", "Products of directions that are not of length 1 are no cosines.")
def products(found, truth):
    return (truth @ found.T).amax(1)


@wrong(
    "dictionary_match", "You average over the true directions. Some may have been found and others not: say it of each."
)
def averaged(found, truth):
    return (unit(truth) @ unit(found).T).amax(1).mean()


@wrong("dictionary_match", "You compare the directions in the order in which they stand. A dictionary has no order.")
def in_order(found, truth):
    n = min(len(found), len(truth))
    cosines = torch.full((len(truth),), -1.0)
    cosines[:n] = (unit(truth)[:n] * unit(found)[:n]).sum(1)
    return cosines


@right("dictionary_match")
def with_loops(found, truth):
    return torch.stack([max(torch.cosine_similarity(t, f, dim=0, eps=1e-12) for f in found) for t in truth])


@right("dictionary_match")
def with_broadcasting(found, truth):
    return torch.cosine_similarity(truth[:, None], found[None], dim=2).max(dim=1).values
