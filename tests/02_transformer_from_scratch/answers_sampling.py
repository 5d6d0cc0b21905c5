"""Wrong and right answers to the exercises on choosing tokens."""

import torch

from utils.course.catalogue import right, wrong
from utils.transformer.sampling import generate as reference_generate
from utils.transformer.sampling import top_k_filter as keep_top_k
from utils.transformer.sampling import top_p_filter as keep_top_p

# greedy


@wrong(
    "greedy",
    "You compare along the batch: for each token of the vocabulary you find the text that likes it best. "
    "The candidates "
    "lie along the last dimension.",
)
def over_batch(logits):
    return logits.argmax(dim=0)


@wrong("greedy", "Without `dim`, argmax looks for one winner in the whole tensor. Every row needs its own.")
def flattened(logits):
    return logits.argmax()


@wrong("greedy", "You return the highest logits themselves. What is wanted is where they are: the token ids.")
def highest_logits(logits):
    return logits.max(dim=-1).values


@wrong(
    "greedy",
    "Your result keeps the vocabulary's dimension, with size 1. It has to be [batch], so that it can be "
    "appended as a column.",
)
def kept_dimension(logits):
    return logits.argmax(dim=-1, keepdim=True)


@wrong("greedy", "You take the least probable token: sorting is ascending unless it is told otherwise.")
def lowest(logits):
    return logits.argsort(dim=-1)[:, 0]


@wrong("greedy", "You look at the size of the logits without their sign. A logit of -50 is a firm no.")
def largest_magnitude(logits):
    return logits.abs().argmax(dim=-1)


@wrong(
    "greedy",
    "Your token ids come back as a list. The rest of the course appends them to a tensor: keep what `argmax` gives.",
)
def as_a_list(logits):
    return logits.argmax(dim=-1).tolist()


@wrong(
    "greedy",
    "What you return are floating-point numbers, and no table of embeddings can be indexed with them. Ids are the "
    "places of the largest logits, not the values there.",
)
def as_floats(logits):
    return logits.argmax(dim=-1).to(logits.dtype)


@wrong(
    "greedy",
    "You go through float32 on the way (or through something that rounds as much), and float64 logits that are close "
    "together become equal. Compare them as they are.",
)
def rounded_to_float32(logits):
    return logits.float().argmax(dim=-1)


@wrong("greedy", "You draw the token. Greedy choice takes the most probable one every time, by no lot.")
def by_lot(logits):
    return torch.multinomial(logits.softmax(-1), 1)[:, 0]


@wrong("greedy", "Every text gets the choice of the first one. Each row has a most probable token of its own.")
def of_the_first_text(logits):
    return logits[:1].argmax(dim=-1).expand(len(logits))


@wrong("greedy", "You return one-hot rows, as long as the vocabulary. What is wanted is the place of the 1.")
def one_hot_rows(logits):
    return torch.nn.functional.one_hot(logits.argmax(dim=-1), logits.shape[-1])


@right("greedy")
def by_sorting(logits):
    return logits.sort(dim=-1, descending=True).indices[..., 0]


@right("greedy")
def row_by_row(logits):
    return torch.tensor([max(range(len(row)), key=row.__getitem__) for row in logits.tolist()])


# sample_temperature


def refuse(temperature):
    if temperature <= 0:
        raise ValueError("temperature must be above 0")


def draw(probabilities, generator):
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]


def heated(logits, temperature, dim=-1):
    """softmax(logits / temperature), without a quotient above 0."""
    return ((logits - logits.amax(dim, keepdim=True)) / temperature).softmax(dim)


@wrong(
    "sample_temperature",
    "You multiply by the temperature, so high temperatures make your model more certain. Heat flattens: divide.",
)
def multiplies(logits, temperature, generator):
    refuse(temperature)
    return draw((logits * temperature).softmax(-1), generator)


@wrong(
    "sample_temperature",
    "Your temperature has no effect. If you divide the probabilities by it, the sampler's normalisation "
    "undoes "
    "that; it is the logits that have to be divided, before the softmax.",
)
def no_effect(logits, temperature, generator):
    refuse(temperature)
    return draw(logits.softmax(-1) / temperature, generator)


@wrong(
    "sample_temperature",
    "You ignore the generator and use the global random state: whoever passes the same one again gets other samples. "
    "Pass it on.",
)
def global_randomness(logits, temperature, generator):
    refuse(temperature)
    return draw(heated(logits, temperature), None)


@wrong(
    "sample_temperature",
    "You seed a generator in every call, so every call draws the same. Use the one that is given, as it is.",
)
def reseeds(logits, temperature, generator):
    refuse(temperature)
    return draw(heated(logits, temperature), torch.Generator().manual_seed(generator.initial_seed()))


@wrong(
    "sample_temperature",
    "You seed the global random state from the generator. Your draws can be repeated, but whoever else draws from "
    "the global state gets other numbers. Let the generator itself draw.",
)
def seeds_globally(logits, temperature, generator):
    refuse(temperature)
    torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
    return draw(heated(logits, temperature), None)


@wrong(
    "sample_temperature",
    "One random number decides for all rows, so texts that are sampled together move together. Each row "
    "needs "
    "a number of its own.",
)
def one_number_for_all(logits, temperature, generator):
    refuse(temperature)
    reached = heated(logits, temperature).cumsum(-1)
    uniform = torch.rand(1, generator=generator, dtype=reached.dtype) * reached[:, -1:]
    return (reached <= uniform).sum(-1).clamp(max=logits.shape[-1] - 1)


@wrong(
    "sample_temperature",
    "Your sample has the shape [batch, 1]. `multinomial` keeps a dimension for several draws; drop it.",
)
def kept_sample_dimension(logits, temperature, generator):
    refuse(temperature)
    return torch.multinomial(heated(logits, temperature), 1, generator=generator)


@wrong(
    "sample_temperature",
    "At low temperatures the exp of logits / temperature is infinite. Subtract each row's maximum before "
    "it, as a "
    "softmax does.",
)
def overflows(logits, temperature, generator):
    refuse(temperature)
    weights = (logits / temperature).exp()
    return draw(weights / weights.sum(-1, keepdim=True), generator)


@wrong(
    "sample_temperature",
    "Not every temperature that isn't above 0 is refused. 0 is a division by 0, and a negative one prefers the least "
    "probable token: raise a ValueError for all of them.",
)
def unguarded_temperature(logits, temperature, generator):
    return draw(heated(logits, temperature), generator)


@wrong(
    "sample_temperature",
    "`squeeze()` without a dimension takes away every dimension of size 1, and for a single text the batch goes with "
    "it. Say which one: `squeeze(-1)`.",
)
def squeezes_everything(logits, temperature, generator):
    refuse(temperature)
    return torch.multinomial(heated(logits, temperature), 1, generator=generator).squeeze()


@wrong(
    "sample_temperature",
    "Your softmax runs over the texts of the batch. The candidates for one draw lie along the last dimension.",
)
def softmax_over_texts(logits, temperature, generator):
    refuse(temperature)
    return draw(heated(logits, temperature, dim=0), generator)


@wrong(
    "sample_temperature",
    "You refuse negative temperatures, and 0 ends in an error about the probabilities. Division by 0 is no better: "
    "refuse everything that is not above 0.",
)
def refuses_below_zero(logits, temperature, generator):
    if temperature < 0:
        raise ValueError("negative temperature")
    return draw(heated(logits, temperature), generator)


@wrong(
    "sample_temperature",
    "At a very low temperature your quotients logits / temperature are infinite, and the softmax makes NaN of "
    "infinities. Measure each row's logits from the largest of them before you divide.",
)
def infinite_quotients(logits, temperature, generator):
    refuse(temperature)
    return draw((logits / temperature).softmax(-1), generator)


@right("sample_temperature")
def gumbel_max(logits, temperature, generator):
    refuse(temperature)
    uniform = torch.rand(logits.shape, generator=generator, dtype=torch.float64).clamp_min(1e-300)
    return (logits.double() / temperature - (-uniform.log()).log()).argmax(-1)


@right("sample_temperature")
def inverse_of_the_distribution(logits, temperature, generator):
    refuse(temperature)
    reached = torch.softmax(logits.double() / temperature, dim=1).cumsum(1)
    uniform = torch.rand(len(logits), 1, generator=generator, dtype=torch.float64) * reached[:, -1:]
    return torch.searchsorted(reached, uniform, right=True)[:, 0].clamp(max=logits.shape[1] - 1)


@right("sample_temperature")
def exponential_race(logits, temperature, generator):
    refuse(temperature)
    waiting = torch.empty(logits.shape, dtype=torch.float64).exponential_(generator=generator)
    return (torch.softmax(logits.double() / temperature, dim=-1) / waiting).argmax(dim=-1)


# top_k_filter


def refuse_k(k):
    if k < 1:
        raise ValueError("k must be at least 1")


@wrong(
    "top_k_filter",
    "You look for the k highest logits of the whole batch, so a row of low logits loses everything. Each "
    "row keeps "
    "its own k.",
)
def of_the_whole_batch(logits, k):
    refuse_k(k)
    return logits.masked_fill(logits < logits.flatten().topk(min(k, logits.numel())).values[-1], -torch.inf)


@wrong(
    "top_k_filter",
    "You look for the k highest along the batch: each token is compared with itself in the other texts. The tokens of "
    "one text lie along the last dimension.",
)
def along_the_batch(logits, k):
    refuse_k(k)
    return logits.masked_fill(logits < logits.topk(min(k, len(logits)), dim=0).values[-1:], -torch.inf)


@wrong(
    "top_k_filter",
    "Removed tokens get the logit 0, which is an ordinary logit, often a high one. What exp turns into 0 is -inf.",
)
def filled_with_zeros(logits, k):
    return keep_top_k(logits, k).masked_fill(keep_top_k(logits, k).isinf(), 0.0)


@wrong(
    "top_k_filter",
    "Removed tokens get a large negative number. It works until logits are large too, and it hides from "
    "later code "
    "which tokens are out. Use -inf.",
)
def filled_with_a_number(logits, k):
    return keep_top_k(logits, k).clamp_min(-1e9)


@wrong(
    "top_k_filter",
    "You drop the k-th highest logit with the rest, so k - 1 are left. It is the lowest one to be kept.",
)
def one_too_few(logits, k):
    refuse_k(k)
    return logits.masked_fill(logits <= logits.topk(min(k, logits.shape[-1])).values[:, -1:], -torch.inf)


@wrong(
    "top_k_filter",
    "Of logits equal to the k-th you keep some and drop some, by their place in the vocabulary. Compare "
    "values with the "
    "k-th instead of collecting k places.",
)
def exactly_k(logits, k):
    refuse_k(k)
    top = logits.topk(min(k, logits.shape[-1]), dim=-1)
    return torch.full_like(logits, -torch.inf).scatter(-1, top.indices, top.values)


@wrong(
    "top_k_filter",
    "You return the k logits alone. Their places are lost: the first of them is no longer token 0. Keep the "
    "shape, and "
    "put -inf where something is removed.",
)
def compact(logits, k):
    refuse_k(k)
    return logits.topk(min(k, logits.shape[-1]), dim=-1).values


@wrong("top_k_filter", "A k beyond the size of the vocabulary ends in an error. Nothing has to be removed then.")
def fails_for_large_k(logits, k):
    refuse_k(k)
    return logits.masked_fill(logits < logits.topk(k, dim=-1).values[:, -1:], -torch.inf)


@wrong(
    "top_k_filter",
    "You return probabilities. A filter takes logits and gives logits, so that filters and temperature can "
    "be combined.",
)
def probabilities_of_k(logits, k):
    return keep_top_k(logits, k).softmax(-1)


@wrong(
    "top_k_filter",
    "You write the -inf into the logits that you were given; whoever passed them finds them changed.",
)
def changes_logits(logits, k):
    filtered = keep_top_k(logits, k)
    with torch.no_grad():
        logits[filtered.isinf()] = -torch.inf
    return logits


@wrong(
    "top_k_filter",
    "When there is nothing to remove you give back the very tensor that came in, so a change to your result is a "
    "change to the argument. Return a copy.",
)
def gives_back_the_argument(logits, k):
    return logits if k >= logits.shape[-1] else keep_top_k(logits, k)


@wrong("top_k_filter", "A k of 0 or below removes nothing or everything without a word. Raise a ValueError.")
def unguarded_k(logits, k):
    return keep_top_k(logits, max(k, 1))


@wrong(
    "top_k_filter",
    "You treat logits that are nearly equal to the k-th as equal (`isclose`, or a tolerance), and keep some that are "
    "below it. Compare the values as they are.",
)
def nearly_equal_ones_too(logits, k):
    refuse_k(k)
    lowest = logits.topk(min(k, logits.shape[-1]), dim=-1).values[:, -1:]
    return logits.masked_fill((logits < lowest) & ~torch.isclose(logits, lowest), -torch.inf)


@wrong(
    "top_k_filter",
    "With k = 1 you keep one place, and other logits that are just as high are lost. The rule on equal logits holds "
    "for every k.",
)
def one_place_for_k_of_one(logits, k):
    if k != 1:
        return keep_top_k(logits, k)
    best = logits.max(dim=-1, keepdim=True)
    return torch.full_like(logits, -torch.inf).scatter(-1, best.indices, best.values)


@wrong(
    "top_k_filter",
    "You compare probabilities. Those of logits far below the highest round to 0 and look equal; the logits do not.",
)
def by_probabilities(logits, k):
    refuse_k(k)
    probabilities = logits.softmax(-1)
    return logits.masked_fill(probabilities < probabilities.topk(min(k, logits.shape[-1])).values[:, -1:], -torch.inf)


@wrong(
    "top_k_filter",
    "You count equal logits as one (`unique`), and keep the k highest values with all that have them. The k highest "
    "logits are k places; only what equals the last of them comes on top.",
)
def k_different_values(logits, k):
    refuse_k(k)
    rows = []
    for row in logits:
        values = row.unique()
        rows.append(row.masked_fill(row < values[-min(k, len(values))], -torch.inf))
    return torch.stack(rows)


@wrong("top_k_filter", "All rows are cut at the k-th highest logit of the first one. Each has a threshold of its own.")
def threshold_of_the_first_row(logits, k):
    refuse_k(k)
    return logits.masked_fill(logits < logits[0].topk(min(k, logits.shape[-1])).values[-1], -torch.inf)


@wrong("top_k_filter", "You keep one logit too many: your threshold is the one after the k-th highest.")
def one_more(logits, k):
    refuse_k(k)
    return keep_top_k(logits, k + 1)


@wrong(
    "top_k_filter",
    "You normalise what is left to log-probabilities. What is kept should have the values it came with; the softmax "
    "comes once, at the end.",
)
def normalised_again(logits, k):
    return keep_top_k(logits, k).log_softmax(-1)


@wrong(
    "top_k_filter",
    "You compare in float32 (or round as much on the way), and float64 logits that are close together look equal.",
)
def compared_in_float32(logits, k):
    refuse_k(k)
    rounded = logits.float()
    return logits.masked_fill(rounded < rounded.topk(min(k, logits.shape[-1])).values[:, -1:], -torch.inf)


@wrong(
    "top_k_filter",
    "You remove the k highest logits and keep the rest: your comparison is the wrong way round.",
)
def removes_the_highest(logits, k):
    refuse_k(k)
    lowest = logits.topk(min(k, logits.shape[-1]), dim=-1).values[:, -1:]
    return logits.masked_fill(logits >= lowest, -torch.inf)


@right("top_k_filter")
def by_counting_better_ones(logits, k):
    refuse_k(k)
    better = (logits[:, None, :] > logits[:, :, None]).sum(-1)
    return torch.where(better < k, logits, -torch.inf)


@right("top_k_filter")
def row_by_row_in_a_copy(logits, k):
    refuse_k(k)
    out = logits.clone()
    for row in out:
        row[row < row.sort(descending=True).values[min(k, len(row)) - 1]] = -torch.inf
    return out


@right("top_k_filter")
def by_sorting_rows(logits, k):
    refuse_k(k)
    ordered = logits.sort(dim=-1).values
    threshold = ordered[:, max(0, logits.shape[1] - k)].unsqueeze(1)
    out = logits.clone()
    out[logits < threshold] = float("-inf")
    return out


# top_p_filter


def refuse_p(p):
    if not 0 < p <= 1:
        raise ValueError("p must be in (0, 1]")


def filter_by(logits, p, keep_sorted, descending=True, unsort=True, everything=True):
    refuse_p(p)
    probabilities, order = logits.softmax(-1).sort(-1, descending=descending)
    keep = keep_sorted(probabilities, probabilities.cumsum(-1)) | torch.tensor(everything and p == 1)
    keep = torch.zeros_like(keep).scatter(-1, order, keep) if unsort else keep
    return logits.masked_fill(~keep, -torch.inf)


@wrong(
    "top_p_filter",
    "You drop the token that makes the sum reach p, so what is left has less than p, and a confident model "
    "is left "
    "with nothing. Ask what was reached before each token, not with it.",
)
def without_the_last(logits, p):
    return filter_by(logits, p, lambda probabilities, reached: reached <= p)


@wrong(
    "top_p_filter",
    "You see to it that the most probable token stays, but the token that makes the sum reach p is still dropped "
    "everywhere else, so what is left has less than p. Ask what was reached before each token.",
)
def only_the_first_saved(logits, p):
    def keep(probabilities, reached):
        within = reached <= p
        return torch.cat([torch.ones_like(within[:, :1]), within[:, 1:]], dim=-1)

    return filter_by(logits, p, keep)


@wrong(
    "top_p_filter",
    "Sums of rounded numbers reach 1 before the last tokens, so with p = 1 you drop the least probable ones. It "
    "should keep everything: treat that case by itself.",
)
def rounded_up_to_one(logits, p):
    return filter_by(logits, p, lambda probabilities, reached: reached - probabilities < p, everything=False)


@wrong(
    "top_p_filter",
    "You bring your mask back with `gather` and the sorting's indices. That permutes once more in the same direction; "
    "the way back is `scatter`.",
)
def gathered_not_scattered(logits, p):
    refuse_p(p)
    probabilities, order = logits.softmax(-1).sort(-1, descending=True)
    keep = (probabilities.cumsum(-1) - probabilities < p) | torch.tensor(p == 1)
    return logits.masked_fill(~keep.gather(-1, order), -torch.inf)


@wrong(
    "top_p_filter",
    "Your mask is in the order of the sorted probabilities, and you apply it to logits in the order of the "
    "vocabulary. "
    "Put it back into place first: `scatter` with the sorting's indices.",
)
def not_unsorted(logits, p):
    return filter_by(logits, p, lambda probabilities, reached: reached - probabilities < p, unsort=False)


@wrong("top_p_filter", "You collect from the least probable token upwards. Sort in descending order.")
def from_below(logits, p):
    return filter_by(logits, p, lambda probabilities, reached: reached - probabilities < p, descending=False)


@wrong(
    "top_p_filter",
    "You keep every token whose own probability is above 1 - p. It is the sum over the most probable ones "
    "that has to "
    "reach p.",
)
def single_probabilities(logits, p):
    refuse_p(p)
    return logits.masked_fill(logits.softmax(-1) < 1 - p, -torch.inf)


@wrong("top_p_filter", "You keep one token more than it takes: p is already reached without it.")
def one_too_many(logits, p):
    def keep(probabilities, reached):
        before = (reached - probabilities) < p
        return torch.cat([before[:, :1], before[:, :-1]], dim=-1)

    return filter_by(logits, p, keep)


@wrong(
    "top_p_filter",
    "Removed tokens get the logit 0, which is an ordinary logit. What exp turns into 0 is -inf.",
)
def zeros_for_removed(logits, p):
    filtered = keep_top_p(logits, p)
    return filtered.masked_fill(filtered.isinf(), 0.0)


@wrong(
    "top_p_filter",
    "You return probabilities. A filter takes logits and gives logits, so that filters and temperature can "
    "be combined.",
)
def probabilities_of_nucleus(logits, p):
    return keep_top_p(logits, p).softmax(-1)


@wrong(
    "top_p_filter",
    "You treat p as a share of the vocabulary and keep that many tokens. It is a share of the probability, "
    "so that the "
    "number of tokens varies with how sure the model is.",
)
def share_of_vocabulary(logits, p):
    refuse_p(p)
    top = logits.topk(max(1, round(p * logits.shape[-1])), dim=-1)
    return torch.full_like(logits, -torch.inf).scatter(-1, top.indices, top.values)


@wrong(
    "top_p_filter",
    "A p outside (0, 1] goes through. There is no set of tokens with a probability of 1.2, and none of 0.",
)
def unguarded_p(logits, p):
    return keep_top_p(logits, min(max(p, 1e-9), 1.0))


@wrong(
    "top_p_filter",
    "Of equally probable tokens you keep all, as top_k_filter does. Here the set is the smallest that reaches p, so a "
    "tie at its edge is cut: take as many of the equal ones as it needs.",
)
def by_comparing_all_pairs(logits, p):
    refuse_p(p)
    probabilities = logits.softmax(-1)
    better = probabilities[:, None, :] > probabilities[:, :, None]
    before = (better * probabilities[:, None, :]).sum(-1)
    return torch.where((before < p) | (p == 1.0), logits, -torch.inf)


@wrong(
    "top_p_filter",
    "Where the sum reaches p exactly, you keep one token more: you ask whether what was reached before is at most p. "
    "At p the set is complete.",
)
def one_more_at_the_boundary(logits, p):
    return filter_by(logits, p, lambda probabilities, reached: reached - probabilities <= p)


@wrong(
    "top_p_filter",
    "You keep tokens whose probability is at least p times the highest. That is min-p sampling, another filter; here "
    "the sum over the most probable ones has to reach p.",
)
def share_of_the_highest(logits, p):
    refuse_p(p)
    probabilities = logits.softmax(-1)
    removed = (probabilities < p * probabilities.amax(-1, keepdim=True)) & torch.tensor(p < 1)
    return logits.masked_fill(removed, -torch.inf)


@wrong(
    "top_p_filter",
    "You add up over the whole batch: p is shared by all rows. Each row is a distribution of its own.",
)
def summed_over_the_batch(logits, p):
    refuse_p(p)
    if p == 1:
        return logits.clone()
    probabilities, order = logits.softmax(-1).flatten().sort(descending=True)
    removed = (probabilities.cumsum(0) - probabilities >= p)[order.argsort()].reshape(logits.shape)
    return logits.masked_fill(removed, -torch.inf)


@wrong("top_p_filter", "You keep two tokens at least. One is enough, if its probability reaches p alone.")
def two_at_least(logits, p):
    def keep(probabilities, reached):
        before = reached - probabilities < p
        return torch.cat([torch.ones_like(before[:, :2]), before[:, 2:]], dim=-1)

    return filter_by(logits, p, keep)


@wrong(
    "top_p_filter",
    "You normalise what is left to log-probabilities. What is kept should have the values it came with; the softmax "
    "comes once, at the end.",
)
def normalised_nucleus(logits, p):
    return keep_top_p(logits, p).log_softmax(-1)


@wrong("top_p_filter", "You refuse p = 1, which is allowed: it keeps everything.")
def refuses_one(logits, p):
    if not 0 < p < 1:
        raise ValueError("p must lie between 0 and 1")
    return keep_top_p(logits, p)


@wrong("top_p_filter", "You compute in float32 and hand float32 back, also where float64 came in.")
def nucleus_in_float32(logits, p):
    return keep_top_p(logits.float(), p)


@wrong(
    "top_p_filter",
    "You add up logits. It is the probabilities of the kept tokens that have to reach p: take the softmax before you "
    "add.",
)
def sums_of_logits(logits, p):
    refuse_p(p)
    if p == 1:
        return logits.clone()
    ordered, order = logits.sort(dim=-1, descending=True)
    remove = ordered.cumsum(-1) - ordered >= p
    return logits.masked_fill(torch.zeros_like(remove).scatter(-1, order, remove), -torch.inf)


@right("top_p_filter")
def ascending_from_the_tail(logits, p):
    refuse_p(p)
    if p == 1.0:
        return logits.clone()
    ordered, order = torch.sort(logits, descending=False)
    remove = ordered.softmax(dim=-1).cumsum(dim=-1) <= 1 - p
    remove[..., -1] = False
    return logits.masked_fill(torch.zeros_like(remove).scatter(1, order, remove), -torch.inf)


@right("top_p_filter")
def ascending_with_loop(logits, p):
    refuse_p(p)
    rows = []
    for row in logits:
        order = row.argsort(descending=True).tolist()
        probabilities, total, kept = row.softmax(-1).tolist(), 0.0, []
        while order and (p == 1 or total < p):
            kept.append(order.pop(0))
            total += probabilities[kept[-1]]
        mask = torch.ones_like(row, dtype=torch.bool)
        mask[kept] = False
        rows.append(row.masked_fill(mask, -torch.inf))
    return torch.stack(rows)


# generate


def refuse_prompt(tokens, n_new_tokens, n_ctx=None):
    if tokens.shape[1] == 0 or n_new_tokens < 0 or (n_ctx is not None and n_ctx < 1):
        raise ValueError("nothing to start from or to show, or a negative number of tokens")


def last(n_ctx):
    return lambda tokens: tokens if n_ctx is None else tokens[:, -n_ctx:]


def loop(model, tokens, n_new_tokens, choose, visible, position=-1, n_ctx=None):
    refuse_prompt(tokens, n_new_tokens, n_ctx)
    for _ in range(n_new_tokens):
        tokens = torch.cat([tokens, choose(model(visible(tokens))[:, position])[:, None]], 1)
    return tokens


@wrong(
    "generate",
    "You choose from the logits of the first position, which predict the second token, and have nothing new "
    "to say after "
    "that. The next token is predicted at the last position.",
)
def first_position(model, tokens, n_new_tokens, choose, n_ctx=None):
    return loop(model, tokens, n_new_tokens, choose, last(n_ctx), position=0, n_ctx=n_ctx)


@wrong(
    "generate",
    "You show the model the newest token only, and everything before it is forgotten. (With a cache of keys "
    "and values one "
    "token is enough; this model has none.)",
)
def newest_only(model, tokens, n_new_tokens, choose, n_ctx=None):
    return loop(model, tokens, n_new_tokens, choose, lambda t: t[:, -1:], n_ctx=n_ctx)


@wrong(
    "generate",
    "You show the model the prompt in every round, never its continuation, so it predicts the same next "
    "token again and again.",
)
def prompt_only(model, tokens, n_new_tokens, choose, n_ctx=None):
    prompt = last(n_ctx)(tokens)
    return loop(model, tokens, n_new_tokens, choose, lambda t: prompt, n_ctx=n_ctx)


@wrong(
    "generate",
    "You hand `choose` probabilities. A temperature divides logits and a filter gives them; pass on what the model "
    "says as it is.",
)
def hands_over_probabilities(model, tokens, n_new_tokens, choose, n_ctx=None):
    return reference_generate(model, tokens, n_new_tokens, lambda logits: choose(logits.softmax(-1)), n_ctx)


@wrong("generate", "You ignore `choose` and always take the most probable token.")
def always_greedy(model, tokens, n_new_tokens, choose, n_ctx=None):
    return reference_generate(model, tokens, n_new_tokens, lambda logits: logits.argmax(-1), n_ctx)


@wrong(
    "generate",
    "You ignore n_ctx. A model that has position embeddings for n_ctx places cannot read more than that.",
)
def ignores_window(model, tokens, n_new_tokens, choose, n_ctx=None):
    refuse_prompt(tokens, n_new_tokens, n_ctx)
    return reference_generate(model, tokens, n_new_tokens, choose)


@wrong(
    "generate",
    "Your window shows the first n_ctx tokens, so once the text is longer the model never sees what it has "
    "just written. "
    "Show the last ones.",
)
def window_at_the_start(model, tokens, n_new_tokens, choose, n_ctx=None):
    return loop(model, tokens, n_new_tokens, choose, lambda t: t[:, :n_ctx], n_ctx=n_ctx)


@wrong("generate", "You return the new tokens without the prompt.")
def continuation_only(model, tokens, n_new_tokens, choose, n_ctx=None):
    return reference_generate(model, tokens, n_new_tokens, choose, n_ctx)[:, tokens.shape[1] :]


@wrong("generate", "n_new_tokens is how many tokens are new, not how long the text is in the end.")
def total_length(model, tokens, n_new_tokens, choose, n_ctx=None):
    refuse_prompt(tokens, n_new_tokens, n_ctx)
    return reference_generate(model, tokens, max(0, n_new_tokens - tokens.shape[1]), choose, n_ctx)


@wrong(
    "generate",
    "An empty prompt or a negative number of tokens goes through. Raise a ValueError, and look what else the docstring "
    "refuses.",
)
def unguarded_prompt(model, tokens, n_new_tokens, choose, n_ctx=None):
    return (
        reference_generate(model, tokens, n_new_tokens, choose, n_ctx)
        if tokens.shape[1] and n_new_tokens > 0
        else tokens
    )


@wrong(
    "generate",
    "With n_ctx the text itself is cut to its last n_ctx tokens. The window is for the model's eyes only; what comes "
    "back is the prompt and all that was written.",
)
def text_cut_to_window(model, tokens, n_new_tokens, choose, n_ctx=None):
    return last(n_ctx)(reference_generate(model, tokens, n_new_tokens, choose, n_ctx))


@wrong(
    "generate",
    "You cut the text itself before each new token and go on from what is left, so that the window and one token more "
    "come back. Only what the model is shown is cut: keep the whole text beside it.",
)
def text_cut_in_every_round(model, tokens, n_new_tokens, choose, n_ctx=None):
    refuse_prompt(tokens, n_new_tokens, n_ctx)
    for _ in range(n_new_tokens):
        tokens = last(n_ctx)(tokens)
        tokens = torch.cat([tokens, choose(model(tokens)[:, -1])[:, None]], 1)
    return tokens


@wrong("generate", "Your window is one token too short: it shows the last n_ctx - 1.")
def window_too_short(model, tokens, n_new_tokens, choose, n_ctx=None):
    return loop(model, tokens, n_new_tokens, choose, last(n_ctx and n_ctx - 1), n_ctx=n_ctx)


@wrong("generate", "Your window is one token too long: it shows the last n_ctx + 1, and the model has n_ctx positions.")
def window_too_long(model, tokens, n_new_tokens, choose, n_ctx=None):
    return loop(model, tokens, n_new_tokens, choose, last(n_ctx and n_ctx + 1), n_ctx=n_ctx)


@wrong(
    "generate",
    "A window of no tokens goes through, and the model is shown the whole text: `tokens[:, -0:]` is all of it, and "
    "`if n_ctx` takes 0 for None. Raise a ValueError for every n_ctx below 1, 0 among them.",
)
def window_of_nothing(model, tokens, n_new_tokens, choose, n_ctx=None):
    refuse_prompt(tokens, n_new_tokens)
    for _ in range(n_new_tokens):
        tokens = torch.cat([tokens, choose(model(last(n_ctx)(tokens))[:, -1])[:, None]], 1)
    return tokens


@wrong(
    "generate",
    "You hand `choose` log-probabilities. They have the order of the logits, but not their values; pass on what the "
    "model says as it is.",
)
def hands_over_log_probabilities(model, tokens, n_new_tokens, choose, n_ctx=None):
    return reference_generate(model, tokens, n_new_tokens, lambda logits: choose(logits.log_softmax(-1)), n_ctx)


@wrong("generate", "You stop one token early.")
def one_token_early(model, tokens, n_new_tokens, choose, n_ctx=None):
    refuse_prompt(tokens, n_new_tokens, n_ctx)
    return reference_generate(model, tokens, max(0, n_new_tokens - 1), choose, n_ctx)


@right("generate")
def into_a_buffer(model, tokens, n_new_tokens, choose, n_ctx=None):
    refuse_prompt(tokens, n_new_tokens, n_ctx)
    pos = tokens.shape[1]
    text = torch.cat([tokens, torch.zeros(len(tokens), n_new_tokens, dtype=tokens.dtype)], dim=1)
    for end in range(pos, pos + n_new_tokens):
        start = 0 if n_ctx is None else max(0, end - n_ctx)
        text[:, end] = choose(model(text[:, start:end])[:, -1, :])
    return text


@right("generate")
def recursively(model, tokens, n_new_tokens, choose, n_ctx=None):
    refuse_prompt(tokens, n_new_tokens, n_ctx)
    if n_new_tokens == 0:
        return tokens
    window = tokens[:, max(0, tokens.shape[1] - (n_ctx or tokens.shape[1])) :]
    longer = torch.hstack([tokens, choose(model(window).select(1, -1)).view(-1, 1)])
    return recursively(model, longer, n_new_tokens - 1, choose, n_ctx)
