"""Wrong answers for patches, sweeps, ablations and attribution, each with its sentence, and right ones."""

import contextlib
import functools

import torch

from utils.course.catalogue import right, wrong
from utils.patching.hooks import run_with_cache, run_with_hooks
from utils.patching.sites import patch_site

# patch_site


def refuse(tokens, source, positions, head, *, begins=True, positions_too=True, head_too=True):
    if begins and (positions is not None or head is not None) and source.shape[:2] != tokens.shape:
        raise ValueError("no [batch, pos]")
    if positions_too and positions is not None and bool(((positions < 0) | (positions >= source.shape[1])).any()):
        raise ValueError("position outside")
    if head_too and head is not None and (source.dim() != 4 or not 0 <= head < source.shape[2]):
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
    refuse(tokens, source, positions, head)
    return patched_run(model, tokens, name, source, lambda x: rectangle(x, source, None, head))


@wrong(
    "patch_site",
    "You patch all heads whatever `head` says, so every head looks as important as the whole layer.",
)
def all_heads(model, tokens, name, source, *, positions=None, head=None):
    refuse(tokens, source, positions, head)
    return patched_run(model, tokens, name, source, lambda x: rectangle(x, source, positions, None))


@wrong(
    "patch_site",
    "Every prompt is patched at the positions of all prompts: `x[:, positions]` takes whole columns. Each prompt has "
    "one position of its own.",
)
def whole_columns(model, tokens, name, source, *, positions=None, head=None):
    refuse(tokens, source, positions, head)

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
    "Where no head is asked for, every prompt is patched at the positions of all prompts: `x[:, positions]` takes "
    "whole columns. Each prompt has one position of its own.",
)
def whole_columns_without_a_head(model, tokens, name, source, *, positions=None, head=None):
    return (whole_columns if head is None else by_rectangles)(
        model, tokens, name, source, positions=positions, head=head
    )


@wrong(
    "patch_site",
    "Where a head is asked for, every prompt is patched at the positions of all prompts: `x[:, positions, head]` takes "
    "whole columns. Each prompt has one position of its own.",
)
def whole_columns_of_a_head(model, tokens, name, source, *, positions=None, head=None):
    return (by_rectangles if head is None else whole_columns)(
        model, tokens, name, source, positions=positions, head=head
    )


@wrong(
    "patch_site",
    "You add the other run's activation, so the site says both things at once. A patch puts it in the place of what "
    "was there.",
)
def added(model, tokens, name, source, *, positions=None, head=None):
    refuse(tokens, source, positions, head)
    return patched_run(
        model, tokens, name, source, lambda x: x + rectangle(torch.zeros_like(x), source, positions, head)
    )


@wrong(
    "patch_site",
    "A source of another shape goes through: one of a single row is stretched over all prompts without a word.",
)
def any_shape(model, tokens, name, source, *, positions=None, head=None):
    if positions is not None or head is not None:
        refuse(tokens, source, positions, head)
    return run_with_hooks(model, tokens, [(name, lambda x: rectangle(x.clone(), source.expand_as(x), positions, head))])


@wrong(
    "patch_site",
    "Position -1 is accepted, and counts from the end: Python's convention turns a mistake into a patch of the last "
    "token.",
)
def negative_positions(model, tokens, name, source, *, positions=None, head=None):
    if positions is not None and bool((positions >= source.shape[1]).any()):
        raise ValueError("position outside")
    refuse(tokens, source, positions, head, positions_too=False)
    return patched_run(model, tokens, name, source, lambda x: rectangle(x, source, positions, head))


@wrong(
    "patch_site",
    "Head -1 is accepted, and counts from the end: Python's convention turns a mistake into a patch of the last head.",
)
def negative_heads(model, tokens, name, source, *, positions=None, head=None):
    refuse(tokens, source, positions, head if head != -1 or source.dim() < 4 else None)
    return patched_run(model, tokens, name, source, lambda x: rectangle(x, source, positions, head))


@wrong(
    "patch_site",
    "A head is asked for of an activation that has none, and you overlook it: the whole activation is patched, and "
    "goes down as a head's effect.",
)
def head_overlooked(model, tokens, name, source, *, positions=None, head=None):
    wanted = head if source.dim() == 4 else None
    refuse(tokens, source, positions, wanted)
    return patched_run(model, tokens, name, source, lambda x: rectangle(x, source, positions, wanted))


@wrong(
    "patch_site",
    "A head is asked for of an activation that has none, and you patch one entry of its vectors: the third "
    "dimension is the width there. Count the dimensions before you trust the third.",
)
def entry_for_a_head(model, tokens, name, source, *, positions=None, head=None):
    refuse(tokens, source, positions, head if source.dim() == 4 else None)
    return patched_run(model, tokens, name, source, lambda x: rectangle(x, source, positions, head))


@wrong(
    "patch_site",
    "Head 0 is taken for no head: 0 is false, and `if head` passes it over. All heads are patched in its place. Ask "
    "whether `head` is None.",
)
def head_zero_is_no_head(model, tokens, name, source, *, positions=None, head=None):
    refuse(tokens, source, positions, head)
    return patched_run(model, tokens, name, source, lambda x: rectangle(x, source, positions, head or None))


@wrong(
    "patch_site",
    "Where there are no positions, head 0 is taken for no head: 0 is false. All heads are patched in its place. Ask "
    "whether `head` is None.",
)
def head_zero_everywhere(model, tokens, name, source, *, positions=None, head=None):
    refuse(tokens, source, positions, head)
    which = (head or None) if positions is None else head
    return patched_run(model, tokens, name, source, lambda x: rectangle(x, source, positions, which))


@wrong(
    "patch_site",
    "Where there are positions, head 0 is taken for no head: 0 is false. All heads are patched in its place. Ask "
    "whether `head` is None.",
)
def head_zero_at_positions(model, tokens, name, source, *, positions=None, head=None):
    refuse(tokens, source, positions, head)
    which = head if positions is None else head or None
    return patched_run(model, tokens, name, source, lambda x: rectangle(x, source, positions, which))


@wrong(
    "patch_site",
    "Where a head and positions are asked for, you patch all heads there: `head` is left out of the index.",
)
def all_heads_at_positions(model, tokens, name, source, *, positions=None, head=None):
    refuse(tokens, source, positions, head)
    which = head if positions is None else None
    return patched_run(model, tokens, name, source, lambda x: rectangle(x, source, positions, which))


@wrong(
    "patch_site",
    "Where a head and positions are asked for, you patch the head at all positions: `positions` is left out of the "
    "index.",
)
def a_head_at_all_positions(model, tokens, name, source, *, positions=None, head=None):
    refuse(tokens, source, positions, head)
    at = positions if head is None else None
    return patched_run(model, tokens, name, source, lambda x: rectangle(x, source, at, head))


@wrong(
    "patch_site",
    "Positions that are 0 throughout are taken for no positions at all, and everything is patched. 0 is a "
    "position, and only None means all of them.",
)
def zeros_for_no_positions(model, tokens, name, source, *, positions=None, head=None):
    refuse(tokens, source, positions, head)
    at = positions if positions is not None and positions.any() else None
    return patched_run(model, tokens, name, source, lambda x: rectangle(x, source, at, head))


@wrong(
    "patch_site",
    "An attention pattern is [batch, head, query, key]. You read its heads as positions, or its queries as heads, "
    "where the docstring refuses: compare the first two dimensions with the prompts'.",
)
def heads_of_a_pattern(model, tokens, name, source, *, positions=None, head=None):
    refuse(tokens, source, positions, head, begins=False)
    return patched_run(model, tokens, name, source, lambda x: rectangle(x, source, positions, head))


@wrong(
    "patch_site",
    "No gradient reaches `source`: what you put in is cut off the graph, or is not what came as `source`. The caller "
    "decides about gradients.",
)
def source_detached(model, tokens, name, source, *, positions=None, head=None):
    refuse(tokens, source, positions, head)
    return patched_run(model, tokens, name, source, lambda x: rectangle(x, source.detach(), positions, head))


@wrong(
    "patch_site",
    "You run without gradients. The numbers are right, and the caller, who decides about gradients, gets none.",
)
def run_without_gradients(model, tokens, name, source, *, positions=None, head=None):
    refuse(tokens, source, positions, head)
    with torch.no_grad():
        return patched_run(model, tokens, name, source, lambda x: rectangle(x, source, positions, head))


@wrong(
    "patch_site",
    "You patch the position after the one asked for. Positions count from 0, with <bos> at 0.",
)
def one_too_far(model, tokens, name, source, *, positions=None, head=None):
    refuse(tokens, source, positions, head)
    at = None if positions is None else (positions + 1) % source.shape[1]
    return patched_run(model, tokens, name, source, lambda x: rectangle(x, source, at, head))


@wrong(
    "patch_site",
    "You patch the position before the one asked for. Positions count from 0, with <bos> at 0.",
)
def one_too_early(model, tokens, name, source, *, positions=None, head=None):
    refuse(tokens, source, positions, head)
    at = None if positions is None else (positions - 1) % source.shape[1]
    return patched_run(model, tokens, name, source, lambda x: rectangle(x, source, at, head))


@wrong(
    "patch_site",
    "All prompts are patched at the first one's position. Each prompt has one of its own.",
)
def where_the_first_prompt_is(model, tokens, name, source, *, positions=None, head=None):
    refuse(tokens, source, positions, head)
    at = None if positions is None else positions[:1].expand_as(positions)
    return patched_run(model, tokens, name, source, lambda x: rectangle(x, source, at, head))


@wrong(
    "patch_site",
    "You read `head` as a position: the third dimension of the activation counts the heads, the second one the tokens.",
)
def head_as_a_position(model, tokens, name, source, *, positions=None, head=None):
    refuse(tokens, source, positions, head)

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
    refuse(tokens, source, positions, head)

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
    refuse(tokens, source, positions, head)

    def edit(activation):
        if activation.shape != source.shape:
            raise ValueError("source has another shape")
        return rectangle(activation, source, positions, head)

    return run_with_hooks(model, tokens, [(name, edit)])


def write_from_there_on(x, source, positions, head):
    if positions is None:
        return rectangle(x, source, positions, head)
    for row, at in enumerate(positions.tolist()):
        there = (row, slice(at, None)) if head is None else (row, slice(at, None), head)
        x[there] = source[there]
    return x


@wrong(
    "patch_site",
    "You patch from the position on, to the end of the prompt: `x[i, p:]`. One position of each prompt is asked for.",
)
def from_there_on(model, tokens, name, source, *, positions=None, head=None):
    refuse(tokens, source, positions, head)
    return patched_run(model, tokens, name, source, lambda x: write_from_there_on(x, source, positions, head))


@wrong(
    "patch_site",
    "You patch everything up to the position, `x[i, : p + 1]`. One position of each prompt is asked for.",
)
def up_to_there(model, tokens, name, source, *, positions=None, head=None):
    refuse(tokens, source, positions, head)

    def write(x):
        if positions is None:
            return rectangle(x, source, positions, head)
        for row, at in enumerate(positions.tolist()):
            there = (row, slice(at + 1)) if head is None else (row, slice(at + 1), head)
            x[there] = source[there]
        return x

    return patched_run(model, tokens, name, source, write)


@right("patch_site")
def by_rectangles(model, tokens, name, source, *, positions=None, head=None):
    refuse(tokens, source, positions, head)
    return patched_run(model, tokens, name, source, lambda x: rectangle(x, source, positions, head))


@right("patch_site")
def prompt_by_prompt(model, tokens, name, source, *, positions=None, head=None):
    refuse(tokens, source, positions, head)

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


def guarded(source, over, tokens, *, slots=True):
    axis = 2 if over == "head" else 1
    if over not in ("position", "head") or over == "head" and any(x.dim() < 4 for x in source.values()):
        raise ValueError("over")
    if any(x.shape[:2] != tokens.shape for x in source.values()):
        raise ValueError("source has another shape")
    if slots and len({x.shape[axis] for x in source.values()}) != 1:
        raise ValueError("other numbers of slots")
    return axis


def sweep(
    model, tokens, source, metric, axis, max_rows, *, order=list, piled=False, interleaved=False, one_name=False,
    read=lambda metric, logits: metric(logits), n_slots=None, spoiled=False, rows_of=None, whole=False, turned=False,
):  # fmt: skip
    """Many sites in a pass, or many of one name, with switches for what can go wrong."""
    names, batch, results = order(source), len(tokens), []
    if one_name and len(names) > 1:
        rest = dict(one_name=True, interleaved=interleaved, read=read)
        return torch.cat([sweep(model, tokens, {n: source[n]}, metric, axis, max_rows, **rest) for n in names])
    sites = [(name, slot) for name in names for slot in range(n_slots or source[name].shape[axis])]
    per_pass = max(1, max_rows // batch)

    def writing(name, part):
        def write(x):
            if x.shape[1:] != source[name].shape[1:]:
                raise ValueError("source has another shape")
            x = x if spoiled else x.clone()
            for copy, (site, slot) in enumerate(part):
                if site == name:
                    first = 0 if piled else slot
                    own = slice(copy * batch, (copy + 1) * batch)
                    rows = x[rows_of(copy, len(part)) if rows_of else own].unflatten(0, (-1, batch))
                    value = source[name].narrow(axis, first, slot + 1 - first)
                    rows.narrow(axis + 1, first, slot + 1 - first).copy_(value)
            return x

        return write

    for start in range(0, len(sites), per_pass):
        part = sites[start : start + per_pass]
        hooks = [(name, writing(name, part)) for name in dict.fromkeys(name for name, _ in part)]
        rows = tokens.repeat_interleave(len(part), 0) if interleaved == "prompts" else tokens.repeat(len(part), 1)
        with torch.no_grad():
            logits = run_with_hooks(model, rows, hooks)
        parts = [logits[i :: len(part)] for i in range(len(part))] if interleaved == "metric" else logits.split(batch)
        results += metric(logits).view(len(part), batch) if whole else [read(metric, logits) for logits in parts]
    if turned:
        return torch.stack(results).unflatten(0, (-1, len(names))).transpose(0, 1)
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
    "Every copy of the prompts gets the patches of all sites that share the pass. Each copy has one patch, its own.",
)
def all_patches_in_every_copy(model, tokens, source, metric, *, over="position", max_rows=512):
    axis = guarded(source, over, tokens)
    return sweep(model, tokens, source, metric, axis, max_rows, rows_of=lambda copy, n: slice(None))


@wrong(
    "patch_sweep",
    "Each copy of the prompts also has the patches of the copies before it. Each site is patched alone.",
)
def patches_of_the_copies_before(model, tokens, source, metric, *, over="position", max_rows=512):
    axis = guarded(source, over, tokens)
    return sweep(model, tokens, source, metric, axis, max_rows, rows_of=lambda copy, n: slice(copy * len(tokens), None))


@wrong(
    "patch_sweep",
    "The prompts are repeated batch by batch, and you patch as if the copies of one prompt stood together: each site "
    "is written into rows of other copies.",
)
def patches_interleaved(model, tokens, source, metric, *, over="position", max_rows=512):
    axis = guarded(source, over, tokens)
    return sweep(model, tokens, source, metric, axis, max_rows, rows_of=lambda copy, n: slice(copy, None, n))


@wrong(
    "patch_sweep",
    "The metric is handed the logits of many copies at once. It was made for the prompts in their order, as many as "
    "they are: take the logits apart first.",
)
def metric_of_all_copies(model, tokens, source, metric, *, over="position", max_rows=512):
    return sweep(model, tokens, source, metric, guarded(source, over, tokens), max_rows, whole=True)


@wrong(
    "patch_sweep",
    "Your list of results goes name by name, slot after slot, and you fold it up as if it went slot by slot: the "
    "numbers are right and stand in other places. With one hook point nobody notices.",
)
def folded_the_other_way(model, tokens, source, metric, *, over="position", max_rows=512):
    return sweep(model, tokens, source, metric, guarded(source, over, tokens), max_rows, turned=True)


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
    return sweep(model, tokens, source, metric, guarded(source, over, tokens), max_rows, interleaved="prompts")


@wrong(
    "patch_sweep",
    "In the pass of a hook point, copies and prompts are mixed up: prompt 0 comes once for every slot before prompt 1 "
    "does, but the patches and the metric count the other way. `repeat` and `repeat_interleave` are not the same.",
)
def interleaved_by_name(model, tokens, source, metric, *, over="position", max_rows=512):
    axis = guarded(source, over, tokens)
    return sweep(model, tokens, source, metric, axis, max_rows, interleaved="prompts", one_name=True)


@wrong(
    "patch_sweep",
    "The metric is handed rows of many sites as if they were the prompts of one: you take the logits apart as if the "
    "copies of one prompt stood together, and they stand a whole batch apart.",
)
def taken_apart_wrongly(model, tokens, source, metric, *, over="position", max_rows=512):
    return sweep(model, tokens, source, metric, guarded(source, over, tokens), max_rows, interleaved="metric")


@wrong(
    "patch_sweep",
    "In the pass of a hook point, the metric is handed rows of many slots as if they were the prompts of one: you take "
    "the logits apart as if the copies of one prompt stood together, and they stand a whole batch apart.",
)
def taken_apart_wrongly_by_name(model, tokens, source, metric, *, over="position", max_rows=512):
    axis = guarded(source, over, tokens)
    return sweep(model, tokens, source, metric, axis, max_rows, interleaved="metric", one_name=True)


@wrong(
    "patch_sweep",
    "You write into the activation that the hook is given. A bare hook point hands on the very tensor that went in, so "
    "whatever else reads it is patched as well. Write into a copy.",
)
def writes_into_the_stream(model, tokens, source, metric, *, over="position", max_rows=512):
    return sweep(model, tokens, source, metric, guarded(source, over, tokens), max_rows, spoiled=True)


@wrong(
    "patch_sweep",
    "`max_rows // batch` is 0 where there are more prompts than `max_rows`, and nothing can be cut into pieces of 0. A "
    "pass has room for one site at least: it never has fewer rows than the prompts.",
)
def no_room_for_a_site(model, tokens, source, metric, *, over="position", max_rows=512):
    axis = guarded(source, over, tokens)
    range(0, 1, max_rows // len(tokens))
    return sweep(model, tokens, source, metric, axis, max_rows)


@wrong(
    "patch_sweep",
    "`max_rows` is taken for a number of sites: a pass then has that many times the prompts as rows.",
)
def rows_for_sites(model, tokens, source, metric, *, over="position", max_rows=512):
    return sweep(model, tokens, source, metric, guarded(source, over, tokens), max_rows * len(tokens))


@wrong(
    "patch_sweep",
    "Your sweep runs with gradients on, and its result holds on to every patched run: on a larger model the memory is "
    "gone after a few of them.",
)
def with_a_graph(model, tokens, source, metric, *, over="position", max_rows=512):
    axis = guarded(source, over, tokens)
    tied = metric(model(tokens))
    return sweep(model, tokens, source, metric, axis, max_rows) + 0 * tied


@wrong(
    "patch_sweep",
    "The first hook point's number of slots is taken for that of all. Where another has more heads than it, as queries "
    "have where heads share keys, the rest of them is silently left out.",
)
def slots_of_the_first(model, tokens, source, metric, *, over="position", max_rows=512):
    axis = guarded(source, over, tokens, slots=False)
    if not source:
        raise ValueError("no source")
    n_slots = next(iter(source.values())).shape[axis]
    if any(x.shape[axis] < n_slots for x in source.values()):
        raise ValueError("other numbers of slots")
    return sweep(model, tokens, source, metric, axis, max_rows, n_slots=n_slots)


@wrong(
    "patch_sweep",
    "Your rows are sorted by name. The caller's order is the order of the layers, and names sort otherwise.",
)
def sorted_names(model, tokens, source, metric, *, over="position", max_rows=512):
    return sweep(model, tokens, source, metric, guarded(source, over, tokens), max_rows, order=sorted)


@wrong("patch_sweep", "`over` takes any word: a misspelt 'heads' gives a map of positions, and nobody is told.")
def any_word(model, tokens, source, metric, *, over="position", max_rows=512):
    over = over if over == "head" else "position"
    return sweep(model, tokens, source, metric, guarded(source, over, tokens), max_rows)


@wrong(
    "patch_sweep",
    "Heads are asked of activations that have none, and you patch single entries of the stream's vectors: the third "
    "dimension is the width there.",
)
def entries_for_heads(model, tokens, source, metric, *, over="position", max_rows=512):
    flat = over == "head" and all(x.dim() < 4 for x in source.values())
    axis = 2 if flat and guarded(source, "position", tokens) else guarded(source, over, tokens)
    return sweep(model, tokens, source, metric, axis, max_rows)


@wrong(
    "patch_sweep",
    "A source of one row goes through: broadcasting stretches it over all prompts. Compare the shapes.",
)
def one_row_for_all(model, tokens, source, metric, *, over="position", max_rows=512):
    wide = {name: x.expand(len(tokens), *x.shape[1:]) if len(x) == 1 else x for name, x in source.items()}
    return sweep(model, tokens, wide, metric, guarded(wide, over, tokens), max_rows)


@wrong(
    "patch_sweep",
    "A source with fewer positions than the prompts goes through, and your map ends early. Compare the shapes.",
)
def ends_early(model, tokens, source, metric, *, over="position", max_rows=512):
    n_pos = min(len(x[0]) for x in source.values()) if source else 0
    if any(x.shape[1] > tokens.shape[1] for x in source.values()):
        raise ValueError("source is too long")
    axis = guarded(source, over, tokens[:, :n_pos] if over == "position" else tokens)

    def padded(x):
        rest = x[:, -1:].expand(-1, tokens.shape[1] - n_pos, *x.shape[2:])
        return torch.cat([x, rest], 1) if axis == 1 else x

    full = {name: padded(x) for name, x in source.items()}
    return sweep(model, tokens, full, metric, axis, max_rows, n_slots=n_pos if axis == 1 else None)


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


def fitting(base, other):
    rows, columns = min(len(base), len(other)), min(base.shape[1], other.shape[1])
    return base[:rows, :columns], other[:rows, :columns]


def stretched(model, base, other, names):
    return both(model, *fitting(base, other), names)


def compared(model, base, other, names, look):
    """As far as ``look`` goes; and where it does not, whatever the hooks say."""
    if look(base) != look(other):
        raise ValueError("shapes differ")
    return unlooked_at(model, base, other, names)


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


@wrong("denoise", "You compare how many rows the inputs have, and not how many columns.")
def rows_alone(model, clean, corrupted, names):
    return compared(model, corrupted, clean, names, len)


@wrong("denoise", "You compare how many columns the inputs have, and not how many rows.")
def columns_alone(model, clean, corrupted, names):
    return compared(model, corrupted, clean, names, lambda x: x.shape[1:])


@wrong("denoise", "You compare how many entries the inputs have: three rows of five pass for five rows of three.")
def entries_alone(model, clean, corrupted, names):
    return compared(model, corrupted, clean, names, torch.numel)


@wrong("denoise", "Inputs of different shapes go through: you cut them to fit, and compare runs on different things.")
def cut_to_fit(model, clean, corrupted, names):
    return stretched(model, corrupted, clean, names)


@wrong(
    "denoise",
    "Without names you do not compare the inputs. There is nothing to restore then, but they are still meant to be "
    "a pair.",
)
def compared_with_names_only(model, clean, corrupted, names):
    if names:
        same_shape(clean, corrupted)
    return unlooked_at(model, corrupted, clean, names)


@wrong(
    "denoise",
    "You leave it to the hooks to notice that the inputs differ in shape. Without names there are none, and an "
    "activation may have one shape for both. Compare the inputs themselves.",
)
def left_to_the_hooks(model, clean, corrupted, names):
    return unlooked_at(model, corrupted, clean, names)


@wrong(
    "denoise",
    "Only the last of the parts is restored in the run that you return: each part has a run of its own, and the next "
    "one takes its place. All of them go into one run.",
)
def last_one_restored(model, clean, corrupted, names):
    both(model, corrupted, clean, names)
    return both(model, corrupted, clean, names[-1:])


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
    with torch.no_grad():
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


@wrong("noise", "You compare how many rows the inputs have, and not how many columns.")
def as_many_rows(model, clean, corrupted, names):
    return compared(model, clean, corrupted, names, len)


@wrong("noise", "You compare how many columns the inputs have, and not how many rows.")
def as_many_columns(model, clean, corrupted, names):
    return compared(model, clean, corrupted, names, lambda x: x.shape[1:])


@wrong("noise", "You compare how many entries the inputs have: three rows of five pass for five rows of three.")
def as_many_entries(model, clean, corrupted, names):
    return compared(model, clean, corrupted, names, torch.numel)


@wrong(
    "noise",
    "You add the corrupted activation to the clean one, so the part says both things. It has to take its place.",
)
def corrupted_on_top(model, clean, corrupted, names):
    same_shape(clean, corrupted)
    with torch.no_grad():
        _, cache = run_with_cache(model, corrupted, names)
        return run_with_hooks(model, clean, [(n, lambda x, n=n: x + cache[n]) for n in names])


@wrong(
    "noise",
    "All your hooks put in the last name's activation. A function made in a loop looks `name` up when it is called.",
)
def last_names_activation_everywhere(model, clean, corrupted, names):
    same_shape(clean, corrupted)
    with torch.no_grad():
        _, cache = run_with_cache(model, corrupted, names)
        return run_with_hooks(model, clean, [(name, lambda _: cache[names[-1]]) for name in names])


@wrong("noise", "Inputs of different shapes go through: you cut them to fit, and compare runs on different things.")
def made_to_fit(model, clean, corrupted, names):
    return stretched(model, clean, corrupted, names)


@wrong(
    "noise",
    "Without names you do not compare the inputs. There is nothing to corrupt then, but they are still meant to be "
    "a pair.",
)
def compared_if_there_are_names(model, clean, corrupted, names):
    if names:
        same_shape(clean, corrupted)
    return unlooked_at(model, clean, corrupted, names)


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


def ablated(model, tokens, name, value, head, *, negative=False, flat="refused", copy=True):
    """Run with ``value(activation)`` in place of an activation, or of one head of it, with switches.

    ``flat``: what becomes of a head that is asked for where there are none: "refused", "overlooked" or an "entry".
    """

    def edit(x):
        if head is not None and x.dim() != 4 and flat == "refused":
            raise ValueError("no heads")
        if head is not None and x.dim() == 4 and not (-x.shape[2] if negative else 0) <= head < x.shape[2]:
            raise ValueError("no such head")
        if head is None or x.dim() != 4 and flat == "overlooked":
            return value(x)
        x = x.clone() if copy else x
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
    "You read `head` as a position: with `x[:, head]` all heads are silenced at one token. The heads are the third "
    "dimension.",
)
def silences_a_position(model, tokens, name, *, head=None):
    def edit(x):
        if head is None:
            return torch.zeros_like(x)
        if x.dim() != 4 or not 0 <= head < x.shape[2]:
            raise ValueError("no such head")
        x = x.clone()
        x[:, head] = 0
        return x

    with torch.no_grad():
        return run_with_hooks(model, tokens, [(name, edit)])


@wrong(
    "zero_ablate",
    "You turn the part's sign around. It then says the opposite, which does more harm than saying nothing.",
)
def negated(model, tokens, name, *, head=None):
    return ablated(model, tokens, name, lambda x: -x, head)


@wrong("zero_ablate", "Head -1 is accepted, and counts from the end: you report on another head than was asked for.")
def silences_from_the_end(model, tokens, name, *, head=None):
    return ablated(model, tokens, name, torch.zeros_like, head, negative=True)


@wrong(
    "zero_ablate",
    "A head is asked for of an activation that has none, and you overlook it: the whole activation is silenced.",
)
def silences_all_without_heads(model, tokens, name, *, head=None):
    return ablated(model, tokens, name, torch.zeros_like, head, flat="overlooked")


@wrong(
    "zero_ablate",
    "A head is asked for of an activation that has none, and you silence one entry of its vectors: the third dimension "
    "is the width there.",
)
def silences_an_entry(model, tokens, name, *, head=None):
    return ablated(model, tokens, name, torch.zeros_like, head, flat="entry")


@wrong(
    "zero_ablate",
    "Head 0 is taken for no head: 0 is false, and `if head` passes it over. All heads are silenced in its place. Ask "
    "whether `head` is None.",
)
def head_zero_is_none(model, tokens, name, *, head=None):
    ablated(model, tokens, name, torch.zeros_like, head)
    return ablated(model, tokens, name, torch.zeros_like, head or None)


@wrong(
    "zero_ablate",
    "Head 0 is taken for no head throughout: 0 is false. All heads are replaced in its place, and nobody is told where "
    "there are none. Ask whether `head` is None.",
)
def head_zero_never_asked_for(model, tokens, name, *, head=None):
    return ablated(model, tokens, name, torch.zeros_like, head or None)


@wrong(
    "zero_ablate",
    "You write into the activation that the hook is given. A bare hook point hands on the very tensor that went in, so "
    "whatever else reads it is ablated as well. Write into a copy.",
)
def zeros_written_in_place(model, tokens, name, *, head=None):
    return ablated(model, tokens, name, torch.zeros_like, head, copy=False)


@wrong(
    "zero_ablate",
    "You multiply by zero. Masked attention scores are minus infinity, and zero times infinity is NaN, which then goes "
    "through the whole model. Put zeros in the activation's place.",
)
def times_zero(model, tokens, name, *, head=None):
    return ablated(model, tokens, name, lambda x: 0 * x, head)


@wrong(
    "zero_ablate",
    "Your hook stays on the model. The next run, of anyone, is ablated as well, and so is what you compare with.",
)
def hook_left_there(model, tokens, name, *, head=None):
    ablated(model, tokens, name, torch.zeros_like, head)

    def edit(module, inputs, x):
        x = x.clone()
        x[:, :, slice(None) if head is None else head] = 0
        return x

    model.get_submodule(name).register_forward_hook(edit)
    return model(tokens)


@right("zero_ablate")
def as_a_patch(model, tokens, name, *, head=None):
    with torch.no_grad():
        shape = run_with_cache(model, tokens, [name])[1][name].shape
    return patch_site(model, tokens, name, torch.zeros(shape), head=head)


@right("zero_ablate")
def filled_with_zeros(model, tokens, name, *, head=None):
    return ablated(model, tokens, name, lambda x: x.masked_fill(torch.ones_like(x) > 0, 0.0), head)


def mean_run(model, tokens, name, others, head, mean=lambda y, x: y.mean(0), **switches):
    if others.shape[1] != tokens.shape[1]:
        raise ValueError("lengths differ")
    with torch.no_grad():
        _, cache = run_with_cache(model, others, [name])
    return ablated(model, tokens, name, lambda x: mean(cache[name], x).expand_as(x), head, **switches)


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


@wrong(
    "mean_ablate",
    "Head 0 is taken for no head throughout: 0 is false. All heads are replaced in its place, and nobody is told where "
    "there are none. Ask whether `head` is None.",
)
def mean_of_all_for_head_zero(model, tokens, name, others, *, head=None):
    return mean_run(model, tokens, name, others, head or None, lambda y, x: y.mean(0))


@wrong("mean_ablate", "Head -1 is accepted, and counts from the end: you report on another head than was asked for.")
def levels_from_the_end(model, tokens, name, others, *, head=None):
    return mean_run(model, tokens, name, others, head, negative=True)


@wrong(
    "mean_ablate",
    "A head is asked for of an activation that has none, and you overlook it: the whole activation is replaced.",
)
def levels_all_without_heads(model, tokens, name, others, *, head=None):
    return mean_run(model, tokens, name, others, head, flat="overlooked")


@wrong(
    "mean_ablate",
    "A head is asked for of an activation that has none, and you replace one entry of its vectors: the third dimension "
    "is the width there.",
)
def levels_an_entry(model, tokens, name, others, *, head=None):
    return mean_run(model, tokens, name, others, head, flat="entry")


@wrong(
    "mean_ablate",
    "Your mean counts the prompts under test among the others: a part of what they say themselves stays in it.",
)
def mean_of_both(model, tokens, name, others, *, head=None):
    return mean_run(model, tokens, name, others, head, lambda y, x: torch.cat([y, x]).mean(0))


@wrong(
    "mean_ablate",
    "You average over the heads as well: each gets what all of them say together.",
)
def over_heads(model, tokens, name, others, *, head=None):
    return mean_run(
        model, tokens, name, others, head, lambda y, x: y.mean((0, 2), keepdim=True) if y.dim() == 4 else y.mean(0)
    )


@wrong(
    "mean_ablate",
    "You replace the part at the last position only, but earlier positions pass its output on.",
)
def mean_at_the_last_position(model, tokens, name, others, *, head=None):
    def value(y, x):
        x = x.clone()
        x[:, -1] = y.mean(0)[-1]
        return x

    return mean_run(model, tokens, name, others, head, value)


@wrong(
    "mean_ablate",
    "You write into the activation that the hook is given. A bare hook point hands on the very tensor that went in, so "
    "whatever else reads it is ablated as well. Write into a copy.",
)
def mean_written_in_place(model, tokens, name, others, *, head=None):
    return mean_run(model, tokens, name, others, head, copy=False)


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


def resampled(model, tokens, name, others, head, pick, **switches):
    if others.shape[1] != tokens.shape[1]:
        raise ValueError("lengths differ")
    with torch.no_grad():
        _, cache = run_with_cache(model, others, [name])
    return ablated(model, tokens, name, lambda x: pick(cache[name], x), head, **switches)


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


@wrong(
    "resample_ablate",
    "You draw without replacement: nobody is drawn twice before all have been. Draws are then not independent, and "
    "neighbouring prompts never share one. The docstring has replacement.",
)
def without_replacement(model, tokens, name, others, generator, *, head=None):
    rounds = -(-len(tokens) // len(others))
    drawn = torch.cat([torch.randperm(len(others), generator=generator) for _ in range(rounds)])[: len(tokens)]
    return resampled(model, tokens, name, others, head, lambda y, x: y[drawn])


@wrong(
    "resample_ablate",
    "You draw without replacement, from the other prompts in random order. Nobody is drawn twice, and where there are "
    "more prompts to run than others, there are too few for them. The docstring has replacement.",
)
def shuffled_and_cut(model, tokens, name, others, generator, *, head=None):
    if others.shape[1] != tokens.shape[1]:
        raise ValueError("lengths differ")
    drawn = torch.randperm(len(others), generator=generator)[: len(tokens)]
    with torch.no_grad():
        source = run_with_cache(model, others, [name])[1][name][drawn]
    return patch_site(model, tokens, name, source, head=head)


@wrong(
    "resample_ablate",
    "Prompts of another length are accepted: their activations are cut, or their last position is repeated, and what "
    "stood at the verb is put in at the name.",
)
def draws_of_any_length(model, tokens, name, others, generator, *, head=None):
    at = torch.arange(tokens.shape[1]).clamp(max=others.shape[1] - 1)
    drawn = rows(len(others), len(tokens), generator)
    with torch.no_grad():
        source = run_with_cache(model, others, [name])[1][name][:, at][drawn]
    return ablated(model, tokens, name, lambda x: source, head)


@wrong(
    "resample_ablate",
    "Head 0 is taken for no head: 0 is false, and `if head` passes it over. All heads are replaced in its place. Ask "
    "whether `head` is None.",
)
def draws_all_for_head_zero(model, tokens, name, others, generator, *, head=None):
    drawn = rows(len(others), len(tokens), generator)
    resampled(model, tokens, name, others, head, lambda y, x: y[drawn])
    return resampled(model, tokens, name, others, head or None, lambda y, x: y[drawn])


@wrong(
    "resample_ablate", "Head -1 is accepted, and counts from the end: you report on another head than was asked for."
)
def draws_from_the_end(model, tokens, name, others, generator, *, head=None):
    drawn = rows(len(others), len(tokens), generator)
    return resampled(model, tokens, name, others, head, lambda y, x: y[drawn], negative=True)


@wrong(
    "resample_ablate",
    "A head is asked for of an activation that has none, and you overlook it: the whole activation is replaced.",
)
def draws_all_without_heads(model, tokens, name, others, generator, *, head=None):
    drawn = rows(len(others), len(tokens), generator)
    return resampled(model, tokens, name, others, head, lambda y, x: y[drawn], flat="overlooked")


@wrong(
    "resample_ablate",
    "A head is asked for of an activation that has none, and you replace one entry of its vectors: the third dimension "
    "is the width there.",
)
def draws_an_entry(model, tokens, name, others, generator, *, head=None):
    drawn = rows(len(others), len(tokens), generator)
    return resampled(model, tokens, name, others, head, lambda y, x: y[drawn], flat="entry")


@wrong(
    "resample_ablate",
    "You write into the activation that the hook is given. A bare hook point hands on the very tensor that went in, so "
    "whatever else reads it is ablated as well. Write into a copy.",
)
def draw_written_in_place(model, tokens, name, others, generator, *, head=None):
    drawn = rows(len(others), len(tokens), generator)
    return resampled(model, tokens, name, others, head, lambda y, x: y[drawn], copy=False)


@wrong(
    "resample_ablate",
    "The last of the other prompts is never drawn: `randint` leaves its upper end out by itself.",
)
def never_the_last(model, tokens, name, others, generator, *, head=None):
    drawn = rows(max(1, len(others) - 1), len(tokens), generator)
    return resampled(model, tokens, name, others, head, lambda y, x: y[drawn])


@wrong(
    "resample_ablate",
    "Every head has a draw of its own, also where the whole activation is asked for. The heads then say what belongs "
    "to different prompts; all of a prompt's activation is to come from one draw.",
)
def a_draw_for_each_head(model, tokens, name, others, generator, *, head=None):
    drawn = [rows(len(others), len(tokens), generator) for _ in range(9)]

    def pick(y, x):
        return y[drawn[0]] if y.dim() < 4 else torch.stack([y[drawn[h], :, h] for h in range(y.shape[2])], 2)

    return resampled(model, tokens, name, others, head, pick)


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
    cut=False, inference=True, grad=True, nudge=True, minus=True,
):  # fmt: skip
    """Difference times slope, with switches."""
    same_shape(clean, corrupted)
    with torch.no_grad():
        _, target = run_with_cache(model, clean, names)
        _, start = run_with_cache(model, corrupted, names)
    leaves = {}

    def nudging(name):
        def nudged(x):
            if not nudge:
                leaves[name] = x
                return x
            leaves[name] = (x.detach().clone() if cut else torch.zeros_like(x)).requires_grad_()
            return leaves[name] if cut else x + leaves[name]

        return nudged

    with contextlib.ExitStack() as stack:
        if inference:
            stack.enter_context(torch.inference_mode(False))
        if grad:
            stack.enter_context(torch.enable_grad())
        logits = run_with_hooks(model, corrupted if at == "corrupted" else clean, [(n, nudging(n)) for n in names])
        value = getattr(metric(logits), total)()
        if leave:
            value.backward()
            slopes = [leaves[name].grad for name in names]
        else:
            slopes = torch.autograd.grad(value, [leaves[name] for name in names], materialize_grads=cut)
    step = {n: target[n] - minus * start[n] for n in names}
    products = {n: sign * step[n] * slope for n, slope in zip(names, slopes, strict=True)}
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

    with torch.inference_mode(False), torch.enable_grad():
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
    "Your gradients flow because the caller has them on and the parameters want them. On a frozen model there is no "
    "graph, nor where gradients are switched off, and your function fails in both.",
)
def relies_on_both(model, clean, corrupted, names, metric):
    found = estimate(model, clean, corrupted, names, metric, inference=False, grad=False, nudge=False)
    return {name: x.detach() for name, x in found.items()}


@wrong(
    "attribution_patching",
    "Your gradients flow because the parameters want them. On a frozen model nothing does, and there is no graph to "
    "ask. What is to be differentiated by can be told to want a gradient itself.",
)
def relies_on_the_parameters(model, clean, corrupted, names, metric):
    found = estimate(model, clean, corrupted, names, metric, nudge=False)
    return {name: x.detach() for name, x in found.items()}


@wrong(
    "attribution_patching",
    "You leave it to the caller that gradients are on. The docstring promises to work where they are switched off.",
)
def relies_on_the_caller(model, clean, corrupted, names, metric):
    return estimate(model, clean, corrupted, names, metric, inference=False, grad=False)


@wrong(
    "attribution_patching",
    "You switch gradients on, and inference mode stays in force: in it no graph is made whatever `enable_grad` "
    "says. The docstring says what puts it out of force.",
)
def stays_in_inference_mode(model, clean, corrupted, names, metric):
    return estimate(model, clean, corrupted, names, metric, inference=False)


@wrong(
    "attribution_patching",
    "You multiply the slope by the clean activation. What the patch changes is the difference between the clean "
    "and the corrupted one, and a site where the two agree has no effect.",
)
def times_the_clean_activation(model, clean, corrupted, names, metric):
    return estimate(model, clean, corrupted, names, metric, minus=False)


@wrong(
    "attribution_patching",
    "You multiply the slope by the corrupted activation. What the patch changes is the difference between the "
    "clean and the corrupted one, and a site where the two agree has no effect.",
)
def times_the_corrupted_activation(model, clean, corrupted, names, metric):
    whole = estimate(model, clean, corrupted, names, metric, minus=False)
    return {name: whole[name] - x for name, x in estimate(model, clean, corrupted, names, metric).items()}


@wrong(
    "attribution_patching",
    "You add up over the prompts as well. Each prompt's own estimate is asked for: without the spread there is no "
    "interval.",
)
def over_prompts(model, clean, corrupted, names, metric):
    return {name: x.sum(0) for name, x in estimate(model, clean, corrupted, names, metric).items()}


@wrong(
    "attribution_patching",
    "Prompts of different shapes go through where broadcasting lets them: one clean prompt is taken for the pair "
    "of all corrupted ones.",
)
def any_pair(model, clean, corrupted, names, metric):
    n = min(clean.shape[1], corrupted.shape[1])
    wide = clean[:, :n].expand(len(corrupted), -1) if len(clean) == 1 else clean[:, :n]
    corrupted = corrupted[:, :n].expand(len(wide), -1) if len(corrupted) == 1 else corrupted[:, :n]
    return estimate(model, wide, corrupted, names, metric)


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

    with torch.inference_mode(False), torch.enable_grad():
        logits = run_with_hooks(model, corrupted, [(name, watch(name)) for name in names])
        slopes = torch.autograd.grad(metric(logits).sum(), [kept[name] for name in names])
    with torch.no_grad():
        _, target = run_with_cache(model, clean, names)
        return {n: torch.einsum("...d,...d->...", target[n] - kept[n], g) for n, g in zip(names, slopes, strict=True)}


@right("attribution_patching")
def by_a_dot_product(model, clean, corrupted, names, metric):
    products = estimate(model, clean, corrupted, names, metric, reduce=None)
    return {name: torch.einsum("...d->...", x) for name, x in products.items()}
