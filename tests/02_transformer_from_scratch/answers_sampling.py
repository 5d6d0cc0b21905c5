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
    "You ignore the generator and use the global random state, so nobody can repeat your samples. Pass it on.",
)
def global_randomness(logits, temperature, generator):
    refuse(temperature)
    return draw((logits / temperature).softmax(-1), None)


@wrong(
    "sample_temperature",
    "You seed a generator in every call, so every call draws the same. Use the one that is given, as it is.",
)
def reseeds(logits, temperature, generator):
    refuse(temperature)
    return draw((logits / temperature).softmax(-1), torch.Generator().manual_seed(generator.initial_seed()))


@wrong(
    "sample_temperature",
    "You seed the global random state from the generator. Your draws can be repeated, but whoever else draws from "
    "the global state gets other numbers. Let the generator itself draw.",
)
def seeds_globally(logits, temperature, generator):
    refuse(temperature)
    torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
    return draw((logits / temperature).softmax(-1), None)


@wrong(
    "sample_temperature",
    "One random number decides for all rows, so texts that are sampled together move together. Each row "
    "needs "
    "a number of its own.",
)
def one_number_for_all(logits, temperature, generator):
    refuse(temperature)
    reached = (logits / temperature).softmax(-1).cumsum(-1)
    uniform = torch.rand(1, generator=generator, dtype=reached.dtype) * reached[:, -1:]
    return (reached <= uniform).sum(-1).clamp(max=logits.shape[-1] - 1)


@wrong(
    "sample_temperature",
    "Your sample has the shape [batch, 1]. `multinomial` keeps a dimension for several draws; drop it.",
)
def kept_sample_dimension(logits, temperature, generator):
    refuse(temperature)
    return torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)


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
    "A temperature of 0 is a division by 0, and a negative one prefers the least probable token. Refuse "
    "both with "
    "a ValueError.",
)
def unguarded_temperature(logits, temperature, generator):
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
    return keep_top_k(logits, max(1, round(p * logits.shape[-1])))


@wrong(
    "top_p_filter",
    "A p outside (0, 1] goes through. There is no set of tokens with a probability of 1.2, and none of 0.",
)
def unguarded_p(logits, p):
    return keep_top_p(logits, min(max(p, 1e-9), 1.0))


@right("top_p_filter")
def by_comparing_all_pairs(logits, p):
    refuse_p(p)
    probabilities = logits.softmax(-1)
    better = probabilities[:, None, :] > probabilities[:, :, None]
    before = (better * probabilities[:, None, :]).sum(-1)
    return torch.where((before < p) | (p == 1.0), logits, -torch.inf)


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


def refuse_prompt(tokens, n_new_tokens):
    if tokens.shape[1] == 0 or n_new_tokens < 0:
        raise ValueError("nothing to start from, or a negative number of tokens")


def loop(model, tokens, n_new_tokens, choose, visible, position=-1):
    refuse_prompt(tokens, n_new_tokens)
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
    return loop(model, tokens, n_new_tokens, choose, lambda t: t if n_ctx is None else t[:, -n_ctx:], position=0)


@wrong(
    "generate",
    "You show the model the newest token only, and everything before it is forgotten. (With a cache of keys "
    "and values one "
    "token is enough; this model has none.)",
)
def newest_only(model, tokens, n_new_tokens, choose, n_ctx=None):
    return loop(model, tokens, n_new_tokens, choose, lambda t: t[:, -1:])


@wrong(
    "generate",
    "You show the model the prompt in every round, never its continuation, so it predicts the same next "
    "token again and again.",
)
def prompt_only(model, tokens, n_new_tokens, choose, n_ctx=None):
    prompt = tokens
    return loop(model, tokens, n_new_tokens, choose, lambda t: prompt if n_ctx is None else prompt[:, -n_ctx:])


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
    return reference_generate(model, tokens, n_new_tokens, choose)


@wrong(
    "generate",
    "Your window shows the first n_ctx tokens, so once the text is longer the model never sees what it has "
    "just written. "
    "Show the last ones.",
)
def window_at_the_start(model, tokens, n_new_tokens, choose, n_ctx=None):
    return loop(model, tokens, n_new_tokens, choose, lambda t: t[:, :n_ctx])


@wrong("generate", "You return the new tokens without the prompt.")
def continuation_only(model, tokens, n_new_tokens, choose, n_ctx=None):
    return reference_generate(model, tokens, n_new_tokens, choose, n_ctx)[:, tokens.shape[1] :]


@wrong("generate", "n_new_tokens is how many tokens are new, not how long the text is in the end.")
def total_length(model, tokens, n_new_tokens, choose, n_ctx=None):
    refuse_prompt(tokens, n_new_tokens)
    return reference_generate(model, tokens, max(0, n_new_tokens - tokens.shape[1]), choose, n_ctx)


@wrong("generate", "An empty prompt or a negative number of tokens goes through. Raise a ValueError.")
def unguarded_prompt(model, tokens, n_new_tokens, choose, n_ctx=None):
    return (
        reference_generate(model, tokens, n_new_tokens, choose, n_ctx)
        if tokens.shape[1] and n_new_tokens > 0
        else tokens
    )


@right("generate")
def into_a_buffer(model, tokens, n_new_tokens, choose, n_ctx=None):
    refuse_prompt(tokens, n_new_tokens)
    pos = tokens.shape[1]
    text = torch.cat([tokens, torch.zeros(len(tokens), n_new_tokens, dtype=tokens.dtype)], dim=1)
    for end in range(pos, pos + n_new_tokens):
        start = 0 if n_ctx is None else max(0, end - n_ctx)
        text[:, end] = choose(model(text[:, start:end])[:, -1, :])
    return text


@right("generate")
def recursively(model, tokens, n_new_tokens, choose, n_ctx=None):
    refuse_prompt(tokens, n_new_tokens)
    if n_new_tokens == 0:
        return tokens
    window = tokens[:, max(0, tokens.shape[1] - (n_ctx or tokens.shape[1])) :]
    longer = torch.hstack([tokens, choose(model(window).select(1, -1)).view(-1, 1)])
    return recursively(model, longer, n_new_tokens - 1, choose, n_ctx)
