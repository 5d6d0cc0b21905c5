"""The transformer as a graph: who writes into the residual stream, who reads from it, and every line between them."""

Edge = tuple[str, str]


def build_graph(n_layers: int, n_heads: int, *, mlps: bool = True) -> list[tuple[str, str]]:
    """All edges of a transformer's residual graph, as pairs (sender, receiver).

    Senders are what writes into the stream: "embed" (token and position together), each head "a1.3" (layer 1, head 3)
    and each MLP "m1". Receivers are what reads from it: each head three times, as "a1.3.q", "a1.3.k" and "a1.3.v", each
    MLP "m1", and "logits". A receiver has an edge from every sender that has written by the time it reads: heads of one
    layer read before any of them writes, and the MLP of a layer reads after its heads.

    Args:
        n_layers: Layers, at least 1.
        n_heads: Heads in each, at least 1.
        mlps: Whether each layer has an MLP.

    Returns:
        The edges by receiver, in the order in which receivers read: for each layer heads from 0, for each head q, k, v;
        then the layer's MLP; at the end the logits. The edges of one receiver in the order in which senders write:
        "embed", then for each layer its heads and its MLP.

    Raises:
        ValueError: If there is no layer or no head.

    Source: Conmy et al. (2023), "Towards Automated Circuit Discovery for Mechanistic Interpretability", section 2.
    """
    if n_layers < 1 or n_heads < 1:
        raise ValueError(f"there must be at least one layer and one head, got {n_layers} and {n_heads}")
    senders, edges = ["embed"], []
    for layer in range(n_layers):
        heads = [f"a{layer}.{head}" for head in range(n_heads)]
        edges += [(sender, f"{head}.{part}") for head in heads for part in "qkv" for sender in senders]
        senders += heads
        if mlps:
            edges += [(sender, f"m{layer}") for sender in senders]
            senders.append(f"m{layer}")
    return edges + [(sender, "logits") for sender in senders]


def edge_count(n_layers: int, n_heads: int, *, mlps: bool = True) -> int:
    """How many edges ``build_graph`` gives, without listing them.

    Args:
        n_layers, n_heads, mlps: As in ``build_graph``.

    Returns:
        The number, exact also for models of more than a million heads.

    Raises:
        ValueError: If there is no layer or no head.
    """
    if n_layers < 1 or n_heads < 1:
        raise ValueError(f"there must be at least one layer and one head, got {n_layers} and {n_heads}")
    per_layer, pairs = n_heads + int(mlps), n_layers * (n_layers - 1) // 2
    into_heads = 3 * n_heads * (n_layers + per_layer * pairs)
    into_mlps = n_layers * (1 + n_heads) + per_layer * pairs if mlps else 0
    return into_heads + into_mlps + 1 + per_layer * n_layers
