"""Wrong and right answers for comparing dictionaries, and trained with random networks."""

import math
from statistics import fmean, stdev

import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import t as student
from scipy.stats import ttest_ind
from torch.nn.functional import normalize

from utils.course.catalogue import right, wrong


def pairing(a, b):
    cosines = normalize(a, dim=1) @ normalize(b, dim=1).T
    partner = torch.as_tensor(linear_sum_assignment(cosines.detach().numpy(), maximize=True)[1])
    return partner, cosines[torch.arange(len(a)), partner]


@wrong(
    "dictionary_agreement",
    "You compare decoders only. Two latents that write the same and read something else are different latents.",
)
def decoders_only(encoder_a, decoder_a, encoder_b, decoder_b, threshold=0.7):
    return pairing(decoder_a, decoder_b)[1] >= threshold


@wrong(
    "dictionary_agreement",
    "You compare encoders only. Two latents that read the same and write something else are different latents.",
)
def encoders_only(encoder_a, decoder_a, encoder_b, decoder_b, threshold=0.7):
    return pairing(encoder_a.T, encoder_b.T)[1] >= threshold


@wrong(
    "dictionary_agreement",
    "Both cosines are large with you, and perhaps with different partners: a latent is shared if *one* latent of the "
    "other dictionary agrees in both.",
)
def two_partners(encoder_a, decoder_a, encoder_b, decoder_b, threshold=0.7):
    return (pairing(decoder_a, decoder_b)[1] >= threshold) & (pairing(encoder_a.T, encoder_b.T)[1] >= threshold)


@wrong(
    "dictionary_agreement",
    "You take the nearest latent of the other dictionary, which may serve several of this one. Pair them one to one.",
)
def nearest(encoder_a, decoder_a, encoder_b, decoder_b, threshold=0.7):
    one, i = (normalize(decoder_a, dim=1) @ normalize(decoder_b, dim=1).T).max(1)
    two, j = (normalize(encoder_a.T, dim=1) @ normalize(encoder_b.T, dim=1).T).max(1)
    return (one >= threshold) & (two >= threshold) & (i == j)


@wrong(
    "dictionary_agreement",
    "You forget the threshold: the best pairing pairs everything with something, near or not.",
)
def same_partner(encoder_a, decoder_a, encoder_b, decoder_b, threshold=0.7):
    return pairing(decoder_a, decoder_b)[0] == pairing(encoder_a.T, encoder_b.T)[0]


@wrong(
    "dictionary_agreement",
    "You pair by inner products. Long directions then take the partners that others should have had.",
)
def inner_products(encoder_a, decoder_a, encoder_b, decoder_b, threshold=0.7):
    partners, near = [], torch.ones(len(decoder_a), dtype=torch.bool)
    for a, b in ((decoder_a, decoder_b), (encoder_a.T, encoder_b.T)):
        partner = torch.as_tensor(linear_sum_assignment((a @ b.T).numpy(), maximize=True)[1])
        near &= (normalize(a, dim=1) * normalize(b, dim=1)[partner]).sum(1) >= threshold
        partners.append(partner)
    return near & (partners[0] == partners[1])


@wrong(
    "dictionary_agreement",
    "You average the two cosines before you compare. A latent that writes the same and reads less alike gets through.",
)
def averaged(encoder_a, decoder_a, encoder_b, decoder_b, threshold=0.7):
    (i, one), (j, two) = pairing(decoder_a, decoder_b), pairing(encoder_a.T, encoder_b.T)
    return (i == j) & ((one + two) / 2 >= threshold)


@wrong(
    "dictionary_agreement",
    "You take the decoders' partner and hold the encoders' cosine with it against the threshold. That the encoders' "
    "own pairing gives the same partner is asked for as well.",
)
def decoders_choose(encoder_a, decoder_a, encoder_b, decoder_b, threshold=0.7):
    partner, write = pairing(decoder_a, decoder_b)
    read = (normalize(encoder_a.T, dim=1) * normalize(encoder_b.T, dim=1)[partner]).sum(1)
    return (write >= threshold) & (read >= threshold)


@wrong(
    "dictionary_agreement",
    "Both pairings have to agree with you, and only the decoders' cosine has to reach the threshold: the encoders' has "
    "to as well.",
)
def one_cosine(encoder_a, decoder_a, encoder_b, decoder_b, threshold=0.7):
    (i, write), (j, _) = pairing(decoder_a, decoder_b), pairing(encoder_a.T, encoder_b.T)
    return (i == j) & (write >= threshold)


@wrong(
    "dictionary_agreement",
    "You take cosines without their sign. A latent is never negative, so that the opposite direction is another one.",
)
def without_sign(encoder_a, decoder_a, encoder_b, decoder_b, threshold=0.7):
    found = []
    for a, b in ((decoder_a, decoder_b), (encoder_a.T, encoder_b.T)):
        cosines = (normalize(a, dim=1) @ normalize(b, dim=1).T).abs()
        partner = torch.as_tensor(linear_sum_assignment(cosines.numpy(), maximize=True)[1])
        found.append((partner, cosines[torch.arange(len(a)), partner] >= threshold))
    return (found[0][0] == found[1][0]) & found[0][1] & found[1][1]


@right("dictionary_agreement")
def with_loops(encoder_a, decoder_a, encoder_b, decoder_b, threshold=0.7):
    """A loop over the pairs, with costs in place of gains."""
    found = [False] * decoder_a.shape[0]

    def unit(rows):
        return rows / (rows**2).sum(1, keepdim=True).sqrt()

    write = unit(decoder_a) @ unit(decoder_b).T
    read = unit(encoder_a.T) @ unit(encoder_b.T).T
    by_write = dict(zip(*(x.tolist() for x in linear_sum_assignment(-write.numpy())), strict=True))
    by_read = dict(zip(*(x.tolist() for x in linear_sum_assignment(-read.numpy())), strict=True))
    for i, j in by_write.items():
        found[i] = by_read[i] == j and min(write[i, j].item(), read[i, j].item()) >= threshold
    return torch.tensor(found)


def tested(
    trained, random, confidence=0.95, *, family=None, tails=2, population=False, pooled=False, spread=False, curve=None
):
    if set(trained) != set(random):
        raise ValueError("not the same metrics")
    found = {}
    for name in trained:
        a, b = trained[name], random[name]
        n, m = len(a), len(b)
        squares = [(stdev(v) ** 2) * ((len(v) - 1) / len(v) if population else 1) for v in (a, b)]
        one, two = (squares[0], squares[1]) if spread else (squares[0] / n, squares[1] / m)
        degrees = (one + two) ** 2 / (one**2 / (n - 1) + two**2 / (m - 1))
        variance = one + two
        if pooled:
            degrees = n + m - 2
            variance = ((n - 1) * squares[0] + (m - 1) * squares[1]) / degrees * (1 / n + 1 / m)
        if curve == "n + n' - 2":
            degrees = n + m - 2
        if curve == "normal":
            degrees = math.inf
        alpha = (1 - confidence) / (len(trained) if family is None else family)
        half_width = student.ppf(1 - alpha / tails, degrees) * math.sqrt(variance)
        difference = fmean(a) - fmean(b)
        found[name] = (difference, half_width, abs(difference) > half_width)
    return found


@wrong(
    "random_model_test",
    "Your intervals are for one metric looked at alone. Among several, one tells the networks apart by luck more often "
    "than you allow.",
)
def uncorrected(trained, random, *, confidence=0.95):
    return tested(trained, random, confidence, family=1)


@wrong("random_model_test", "Your intervals are one-sided: all that is allowed to go wrong lies at one end with you.")
def one_sided(trained, random, *, confidence=0.95):
    return tested(trained, random, confidence, tails=1)


@wrong(
    "random_model_test",
    "You pool the variances. Trained and random networks need not spread alike, and with few of each it matters.",
)
def pooled(trained, random, *, confidence=0.95):
    return tested(trained, random, confidence, pooled=True)


@wrong(
    "random_model_test",
    "Your degrees of freedom are n + n' - 2, as if both spread alike. Welch's are fewer the more the two differ.",
)
def student_degrees(trained, random, *, confidence=0.95):
    return tested(trained, random, confidence, curve="n + n' - 2")


@wrong(
    "random_model_test",
    "Your quantile is the normal distribution's, as if the variances were known. From a few values they are not: "
    "Student's reaches further.",
)
def normal_quantile(trained, random, *, confidence=0.95):
    return tested(trained, random, confidence, curve="normal")


@wrong("random_model_test", "Your variances divide by n. From so few values they come out too small: divide by n - 1.")
def population(trained, random, *, confidence=0.95):
    return tested(trained, random, confidence, population=True)


@wrong(
    "random_model_test",
    "Your intervals say how much values differ, not how well the difference of the means is known: divide each "
    "variance by the number of values.",
)
def spreads(trained, random, *, confidence=0.95):
    return tested(trained, random, confidence, spread=True)


@wrong(
    "random_model_test",
    "You count only metrics on which the trained network is ahead. One on which the random network does better tells "
    "them apart just as well, and you would want to know.",
)
def only_better(trained, random, *, confidence=0.95):
    found = tested(trained, random, confidence)
    return {name: (d, w, d > w) for name, (d, w, _) in found.items()}


@wrong("random_model_test", "Your difference is random less trained: its sign is the wrong way round.")
def other_sign(trained, random, *, confidence=0.95):
    return {name: (-d, w, apart) for name, (d, w, apart) in tested(trained, random, confidence).items()}


@wrong("random_model_test", "You go by the trained metrics alone, and do not notice that the random ones are others.")
def unchecked(trained, random, *, confidence=0.95):
    common = {name: random[name] for name in trained if name in random}
    return tested({name: trained[name] for name in common}, common, confidence)


@right("random_model_test")
def by_scipy(trained, random, *, confidence=0.95):
    """scipy's own Welch test and interval."""
    if trained.keys() != random.keys():
        raise ValueError("other metrics")
    level = 1 - (1 - confidence) / len(trained)
    found = {}
    for name, values in trained.items():
        result = ttest_ind(values, random[name], equal_var=False)
        low, high = result.confidence_interval(level)
        found[name] = (float(low + high) / 2, float(high - low) / 2, bool(low > 0 or high < 0))
    return found
