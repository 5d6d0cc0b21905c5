"""Wrong and right answers for the comparison of decompositions."""

import torch

from utils.course.catalogue import right, wrong
from utils.sae.metrics import fraction_variance_explained

# strongest_parts


def largest(size, k):
    return torch.zeros_like(size, dtype=torch.bool).scatter(1, size.topk(k, dim=1).indices, True)


@wrong("strongest_parts", "You rank by coefficients alone. A part with a long direction writes much with a small one.")
def by_coefficient(coefficients, directions, k):
    return largest(coefficients.abs(), k)


@wrong("strongest_parts", "Parts that write much in the negative direction come last in your ranking.")
def signed(coefficients, directions, k):
    return largest(coefficients * directions.norm(dim=1), k)


@wrong(
    "strongest_parts",
    "You choose the same parts for all inputs. Which parts write most differs from one input to the next.",
)
def the_same_for_all(coefficients, directions, k):
    size = coefficients.abs() * directions.norm(dim=1)
    return largest(size.mean(0, keepdim=True).expand_as(size), k)


@wrong(
    "strongest_parts",
    "You keep all parts that write as much as the k-th or more. Where several are equal, these are more than k.",
)
def above_the_border(coefficients, directions, k):
    size = coefficients.abs() * directions.norm(dim=1)
    return size >= size.topk(k, dim=1).values[:, -1:]


@wrong(
    "strongest_parts",
    "You measure a direction's length by its absolute entries, added up. ‖·‖ is their Euclidean length.",
)
def by_absolute_entries(coefficients, directions, k):
    return largest(coefficients.abs() * directions.abs().sum(dim=1), k)


@wrong("strongest_parts", "You keep the k weakest.")
def weakest(coefficients, directions, k):
    return largest(-coefficients.abs() * directions.norm(dim=1), k)


@right("strongest_parts")
def by_sorting(coefficients, directions, k):
    written = (coefficients[:, :, None] * directions).norm(dim=2)
    order = written.argsort(dim=1, descending=True)
    found = torch.zeros(written.shape, dtype=torch.bool)
    for row, places in enumerate(order[:, :k]):
        found[row, places] = True
    return found


# compare_decompositions


def table(
    y,
    decompositions,
    cost,
    generator,
    *,
    offset=True,
    alive=None,
    own=False,
    shuffle_all=False,
    once=False,
    explain=None,
):
    found = {}
    permutation = torch.randperm(len(y), generator=generator) if once else None
    for name, (coefficients, directions, b, needed) in decompositions.items():
        order = permutation if once else torch.randperm(len(y), generator=generator)
        b = b if offset else torch.zeros_like(b)
        kept = (coefficients * needed) @ directions + b
        shuffled = kept[order] if shuffle_all else (coefficients * needed[order]) @ directions + b
        found[name] = {
            "parts": directions.shape[0],
            "alive": int(needed.any(0).sum()) if alive is None else alive(needed, coefficients),
            "needed": needed.sum(1).float().mean().item() if not own else needed.float().mean().item(),
            "variance": (explain or fraction_variance_explained)(y, kept),
            "cost": cost(kept),
            "shuffled": cost(shuffled),
        }
    return found


@wrong("compare_decompositions", "Your sums lack the offset, which is written for every input.")
def without_offset(*given):
    return table(*given, offset=False)


@wrong(
    "compare_decompositions",
    "You count a part as alive where its coefficient is not 0. Alive is what some input needs.",
)
def alive_by_coefficient(*given):
    return table(*given, alive=lambda needed, coefficients: int((coefficients != 0).any(0).sum()))


@wrong("compare_decompositions", "You give the share of the parts that an input needs, not how many.")
def share(*given):
    return table(*given, own=True)


@wrong(
    "compare_decompositions",
    "In your null each input gets another's whole output. It is to keep its own coefficients, for the parts that "
    "another needs.",
)
def outputs_shuffled(*given):
    return table(*given, shuffle_all=True)


@wrong("compare_decompositions", "You draw one permutation for all. Each decomposition is to get one of its own.")
def one_permutation(*given):
    return table(*given, once=True)


@wrong("compare_decompositions", "Your variance is explained against the origin, not against the mean output.")
def against_zero(*given):
    return table(*given, explain=lambda y, kept: 1 - ((y - kept).square().sum() / y.square().sum()).item())


@right("compare_decompositions")
def spelt_out(y, decompositions, cost, generator):
    rows = {}
    for name in decompositions:
        parts = decompositions[name]
        order = torch.randperm(y.shape[0], generator=generator)
        outputs = []
        for mask in (parts.needed, parts.needed[order]):
            outputs.append(
                torch.einsum("np,pd->nd", parts.coefficients.masked_fill(~mask, 0.0), parts.directions) + parts.offset
            )
        residual = (y - outputs[0]).square().sum() / (y - y.mean(dim=0)).square().sum()
        rows[name] = dict(
            parts=parts.directions.shape[0],
            alive=int((parts.needed.sum(dim=0) > 0).sum()),
            needed=float(parts.needed.sum()) / len(y),
            variance=1 - float(residual),
            cost=cost(outputs[0]),
            shuffled=cost(outputs[1]),
        )
    return rows
