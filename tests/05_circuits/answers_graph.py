"""Wrong and right answers to the residual graph, and to replaced messages."""

import torch

from utils.course.catalogue import right, wrong


def refuse(n_layers, n_heads):
    if n_layers < 1 or n_heads < 1:
        raise ValueError("at least one layer and one head")


def graph(n_layers, n_heads, mlps, *, parts="qkv", mlp_hears_heads=True, heads_hear_each_other=False, to_logits=True):
    """The graph with one thing done otherwise."""
    refuse(n_layers, n_heads)
    senders, edges = ["embed"], []
    for layer in range(n_layers):
        before, heads = list(senders), [f"a{layer}.{head}" for head in range(n_heads)]
        for head in heads:
            heard = senders if heads_hear_each_other else before
            edges += [(s, f"{head}.{part}" if part else head) for part in (parts or [""]) for s in heard]
            senders.append(head)
        if mlps:
            edges += [(s, f"m{layer}") for s in (senders if mlp_hears_heads else before)]
            senders.append(f"m{layer}")
    return edges + [(s, "logits") for s in senders] * to_logits


@wrong(
    "build_graph",
    "Each of your heads is one receiver. It reads the stream three times, as query, key and value, and a message that "
    "matters to one of them need not matter to the others.",
)
def heads_read_once(n_layers, n_heads, *, mlps=True):
    return graph(n_layers, n_heads, mlps, parts="")


@wrong(
    "build_graph",
    "Your MLPs don't hear the heads of their own layer. They read after these have written.",
)
def mlp_beside_the_heads(n_layers, n_heads, *, mlps=True):
    return graph(n_layers, n_heads, mlps, mlp_hears_heads=False)


@wrong(
    "build_graph",
    "Your heads hear earlier heads of the same layer. All heads of a layer read the stream as it was before any of "
    "them wrote.",
)
def one_head_after_the_other(n_layers, n_heads, *, mlps=True):
    return graph(n_layers, n_heads, mlps, heads_hear_each_other=True)


@wrong("build_graph", "Nobody in your graph speaks to the logits: there is no way out of the model.")
def no_way_out(n_layers, n_heads, *, mlps=True):
    return graph(n_layers, n_heads, mlps, to_logits=False)


@wrong("build_graph", "You put MLPs in whatever `mlps` says.")
def always_mlps(n_layers, n_heads, *, mlps=True):
    return graph(n_layers, n_heads, True)


@wrong(
    "build_graph",
    "In your graph a part hears only the layer before it, as in a feedforward network. In a transformer what was "
    "written stays in the stream, and everyone who comes later reads it.",
)
def neighbours_only(n_layers, n_heads, *, mlps=True):
    def layer_of(node):
        if node in ("embed", "logits"):
            return -1 if node == "embed" else n_layers
        return int(node[1:].split(".")[0])

    return [(s, r) for s, r in graph(n_layers, n_heads, mlps) if layer_of(r) - layer_of(s) <= 1]


@wrong(
    "build_graph",
    "In your graph a message goes one step only: heads hear the layer before, an MLP its own layer's heads, the logits "
    "the last layer. What was written stays in the stream, and everyone who comes later reads it.",
)
def one_step_only(n_layers, n_heads, *, mlps=True):
    refuse(n_layers, n_heads)
    before, edges = ["embed"], []
    for layer in range(n_layers):
        heads = [f"a{layer}.{head}" for head in range(n_heads)]
        edges += [(s, f"{head}.{part}") for head in heads for part in "qkv" for s in before]
        edges += [(s, f"m{layer}") for s in heads] * mlps
        before = heads + [f"m{layer}"] * mlps
    return edges + [(s, "logits") for s in before]


@wrong("build_graph", "Your edges are sorted by their senders. They should come receiver by receiver.")
def by_sender(n_layers, n_heads, *, mlps=True):
    edges = graph(n_layers, n_heads, mlps)
    senders = list(dict.fromkeys(s for s, _ in edges))
    return sorted(edges, key=lambda edge: senders.index(edge[0]))


@right("build_graph")
def by_comparing_times(n_layers, n_heads, *, mlps=True):
    """When everyone writes and reads, and an edge wherever the one is before the other."""
    refuse(n_layers, n_heads)
    writes, reads = {"embed": 0}, {}
    for layer in range(n_layers):
        for head in range(n_heads):
            writes[f"a{layer}.{head}"] = 4 * layer + 2
            reads |= {f"a{layer}.{head}.{part}": 4 * layer + 1 for part in ("q", "k", "v")}
        if mlps:
            writes[f"m{layer}"], reads[f"m{layer}"] = 4 * layer + 4, 4 * layer + 3
    reads["logits"] = 4 * n_layers + 1
    return [(s, r) for r, late in reads.items() for s, early in writes.items() if early < late]


def count(n_layers, n_heads, mlps, *, parts=3, own_heads=True, embed=1, logits=True):
    refuse(n_layers, n_heads)
    each, pairs = n_heads + bool(mlps), n_layers * (n_layers - 1) // 2
    total = parts * n_heads * (embed * n_layers + each * pairs)
    if mlps:
        total += n_layers * (embed + n_heads * own_heads) + each * pairs
    return total + (embed + each * n_layers) * logits


@wrong("edge_count", "You count each head as one receiver. It reads three times.")
def one_for_each_head(n_layers, n_heads, *, mlps=True):
    return count(n_layers, n_heads, mlps, parts=1)


@wrong("edge_count", "You leave out what an MLP hears from the heads of its own layer.")
def no_own_heads(n_layers, n_heads, *, mlps=True):
    return count(n_layers, n_heads, mlps, own_heads=False)


@wrong("edge_count", "You forget the embedding: it sends, too, to every receiver.")
def no_embedding(n_layers, n_heads, *, mlps=True):
    return count(n_layers, n_heads, mlps, embed=0)


@wrong("edge_count", "You leave out the edges into the logits.")
def no_logits(n_layers, n_heads, *, mlps=True):
    return count(n_layers, n_heads, mlps, logits=False)


@wrong("edge_count", "You count MLPs whatever `mlps` says.")
def mlps_always(n_layers, n_heads, *, mlps=True):
    return count(n_layers, n_heads, True)


@wrong(
    "edge_count",
    "You divide with `/`. A float has 53 bits, and with many parts the last digits of your number are wrong.",
)
def with_floats(n_layers, n_heads, *, mlps=True):
    refuse(n_layers, n_heads)
    each, pairs = n_heads + bool(mlps), n_layers * (n_layers - 1) / 2
    total = 3 * n_heads * (n_layers + each * pairs) + 1 + each * n_layers
    return int(total + (n_layers * (1 + n_heads) + each * pairs if mlps else 0))


@right("edge_count")
def as_one_polynomial(n_layers, n_heads, *, mlps=True):
    refuse(n_layers, n_heads)
    m = 1 if mlps else 0
    twice = (3 * n_heads + m) * (n_heads + m) * n_layers * (n_layers - 1)
    return twice // 2 + n_layers * (3 * n_heads + m * (1 + n_heads) + n_heads + m) + 1


def mixed(stream, sent, replaced, kept):
    change = replaced[:, None] - sent
    return stream[:, :, :, None] + torch.einsum("crs,scbpd->cbprd", (~kept).to(change.dtype), change)


@wrong("mix_messages", "You replace the messages that should be kept, and keep those that should be replaced.")
def the_other_way_round(stream, sent, replaced, kept):
    return mixed(stream, sent, replaced, ~kept)


@wrong(
    "mix_messages",
    "You take the cut messages out and put nothing in their place: that is zero ablation. What arrives in their place "
    "is `replaced`.",
)
def taken_out_only(stream, sent, replaced, kept):
    return mixed(stream, sent, torch.zeros_like(replaced), kept)


@wrong(
    "mix_messages",
    "You add the other run's messages and leave this run's where they were: the receiver hears both.",
)
def both_at_once(stream, sent, replaced, kept):
    return mixed(stream, torch.zeros_like(sent), replaced, kept)


@wrong(
    "mix_messages",
    "You add up messages and leave out the stream. It holds more than what was sent: biases that belong to no sender.",
)
def messages_only(stream, sent, replaced, kept):
    return mixed(sent.sum(0), sent, replaced, kept)


@wrong(
    "mix_messages",
    "You take the messages of the first copy for all copies. What a sender puts out depends on what was cut before it, "
    "and that is another thing in each copy.",
)
def first_copy(stream, sent, replaced, kept):
    return mixed(stream, sent[:, :1].expand_as(sent), replaced, kept)


@wrong(
    "mix_messages",
    "Your change has the other sign: you add what was sent and take `replaced` away, where a message is cut.",
)
def other_sign(stream, sent, replaced, kept):
    return 2 * stream[:, :, :, None] - mixed(stream, sent, replaced, kept)


@wrong("mix_messages", "What one receiver misses is missing for all of them in your result: a sum over receivers.")
def all_receivers_alike(stream, sent, replaced, kept):
    return mixed(stream, sent, replaced, kept.all(1, keepdim=True).expand_as(kept))


@wrong("mix_messages", "Receivers stand before the positions in your result. They should stand before d_model.")
def receivers_in_front(stream, sent, replaced, kept):
    return mixed(stream, sent, replaced, kept).transpose(2, 3)


@right("mix_messages")
def receiver_by_receiver(stream, sent, replaced, kept):
    rows = []
    for r in range(kept.shape[1]):
        copies = []
        for c in range(kept.shape[0]):
            x = stream[c].clone()
            for s in range(kept.shape[2]):
                if not kept[c, r, s]:
                    x = x - sent[s, c] + replaced[s]
            copies.append(x)
        rows.append(torch.stack(copies))
    return torch.stack(rows, dim=3)


@right("mix_messages")
def what_arrives_and_what_nobody_sent(stream, sent, replaced, kept):
    others = replaced[:, None].expand_as(sent).double()
    keep = kept.permute(2, 0, 1)[:, :, None, None, :, None]
    arrived = torch.where(keep, sent.double()[:, :, :, :, None], others[:, :, :, :, None]).sum(0)
    return (arrived + (stream.double() - sent.double().sum(0))[:, :, :, None]).to(stream.dtype)
