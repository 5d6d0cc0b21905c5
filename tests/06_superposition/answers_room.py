"""Wrong answers for directions and their overlaps, each with its sentence, and right ones."""

import math

import torch

from utils.course.catalogue import right, wrong

# random_directions


def unit(rows):
    return rows / rows.norm(dim=-1, keepdim=True)


@wrong("random_directions", "Your rows do not have length 1.")
def not_normalised(n, d, generator):
    return torch.randn(n, d, generator=generator) / d**0.5


@wrong(
    "random_directions",
    "Directions towards the corners of a cube come more often than others, as they do if the numbers in a row are "
    "uniform. Only normal numbers have the same density in all directions.",
)
def from_a_cube(n, d, generator):
    return unit(2 * torch.rand(n, d, generator=generator) - 1)


@wrong(
    "random_directions",
    "All directions lie on one side of the sphere, where no coordinate is negative.",
)
def positive(n, d, generator):
    return unit(torch.randn(n, d, generator=generator).abs())


@wrong(
    "random_directions",
    "Generators with different seeds give the same directions: nothing is drawn from the one that is handed over.",
)
def from_elsewhere(n, d, generator):
    return unit(torch.randn(n, d, generator=torch.Generator().manual_seed(12345)))


@wrong("random_directions", "The columns have length 1, not the rows.")
def columns(n, d, generator):
    x = torch.randn(n, d, generator=generator)
    return x / x.norm(dim=0, keepdim=True)


@wrong(
    "random_directions",
    "Where there are no more rows than dimensions, yours are at right angles to each other. Directions drawn "
    "independently are only nearly so: how nearly is what this part asks.",
)
def at_right_angles(n, d, generator):
    if n > d:
        return unit(torch.randn(n, d, generator=generator))
    q, r = torch.linalg.qr(torch.randn(d, d, generator=generator))
    return (q * r.diagonal().sign()).T[:n]


@wrong(
    "random_directions",
    "Each row's mean is subtracted, so that all rows are at right angles to the vector of ones. There are directions "
    "along it, too.",
)
def without_their_mean(n, d, generator):
    x = torch.randn(n, d, generator=generator)
    return unit(x - x.mean(-1, keepdim=True) * (d > 1))


@right("random_directions")
def functional(n, d, generator):
    return torch.nn.functional.normalize(torch.randn((n, d), generator=generator), dim=-1)


@right("random_directions")
def one_by_one(n, d, generator):
    drawn = torch.randn(d, n, generator=generator)
    return (drawn / drawn.square().sum(0).sqrt()).T.contiguous()


# max_interference


def rows_of(W):
    if len(W) < 2 or bool((W.norm(dim=-1) == 0).any()):
        raise ValueError("rows")
    return unit(W)


def off_diagonal(matrix):
    return matrix[~torch.eye(len(matrix), dtype=torch.bool)]


@wrong(
    "max_interference",
    "A row and itself count as a pair: the result is 1, whatever the rows are.",
)
def with_itself(W, *, signed=False):
    cosines = rows_of(W) @ rows_of(W).T
    return (cosines if signed else cosines.abs()).max().item()


@wrong(
    "max_interference",
    "The rows are taken at their own lengths. A cosine is that of directions: divide by both lengths.",
)
def own_lengths(W, *, signed=False):
    rows_of(W)
    products = off_diagonal(W @ W.T)
    return (products if signed else products.abs()).max().item()


@wrong(
    "max_interference",
    "`signed` is not heeded: rows that point away from each other count as overlapping either way.",
)
def always_absolute(W, *, signed=False):
    return off_diagonal(rows_of(W) @ rows_of(W).T).abs().max().item()


@wrong(
    "max_interference",
    "Without `signed`, your overlap of two rows that point away from each other is not 1: the sign is to be ignored "
    "there.",
)
def never_absolute(W, *, signed=False):
    return off_diagonal(rows_of(W) @ rows_of(W).T).max().item()


@wrong("max_interference", "You take the mean over all pairs. One bad pair among many good ones would not be seen.")
def average(W, *, signed=False):
    cosines = off_diagonal(rows_of(W) @ rows_of(W).T)
    return (cosines if signed else cosines.abs()).mean().item()


@wrong(
    "max_interference",
    "With `signed` your result is never below 0. Rows that all point away from each other have negative cosines only, "
    "and nothing else (such as a 0 that stands where a row meets itself) may count beside those.",
)
def zero_on_the_diagonal(W, *, signed=False):
    directions = rows_of(W)
    cosines = (directions @ directions.T) * (1 - torch.eye(len(W)))
    return (cosines if signed else cosines.abs()).max().item()


@wrong("max_interference", "Only neighbouring rows are compared. Each is to be compared with every other one.")
def neighbours(W, *, signed=False):
    directions = rows_of(W)
    cosines = (directions[1:] * directions[:-1]).sum(-1)
    return (cosines if signed else cosines.abs()).max().item()


@wrong(
    "max_interference",
    "Two different rows with the same direction are taken for one and left out: overlaps of 1 are not seen.",
)
def without_copies(W, *, signed=False):
    cosines = rows_of(W) @ rows_of(W).T
    cosines = cosines if signed else cosines.abs()
    return cosines[cosines < 1 - 1e-5].max().item()


@wrong("max_interference", "A row of zeros has no direction, and is not refused; nor is a single row.")
def no_refusal(W, *, signed=False):
    directions = W / W.norm(dim=-1, keepdim=True).clamp_min(1e-9)
    cosines = directions @ directions.T - 2 * torch.eye(len(W))
    return (cosines if signed else cosines.abs() - 2 * torch.eye(len(W))).max().item()


@right("max_interference")
def over_pairs(W, *, signed=False):
    directions = rows_of(W)
    largest = -1.0
    for i in range(1, len(W)):
        cosines = directions[:i] @ directions[i]
        largest = max(largest, (cosines if signed else cosines.abs()).max().item())
    return largest


@right("max_interference")
def upper_triangle(W, *, signed=False):
    if W.shape[0] < 2 or (W == 0).all(dim=1).any():
        raise ValueError("too few, or none")
    directions = torch.nn.functional.normalize(W, dim=1)
    i, j = torch.triu_indices(len(W), len(W), offset=1)
    cosines = (directions @ directions.T)[i, j]
    return (cosines if signed else cosines.abs()).max()


# jl_dimension


def in_range(n, epsilon):
    if n < 2 or not 0 < epsilon < 1:
        raise ValueError("range")


@wrong(
    "jl_dimension",
    "Your number is not whole. There is no part of a dimension: the next whole number above it suffices.",
)
def not_whole(n, epsilon):
    in_range(n, epsilon)
    return 4 * math.log(n) / (epsilon**2 / 2 - epsilon**3 / 3)


@wrong(
    "jl_dimension", "You cut off the fraction: with one dimension less than the bound asks for, it promises nothing."
)
def cut_off(n, epsilon):
    in_range(n, epsilon)
    return int(4 * math.log(n) / (epsilon**2 / 2 - epsilon**3 / 3))


@wrong("jl_dimension", "Yours is the logarithm to base 2. The bound has the natural one.")
def base_two(n, epsilon):
    in_range(n, epsilon)
    return math.ceil(4 * math.log2(n) / (epsilon**2 / 2 - epsilon**3 / 3))


@wrong("jl_dimension", "The two terms below are added. The cube is subtracted: it makes the bound larger.")
def added(n, epsilon):
    in_range(n, epsilon)
    return math.ceil(4 * math.log(n) / (epsilon**2 / 2 + epsilon**3 / 3))


@wrong(
    "jl_dimension",
    "The cube is missing from the denominator. For small epsilon it hardly matters; for large ones your dimensions "
    "are too few.",
)
def without_the_cube(n, epsilon):
    in_range(n, epsilon)
    return math.ceil(8 * math.log(n) / epsilon**2)


@wrong(
    "jl_dimension",
    "A single point is to be refused, and so is an epsilon of 0, of 1, or outside of that. Not all of this is.",
)
def refuses_nothing(n, epsilon):
    below = epsilon**2 / 2 - epsilon**3 / 3
    return math.ceil(4 * math.log(n) / below) if below else 0


@right("jl_dimension")
def in_other_words(n, epsilon):
    in_range(n, epsilon)
    least = 24 * math.log(n) / (epsilon * epsilon * (3 - 2 * epsilon))
    return int(least) + (least > int(least))


@right("jl_dimension")
def as_a_tensor(n, epsilon):
    in_range(n, epsilon)
    return torch.tensor(4 * math.log(n) / (epsilon**2 / 2 - epsilon**3 / 3), dtype=torch.float64).ceil()


# almost_orthogonal_dimension


def all_in_range(n, epsilon, failure):
    if n < 2 or not 0 < epsilon < 1 or not 0 < failure < 1:
        raise ValueError("range")


@wrong(
    "almost_orthogonal_dimension",
    "`failure` is not heeded: your number is the same for a chance of one half and of one in a thousand.",
)
def sure_of_nothing(n, epsilon, failure):
    all_in_range(n, epsilon, failure)
    return math.ceil(2 * math.log(n * (n - 1)) / epsilon**2)


@wrong(
    "almost_orthogonal_dimension",
    "Yours is the dimension for which a single pair is good enough. There are n (n - 1) / 2 of them, and each has its "
    "chance to be bad.",
)
def one_pair(n, epsilon, failure):
    all_in_range(n, epsilon, failure)
    return max(1, math.ceil(2 * math.log(2 / failure) / epsilon**2))


@wrong(
    "almost_orthogonal_dimension",
    "You count directions where pairs count: with n in place of n (n - 1) / 2 chances, yours are too few dimensions.",
)
def directions_not_pairs(n, epsilon, failure):
    all_in_range(n, epsilon, failure)
    return math.ceil(2 * math.log(2 * n / failure) / epsilon**2)


@wrong(
    "almost_orthogonal_dimension",
    "A cosine of less than -epsilon is forgotten: the chance of a pair is that of both sides, twice that of one.",
)
def one_side(n, epsilon, failure):
    all_in_range(n, epsilon, failure)
    return math.ceil(2 * math.log(n * (n - 1) / 2 / failure) / epsilon**2)


@wrong("almost_orthogonal_dimension", "The fraction is cut off, so that the sum of the chances is a little too large.")
def floor(n, epsilon, failure):
    all_in_range(n, epsilon, failure)
    return int(2 * math.log(n * (n - 1) / failure) / epsilon**2)


@wrong(
    "almost_orthogonal_dimension",
    "Yours is the rule of thumb, 4 ln n / epsilon². It takes n² for n (n - 1) and lets the chances add up to 1; asked "
    "for is the dimension for the chance that the caller names.",
)
def rule_of_thumb(n, epsilon, failure):
    all_in_range(n, epsilon, failure)
    return math.ceil(4 * math.log(n) / epsilon**2)


@wrong("almost_orthogonal_dimension", "What is out of its range is not refused.")
def takes_anything(n, epsilon, failure):
    if epsilon == 0 or failure <= 0 or n < 2:
        return 1
    return math.ceil(2 * math.log(n * (n - 1) / failure) / epsilon**2)


@right("almost_orthogonal_dimension")
def by_search(n, epsilon, failure):
    all_in_range(n, epsilon, failure)

    def enough(d):
        return math.log(n) + math.log(n - 1) - d * epsilon**2 / 2 <= math.log(failure)

    low, high = 0, 1
    while not enough(high):
        high *= 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


@right("almost_orthogonal_dimension")
def with_a_binomial(n, epsilon, failure):
    all_in_range(n, epsilon, failure)
    return math.ceil(math.log(failure / 2 / math.comb(n, 2)) / (-(epsilon**2) / 2))


# reading_error


@wrong("reading_error", "You return the mean square. The error asked for is its root, in the units of the features.")
def mean_square(W, features):
    return (features @ W @ W.T - features).square().mean().item()


@wrong("reading_error", "The mean absolute difference is smaller: large errors are to count for more.")
def absolute(W, features):
    return (features @ W @ W.T - features).abs().mean().item()


@wrong(
    "reading_error",
    "What was written is not subtracted: your result is the size of what is read, and not of its error.",
)
def size_of_the_reading(W, features):
    return (features @ W @ W.T).square().mean().sqrt().item()


@wrong(
    "reading_error",
    "Only features that are off are looked at. A feature that is on is read with an error as well: all others sound "
    "in it.",
)
def off_only(W, features):
    difference = features @ W @ W.T - features
    return difference[features == 0].square().mean().nan_to_num(0.0).sqrt().item()


@wrong("reading_error", "The directions are brought to length 1 first. They are to be taken as they are.")
def normalised(W, features):
    W = unit(W)
    return (features @ W @ W.T - features).square().mean().sqrt().item()


@wrong(
    "reading_error",
    "The squares are added up over the features, and only then is the mean taken, over the samples: an error that "
    "grows with the number of features. The mean is over both.",
)
def summed_over_features(W, features):
    return (features @ W @ W.T - features).square().sum(-1).mean().sqrt().item()


@wrong(
    "reading_error",
    "The root is taken for each sample, and the mean after that. The mean comes first, over all samples and features, "
    "and one root at the end.",
)
def roots_first(W, features):
    return (features @ W @ W.T - features).square().mean(-1).sqrt().mean().item()


@wrong(
    "reading_error",
    "The differences of each sample are added up before they are squared, so that errors of opposite sign cancel.",
)
def cancelling(W, features):
    return (features @ W @ W.T - features).mean(-1).square().mean().sqrt().item()


@right("reading_error")
def by_overlaps(W, features):
    mixing = W @ W.T - torch.eye(len(W), dtype=W.dtype)
    return torch.linalg.norm(features @ mixing).item() / features.numel() ** 0.5


@right("reading_error")
def sample_by_sample(W, features):
    total = 0.0
    for row in features:
        written = sum(value * direction for value, direction in zip(row, W, strict=True))
        total += sum((written @ direction - value).item() ** 2 for value, direction in zip(row, W, strict=True))
    return math.sqrt(total / features.numel())
