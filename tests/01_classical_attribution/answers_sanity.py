"""Wrong and right answers to the exercises on sanity checks."""

import math
from copy import deepcopy

import torch
import torch.nn.functional as F

from utils.attribution.sanity import map_similarity
from utils.course.catalogue import right, wrong

# map_similarity


def correlation(a, b):
    a, b = (x.detach().flatten(1) - x.detach().flatten(1).mean(1, keepdim=True) for x in (a, b))
    return (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1)).sqrt()


def mean_ranks(maps):
    """Ranks by counting: how many pixels are smaller, plus half of those that are equal."""
    x = maps.flatten(1)
    return ((x[:, :, None] > x[:, None, :]).sum(2) + ((x[:, :, None] == x[:, None, :]).sum(2) + 1) / 2).to(maps.dtype)


def spearman(first, second):
    return correlation(mean_ranks(first), mean_ranks(second))


def structural(x, y, window, *, unbiased=True, stride=1, c1=1e-4, c2=9e-4, means=True):
    """SSIM from all windows, cut out one beside the other."""
    n = window**2
    x, y = (F.unfold(m.detach()[:, None], window, stride=stride) for m in (x, y))
    mx, my = x.mean(1), y.mean(1)
    divisor = n - 1 if unbiased else n
    vx, vy = ((m - m.mean(1, keepdim=True)).square().sum(1) / divisor for m in (x, y))
    cov = ((x - mx[:, None]) * (y - my[:, None])).sum(1) / divisor
    of_means = (2 * mx * my + c1) / (mx**2 + my**2 + c1) if means else 1
    return (of_means * (2 * cov + c2) / (vx + vy + c2)).mean(1)


def to_one(maps):
    maps = maps.detach()
    top = maps.abs().amax(dim=(1, 2), keepdim=True)
    return maps.abs() / torch.where(top > 0, top, torch.ones_like(top))


@wrong(
    "map_similarity",
    "Your rank correlation is the ordinary correlation of the values: a single bright pixel can decide it. Replace "
    "the values by their ranks first.",
)
def values_not_ranks(first, second, *, window=5):
    found = map_similarity(first, second, window=window)
    return found | {
        "spearman": correlation(first, second),
        "spearman_abs": correlation(first.abs(), second.abs()),
    }


@wrong(
    "map_similarity",
    "Pixels of equal value get different ranks in your version, in the order in which they lie in the image (that is "
    "what a double `argsort` does). A black border then looks like an agreement between any two maps; equal values "
    "should share the mean of their ranks.",
)
def ties_in_order(first, second, *, window=5):
    def ranks(maps):
        return maps.flatten(1).argsort(dim=1, stable=True).argsort(dim=1).to(maps.dtype)

    found = map_similarity(first, second, window=window)
    return found | {
        "spearman": correlation(ranks(first), ranks(second)),
        "spearman_abs": correlation(ranks(first.abs()), ranks(second.abs())),
    }


@wrong(
    "map_similarity",
    "A double `argsort` gives pixels of equal value different ranks, in whatever order the sort happens to leave them. "
    "Equal values should share the mean of their ranks.",
)
def ties_as_the_sort_leaves_them(first, second, *, window=5):
    def ranks(maps):
        return maps.flatten(1).argsort(dim=1).argsort(dim=1).to(maps.dtype)

    found = map_similarity(first, second, window=window)
    return found | {
        "spearman": correlation(ranks(first), ranks(second)),
        "spearman_abs": correlation(ranks(first.abs()), ranks(second.abs())),
    }


@wrong(
    "map_similarity",
    "Your values are right, and the graph of the maps hangs on them. They are measured and not optimised: `detach`, so "
    "that what was computed on the way can be forgotten.",
)
def similarity_with_a_graph(first, second, *, window=5):
    found = map_similarity(first, second, window=window)
    nothing = 0 * (first.sum() + second.sum()) if first.requires_grad else 0
    return found | {"ssim": found["ssim"] + nothing}


@wrong(
    "map_similarity",
    "Pixels of equal value all get the lowest of their ranks, and the next value jumps by as many. They should share "
    "the mean of the ranks that they take up.",
)
def ties_at_the_lowest(first, second, *, window=5):
    def ranks(maps):
        x = maps.flatten(1)
        return (x[:, :, None] > x[:, None, :]).sum(2).to(maps.dtype)

    found = map_similarity(first, second, window=window)
    return found | {
        "spearman": correlation(ranks(first), ranks(second)),
        "spearman_abs": correlation(ranks(first.abs()), ranks(second.abs())),
    }


@wrong(
    "map_similarity",
    "For `spearman_abs` you take the absolute value of the correlation. It is the maps whose sign is to be dropped, "
    "before they are ranked.",
)
def absolute_correlation(first, second, *, window=5):
    found = map_similarity(first, second, window=window)
    return found | {"spearman_abs": found["spearman"].abs()}


@wrong(
    "map_similarity",
    "Ranks are given to the pixels of the whole batch together. Each pair of maps is a case of its own.",
)
def ranks_over_the_batch(first, second, *, window=5):
    def ranks(maps):
        return mean_ranks(maps.reshape(1, -1, 1)).view_as(maps)

    found = map_similarity(first, second, window=window)
    return found | {
        "spearman": correlation(ranks(first), ranks(second)),
        "spearman_abs": correlation(ranks(first.abs()), ranks(second.abs())),
    }


@wrong(
    "map_similarity",
    "Your structural similarity compares the maps as they are, in their own units: a map times 40 is unlike itself. "
    "Divide each one by its largest absolute value first.",
)
def ssim_in_own_units(first, second, *, window=5):
    found = map_similarity(first, second, window=window)
    return found | {"ssim": structural(first.abs(), second.abs(), window)}


@wrong(
    "map_similarity",
    "For the structural similarity you divide by the largest value of the whole batch. Each map is to be divided by "
    "its own, or a pair's similarity depends on who else is there.",
)
def ssim_scaled_by_the_batch(first, second, *, window=5):
    found = map_similarity(first, second, window=window)
    x, y = (m.abs() / m.abs().max() for m in (first, second))
    return found | {"ssim": structural(x, y, window)}


@wrong(
    "map_similarity",
    "Your windows lie side by side like tiles: the pooling functions of PyTorch move on by a whole window unless told "
    "otherwise. The windows should slide by one pixel.",
)
def ssim_in_tiles(first, second, *, window=5):
    found = map_similarity(first, second, window=window)
    return found | {"ssim": structural(to_one(first), to_one(second), window, stride=window)}


@wrong(
    "map_similarity",
    "The sign is still in your structural similarity: a map and its negative come out as opposites. It is defined here "
    "on absolute values.",
)
def ssim_with_sign(first, second, *, window=5):
    found = map_similarity(first, second, window=window)
    x, y = (m.sign() * to_one(m) for m in (first, second))
    return found | {"ssim": structural(x, y, window)}


@wrong(
    "map_similarity",
    "The structural similarity divides variances and covariance by N; the exercise, like scikit-image, divides by "
    "N - 1.",
)
def ssim_biased(first, second, *, window=5):
    found = map_similarity(first, second, window=window)
    return found | {"ssim": structural(to_one(first), to_one(second), window, unbiased=False)}


@wrong(
    "map_similarity",
    "Your windows stick out over the edges, filled up with zeros. Zeros agree with zeros, and on small maps most "
    "windows touch an edge; use only windows that lie within the image.",
)
def ssim_padded(first, second, *, window=5):
    found = map_similarity(first, second, window=window)
    x, y = (F.pad(to_one(m), (window // 2,) * 4) for m in (first, second))
    return found | {"ssim": structural(x, y, window)}


@wrong(
    "map_similarity",
    "Your maps of zeros are divided by their largest value, which is zero: the structural similarity becomes NaN. Such "
    "a map stays as it is.",
)
def zero_over_zero(first, second, *, window=5):
    found = map_similarity(first, second, window=window)
    empty = (first.abs().amax((1, 2)) == 0) | (second.abs().amax((1, 2)) == 0)
    return found | {"ssim": torch.where(empty, torch.nan, found["ssim"])}


@wrong(
    "map_similarity",
    "`window` has no effect: your windows are always of one size.",
)
def window_of_five(first, second, *, window=5):
    found = map_similarity(first, second, window=window)
    size = min(5, *first.shape[1:])
    return found | {"ssim": structural(to_one(first), to_one(second), size)}


@wrong(
    "map_similarity",
    "Your constants are 0.01 and 0.03, and they should be the squares of these. They then count for more than the maps "
    "where the maps are faint, and everything looks alike.",
)
def constants_not_squared(first, second, *, window=5):
    found = map_similarity(first, second, window=window)
    return found | {"ssim": structural(to_one(first), to_one(second), window, c1=0.01, c2=0.03)}


@wrong(
    "map_similarity",
    "You have exchanged the two constants: c1 = 0.01² stands with the means, c2 = 0.03² with the variances.",
)
def constants_exchanged(first, second, *, window=5):
    found = map_similarity(first, second, window=window)
    return found | {"ssim": structural(to_one(first), to_one(second), window, c1=9e-4, c2=1e-4)}


@wrong(
    "map_similarity",
    "The windows' means are missing from your structural similarity: you have the part of the variances and the "
    "covariance only.",
)
def without_the_means(first, second, *, window=5):
    found = map_similarity(first, second, window=window)
    return found | {"ssim": structural(to_one(first), to_one(second), window, means=False)}


@wrong(
    "map_similarity",
    "Your structural similarity has one window, the whole map. It is the mean over all positions of a small window.",
)
def one_window_for_all(first, second, *, window=5):
    found = map_similarity(first, second, window=window)
    x, y = (to_one(m).flatten(1) for m in (first, second))
    mx, my, cov = x.mean(1), y.mean(1), ((x - x.mean(1, keepdim=True)) * (y - y.mean(1, keepdim=True))).sum(1)
    top = (2 * mx * my + 1e-4) * (2 * cov / (x.shape[1] - 1) + 9e-4)
    return found | {"ssim": top / ((mx**2 + my**2 + 1e-4) * (x.var(1) + y.var(1) + 9e-4))}


@wrong(
    "map_similarity",
    'A map without order gets the correlation 0 in your version, and 0 means "unrelated". Nothing can be said about '
    "such a map: NaN says that, and drops out of a `nanmean`.",
)
def no_order_is_zero(first, second, *, window=5):
    return {name: values.nan_to_num(0.0) for name, values in map_similarity(first, second, window=window).items()}


@wrong(
    "map_similarity",
    "For the structural similarity you shift each map so that its smallest value becomes 0. It is only divided, by its "
    "largest absolute value: a pixel without attribution stays at 0.",
)
def ssim_from_the_smallest(first, second, *, window=5):
    def stretched(m):
        m = m.abs() - m.abs().amin((1, 2), keepdim=True)
        return to_one(m)

    found = map_similarity(first, second, window=window)
    return found | {"ssim": structural(stretched(first), stretched(second), window)}


@wrong(
    "map_similarity",
    "For the structural similarity you divide by the largest value, sign and all. A map whose strongest pixel is "
    "negative is then stretched beyond 1; take the largest absolute value.",
)
def ssim_by_the_largest_signed(first, second, *, window=5):
    def scaled(m):
        top = m.amax((1, 2), keepdim=True)
        return m.abs() / torch.where(top > 0, top, torch.ones_like(top))

    found = map_similarity(first, second, window=window)
    return found | {"ssim": structural(scaled(first), scaled(second), window)}


@wrong(
    "map_similarity",
    "Your ranks count the *different* values below a pixel, so that many equal pixels count as one. They should share "
    "the mean of the ranks that they take up, and the next value comes after all of them.",
)
def ranks_of_different_values(first, second, *, window=5):
    def ranks(maps):
        return torch.stack([m.unique(return_inverse=True)[1] for m in maps]).to(maps.dtype)

    found = map_similarity(first, second, window=window)
    return found | {
        "spearman": correlation(ranks(first), ranks(second)),
        "spearman_abs": correlation(ranks(first.abs()), ranks(second.abs())),
    }


@wrong(
    "map_similarity",
    "You use the short formula with the squared differences of the ranks. It holds only where no two values are equal; "
    "with ties, take the ordinary correlation of the ranks.",
)
def formula_without_ties(first, second, *, window=5):
    def short(a, b):
        n = a.shape[1]
        return 1 - 6 * (mean_ranks(a) - mean_ranks(b)).square().sum(1) / (n**3 - n)

    found = map_similarity(first, second, window=window)
    return {
        "spearman": torch.where(found["spearman"].isnan(), torch.nan, short(first.flatten(1), second.flatten(1))),
        "spearman_abs": torch.where(
            found["spearman_abs"].isnan(), torch.nan, short(first.abs().flatten(1), second.abs().flatten(1))
        ),
        "ssim": found["ssim"],
    }


@wrong(
    "map_similarity",
    "You return the mean over the batch. Each pair has numbers of its own: three tensors [batch].",
)
def mean_over_the_batch(first, second, *, window=5):
    return {name: values.mean() for name, values in map_similarity(first, second, window=window).items()}


@right("map_similarity")
def by_counting_and_unfolding(first, second, *, window=5):
    return {
        "spearman": spearman(first, second),
        "spearman_abs": spearman(first.abs(), second.abs()),
        "ssim": structural(to_one(first), to_one(second), window),
    }


@right("map_similarity")
def pair_by_pair(first, second, *, window=5):
    found = {"spearman": [], "spearman_abs": [], "ssim": []}
    for a, b in zip(first, second, strict=True):
        for name, (x, y) in (("spearman", (a, b)), ("spearman_abs", (a.abs(), b.abs()))):
            ranks = []
            for values in (x.flatten(), y.flatten()):
                _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
                last = counts.cumsum(0)
                ranks.append((last - (counts - 1) / 2)[inverse])  # float32, and precise enough
            found[name].append(torch.corrcoef(torch.stack(ranks))[0, 1])
        found["ssim"].append(structural(to_one(a[None]), to_one(b[None]), window)[0])
    return {name: torch.stack(values) for name, values in found.items()}


# cascading_randomization


def is_bias(key):
    return key.split(".")[-1] == "bias"


def drawn(model, layers, generator, *, spread=None, noise=torch.randn, bias=0.0, scale=1.0, is_bias=is_bias, deep=True):
    """New parameters for each layer, by name, drawn in the order of the list."""
    found = []
    for name in layers:
        state = {}
        for key, p in model.get_submodule(name).named_parameters(recurse=deep):
            if p.ndim > 1:
                inputs = p[0].numel()
                deviation = math.sqrt(2 / inputs) if spread is None else spread(p)
                state[f"{name}.{key}"] = deviation * noise(p.shape, generator=generator)
            elif is_bias(key):
                state[f"{name}.{key}"] = p.detach().clone() if bias is None else torch.full_like(p, bias)
            else:
                state[f"{name}.{key}"] = p.detach().clone() if scale is None else torch.full_like(p, scale)
        found.append(state)
    return found


def put_in(model, states):
    copy = deepcopy(model)
    merged = copy.state_dict()
    for state in states:
        merged = merged | state
    copy.load_state_dict(merged)
    return copy


def copies_of(model, states, cascade):
    return [put_in(model, states[: k + 1] if cascade else [states[k]]) for k in range(len(states))]


@wrong(
    "cascading_randomization",
    "You go through the list from its end. Copy 0 should have lost the first layer of the list, and yours has lost the "
    "last.",
)
def from_the_end_of_the_list(model, layers, *, generator, cascade=True):
    copies = copies_of(model, drawn(model, layers, generator)[::-1], cascade)
    return copies if cascade else copies[::-1]


@wrong(
    "cascading_randomization",
    "Your copy k has lost the layers from k to the end, so that copy 0 has lost them all and the last a single one. It "
    "should be those from 0 to k.",
)
def from_k_to_the_end(model, layers, *, generator, cascade=True):
    states = drawn(model, layers, generator)
    return [put_in(model, states[k:] if cascade else [states[k]]) for k in range(len(layers))]


@wrong(
    "cascading_randomization",
    "You change the trained network itself, and your list holds it several times. Make a copy for each entry "
    "(`deepcopy`), and change that.",
)
def changes_the_network_itself(model, layers, *, generator, cascade=True):
    for state in drawn(model, layers, generator):
        model.load_state_dict(state, strict=False)
    return [model] * len(layers)


@wrong(
    "cascading_randomization",
    "You leave the drawing to `reset_parameters`. That is PyTorch's own initialisation: uniform, from the global "
    "random state, and for a normalisation it resets the running statistics as well.",
)
def reset_parameters(model, layers, *, generator, cascade=True):
    copies, last = [], model
    for name in layers:
        last = deepcopy(last if cascade else model)
        for module in last.get_submodule(name).modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        copies.append(last)
    return copies


@wrong(
    "cascading_randomization",
    "All parameters of one dimension become 1 in your copies. Biases start at 0; only the others, factors, start at 1.",
)
def biases_one(model, layers, *, generator, cascade=True):
    return copies_of(model, drawn(model, layers, generator, bias=1.0), cascade)


@wrong(
    "cascading_randomization",
    'You take a parameter for a bias if its name contains "bias" or ends in it. By the docstring the part of the name '
    'after the last dot is "bias" and nothing else.',
)
def biases_by_a_part_of_their_name(model, layers, *, generator, cascade=True):
    return copies_of(model, drawn(model, layers, generator, is_bias=lambda key: "bias" in key), cascade)


@wrong(
    "cascading_randomization",
    "The argument `cascade` has no effect: your copies lose one layer after the other also when each should lose a "
    "single one.",
)
def always_a_cascade(model, layers, *, generator, cascade=True):
    return copies_of(model, drawn(model, layers, generator), True)


@wrong(
    "cascading_randomization",
    "Each of your copies has a single random layer, also with cascade=True: what the earlier copies have lost is "
    "there again in the next.",
)
def never_a_cascade(model, layers, *, generator, cascade=True):
    return copies_of(model, drawn(model, layers, generator), False)


@wrong(
    "cascading_randomization",
    "Your list holds one and the same network several times. It is changed on after it has been put into the list, so "
    "that in the end every entry has lost all layers; make a copy for each entry.",
)
def one_network_many_times(model, layers, *, generator, cascade=True):
    states = drawn(model, layers, generator)
    copy = put_in(model, states)
    return [copy] * len(layers)


@wrong(
    "cascading_randomization",
    "The biases stay as trained, whatever becomes of the rest. They are part of what the layer has learnt; before "
    "training they are 0.",
)
def trained_biases(model, layers, *, generator, cascade=True):
    return copies_of(model, drawn(model, layers, generator, bias=None), cascade)


@wrong(
    "cascading_randomization",
    "The scale of the normalisation is not 1 in your copies: a parameter of one dimension that is not a bias is a "
    "factor, and factors start at 1.",
)
def scale_zero(model, layers, *, generator, cascade=True):
    return copies_of(model, drawn(model, layers, generator, scale=0.0), cascade)


@wrong(
    "cascading_randomization",
    "Your weights have variance 1 / fan_in. A ReLU sets half of its inputs to zero, so that signals would shrink "
    "from layer to layer; the 2 makes up for it.",
)
def half_the_variance(model, layers, *, generator, cascade=True):
    states = drawn(model, layers, generator, spread=lambda p: p[0].numel() ** -0.5)
    return copies_of(model, states, cascade)


@wrong(
    "cascading_randomization",
    "You use 2 / fan_in as the standard deviation. It is the variance; the weights come out much too small.",
)
def variance_for_the_deviation(model, layers, *, generator, cascade=True):
    return copies_of(model, drawn(model, layers, generator, spread=lambda p: 2 / p[0].numel()), cascade)


@wrong(
    "cascading_randomization",
    "Your weights are uniform (`kaiming_uniform_` is). They have the right variance, and the docstring asks for normal "
    "ones.",
)
def uniform_weights(model, layers, *, generator, cascade=True):
    def noise(shape, *, generator):
        return (2 * torch.rand(shape, generator=generator) - 1) * math.sqrt(3)

    return copies_of(model, drawn(model, layers, generator, noise=noise), cascade)


@wrong(
    "cascading_randomization",
    'You compare a parameter\'s name with "bias". Inside a block it is called "2.bias" or the like, so that '
    "biases there are taken for scales and become 1. Only the last part of the name counts.",
)
def biases_by_their_full_name(model, layers, *, generator, cascade=True):
    return copies_of(model, drawn(model, layers, generator, is_bias=lambda key: key == "bias"), cascade)


@wrong(
    "cascading_randomization",
    "A layer of the list can be a block of several modules. You draw only the parameters that are the named module's "
    "own; what lies deeper stays as trained.",
)
def own_parameters_only(model, layers, *, generator, cascade=True):
    return copies_of(model, drawn(model, layers, generator, deep=False), cascade)


@wrong(
    "cascading_randomization",
    "Your fan_in counts the input channels only. A unit of a convolution reads each channel at all places of its "
    "kernel: multiply all dimensions of the weights except the first.",
)
def kernel_forgotten(model, layers, *, generator, cascade=True):
    states = drawn(model, layers, generator, spread=lambda p: (2 / p.shape[1]) ** 0.5)
    return copies_of(model, states, cascade)


@wrong(
    "cascading_randomization",
    "Each copy draws new weights for all its random layers. Two neighbouring copies then differ in several layers at "
    "once, and no step can be put down to the layer that it added; draw each layer once.",
)
def drawn_for_each_copy(model, layers, *, generator, cascade=True):
    copies = []
    for k in range(len(layers)):
        states = drawn(model, layers[: k + 1] if cascade else layers[k : k + 1], generator)
        copies.append(put_in(model, states))
    return copies


@wrong(
    "cascading_randomization",
    "You shuffle the trained weights within each layer. That keeps their trained spread and mean; the test asks for "
    "weights as they were before training.",
)
def shuffled_weights(model, layers, *, generator, cascade=True):
    states = drawn(model, layers, generator)
    trained = model.state_dict()
    for state in states:
        for key, value in state.items():
            if value.ndim > 1:
                order = torch.randperm(value.numel(), generator=generator)
                state[key] = trained[key].flatten()[order].view_as(value)
    return copies_of(model, states, cascade)


@wrong(
    "cascading_randomization",
    "Your fan_in is the number of *outputs* of a layer (the first dimension of its weights, with the kernel). A unit's "
    "inputs are all dimensions but the first.",
)
def fan_out_for_fan_in(model, layers, *, generator, cascade=True):
    states = drawn(model, layers, generator, spread=lambda p: (2 * p.shape[1] / p.numel()) ** 0.5)
    return copies_of(model, states, cascade)


@wrong(
    "cascading_randomization",
    "You divide by the sum of inputs and outputs (Xavier's rule). The docstring asks for the variance 2 / fan_in, "
    "which suits a ReLU.",
)
def inputs_and_outputs(model, layers, *, generator, cascade=True):
    states = drawn(model, layers, generator, spread=lambda p: (2 / (p[0].numel() + p.numel() / p.shape[1])) ** 0.5)
    return copies_of(model, states, cascade)


@wrong(
    "cascading_randomization",
    "Your weights have the standard deviation 1, whatever the number of inputs: signals grow from layer to layer.",
)
def deviation_one(model, layers, *, generator, cascade=True):
    return copies_of(model, drawn(model, layers, generator, spread=lambda p: 1.0), cascade)


@wrong(
    "cascading_randomization",
    "Your new weights keep the spread that training has given to the old ones. Before training it was sqrt(2 / "
    "fan_in).",
)
def trained_spread(model, layers, *, generator, cascade=True):
    return copies_of(model, drawn(model, layers, generator, spread=lambda p: p.detach().std()), cascade)


@wrong(
    "cascading_randomization",
    "You add noise to the trained weights. What was learnt is still in them; it should be replaced.",
)
def noise_added(model, layers, *, generator, cascade=True):
    states, trained = drawn(model, layers, generator), dict(model.named_parameters())
    for state in states:
        for key, value in state.items():
            if value.ndim > 1:
                state[key] = trained[key].detach() + value
    return copies_of(model, states, cascade)


@wrong(
    "cascading_randomization",
    "The running statistics of the normalisation are reset too. They are buffers and no parameters, and stay as they "
    "are: the docstring says so, and every change more makes the test harder to read.",
)
def statistics_reset(model, layers, *, generator, cascade=True):
    copies = copies_of(model, drawn(model, layers, generator), cascade)
    for k, copy in enumerate(copies):
        for name in layers[: k + 1] if cascade else layers[k : k + 1]:
            for module in copy.get_submodule(name).modules():
                if hasattr(module, "reset_running_stats"):
                    module.reset_running_stats()
    return copies


@wrong(
    "cascading_randomization",
    "All your copies are frozen. A parameter of a copy asks for gradients if that of the original does.",
)
def frozen_copies(model, layers, *, generator, cascade=True):
    return [copy.requires_grad_(False) for copy in copies_of(model, drawn(model, layers, generator), cascade)]


@wrong(
    "cascading_randomization",
    "Your copies are switched to evaluation mode, or to training mode, whatever the original is in. They should be in "
    "its mode.",
)
def always_in_evaluation_mode(model, layers, *, generator, cascade=True):
    return [copy.eval() for copy in copies_of(model, drawn(model, layers, generator), cascade)]


@wrong(
    "cascading_randomization",
    "You begin your list with the trained network. Copy 0 should have lost the first layer already.",
)
def begins_with_the_trained_one(model, layers, *, generator, cascade=True):
    return [deepcopy(model), *copies_of(model, drawn(model, layers, generator), cascade)[:-1]]


@wrong(
    "cascading_randomization",
    "You draw from a new generator with the seed of the one you are given. That one does not move on, so that two "
    "calls in a row give the same weights; draw from `generator` itself.",
)
def draws_from_the_seed(model, layers, *, generator, cascade=True):
    mine = torch.Generator().manual_seed(generator.initial_seed())
    return copies_of(model, drawn(model, layers, mine), cascade)


@wrong(
    "cascading_randomization",
    "You seed the generator anew for every layer, so that all layers get the same numbers, but for their scale. Go on "
    "drawing where you are.",
)
def seeded_for_each_layer(model, layers, *, generator, cascade=True):
    seed, states = int(torch.randint(2**31, (), generator=generator)), []
    for name in layers:
        states += drawn(model, [name], torch.Generator().manual_seed(seed))
    return copies_of(model, states, cascade)


@wrong(
    "cascading_randomization",
    "Your weights do not come from `generator`, so that nobody can repeat the test.",
)
def weights_from_elsewhere(model, layers, *, generator, cascade=True):
    return copies_of(model, drawn(model, layers, None), cascade)


@right("cascading_randomization")
def each_copy_from_its_own_states(model, layers, *, generator, cascade=True):
    return copies_of(model, drawn(model, layers, generator), cascade)


@right("cascading_randomization")
def copy_after_copy(model, layers, *, generator, cascade=True):
    copies, current = [], model
    for name in layers:
        current = deepcopy(current if cascade else model)
        with torch.no_grad():
            for key, parameter in current.get_submodule(name).named_parameters():
                if parameter.ndim > 1:
                    torch.nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)
                else:
                    parameter.fill_(0.0 if key.split(".")[-1] == "bias" else 1.0)
        copies.append(current)
    return copies


# label_randomization


@wrong(
    "label_randomization",
    "You draw new labels at random. Some classes become rarer and others more frequent than they were, which is one "
    "more change beside the one that is to be tested; shuffle the labels that there are.",
)
def new_labels(labels, *, generator):
    if labels.ndim != 1:
        raise ValueError
    classes = labels.unique()
    return classes[torch.randint(len(classes), labels.shape, generator=generator)]


@wrong(
    "label_randomization",
    "You rename the classes: all images of one class still share one label, and a network learns that as well as "
    "before. Shuffle the labels between examples.",
)
def renamed_classes(labels, *, generator):
    if labels.ndim != 1:
        raise ValueError
    classes, inverse = labels.unique(return_inverse=True)
    return classes[torch.randperm(len(classes), generator=generator)][inverse]


@wrong(
    "label_randomization",
    "You move all labels on by one and the same number of places. Where the data are sorted by class, or run through "
    "the classes in turn, old and new labels still go together.",
)
def rolled(labels, *, generator):
    if labels.ndim != 1:
        raise ValueError
    return labels.roll(int(torch.randint(len(labels), (), generator=generator)))


@wrong(
    "label_randomization",
    "You return the order and not the labels in that order.",
)
def the_order_itself(labels, *, generator):
    if labels.ndim != 1:
        raise ValueError
    return torch.randperm(len(labels), generator=generator)


@wrong(
    "label_randomization",
    "Your order does not come from `generator`, so that nobody can repeat the experiment.",
)
def order_from_elsewhere(labels, *, generator):
    if labels.ndim != 1:
        raise ValueError
    fresh = torch.Generator()
    fresh.seed()
    return labels[torch.randperm(len(labels), generator=fresh)]


@wrong(
    "label_randomization",
    "You make sure that no example keeps its place's label. That is information too: a new label would tell what the "
    "old one was not. Chance leaves some labels where they were.",
)
def nobody_keeps_a_label(labels, *, generator):
    if labels.ndim != 1:
        raise ValueError
    order = torch.randperm(len(labels), generator=generator)
    found = torch.empty_like(labels)
    found[order] = labels[order.roll(1)]
    return found


@wrong(
    "label_randomization",
    "Only half of the labels are shuffled. The network can still learn a good deal from the other half.",
)
def half_of_them(labels, *, generator):
    if labels.ndim != 1:
        raise ValueError
    half = torch.randperm(len(labels), generator=generator)[: len(labels) // 2]
    found = labels.clone()
    found[half] = labels[half[torch.randperm(len(half), generator=generator)]]
    return found


@wrong(
    "label_randomization",
    "You turn the order of the labels round. That is one fixed order: nothing about it is random, and where the data "
    "run through the classes in turn, old and new labels go together.",
)
def turned_round(labels, *, generator):
    if labels.ndim != 1:
        raise ValueError
    return labels.flip(0)


@wrong(
    "label_randomization",
    "You draw places with replacement (`torch.randint`): some labels come twice and others not at all, so that the "
    "classes change in number. A permutation takes each place once.",
)
def with_replacement(labels, *, generator):
    if labels.ndim != 1:
        raise ValueError
    return labels[torch.randint(len(labels), labels.shape, generator=generator)]


@wrong(
    "label_randomization",
    "You draw from a new generator with the seed of the one you are given. That one does not move on, so that two "
    "calls in a row give the same order; draw from `generator` itself.",
)
def order_from_the_seed(labels, *, generator):
    if labels.ndim != 1:
        raise ValueError
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(generator.initial_seed()))]


@wrong(
    "label_randomization",
    "Labels that are not one row go through, or fail somewhere inside. A table of labels (one-hot, say) would be "
    "shuffled by rows without a word; the docstring promises a ValueError.",
)
def labels_of_any_shape(labels, *, generator):
    return labels[torch.randperm(len(labels), generator=generator)]


@wrong(
    "label_randomization",
    "Your labels are no longer whole numbers of the type that they were: a loss that takes classes will refuse them.",
)
def labels_as_floats(labels, *, generator):
    if labels.ndim != 1:
        raise ValueError
    return labels[torch.randperm(len(labels), generator=generator)].float()


@wrong(
    "label_randomization",
    "You draw numbers of classes, each equally likely, from 0 to the largest label. Some classes become rarer and "
    "others more frequent than they were, and some may be new; shuffle the labels that there are.",
)
def drawn_up_to_the_largest(labels, *, generator):
    if labels.ndim != 1:
        raise ValueError("labels must be [n]")
    return torch.randint(int(labels.max()) + 1, labels.shape, generator=generator).to(labels.dtype)


@wrong(
    "label_randomization",
    "You write the new order into `labels` itself. Whoever passed them has lost the true ones; make a new tensor.",
)
def shuffled_in_place(labels, *, generator):
    if labels.ndim != 1:
        raise ValueError("labels must be [n]")
    labels[:] = labels[torch.randperm(len(labels), generator=generator)]
    return labels


@wrong(
    "label_randomization",
    "You add a random number, never 0, to each label, and begin again behind the largest. No example keeps its class "
    "then, which tells what its old label was not, and classes change in number. Shuffle the labels that there are.",
)
def always_another_class(labels, *, generator):
    if labels.ndim != 1:
        raise ValueError("labels must be [n]")
    n_classes = int(labels.max()) + 1
    return (labels + torch.randint(1, max(2, n_classes), labels.shape, generator=generator)) % n_classes


@wrong(
    "label_randomization",
    "Every example keeps its label: you return them as they came, or shuffle within each class, where all are alike.",
)
def within_each_class(labels, *, generator):
    if labels.ndim != 1:
        raise ValueError("labels must be [n]")
    return labels.clone()


@wrong(
    "label_randomization",
    "Your shuffle swaps each place with *any* other: some orders then come up more often than others. A place is to be "
    "swapped with one of those that are left, itself included, or the order drawn with `torch.randperm`.",
)
def naive_shuffle(labels, *, generator):
    if labels.ndim != 1:
        raise ValueError("labels must be [n]")
    shuffled, n = labels.clone(), len(labels)
    for i, j in enumerate(torch.randint(n, (n,), generator=generator).tolist()):
        shuffled[[i, j]] = shuffled[[j, i]]
    return shuffled


@right("label_randomization")
def sorted_by_noise(labels, *, generator):
    if labels.dim() != 1:
        raise ValueError("labels must be one row")
    return labels[torch.rand(len(labels), generator=generator, dtype=torch.float64).argsort()]


@right("label_randomization")
def drawn_without_putting_back(labels, *, generator):
    if labels.dim() != 1:
        raise ValueError("labels must be one row")
    return labels.gather(0, torch.ones(len(labels)).multinomial(len(labels), generator=generator))
