"""Wrong answers for patches, sweeps, ablations and attribution, each with its sentence, and right ones."""

import functools

import torch

from utils.course.catalogue import right, wrong
from utils.patching.hooks import run_with_cache, run_with_hooks
from utils.patching.sites import patch_site

# patch_site


def refuse(source, positions, head):
    if positions is not None and bool(((positions < 0) | (positions >= source.shape[1])).any()):
        raise ValueError("position outside")
    if head is not None and (source.dim() != 4 or not 0 <= head < source.shape[2]):
        raise ValueError("no such head")


def patched_run(model, tokens, name, source, write):
    def edit(activation):
        if activation.shape != source.shape:
            raise ValueError("source has another shape")
        return write(activation.clone())

    return run_with_hooks(model, tokens, [(name, edit)])


def rectangle(activation, source, positions, head):
    """Write ``source`` at the rows' own positions, in one head or all."""
    rows = torch.arange(len(source))
    at = slice(None) if positions is None else (rows, positions)
    if head is None:
        activation[at] = source[at]
    elif positions is None:
        activation[:, :, head] = source[:, :, head]
    else:
        activation[rows, positions, head] = source[rows, positions, head]
    return activation


@wrong(
    "patch_site",
    "You patch all positions whatever `positions` says. The question 'where?' then has one answer everywhere.",
)
def everywhere(model, tokens, name, source, *, positions=None, head=None):
    refuse(source, positions, head)
    return patched_run(model, tokens, name, source, lambda x: rectangle(x, source, None, head))


@wrong(
    "patch_site",
    "You patch all heads whatever `head` says, so every head looks as important as the whole layer.",
)
def all_heads(model, tokens, name, source, *, positions=None, head=None):
    refuse(source, positions, head)
    return patched_run(model, tokens, name, source, lambda x: rectangle(x, source, positions, None))


@wrong(
    "patch_site",
    "Every prompt is patched at the positions of all prompts: `x[:, positions]` takes whole columns. Each prompt has "
    "one position of its own.",
)
def whole_columns(model, tokens, name, source, *, positions=None, head=None):
    refuse(source, positions, head)

    def write(x):
        at = slice(None) if positions is None else positions
        if head is None:
            x[:, at] = source[:, at]
        else:
            x[:, at, head] = source[:, at, head]
        return x

    return patched_run(model, tokens, name, source, write)


@wrong(
    "patch_site",
    "You add the other run's activation, so the site says both things at once. A patch puts it in the place of what "
    "was there.",
)
def added(model, tokens, name, source, *, positions=None, head=None):
    refuse(source, positions, head)
    return patched_run(
        model, tokens, name, source, lambda x: x + rectangle(torch.zeros_like(x), source, positions, head)
    )


@wrong(
    "patch_site",
    "A source of another shape, or a position or head that is not there, goes through. A source of one row is "
    "stretched over all prompts without a word.",
)
def no_guard(model, tokens, name, source, *, positions=None, head=None):
    def write(x):
        wide = source.expand_as(x) if source.shape[0] == 1 else source
        head_ = None if head is None or x.dim() < 4 else head % x.shape[2]
        at = None if positions is None else positions % x.shape[1]
        return rectangle(x.clone(), wide, at, head_)

    return run_with_hooks(model, tokens, [(name, write)])


@wrong(
    "patch_site",
    "You patch the position after the one asked for. Positions count from 0, with <bos> at 0.",
)
def one_too_far(model, tokens, name, source, *, positions=None, head=None):
    refuse(source, positions, head)
    at = None if positions is None else (positions + 1) % source.shape[1]
    return patched_run(model, tokens, name, source, lambda x: rectangle(x, source, at, head))


@wrong(
    "patch_site",
    "You read `head` as a position: the third dimension of the activation counts the heads, the second one the tokens.",
)
def head_as_a_position(model, tokens, name, source, *, positions=None, head=None):
    refuse(source, positions, head)

    def write(x):
        if head is None:
            return rectangle(x, source, positions, None)
        x[:, head] = source[:, head]
        return x

    return patched_run(model, tokens, name, source, write)


@wrong(
    "patch_site",
    "You write into the activation that you were given as `source`. Its cache is spoilt for the next patch.",
)
def into_the_source(model, tokens, name, source, *, positions=None, head=None):
    refuse(source, positions, head)

    def write(x):
        kept = rectangle(x.clone(), source, positions, head)
        source.copy_(kept)
        return source

    return patched_run(model, tokens, name, source, write)


@wrong(
    "patch_site",
    "You write into the activation that the hook is given. A bare hook point hands on the very tensor that went in, so "
    "whatever else reads it is patched as well. Write into a copy.",
)
def into_the_activation(model, tokens, name, source, *, positions=None, head=None):
    refuse(source, positions, head)

    def edit(activation):
        if activation.shape != source.shape:
            raise ValueError("source has another shape")
        return rectangle(activation, source, positions, head)

    return run_with_hooks(model, tokens, [(name, edit)])


@right("patch_site")
def by_rectangles(model, tokens, name, source, *, positions=None, head=None):
    refuse(source, positions, head)
    return patched_run(model, tokens, name, source, lambda x: rectangle(x, source, positions, head))


@right("patch_site")
def prompt_by_prompt(model, tokens, name, source, *, positions=None, head=None):
    refuse(source, positions, head)

    def write(x):
        for row in range(len(x)):
            for pos in range(x.shape[1]) if positions is None else [int(positions[row])]:
                if head is None:
                    x[row, pos] = source[row, pos]
                else:
                    x[row, pos, head] = source[row, pos, head]
        return x

    return patched_run(model, tokens, name, source, write)


# patch_sweep


def guarded(source, over, tokens):
    if over not in ("position", "head") or over == "head" and any(x.dim() < 4 for x in source.values()):
        raise ValueError("over")
    if any(x.shape[:2] != tokens.shape for x in source.values()):
        raise ValueError("source has another shape")
    return 2 if over == "head" else 1


def sweep(
    model, tokens, source, metric, axis, max_rows, *, order=list, piled=False, interleaved=False,
    read=lambda metric, logits: metric(logits),
):  # fmt: skip
    """Many sites in a pass, with switches for what can go wrong."""
    names, batch, results = order(source), len(tokens), []
    sites = [(name, slot) for name in names for slot in range(source[name].shape[axis])]
    per_pass = max(1, max_rows // batch)

    def writing(name, part):
        def write(x):
            if x.shape[1:] != source[name].shape[1:]:
                raise ValueError("source has another shape")
            x = x.clone()
            for copy, (site, slot) in enumerate(part):
                if site == name:
                    first, rows = (0 if piled else slot), x[copy * batch : (copy + 1) * batch]
                    rows.narrow(axis, first, slot + 1 - first).copy_(source[name].narrow(axis, first, slot + 1 - first))
            return x

        return write

    with torch.no_grad():
        for start in range(0, len(sites), per_pass):
            part = sites[start : start + per_pass]
            hooks = [(name, writing(name, part)) for name in dict.fromkeys(name for name, _ in part)]
            rows = tokens.repeat_interleave(len(part), 0) if interleaved else tokens.repeat(len(part), 1)
            results += [read(metric, logits) for logits in run_with_hooks(model, rows, hooks).split(batch)]
    return torch.stack(results).unflatten(0, (len(names), -1))


@wrong(
    "patch_sweep",
    "Your patches pile up: at position 3 the positions 0 to 2 are still patched. Each site is patched alone, from "
    "a fresh activation.",
)
def pile_up(model, tokens, source, metric, *, over="position", max_rows=512):
    return sweep(model, tokens, source, metric, guarded(source, over, tokens), max_rows, piled=True)


@wrong(
    "patch_sweep",
    "You sweep over positions whatever `over` says. The rows of your map of heads are positions, and there may even be "
    "as many of them.",
)
def always_positions(model, tokens, source, metric, *, over="position", max_rows=512):
    guarded(source, over, tokens)
    return sweep(model, tokens, source, metric, 1, max_rows)


@wrong(
    "patch_sweep",
    "You average over prompts. Without their spread no interval can be put on any cell of the map.",
)
def averaged(model, tokens, source, metric, *, over="position", max_rows=512):
    return sweep(model, tokens, source, metric, guarded(source, over, tokens), max_rows).mean(-1)


@wrong(
    "patch_sweep",
    "All sites run in one forward pass, however many there are: `max_rows` has no effect, and on a larger model the "
    "memory is gone. Cut the list of sites into parts.",
)
def all_at_once(model, tokens, source, metric, *, over="position", max_rows=512):
    return sweep(model, tokens, source, metric, guarded(source, over, tokens), 10**9)


@wrong(
    "patch_sweep",
    "Your values are right, and each site has a forward pass to itself. A pass with three rows costs nearly as much as "
    "one with a hundred: let copies of the prompts share one, each copy with its own patch.",
)
def a_pass_for_each_site(model, tokens, source, metric, *, over="position", max_rows=512):
    return sweep(model, tokens, source, metric, guarded(source, over, tokens), 1)


@wrong(
    "patch_sweep",
    "Copies and prompts are mixed up: prompt 0 comes once for every site before prompt 1 does, but the patches and "
    "the metric count the other way. `repeat` and `repeat_interleave` are not the same.",
)
def interleaved(model, tokens, source, metric, *, over="position", max_rows=512):
    return sweep(model, tokens, source, metric, guarded(source, over, tokens), max_rows, interleaved=True)


@wrong(
    "patch_sweep",
    "Your rows are sorted by name. The caller's order is the order of the layers, and names sort otherwise.",
)
def sorted_names(model, tokens, source, metric, *, over="position", max_rows=512):
    return sweep(model, tokens, source, metric, guarded(source, over, tokens), max_rows, order=sorted)


@wrong(
    "patch_sweep",
    "`over` takes any word, and heads are asked of activations that have none. A misspelt 'heads' then gives a map of "
    "positions, and of a stream you patch single entries.",
)
def any_word(model, tokens, source, metric, *, over="position", max_rows=512):
    for_positions = guarded(source, "position", tokens)
    return sweep(model, tokens, source, metric, 2 if over == "head" else for_positions, max_rows)


@wrong(
    "patch_sweep",
    "A source of one row, or with fewer positions than the prompts, goes through: broadcasting stretches the one over "
    "all prompts, and the map of the other ends early. Compare the shapes.",
)
def any_source(model, tokens, source, metric, *, over="position", max_rows=512):
    wide = {name: x if len(x) == len(tokens) else x[:1].expand(len(tokens), *x.shape[1:]) for name, x in source.items()}
    axis = guarded(wide, over, tokens[:, : next(iter(wide.values())).shape[1]])
    return sweep(model, tokens, wide, metric, axis, max_rows)


@wrong(
    "patch_sweep",
    "The metric is called for each prompt alone. It was made for all of them, in their order: the first prompt's "
    "answer is then asked of every prompt.",
)
def prompt_by_prompt_metric(model, tokens, source, metric, *, over="position", max_rows=512):
    def read(metric, logits):
        return torch.cat([metric(row[None])[:1] for row in logits])

    return sweep(model, tokens, source, metric, guarded(source, over, tokens), max_rows, read=read)


@right("patch_sweep")
def one_hook_point_after_another(model, tokens, source, metric, *, over="position", max_rows=512):
    axis, n = guarded(source, over, tokens), max(1, max_rows // len(tokens))
    grid = []
    for name, activation in source.items():
        row = []
        for slots in torch.arange(activation.shape[axis]).split(n):

            def write(x, activation=activation, slots=slots):
                if x.shape[1:] != activation.shape[1:]:
                    raise ValueError("source has another shape")
                x = x.reshape(len(slots), *activation.shape).movedim(axis + 1, 1).clone()
                x[torch.arange(len(slots)), slots] = activation.movedim(axis, 0)[slots]
                return x.movedim(1, axis + 1).flatten(0, 1)

            with torch.no_grad():
                logits = run_with_hooks(model, torch.cat([tokens] * len(slots)), [(name, write)])
            row += [metric(part) for part in logits.chunk(len(slots))]
        grid.append(torch.stack(row))
    return torch.stack(grid)


@right("patch_sweep")
def masks_for_all_copies(model, tokens, source, metric, *, over="position", max_rows=512):
    axis, names, values = guarded(source, over, tokens), list(source), []
    n_slots = source[names[0]].shape[axis]
    sites = torch.cartesian_prod(torch.arange(len(names)), torch.arange(n_slots))
    for part in sites.split(max(1, max_rows // len(tokens))):

        def masked(x, name, part=part):
            here, slot = part[:, 0] == names.index(name), torch.arange(n_slots)
            chosen = here[:, None] & (part[:, 1:] == slot)
            shape = [len(part)] + [1] * source[name].dim()
            shape[axis + 1] = n_slots
            x = x.unflatten(0, (len(part), -1))
            if x.shape[1:] != source[name].shape:
                raise ValueError("source has another shape")
            return torch.where(chosen.view(shape), source[name], x).flatten(0, 1)

        hooks = [(name, lambda x, name=name, masked=masked: masked(x, name)) for name in names]
        with torch.no_grad():
            logits = run_with_hooks(model, tokens.repeat(len(part), 1), hooks).unflatten(0, (len(part), -1))
            values += [metric(logits[i]) for i in range(len(part))]
    return torch.stack(values).view(len(names), n_slots, -1)


# denoise and noise


def same_shape(clean, corrupted):
    if tuple(clean.shape) != tuple(corrupted.shape):
        raise ValueError("shapes differ")


def mixed(model, base, other, names, weight):
    same_shape(base, other)
    with torch.no_grad():
        _, cache = run_with_cache(model, other, names)
        hooks = [(name, lambda x, name=name: x + weight * (cache[name] - x)) for name in names]
        return run_with_hooks(model, base, hooks)


def both(model, base, other, names):
    return mixed(model, base, other, names, 1.0)


def unlooked_at(model, base, other, names):
    with torch.no_grad():
        _, cache = run_with_cache(model, other, names)
        return run_with_hooks(model, base, [(name, lambda _, name=name: cache[name]) for name in names])


def one_at_a_time(model, base, other, names):
    results = [both(model, base, other, [name]) for name in names]
    return torch.stack(results).mean(0) if results else both(model, base, other, [])


def stretched(model, base, other, names):
    rows = min(len(base), len(other))
    pos = min(base.shape[1], other.shape[1])
    return both(model, base[:rows, :pos], other[:rows, :pos], names)


@wrong(
    "denoise",
    "You corrupt the clean run. Denoising goes the other way: the run on the corrupted input, with clean parts put in.",
)
def noised_instead(model, clean, corrupted, names):
    return both(model, clean, corrupted, names)


@wrong(
    "denoise",
    "You restore one part at a time and average. AND needs both at once: all parts go into the same run.",
)
def each_alone(model, clean, corrupted, names):
    return one_at_a_time(model, corrupted, clean, names)


@wrong(
    "denoise",
    "Only the first of the parts is restored, so that a pair of parts never looks sufficient where one is not.",
)
def first_only(model, clean, corrupted, names):
    both(model, corrupted, clean, names)
    return both(model, corrupted, clean, names[:1])


@wrong(
    "denoise",
    "What you put back comes from the corrupted run itself, so nothing is restored, and no part will ever look "
    "sufficient.",
)
def own_activations(model, clean, corrupted, names):
    both(model, corrupted, clean, names)
    return both(model, corrupted, corrupted, names)


@wrong(
    "denoise",
    "You add the clean activation to the corrupted one, so the part says both things. It has to take its place.",
)
def sums(model, clean, corrupted, names):
    same_shape(clean, corrupted)
    with torch.no_grad():
        _, cache = run_with_cache(model, clean, names)
        return run_with_hooks(model, corrupted, [(n, lambda x, n=n: x + cache[n]) for n in names])


@wrong(
    "denoise",
    "All your hooks put in the last name's activation. A function made in a loop looks `name` up when it is called.",
)
def the_last_names_activation(model, clean, corrupted, names):
    same_shape(clean, corrupted)
    with torch.no_grad():
        _, cache = run_with_cache(model, clean, names)
        return run_with_hooks(model, corrupted, [(name, lambda _: cache[names[-1]]) for name in names])


@wrong("denoise", "Inputs of different shapes go through: you cut them to fit, and compare runs on different things.")
def cut_to_fit(model, clean, corrupted, names):
    return stretched(model, corrupted, clean, names)


@wrong(
    "denoise",
    "You leave it to the hooks to notice that the inputs differ in shape. Without names there are none, and an "
    "activation may have one shape for both. Compare the inputs themselves.",
)
def left_to_the_hooks(model, clean, corrupted, names):
    return unlooked_at(model, corrupted, clean, names)


@right("denoise")
def by_hand(model, clean, corrupted, names):
    same_shape(clean, corrupted)
    with torch.no_grad():
        kept = {name: run_with_cache(model, clean, [name])[1][name] for name in names}
        return run_with_hooks(model, corrupted, [(name, lambda x, v=v: 0 * x + v) for name, v in kept.items()])


@right("denoise")
def both_runs_in_one(model, clean, corrupted, names):
    """Clean prompts in the first half of a batch, corrupted ones in the second; the first half is copied over."""
    same_shape(clean, corrupted)
    hooks = [(name, lambda x: torch.cat([x[: len(clean)]] * 2)) for name in names]
    return run_with_hooks(model, torch.cat([clean, corrupted]), hooks)[len(clean) :]


@wrong(
    "noise",
    "You restore parts of the corrupted run. Noising goes the other way: the run on the clean input, with corrupted "
    "parts put in.",
)
def denoised_instead(model, clean, corrupted, names):
    return both(model, corrupted, clean, names)


@wrong(
    "noise",
    "You corrupt one part at a time and average. OR breaks only if both break: all parts go into the same run.",
)
def each_broken_alone(model, clean, corrupted, names):
    return one_at_a_time(model, clean, corrupted, names)


@wrong(
    "noise",
    "Only the last of the parts is corrupted, so that a pair of parts never looks necessary where one is not.",
)
def last_only(model, clean, corrupted, names):
    both(model, clean, corrupted, names)
    return both(model, clean, corrupted, names[-1:])


@wrong(
    "noise", "You set the parts to zero. Noising puts in what they are on the corrupted input, and that is seldom zero."
)
def zeroed(model, clean, corrupted, names):
    same_shape(clean, corrupted)
    with torch.no_grad():
        return run_with_hooks(model, clean, [(name, lambda x: 0 * x) for name in names])


@wrong(
    "noise",
    "You go half of the way: the mean of the clean and the corrupted activation is put in, and a part that is half "
    "there may still do its work.",
)
def half_way(model, clean, corrupted, names):
    return mixed(model, clean, corrupted, names, 0.5)


@wrong("noise", "Inputs of different shapes go through: you cut them to fit, and compare runs on different things.")
def made_to_fit(model, clean, corrupted, names):
    return stretched(model, clean, corrupted, names)


@wrong(
    "noise",
    "You leave it to the hooks to notice that the inputs differ in shape. Without names there are none, and an "
    "activation may have one shape for both. Compare the two inputs themselves.",
)
def unnoticed_by_the_hooks(model, clean, corrupted, names):
    return unlooked_at(model, clean, corrupted, names)


@right("noise")
def with_weight_one(model, clean, corrupted, names):
    return mixed(model, clean, corrupted, names, 1.0)


@right("noise")
def clean_run_behind_the_corrupted_one(model, clean, corrupted, names):
    same_shape(clean, corrupted)
    n = len(corrupted)
    with torch.no_grad():
        hooks = [(name, lambda x: x[:n].repeat(2, *[1] * (x.dim() - 1))) for name in names]
        return run_with_hooks(model, torch.cat([corrupted, clean]), hooks)[n:]


# ablations


def ablated(model, tokens, name, value, head):
    """Run with ``value(activation)`` in place of an activation, or of one head of it."""

    def edit(x):
        if head is not None and (x.dim() != 4 or not 0 <= head < x.shape[2]):
            raise ValueError("no such head")
        if head is None:
            return value(x)
        x = x.clone()
        x[:, :, head] = value(x)[:, :, head]
        return x

    with torch.no_grad():
        return run_with_hooks(model, tokens, [(name, edit)])


@wrong(
    "zero_ablate",
    "You silence all heads whatever `head` says: every head seems to be as important as the whole layer.",
)
def every_head(model, tokens, name, *, head=None):
    ablated(model, tokens, name, torch.zeros_like, head)
    return ablated(model, tokens, name, torch.zeros_like, None)


@wrong("zero_ablate", "You silence the part at the last position only, but earlier positions pass its output on.")
def last_position(model, tokens, name, *, head=None):
    def value(x):
        x = x.clone()
        x[:, -1] = 0
        return x

    return ablated(model, tokens, name, value, head)


@wrong(
    "zero_ablate",
    "You put the mean over the prompts in the part's place. That is another ablation: it leaves what the part says "
    "whatever the prompt.",
)
def mean_instead(model, tokens, name, *, head=None):
    return ablated(model, tokens, name, lambda x: x.mean(0, keepdim=True).expand_as(x), head)


@wrong(
    "zero_ablate",
    "You silence everything but the head that was asked for: you see what it can do alone, not what is missing "
    "without it.",
)
def all_but_the_head(model, tokens, name, *, head=None):
    def edit(x):
        if head is not None and (x.dim() != 4 or not 0 <= head < x.shape[2]):
            raise ValueError("no such head")
        kept = torch.zeros_like(x)
        if head is not None:
            kept[:, :, head] = x[:, :, head]
        return kept

    with torch.no_grad():
        return run_with_hooks(model, tokens, [(name, edit)])


@wrong(
    "zero_ablate",
    "You turn the part's sign around. It then says the opposite, which does more harm than saying nothing.",
)
def negated(model, tokens, name, *, head=None):
    return ablated(model, tokens, name, lambda x: -x, head)


@wrong(
    "zero_ablate",
    "A head that is not there is counted from the start again, or overlooked, and you report on another head than the "
    "one that was asked for.",
)
def any_head(model, tokens, name, *, head=None):
    def edit(x):
        x = x.clone()
        if head is None or x.dim() < 4:
            return 0 * x
        x[:, :, head % x.shape[2]] = 0
        return x

    with torch.no_grad():
        return run_with_hooks(model, tokens, [(name, edit)])


@wrong(
    "zero_ablate",
    "Head 0 is taken for no head: 0 is false, and `if head` passes it over. All heads are silenced in its place. Ask "
    "whether `head` is None.",
)
def head_zero_is_none(model, tokens, name, *, head=None):
    ablated(model, tokens, name, torch.zeros_like, head)
    return ablated(model, tokens, name, torch.zeros_like, head or None)


@right("zero_ablate")
def as_a_patch(model, tokens, name, *, head=None):
    with torch.no_grad():
        shape = run_with_cache(model, tokens, [name])[1][name].shape
    return patch_site(model, tokens, name, torch.zeros(shape), head=head)


@right("zero_ablate")
def times_zero(model, tokens, name, *, head=None):
    return ablated(model, tokens, name, lambda x: 0 * x, head)


def mean_run(model, tokens, name, others, head, mean):
    if others.shape[1] != tokens.shape[1]:
        raise ValueError("lengths differ")
    with torch.no_grad():
        _, cache = run_with_cache(model, others, [name])
    return ablated(model, tokens, name, lambda x: mean(cache[name], x).expand_as(x), head)


@wrong(
    "mean_ablate",
    "You average over positions too. What a part says at a verb is mixed with what it says at <bos>, and nothing in "
    "the model ever sees such a vector.",
)
def over_positions(model, tokens, name, others, *, head=None):
    return mean_run(model, tokens, name, others, head, lambda y, x: y.mean((0, 1), keepdim=True))


@wrong(
    "mean_ablate",
    "You average over the prompts under test and ignore the others. With one prompt nothing at all is taken away.",
)
def own_mean(model, tokens, name, others, *, head=None):
    return mean_run(model, tokens, name, others, head, lambda y, x: x.mean(0, keepdim=True))


@wrong(
    "mean_ablate",
    "You replace all heads whatever `head` says: every head seems to be as important as the whole layer.",
)
def mean_of_every_head(model, tokens, name, others, *, head=None):
    mean_run(model, tokens, name, others, head, lambda y, x: y.mean(0))
    return mean_run(model, tokens, name, others, None, lambda y, x: y.mean(0))


@wrong(
    "mean_ablate",
    "You put in what the part is on the first of the other prompts. The mean over all of them washes out what is "
    "particular to one; this does not.",
)
def first_of_the_others(model, tokens, name, others, *, head=None):
    return mean_run(model, tokens, name, others, head, lambda y, x: y[:1])


@wrong("mean_ablate", "You subtract the mean. What goes on is the deviation from it, which is what should have gone.")
def deviation(model, tokens, name, others, *, head=None):
    return mean_run(model, tokens, name, others, head, lambda y, x: x - y.mean(0))


@wrong(
    "mean_ablate",
    "Prompts of another length are accepted. Position 5 of the one is then the verb and of the other the name, and "
    "their mean is neither.",
)
def any_length(model, tokens, name, others, *, head=None):
    _, cache = run_with_cache(model, others, [name])
    mean = cache[name].detach().mean(0)
    mean = mean[torch.arange(tokens.shape[1]).clamp(max=len(mean) - 1)]
    return ablated(model, tokens, name, lambda x: mean.expand_as(x), head)


@wrong(
    "mean_ablate",
    "Head 0 is taken for no head: 0 is false, and `if head` passes it over. All heads are replaced in its place. Ask "
    "whether `head` is None.",
)
def head_zero_means_all(model, tokens, name, others, *, head=None):
    mean_run(model, tokens, name, others, head, lambda y, x: y.mean(0))
    return mean_run(model, tokens, name, others, head or None, lambda y, x: y.mean(0))


@right("mean_ablate")
def as_a_patch_with_the_mean(model, tokens, name, others, *, head=None):
    if tokens.shape[1:] != others.shape[1:]:
        raise ValueError("lengths differ")
    with torch.no_grad():
        total = run_with_cache(model, others, [name])[1][name].sum(0, keepdim=True)
    return patch_site(model, tokens, name, torch.cat([total / others.shape[0]] * tokens.shape[0]), head=head)


@right("mean_ablate")
def prompt_after_prompt(model, tokens, name, others, *, head=None):
    if others.shape[1] != tokens.shape[1]:
        raise ValueError("lengths differ")
    with torch.no_grad():
        total = sum(run_with_cache(model, row[None], [name])[1][name] for row in others)
    return ablated(model, tokens, name, lambda x: (total / len(others)).expand_as(x), head)


def resampled(model, tokens, name, others, head, pick):
    if others.shape[1] != tokens.shape[1]:
        raise ValueError("lengths differ")
    with torch.no_grad():
        _, cache = run_with_cache(model, others, [name])
    return ablated(model, tokens, name, lambda x: pick(cache[name], x), head)


def rows(n, batch, generator):
    return torch.randint(n, (batch,), generator=generator)


@wrong(
    "resample_ablate",
    "One draw serves all prompts: they all get the same other prompt's activation, and chance weighs as much as if "
    "there were only one prompt.",
)
def one_for_all(model, tokens, name, others, generator, *, head=None):
    drawn = rows(len(others), 1, generator)
    return resampled(model, tokens, name, others, head, lambda y, x: y[drawn].expand_as(x))


@wrong(
    "resample_ablate",
    "Every position is drawn from another prompt. The part then says things that do not belong together, which is a "
    "stronger blow than asked for.",
)
def patchwork(model, tokens, name, others, generator, *, head=None):
    drawn = torch.randint(len(others), tokens.shape, generator=generator)
    at = torch.arange(tokens.shape[1])
    return resampled(model, tokens, name, others, head, lambda y, x: y[drawn, at])


@wrong("resample_ablate", "Your draw does not use the generator: the seed has no say, and no result can be repeated.")
def from_elsewhere(model, tokens, name, others, generator, *, head=None):
    fresh = torch.Generator()
    fresh.seed()
    drawn = rows(len(others), len(tokens), fresh)
    return resampled(model, tokens, name, others, head, lambda y, x: y[drawn])


@wrong(
    "resample_ablate",
    "Nothing is drawn: prompt i always gets the activation of other prompt i. If the two lists are in the same order, "
    "they may even share the answer.",
)
def in_order(model, tokens, name, others, generator, *, head=None):
    order = torch.arange(len(tokens)) % len(others)
    return resampled(model, tokens, name, others, head, lambda y, x: y[order])


@wrong(
    "resample_ablate",
    "You put in the mean over the other prompts. A mean is a vector that no prompt ever gives; a draw is one that some "
    "prompt does.",
)
def mean_of_others(model, tokens, name, others, generator, *, head=None):
    return resampled(model, tokens, name, others, head, lambda y, x: y.mean(0).expand_as(x))


@wrong(
    "resample_ablate",
    "You replace all heads whatever `head` says: every head seems to be as important as the whole layer.",
)
def draws_every_head(model, tokens, name, others, generator, *, head=None):
    resampled(model, tokens, name, others, head, lambda y, x: x)
    drawn = rows(len(others), len(tokens), generator)
    return resampled(model, tokens, name, others, None, lambda y, x: y[drawn])


@wrong(
    "resample_ablate",
    "You draw among the prompts under test, so some keep their own activation, and the others are not used.",
)
def among_themselves(model, tokens, name, others, generator, *, head=None):
    drawn = rows(len(tokens), len(tokens), generator)
    return resampled(model, tokens, name, others, head, lambda y, x: x[drawn])


@wrong(
    "resample_ablate",
    "You round a uniform number that runs from 0 to n - 1. The first and the last prompt then have only half a unit of "
    "that range each, and are drawn half as often as the others.",
)
def rounded_draws(model, tokens, name, others, generator, *, head=None):
    drawn = (torch.rand(len(tokens), generator=generator) * (len(others) - 1)).round().long()
    return resampled(model, tokens, name, others, head, lambda y, x: y[drawn])


@wrong(
    "resample_ablate",
    "You make a generator of your own from the seed of the one that you were given, and so begin at its first number "
    "again with every call: two calls in a row draw the same. Hand the generator itself to the draw.",
)
def always_from_the_start(model, tokens, name, others, generator, *, head=None):
    drawn = rows(len(others), len(tokens), torch.Generator().manual_seed(generator.initial_seed()))
    return resampled(model, tokens, name, others, head, lambda y, x: y[drawn])


@right("resample_ablate")
def by_uniform_numbers(model, tokens, name, others, generator, *, head=None):
    drawn = (torch.rand(len(tokens), generator=generator) * len(others)).long()
    return resampled(model, tokens, name, others, head, lambda y, x: y[drawn])


@right("resample_ablate")
def a_draw_for_each_prompt(model, tokens, name, others, generator, *, head=None):
    if others.shape[1] != tokens.shape[1]:
        raise ValueError("lengths differ")
    weights = torch.ones(len(others))
    drawn = [int(torch.multinomial(weights, 1, generator=generator)) for _ in tokens]
    with torch.no_grad():
        source = run_with_cache(model, others[drawn], [name])[1][name]
    return patch_site(model, tokens, name, source, head=head)


# attribution_patching


def estimate(
    model, clean, corrupted, names, metric, *, at="corrupted", sign=1.0, total="sum", reduce="sum", leave=False,
    cut=False,
):  # fmt: skip
    """Difference times slope, with switches."""
    same_shape(clean, corrupted)
    with torch.no_grad():
        _, target = run_with_cache(model, clean, names)
        _, start = run_with_cache(model, corrupted, names)
    leaves = {}

    def nudging(name):
        def nudge(x):
            leaves[name] = (x.detach().clone() if cut else torch.zeros_like(x)).requires_grad_()
            return leaves[name] if cut else x + leaves[name]

        return nudge

    with torch.enable_grad():
        logits = run_with_hooks(model, corrupted if at == "corrupted" else clean, [(n, nudging(n)) for n in names])
        value = getattr(metric(logits), total)()
        if leave:
            value.backward()
            slopes = [leaves[name].grad for name in names]
        else:
            slopes = torch.autograd.grad(value, [leaves[name] for name in names])
    products = {n: sign * (target[n] - start[n]) * slope for n, slope in zip(names, slopes, strict=True)}
    return {n: x if reduce is None else getattr(x, reduce)(-1) for n, x in products.items()}


@wrong(
    "attribution_patching",
    "Corrupted minus clean: your estimates have the other sign, and a site that helps looks like one that harms. The "
    "patch moves the activation from the corrupted value to the clean one.",
)
def backwards(model, clean, corrupted, names, metric):
    return estimate(model, clean, corrupted, names, metric, sign=-1.0)


@wrong(
    "attribution_patching",
    "Your slopes are those of the clean run. The patch starts from the corrupted run: take the slope there.",
)
def slopes_of_the_clean_run(model, clean, corrupted, names, metric):
    return estimate(model, clean, corrupted, names, metric, at="clean")


@wrong(
    "attribution_patching",
    "You do not add up over the last dimension, and there is a number for every entry. What is patched is a site's "
    "whole vector, and its effect is one number.",
)
def entry_by_entry(model, clean, corrupted, names, metric):
    return estimate(model, clean, corrupted, names, metric, reduce=None)


@wrong(
    "attribution_patching",
    "You average over the last dimension. An effect is a sum of contributions; divided by its width, a wide activation "
    "looks weaker than a narrow one.",
)
def mean_over_entries(model, clean, corrupted, names, metric):
    return estimate(model, clean, corrupted, names, metric, reduce="mean")


@wrong(
    "attribution_patching",
    "You take the gradient of the mean metric, so every prompt's effect is divided by the number of prompts: with "
    "sixty of them it is sixty times too small.",
)
def of_the_mean(model, clean, corrupted, names, metric):
    return estimate(model, clean, corrupted, names, metric, total="mean")


@wrong(
    "attribution_patching",
    "`backward` leaves gradients on all the model's parameters. The next training step, or the next check, finds them "
    "there. `torch.autograd.grad` returns what you ask for and touches nothing else.",
)
def leaves_gradients(model, clean, corrupted, names, metric):
    return estimate(model, clean, corrupted, names, metric, leave=True)


@wrong(
    "attribution_patching",
    "You clear the model's gradients behind you. Yours are gone, and so are those that somebody had collected before.",
)
def leaves_no_gradient_at_all(model, clean, corrupted, names, metric):
    found = estimate(model, clean, corrupted, names, metric, leave=True)
    model.zero_grad()
    return found


@wrong(
    "attribution_patching",
    "Your hooks hand on a fresh tensor, and the graph is cut at every site. The slope of an early site then has only "
    "those paths in it that go around all later sites. A site can be watched without cutting what it hangs on.",
)
def cut_at_every_site(model, clean, corrupted, names, metric):
    return estimate(model, clean, corrupted, names, metric, cut=True)


@wrong(
    "attribution_patching",
    "Your slopes come in the order in which the model ran through the sites, and you pair them with `names` in the "
    "order of the caller. Every number then belongs to another site, unless the shapes happen to disagree.",
)
def in_the_order_of_the_run(model, clean, corrupted, names, metric):
    same_shape(clean, corrupted)
    start, nudges = {}, {}

    def nudge(x, name):
        start[name], nudges[name] = x.detach(), torch.zeros_like(x).requires_grad_()
        return x + nudges[name]

    with torch.enable_grad():
        logits = run_with_hooks(model, corrupted, [(n, functools.partial(nudge, name=n)) for n in names])
        slopes = torch.autograd.grad(metric(logits).sum(), list(nudges.values()))
    with torch.no_grad():
        _, target = run_with_cache(model, clean, names)
    return {name: ((target[name] - start[name]) * slope).sum(-1) for name, slope in zip(names, slopes, strict=True)}


@wrong(
    "attribution_patching",
    "Each site has a forward and a backward pass to itself, which is what the exact sweep costs. One backward pass "
    "knows the slopes at all sites.",
)
def a_pass_for_every_site(model, clean, corrupted, names, metric):
    return {name: estimate(model, clean, corrupted, [name], metric)[name] for name in names}


@wrong(
    "attribution_patching",
    "You return sizes without signs. A site that works against the answer looks like one that helps.",
)
def absolute(model, clean, corrupted, names, metric):
    return {name: x.abs() for name, x in estimate(model, clean, corrupted, names, metric).items()}


@wrong(
    "attribution_patching",
    "You let gradients flow because the parameters want them. On a frozen model, or where gradients are switched off, "
    "there is no graph and your function fails.",
)
def relies_on_the_parameters(model, clean, corrupted, names, metric):
    same_shape(clean, corrupted)
    _, target = run_with_cache(model, clean, names)
    logits, start = run_with_cache(model, corrupted, names)
    slopes = torch.autograd.grad(metric(logits).sum(), [start[name] for name in names])
    return {n: ((target[n] - start[n]) * g).sum(-1).detach() for n, g in zip(names, slopes, strict=True)}


@right("attribution_patching")
def slopes_of_the_activations_themselves(model, clean, corrupted, names, metric):
    """Without nudges: an activation that nothing before it needs a gradient for is told to want one."""
    same_shape(clean, corrupted)
    kept = {}

    def watch(name):
        def hook(x):
            kept[name] = x if x.requires_grad else x.detach().requires_grad_()
            return kept[name]

        return hook

    with torch.enable_grad():
        logits = run_with_hooks(model, corrupted, [(name, watch(name)) for name in names])
        slopes = torch.autograd.grad(metric(logits).sum(), [kept[name] for name in names])
    with torch.no_grad():
        _, target = run_with_cache(model, clean, names)
        return {n: torch.einsum("...d,...d->...", target[n] - kept[n], g) for n, g in zip(names, slopes, strict=True)}


@right("attribution_patching")
def by_a_dot_product(model, clean, corrupted, names, metric):
    products = estimate(model, clean, corrupted, names, metric, reduce=None)
    return {name: torch.einsum("...d->...", x) for name, x in products.items()}
