"""Wrong answers for the size of a project and for the audit of a record, each with its sentence, and right ones."""

import math

from scipy.stats import t

from utils.course.catalogue import right, wrong


def smallest(
    spread, half_width, quantile=lambda n: t.ppf(0.975, n - 1), width=lambda q, s, n: q * s / math.sqrt(n), least=2
):
    if not (0 < spread < math.inf and 0 < half_width < math.inf):
        raise ValueError("spread or half-width")
    n = max(least, int((1.9 * spread / half_width) ** 2) - 5)
    while width(quantile(n), spread, n) > half_width:
        n += 1
    return n


@wrong(
    "units_needed",
    "You take 1.96 for Student's t. With few units t is much larger, and your interval comes out too wide.",
)
def normal(spread, half_width):
    return smallest(spread, half_width, quantile=lambda n: 1.96)


@wrong("units_needed", "Your t has n degrees of freedom. One went into the mean: n - 1 are left.")
def n_degrees(spread, half_width):
    return smallest(spread, half_width, quantile=lambda n: t.ppf(0.975, n))


@wrong("units_needed", "You take the 0.95 quantile. A 95 % interval leaves 2.5 % on either side.")
def one_sided(spread, half_width):
    return smallest(spread, half_width, quantile=lambda n: t.ppf(0.95, n - 1))


@wrong("units_needed", "You return one unit too many.")
def one_more(spread, half_width):
    return smallest(spread, half_width) + 1


@wrong("units_needed", "You compare with the whole width of the interval. The half-width is asked for.")
def whole_width(spread, half_width):
    return smallest(spread, half_width, width=lambda q, s, n: 2 * q * s / math.sqrt(n))


@right("units_needed")
def counting(spread, half_width):
    return smallest(spread, half_width)


@right("units_needed")
def going_down(spread, half_width):
    if not (0 < spread < math.inf and 0 < half_width < math.inf):
        raise ValueError("spread or half-width")
    n = 2
    while t.ppf(0.975, n - 1) * spread > half_width * math.sqrt(n):
        n = 2 * n
    while n > 2 and t.ppf(0.975, n - 2) * spread <= half_width * math.sqrt(n - 1):
        n -= 1
    return n


def audit(record, **other):
    """The steps that are missing; a step's rule can be replaced."""

    def of(key):
        return list(record.get(key) or [])

    n, p, adjusted, lengths = len(of("accuracy")), of("p"), of("p_adjusted"), of("push_lengths")
    rules = {
        "proposal": lambda: all(str(record.get(key) or "").strip() for key in ("feature", "would_refute")),
        "held out": lambda: of("folds") and all(not set(a) & set(b) for a, b in of("folds")),
        "units": lambda: n >= 8,
        "baseline": lambda: n and len(of("baseline")) == n,
        "control task": lambda: n and len(of("control")) == n,
        "correction": lambda: (
            len(p) == 1
            or (
                p
                and len(adjusted) == len(p)
                and all(a >= b for a, b in zip(adjusted, p, strict=True))
                and adjusted != p
            )
        ),
        "random directions": lambda: len(of("random")) >= 19,
        "equal length": lambda: len(lengths) > 1 and max(abs(x - lengths[0]) for x in lengths) <= 0.01 * lengths[0],
        "refutation": lambda: "named" in of("refutation") and len(of("refutation")) > 1,
    }
    rules |= {name.replace("_", " "): (lambda rule=rule: rule(of)) for name, rule in other.items()}
    return [step for step, rule in rules.items() if not rule()]


@wrong("audit_protocol", "You look at the first fold only. A leak in a later one is a leak.")
def first_fold(record):
    return audit(record, held_out=lambda of: of("folds") and not set(of("folds")[0][0]) & set(of("folds")[0][1]))


@wrong(
    "audit_protocol",
    "You ask whether adjusted p-values are there. Copies of the p-values, or smaller ones, correct nothing.",
)
def any_adjusted(record):
    return audit(record, correction=lambda of: len(of("p")) == 1 or (of("p") and len(of("p")) == len(of("p_adjusted"))))


@wrong("audit_protocol", "You ask for a correction where one place was looked at. There is nothing to correct.")
def always_corrected(record):
    def rule(of):
        p, adjusted = of("p"), of("p_adjusted")
        return p and len(p) == len(adjusted) and adjusted != p and all(a >= b for a, b in zip(adjusted, p, strict=True))

    return audit(record, correction=rule)


@wrong(
    "audit_protocol",
    "Random pushes that are longer than the direction's own pass, and so may others: each length must be near the"
    " first.",
)
def no_shorter(record):
    return audit(
        record,
        equal_length=lambda of: len(of("push_lengths")) > 1 and min(of("push_lengths")) >= 0.99 * of("push_lengths")[0],
    )


@wrong("audit_protocol", "Nineteen draws are asked for: with eighteen p can't be 0.05.")
def fewer_draws(record):
    return audit(record, random_directions=lambda of: len(of("random")) >= 10)


@wrong("audit_protocol", "A text of blanks passes for a proposal.")
def blanks(record):
    return audit(record, proposal=lambda of: of("feature") and of("would_refute"))


@wrong("audit_protocol", "A refutation of two other properties passes, in which the named one was not varied.")
def without_named(record):
    return audit(record, refutation=lambda of: len(of("refutation")) > 1)


@wrong("audit_protocol", "You stop at the first step that is missing. The list has all of them.")
def the_first(record):
    return audit(record)[:1]


@wrong(
    "audit_protocol",
    "You ask that each adjusted p-value be larger than its own. Holm's largest p-value has the factor 1.",
)
def each_larger(record):
    def rule(of):
        p, adjusted = of("p"), of("p_adjusted")
        return len(p) == 1 or (p and len(p) == len(adjusted) and all(a > b for a, b in zip(adjusted, p, strict=True)))

    return audit(record, correction=rule)


@wrong("audit_protocol", "You compare the last length with the first. One between them may differ as well.")
def last_length(record):
    def rule(of):
        lengths = of("push_lengths")
        return len(lengths) > 1 and abs(lengths[-1] - lengths[0]) <= 0.01 * lengths[0]

    return audit(record, equal_length=rule)


@wrong("audit_protocol", "More numbers than 'accuracy' has will not do for a baseline: they belong to other templates.")
def more_numbers(record):
    return audit(record, baseline=lambda of: len(of("baseline")) >= len(of("accuracy")) > 0)


@right("audit_protocol")
def by_rules(record):
    return audit(record)


@right("audit_protocol")
def as_a_tuple(record):
    return tuple(audit(dict(record)))
