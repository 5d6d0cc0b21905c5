"""Wrong and right answers to ACDC and to ROC curves of edges."""

import torch

from utils.circuits.edge_scores import edge_patching
from utils.circuits.messages import run_with_edges, sender_outputs
from utils.course.catalogue import right, wrong


def refuse(clean, corrupt, threshold):
    if clean.shape != corrupt.shape or threshold < 0:
        raise ValueError("shapes or threshold")


def pruned(model, clean, corrupt, edges, metric, threshold, *, order=None, matters=None, follows=True):
    """ACDC without its short cut; what is done otherwise comes as arguments."""
    refuse(clean, corrupt, threshold)
    matters = matters or (lambda change: abs(change) > threshold)
    replaced, kept = sender_outputs(model, corrupt), torch.ones(len(edges), dtype=torch.bool)
    with torch.no_grad():
        current = metric(model(clean)).mean()
        for i in order or reversed(range(len(edges))):
            kept[i] = False
            without = metric(run_with_edges(model, clean, edges, kept[None], replaced)[0]).mean()
            if matters((without - current).item()):
                kept[i] = True
            elif follows:
                current = without
    return kept


@wrong(
    "acdc",
    "You compare with the whole model at each step. What is cut adds up, and after a while every edge seems to matter: "
    "compare with the circuit as it was before this edge was cut.",
)
def against_the_whole_model(model, clean, corrupt, edges, metric, threshold):
    return pruned(model, clean, corrupt, edges, metric, threshold, follows=False)


@wrong(
    "acdc",
    "You go through the edges from the first to the last. Begin at the logits: what nobody hears any more can then be "
    "cut as well.",
)
def from_the_embedding(model, clean, corrupt, edges, metric, threshold):
    return pruned(model, clean, corrupt, edges, metric, threshold, order=range(len(edges)))


@wrong(
    "acdc",
    "You keep what lowers the metric when it is cut, and cut everything that works against the answer, however much it "
    "does. A change counts whether it goes up or down.",
)
def only_what_helps(model, clean, corrupt, edges, metric, threshold):
    return pruned(model, clean, corrupt, edges, metric, threshold, matters=lambda change: change < -threshold)


@wrong(
    "acdc",
    "You take all edges whose exact effect, cut alone, is above the threshold. That is edge patching; here each "
    "edge is cut with those that have been cut before.",
)
def by_exact_effects(model, clean, corrupt, edges, metric, threshold):
    refuse(clean, corrupt, threshold)
    return edge_patching(model, clean, corrupt, edges, metric).mean(1).abs() > threshold


@wrong("acdc", "Your result marks the edges that are cut. The circuit is what is left.")
def what_is_cut(model, clean, corrupt, edges, metric, threshold):
    return ~pruned(model, clean, corrupt, edges, metric, threshold)


@wrong(
    "acdc",
    "You compare the metric of the first prompt. The mean over all prompts decides.",
)
def first_prompt(model, clean, corrupt, edges, metric, threshold):
    refuse(clean, corrupt, threshold)

    def first(logits):
        return metric(logits)[:1]

    return pruned(model, clean, corrupt, edges, first, threshold)


@right("acdc")
def without_the_short_cut(model, clean, corrupt, edges, metric, threshold):
    return pruned(model, clean, corrupt, edges, metric, threshold)


@right("acdc")
def with_a_set(model, clean, corrupt, edges, metric, threshold):
    """The circuit as a set of edges; two runs for each edge."""
    refuse(clean, corrupt, threshold)
    replaced, circuit = sender_outputs(model, corrupt), set(edges)

    def value(chosen):
        row = torch.tensor([[edge in chosen for edge in edges]])
        return metric(run_with_edges(model, clean, edges, row, replaced)[0]).double().mean().item()

    with torch.no_grad():
        for edge in edges[::-1]:
            if abs(value(circuit - {edge}) - value(circuit)) <= threshold:
                circuit = circuit - {edge}
    return torch.tensor([edge in circuit for edge in edges])


def curve(scores, truth, levels, at_least=True):
    if truth.all() or not truth.any():
        raise ValueError("both classes are needed")
    false_positives, true_positives = [0.0], [0.0]
    for level in levels:
        taken = scores >= level if at_least else scores > level
        false_positives.append((taken & ~truth).sum().item() / (~truth).sum().item())
        true_positives.append((taken & truth).sum().item() / truth.sum().item())
    return torch.tensor(false_positives).double(), torch.tensor(true_positives).double()


def sunk(scores):
    return sorted(set(scores.tolist()), reverse=True)


@wrong("edge_roc", "Your two curves are exchanged: the share of the other edges comes first.")
def exchanged(scores, truth):
    return curve(scores, truth, sunk(scores))[::-1]


@wrong("edge_roc", "You take the edges with the lowest scores first.")
def lowest_first(scores, truth):
    return curve(-scores, truth, sunk(-scores))


@wrong(
    "edge_roc",
    "You take edges of equal score one by one, in the order of the list. Nothing tells them apart: they are taken "
    "together, as one point.",
)
def ties_one_by_one(scores, truth):
    if truth.all() or not truth.any():
        raise ValueError("both classes are needed")
    order = scores.argsort(descending=True, stable=True)
    zero = torch.zeros(1, dtype=torch.float64)
    inside, outside = truth[order].double(), (~truth)[order].double()
    return torch.cat([zero, outside.cumsum(0) / outside.sum()]), torch.cat([zero, inside.cumsum(0) / inside.sum()])


@wrong("edge_roc", "Your curve does not begin at (0, 0), where no edge is taken.")
def no_beginning(scores, truth):
    return tuple(x[1:] for x in curve(scores, truth, sunk(scores)))


@wrong(
    "edge_roc",
    "You divide by the number of edges that are taken. That is precision; a ROC curve divides by all of a kind.",
)
def precision(scores, truth):
    false_positives, true_positives = curve(scores, truth, sunk(scores))
    taken = false_positives * (~truth).sum() + true_positives * truth.sum()
    return false_positives * (~truth).sum() / taken.clamp(min=1), true_positives * truth.sum() / taken.clamp(min=1)


@wrong("edge_roc", "You take the sizes of the scores. A score below 0 is a low one.")
def sizes(scores, truth):
    return curve(scores.abs(), truth, sunk(scores.abs()))


@wrong(
    "edge_roc",
    "Your false positives are a share of the edges that are taken. Divide by the number of all edges outside the "
    "circuit.",
)
def share_of_what_is_taken(scores, truth):
    false_positives, true_positives = curve(scores, truth, sunk(scores))
    wrong_ones = false_positives * (~truth).sum()
    taken = wrong_ones + true_positives * truth.sum()
    return wrong_ones / taken.clamp(min=1), true_positives


@wrong(
    "edge_roc",
    "At each score you take the edges above it only. Those with the score itself are taken as well, "
    "and the last point is (1, 1).",
)
def above_only(scores, truth):
    return curve(scores, truth, sunk(scores), at_least=False)


@right("edge_roc")
def level_by_level(scores, truth):
    return curve(scores, truth, sunk(scores))


@right("edge_roc")
def from_sklearn(scores, truth):
    from sklearn.metrics import roc_curve

    if truth.all() or not truth.any():
        raise ValueError("both classes are needed")
    found = roc_curve(truth.numpy(), scores.numpy(), drop_intermediate=False)
    return torch.from_numpy(found[0]).double(), torch.from_numpy(found[1]).double()
