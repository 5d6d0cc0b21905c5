"""Wrong and right answers to edge scores."""

import torch

from utils.circuits.messages import (
    receiver_gradients,
    receiver_names,
    run_with_edges,
    sender_names,
    sender_outputs,
    separate_inputs,
)
from utils.course.catalogue import right, wrong


def refuse(clean, corrupt):
    if clean.shape != corrupt.shape:
        raise ValueError("shapes")


def patched(model, clean, corrupt, edges, metric, max_rows=128, kept_of=lambda n: ~torch.eye(n, dtype=torch.bool)):
    refuse(clean, corrupt)
    replaced, results = sender_outputs(model, corrupt), []
    with torch.no_grad():
        for part in kept_of(len(edges)).split(max(1, max_rows // len(clean))):
            results += [metric(x) for x in run_with_edges(model, clean, edges, part, replaced)]
        return torch.stack(results), metric(model(clean))


@wrong("edge_patching", "Your effects have the other sign: the metric of the clean run less the one with the edge cut.")
def other_sign(model, clean, corrupt, edges, metric, *, max_rows=128):
    cut, whole = patched(model, clean, corrupt, edges, metric, max_rows)
    return whole - cut


@wrong("edge_patching", "You return the metric with the edge cut, and don't subtract that of the clean run.")
def nothing_subtracted(model, clean, corrupt, edges, metric, *, max_rows=128):
    return patched(model, clean, corrupt, edges, metric, max_rows)[0]


@wrong(
    "edge_patching",
    "You keep one edge and cut all others of the list. The exact effect of an edge is had by cutting it alone.",
)
def only_one_kept(model, clean, corrupt, edges, metric, *, max_rows=128):
    cut, whole = patched(
        model, clean, corrupt, edges, metric, max_rows, kept_of=lambda n: torch.eye(n, dtype=torch.bool)
    )
    return cut - whole


@wrong(
    "edge_patching",
    "You patch in the other direction: one clean message into the corrupt run. That asks what an edge brings back, not "
    "what is lost without it.",
)
def denoised(model, clean, corrupt, edges, metric, *, max_rows=128):
    cut, whole = patched(model, corrupt, clean, edges, metric, max_rows)
    return cut - whole


@wrong("edge_patching", "You cut the edges one after the other and leave them cut: each is to be cut alone.")
def one_after_the_other(model, clean, corrupt, edges, metric, *, max_rows=128):
    cut, whole = patched(
        model, clean, corrupt, edges, metric, max_rows,
        kept_of=lambda n: torch.ones(n, n, dtype=torch.bool).triu(1),
    )  # fmt: skip
    return cut - whole


@wrong("edge_patching", "You put in zeros where the corrupt run's message should arrive.")
def zeros(model, clean, corrupt, edges, metric, *, max_rows=128):
    refuse(clean, corrupt)
    replaced, results = torch.zeros_like(sender_outputs(model, corrupt)), []
    kept = ~torch.eye(len(edges), dtype=torch.bool)
    with torch.no_grad():
        whole = metric(model(clean))
        for part in kept.split(max(1, max_rows // len(clean))):
            results += [metric(x) - whole for x in run_with_edges(model, clean, edges, part, replaced)]
    return torch.stack(results)


@wrong("edge_patching", "All edges share one forward pass, whatever `max_rows` allows: on a larger model it won't fit.")
def all_in_one_pass(model, clean, corrupt, edges, metric, *, max_rows=128):
    cut, whole = patched(model, clean, corrupt, edges, metric, max_rows=10**9)
    return cut - whole


@wrong("edge_patching", "You average over the prompts. Each prompt's effect is asked for.")
def averaged(model, clean, corrupt, edges, metric, *, max_rows=128):
    cut, whole = patched(model, clean, corrupt, edges, metric, max_rows)
    return (cut - whole).mean(1)


@wrong(
    "edge_patching",
    "You give the metric all copies of the prompts at once, one behind the other. It is made for the prompts, each "
    "perhaps with a place and an answer of its own: call it copy by copy.",
)
def all_copies_to_the_metric(model, clean, corrupt, edges, metric, *, max_rows=128):
    refuse(clean, corrupt)
    replaced, results = sender_outputs(model, corrupt), []
    with torch.no_grad():
        for part in (~torch.eye(len(edges), dtype=torch.bool)).split(max(1, max_rows // len(clean))):
            logits = run_with_edges(model, clean, edges, part, replaced)
            results.append(metric(logits.flatten(0, 1)).unflatten(0, (len(part), len(clean))))
        return torch.cat(results) - metric(model(clean))


@right("edge_patching")
def one_pass_for_each_edge(model, clean, corrupt, edges, metric, *, max_rows=128):
    refuse(clean, corrupt)
    replaced = sender_outputs(model, corrupt)
    found = torch.zeros(len(edges), len(clean))
    with torch.no_grad():
        for i, edge in enumerate(edges):
            logits = run_with_edges(model, clean, [edge], torch.zeros(1, 1, dtype=torch.bool), replaced)
            found[i] = metric(logits[0]) - metric(model(clean))
    return found


@right("edge_patching")
def with_the_librarys_hooks(model, clean, corrupt, edges, metric, *, max_rows=128):
    """Add the difference of the sender's outputs to the receiver's input: with one edge cut, that is all there is."""
    refuse(clean, corrupt)
    sent = sender_outputs(model, corrupt) - sender_outputs(model, clean)
    found = []
    with torch.no_grad(), separate_inputs(model):
        whole = metric(model(clean))
        for sender, receiver in edges:
            change = sent[sender_names(model).index(sender)]
            name, head = hook_point(model, receiver)

            def add(value, hook, change=change, head=head):
                value = value.clone()
                (value if head is None else value[:, :, head]).add_(change)
                return value

            found.append(metric(model.run_with_hooks(clean, fwd_hooks=[(name, add)])) - whole)
    return torch.stack(found)


def hook_point(model, receiver):
    if receiver == "logits":
        return f"blocks.{model.cfg.n_layers - 1}.hook_resid_post", None
    if receiver[0] == "m":
        return f"blocks.{receiver[1:]}.hook_mlp_in", None
    layer, head, part = receiver[1:].split(".")
    return f"blocks.{layer}.hook_{part}_input", int(head)


def attributed(model, clean, corrupt, edges, change, slopes):
    s = [sender_names(model).index(sender) for sender, _ in edges]
    r = [receiver_names(model).index(receiver) for _, receiver in edges]
    return torch.stack([(change[i] * slopes[j]).sum((-1, -2)) for i, j in zip(s, r, strict=True)])


def both_runs(model, clean, corrupt):
    refuse(clean, corrupt)
    return sender_outputs(model, clean), sender_outputs(model, corrupt)


@wrong(
    "edge_attribution_patching",
    "Your estimates have the other sign: you take clean less corrupt, and what arrives changes by corrupt less clean.",
)
def clean_less_corrupt(model, clean, corrupt, edges, metric):
    a, b = both_runs(model, clean, corrupt)
    return attributed(model, clean, corrupt, edges, a - b, receiver_gradients(model, clean, metric))


@wrong(
    "edge_attribution_patching",
    "You take the slopes in the corrupt run. The effect is a step away from the clean run; take the slopes there.",
)
def slopes_of_the_corrupt_run(model, clean, corrupt, edges, metric):
    a, b = both_runs(model, clean, corrupt)
    return attributed(model, clean, corrupt, edges, b - a, receiver_gradients(model, corrupt, metric))


@wrong(
    "edge_attribution_patching",
    "You multiply the corrupt output by the slope, not the difference of the two outputs: what is the same in both "
    "runs changes nothing.",
)
def corrupt_output(model, clean, corrupt, edges, metric):
    _, b = both_runs(model, clean, corrupt)
    return attributed(model, clean, corrupt, edges, b, receiver_gradients(model, clean, metric))


@wrong("edge_attribution_patching", "You sum sizes over the positions: effects that cancel would be added up.")
def sizes_over_positions(model, clean, corrupt, edges, metric):
    a, b = both_runs(model, clean, corrupt)
    slopes = receiver_gradients(model, clean, metric)
    s = [sender_names(model).index(sender) for sender, _ in edges]
    r = [receiver_names(model).index(receiver) for _, receiver in edges]
    return torch.stack([((b - a)[i] * slopes[j]).sum(-1).abs().sum(-1) for i, j in zip(s, r, strict=True)])


@wrong("edge_attribution_patching", "You read the last position only. What a sender changes elsewhere counts as well.")
def last_position(model, clean, corrupt, edges, metric):
    a, b = both_runs(model, clean, corrupt)
    slopes = receiver_gradients(model, clean, metric)
    return attributed(model, clean, corrupt, edges, (b - a)[:, :, -1:], slopes[:, :, -1:])


@wrong(
    "edge_attribution_patching",
    "You take the mean over positions. The metric's change is the sum of what happens at each of them.",
)
def mean_over_positions(model, clean, corrupt, edges, metric):
    a, b = both_runs(model, clean, corrupt)
    return attributed(model, clean, corrupt, edges, b - a, receiver_gradients(model, clean, metric)) / clean.shape[1]


@wrong(
    "edge_attribution_patching",
    "You take the slopes of the metric's mean over the prompts: everything comes out smaller, divided by the number of "
    "prompts. `receiver_gradients` wants a number for each prompt.",
)
def slopes_of_the_mean(model, clean, corrupt, edges, metric):
    a, b = both_runs(model, clean, corrupt)
    slopes = receiver_gradients(model, clean, lambda logits: metric(logits).mean())
    return attributed(model, clean, corrupt, edges, b - a, slopes)


@right("edge_attribution_patching")
def in_double_precision(model, clean, corrupt, edges, metric):
    a, b = both_runs(model, clean, corrupt)
    slopes = receiver_gradients(model, clean, metric).double()
    return attributed(model, clean, corrupt, edges, (b - a).double(), slopes).float()


@right("edge_attribution_patching")
def by_matrix(model, clean, corrupt, edges, metric):
    a, b = both_runs(model, clean, corrupt)
    slopes = receiver_gradients(model, clean, metric)
    table = torch.einsum("sbx,rbx->bsr", (b - a).flatten(2), slopes.flatten(2))
    found = dict.fromkeys(edges)
    for i, sender in enumerate(sender_names(model)):
        for j, receiver in enumerate(receiver_names(model)):
            if (sender, receiver) in found:
                found[sender, receiver] = table[:, i, j]
    return torch.stack(list(found.values()))


def integrated(model, clean, corrupt, edges, metric, points, change=None):
    a, b = both_runs(model, clean, corrupt)
    if not points:
        raise ValueError("steps")
    slopes = sum(receiver_gradients(model, clean, metric, b[0] + p * (a[0] - b[0])) for p in points) / len(points)
    return attributed(model, clean, corrupt, edges, b - a if change is None else change(b - a), slopes)


@wrong(
    "eap_ig",
    "Your runs include the corrupt end of the way and leave out the clean one. Either your k counts from 0, or you "
    "walk from clean to corrupt: k / steps, for k = 1 … steps, is the share of the clean embedding.",
)
def wrong_way(model, clean, corrupt, edges, metric, *, steps=5):
    return integrated(model, clean, corrupt, edges, metric, [1 - k / steps for k in range(1, steps + 1)])


@wrong(
    "eap_ig",
    "Your steps begin at the corrupt embedding, k = 0, and end one short of the clean one. They go from k = 1 to k = "
    "steps.",
)
def from_zero(model, clean, corrupt, edges, metric, *, steps=5):
    if steps == 1:
        return integrated(model, clean, corrupt, edges, metric, [1])
    return integrated(model, clean, corrupt, edges, metric, [k / steps for k in range(steps)])


@wrong("eap_ig", "You add the slopes of all steps up. Their mean is asked for: your scores grow with the steps.")
def summed(model, clean, corrupt, edges, metric, *, steps=5):
    return steps * integrated(model, clean, corrupt, edges, metric, [k / steps for k in range(1, steps + 1)])


@wrong("eap_ig", "You take the number of steps for granted: it is always 5.")
def always_five(model, clean, corrupt, edges, metric, *, steps=5):
    if steps < 1:
        raise ValueError("steps")
    return integrated(model, clean, corrupt, edges, metric, [k / 5 for k in range(1, 6)])


@wrong("eap_ig", "Your estimates have the other sign: what arrives changes by corrupt less clean.")
def integrated_other_sign(model, clean, corrupt, edges, metric, *, steps=5):
    points = [k / steps for k in range(1, steps + 1)]
    return integrated(model, clean, corrupt, edges, metric, points, change=lambda x: -x)


@wrong("eap_ig", "Every step is taken at the clean embedding: this is EAP, several times over.")
def stands_still(model, clean, corrupt, edges, metric, *, steps=5):
    return integrated(model, clean, corrupt, edges, metric, [1] * steps)


@wrong(
    "eap_ig",
    "You take your slopes halfway between the steps, at (k - 1/2) / steps. Run k is at k / steps, and the last one is "
    "the clean run.",
)
def midpoints(model, clean, corrupt, edges, metric, *, steps=5):
    return integrated(model, clean, corrupt, edges, metric, [(k - 0.5) / steps for k in range(1, steps + 1)])


@wrong(
    "eap_ig",
    "Your runs include both ends of the way, with steps - 1 equal parts between them. The corrupt end is not among "
    "them: k / steps, for k = 1 … steps.",
)
def both_ends(model, clean, corrupt, edges, metric, *, steps=5):
    if steps < 1:
        raise ValueError("steps")
    return integrated(model, clean, corrupt, edges, metric, torch.linspace(0, 1, steps).tolist())


@right("eap_ig")
def step_by_step(model, clean, corrupt, edges, metric, *, steps=5):
    if steps < 1:
        raise ValueError("steps")
    a, b = both_runs(model, clean, corrupt)
    found = 0
    for k in reversed(range(steps)):
        share = (k + 1) / steps
        slopes = receiver_gradients(model, clean, metric, share * a[0] + (1 - share) * b[0])
        found = found + attributed(model, clean, corrupt, edges, b - a, slopes)
    return found / steps
