"""Wrong answers for the collection of activations, each with its sentence, and right ones."""

import torch

from utils.course.catalogue import right, wrong
from utils.patching.hooks import run_with_cache


def fits(tokens, chosen, batch_size):
    if batch_size < 1 or chosen.shape != tokens.shape:
        raise ValueError("no such batch size, or another shape")


def collected(model, tokens, sites, chosen, batch_size, pick, *, last=True, graph=False):
    fits(tokens, chosen, batch_size)
    parts = {site: [] for site in sites}
    for start in range(0, len(tokens), batch_size):
        rows = tokens[start : start + batch_size]
        if not last and len(rows) < batch_size:
            break
        with torch.set_grad_enabled(graph):
            _, cache = run_with_cache(model, rows, sites)
        for site in sites:
            parts[site].append(pick(cache[site], chosen, start, len(rows)))
    empty = {site: torch.zeros(0) for site in sites}
    return {site: torch.cat(parts[site]) if parts[site] else empty[site] for site in sites}


def picked(x, chosen, start, n):
    return x[chosen[start : start + n]]


@wrong(
    "collect_activations",
    "You run all texts at once, whatever `batch_size` says: the activations of all tokens lie in memory at the same "
    "time.",
)
def all_at_once(model, tokens, sites, chosen, *, batch_size=32):
    fits(tokens, chosen, batch_size)
    return collected(model, tokens, sites, chosen, len(tokens), picked)


@wrong(
    "collect_activations",
    "What you return still hangs on the graph of the run, and the graph holds every activation on the way: nothing is "
    "let go. Run the model without gradients.",
)
def with_graph(model, tokens, sites, chosen, *, batch_size=32):
    return collected(model, tokens, sites, chosen, batch_size, picked, graph=True)


@wrong(
    "collect_activations",
    "The last texts are missing: where their number does not divide by `batch_size`, you leave the smaller last batch "
    "out.",
)
def without_the_last(model, tokens, sites, chosen, *, batch_size=32):
    return collected(model, tokens, sites, chosen, batch_size, picked, last=False)


@wrong(
    "collect_activations",
    "Your rows go position by position through all texts of a batch. Labels are taken as `tokens[chosen]` is, text by "
    "text: activations and labels would be paired wrongly.",
)
def position_by_position(model, tokens, sites, chosen, *, batch_size=32):
    def pick(x, chosen, start, n):
        return x.transpose(0, 1)[chosen[start : start + n].T]

    return collected(model, tokens, sites, chosen, batch_size, pick)


@wrong(
    "collect_activations",
    "In every batch you take the tokens that are chosen in the first one. The choice has to move on with the texts.",
)
def choice_of_the_first(model, tokens, sites, chosen, *, batch_size=32):
    return collected(model, tokens, sites, chosen, batch_size, lambda x, chosen, start, n: x[chosen[:n]])


@wrong(
    "collect_activations",
    "You return the activations of all tokens. Only the chosen ones are to be kept.",
)
def all_tokens(model, tokens, sites, chosen, *, batch_size=32):
    return collected(model, tokens, sites, chosen, batch_size, lambda x, chosen, start, n: x.flatten(0, 1).clone())


@wrong(
    "collect_activations",
    "Your sites come in the order in which the model runs them, or sorted, and not in the order asked for.",
)
def sorted_sites(model, tokens, sites, chosen, *, batch_size=32):
    return collected(model, tokens, sorted(sites), chosen, batch_size, picked)


@wrong(
    "collect_activations",
    "You set the activations of the other tokens to 0 and keep their rows. A row of zeros is an activation like any "
    "other to a probe.",
)
def zeros_for_others(model, tokens, sites, chosen, *, batch_size=32):
    def pick(x, chosen, start, n):
        return (x * chosen[start : start + n, :, None]).flatten(0, 1)

    return collected(model, tokens, sites, chosen, batch_size, pick)


@wrong(
    "collect_activations",
    "You take the graph off at the end: until then the graph of every batch holds its activations. Run the model "
    "without gradients.",
)
def detached_at_the_end(model, tokens, sites, chosen, *, batch_size=32):
    found = collected(model, tokens, sites, chosen, batch_size, picked, graph=True)
    return {site: rows.detach() for site, rows in found.items()}


@wrong(
    "collect_activations",
    "Your hooks stay on the model, and every later run goes through them. Take them off, also where a run has failed.",
)
def hooks_left(model, tokens, sites, chosen, *, batch_size=32):
    fits(tokens, chosen, batch_size)
    modules, last, found = dict(model.named_modules()), {}, {site: [] for site in sites}
    for site in sites:
        modules[site].register_forward_hook(lambda m, i, output, site=site: last.update({site: output.detach()}))
    for start in range(0, len(tokens), batch_size):
        with torch.no_grad():
            model(tokens[start : start + batch_size])
        for site in sites:
            found[site].append(last[site][chosen[start : start + batch_size]])
    return {site: torch.cat(rows) for site, rows in found.items()}


@wrong("collect_activations", "Where no `batch_size` is given you run another number of texts at once than 32.")
def another_default(model, tokens, sites, chosen, *, batch_size=8):
    return collected(model, tokens, sites, chosen, batch_size, picked)


@right("collect_activations")
def slices(model, tokens, sites, chosen, *, batch_size=32):
    return collected(model, tokens, sites, chosen, batch_size, picked)


@right("collect_activations")
def own_hooks(model, tokens, sites, chosen, *, batch_size=32):
    fits(tokens, chosen, batch_size)
    modules, kept, wanted = dict(model.named_modules()), {site: [] for site in sites}, {}

    def listener(site):
        return lambda module, inputs, output: kept[site].extend(
            output.detach()[i, j].clone() for i, j in wanted["at"].nonzero().tolist()
        )

    handles = [modules[site].register_forward_hook(listener(site)) for site in sites]
    sizes = {}
    for site in sites:
        handles.append(
            modules[site].register_forward_hook(lambda m, i, o, s=site: sizes.update({s: (o.shape[-1], o.dtype)}))
        )
    try:
        for start in range(0, len(tokens), batch_size):
            wanted["at"] = chosen[start : start + batch_size]
            with torch.inference_mode(False), torch.no_grad():
                model(tokens[start : start + batch_size])
    finally:
        for handle in handles:
            handle.remove()
    return {
        site: torch.stack(rows) if rows else torch.zeros(0, sizes[site][0], dtype=sizes[site][1])
        for site, rows in kept.items()
    }
