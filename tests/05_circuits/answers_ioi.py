"""Wrong answers for the prompts about gifts, each with its sentence, and right ones."""

import torch

from utils.course.catalogue import right, wrong

CASTS = {
    "clean": "ABB",
    "giver swapped": "ABA",
    "names swapped": "BAA",
    "said once": "AXB",
    "ABC": "ABX",
    "random names": "XYZ",
}


def made(
    templates, names, n, generator, casts=CASTS, io_first=lambda i, count: i % 2 == 0,
    which=lambda i, count: (i // 2) % count, per_row=True, replace=False, fill="behind",
):  # fmt: skip
    if n < 1 or len(names) < 5 or not templates:
        raise ValueError("too little")
    if any(sorted(x for x in t.tolist() if x < 0) != [-3, -2, -1] for t in templates):
        raise ValueError("places")
    count, rows, at = len(templates), {key: [] for key in CASTS}, {key: [] for key in ("IO", "S1", "S2", "END")}
    chosen = [templates[which(i, count)].tolist() for i in range(n)]
    longest, people = max(map(len, chosen)), None
    for i, row in enumerate(chosen):
        if people is None or per_row:
            drawn = torch.randperm(len(names), generator=generator)[:5]
            if replace:
                drawn = torch.randint(len(names), (5,), generator=generator)
            people = dict(zip("ABXYZ", names[drawn].tolist(), strict=True))
        gap = longest - len(row)
        shift = gap if fill == "front" else 0
        places = [row.index(-1), row.index(-2)]
        io, s1 = places if io_first(i, count) else places[::-1]
        for key, place in (("IO", io), ("S1", s1), ("S2", row.index(-3)), ("END", len(row) - 1)):
            at[key].append(place + shift)
        if fill == "end":
            at["END"][-1] = longest - 1
        padding = [(0 if fill == "zero" else row[0])] * gap
        for key, cast in casts.items():
            said = list(row)
            for place, letter in zip((io, s1, row.index(-3)), cast, strict=True):
                said[place] = people[letter]
            rows[key].append(padding + said if fill == "front" else said + padding)
    return {key: torch.tensor(v) for key, v in rows.items()}, {key: torch.tensor(v) for key, v in at.items()}


@wrong(
    "ioi_dataset",
    "Your rows all name IO first. A head that fetches whoever is named first would then look like one that knows who "
    "gets the present; the order has to change from row to row.",
)
def one_order(templates, names, n, generator):
    return made(templates, names, n, generator, io_first=lambda i, count: True)


@wrong(
    "ioi_dataset",
    "Your templates change with every row, and so does the order: with two templates each would come in one order "
    "only. Two rows in a row share a template.",
)
def template_each_row(templates, names, n, generator):
    return made(templates, names, n, generator, which=lambda i, count: i % count)


@wrong(
    "ioi_dataset",
    "Your 'giver swapped' exchanges the names in the opening as well. That is 'names swapped': keep the opening, and "
    "let the other one give.",
)
def opening_swapped_too(templates, names, n, generator):
    return made(templates, names, n, generator, CASTS | {"giver swapped": "BAA"})


@wrong(
    "ioi_dataset",
    "Your 'names swapped' leaves the opening as it is: then it is 'giver swapped' once more. Exchange the two names "
    "wherever they stand.",
)
def opening_left(templates, names, n, generator):
    return made(templates, names, n, generator, CASTS | {"names swapped": "ABA"})


@wrong(
    "ioi_dataset",
    "In your 'said once' the giver is another person. Then two things have changed, who gives and that he was said "
    "before; it is the first mention that goes.",
)
def second_mention_gone(templates, names, n, generator):
    return made(templates, names, n, generator, CASTS | {"said once": "ABX", "ABC": "ABX"})


@wrong(
    "ioi_dataset",
    "In your 'random names' the second and third place hold the same person: somebody is still said twice, and a head "
    "that looks for repetitions still finds one.",
)
def still_repeated(templates, names, n, generator):
    return made(templates, names, n, generator, CASTS | {"random names": "XYY"})


@wrong(
    "ioi_dataset",
    "You draw the people of a row with replacement: now and then two of them are the same, and a row is about somebody "
    "who gives to himself.",
)
def with_replacement(templates, names, n, generator):
    return made(templates, names, n, generator, replace=True)


@wrong("ioi_dataset", "All your rows are about the same people: how many names there are adds no evidence then.")
def the_same_people(templates, names, n, generator):
    return made(templates, names, n, generator, per_row=False)


@wrong(
    "ioi_dataset",
    "Your shorter rows are filled up in front. Everything stands at other positions than in the template, and the "
    "model "
    "reads words before its sentence.",
)
def filled_in_front(templates, names, n, generator):
    return made(templates, names, n, generator, fill="front")


@wrong(
    "ioi_dataset",
    "Your END is the last column in every row. A shorter row ends before: there stands only what fills it up.",
)
def end_of_the_longest(templates, names, n, generator):
    return made(templates, names, n, generator, fill="end")


@wrong(
    "ioi_dataset",
    "Your IO is whoever is named first. In every other row that is S: the order turns, and IO stands in the second "
    "place.",
)
def io_is_first(templates, names, n, generator):
    prompts, at = made(templates, names, n, generator)
    return prompts, at | {"IO": torch.minimum(at["IO"], at["S1"]), "S1": torch.maximum(at["IO"], at["S1"])}


@right("ioi_dataset")
def row_by_row(templates, names, n, generator):
    return made(templates, names, n, generator)
