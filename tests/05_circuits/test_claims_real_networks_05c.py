"""What part 05c says of SmolLM2-135M, measured again; the figures are those of this file of 4-bit weights."""

from utils.circuits.edge_scores import edge_attribution_patching, edge_patching
from utils.circuits.graph import build_graph

PEOPLE = ["Mary", "John", "Tom", "Anna", "Paul", "Emma"]
SENTENCES = (
    "When {} and {} went to the store, {} gave a drink to",
    "After {} and {} went to the park, {} gave a ball to",
)


def test_a_few_edges_of_many_and_most_of_the_large_scores_are_exact(smollm2):
    smollm2.requires_grad_(False)
    edges, scores, pairs = build_graph(30, 9), 0, []
    assert len(edges) == 123_211
    for i, (receiver, giver) in enumerate(zip(PEOPLE, PEOPLE[3:] + PEOPLE[:3], strict=True)):
        named = (receiver, giver) if i % 2 else (giver, receiver)
        clean, corrupt = (smollm2.to_tokens(SENTENCES[i // 2 % 2].format(*named, who)) for who in (giver, receiver))
        ids = [smollm2.to_single_token(f" {who}") for who in (receiver, giver)]
        pairs.append((clean, corrupt, lambda logits, ids=ids: logits[:, -1, ids[0]] - logits[:, -1, ids[1]]))
        scores = scores + edge_attribution_patching(smollm2, clean, corrupt, edges, pairs[-1][2])[:, 0] / 6
    assert 100 < (scores.abs() > 0.1).sum() < 230
    top = scores.abs().argsort(descending=True)[:12].tolist()
    assert edges[top[0]] == ("a23.3", "logits")
    exact = sum(
        edge_patching(smollm2, clean, corrupt, [edges[i] for i in top], metric, max_rows=4)[:, 0]
        for clean, corrupt, metric in pairs
    ) / len(pairs)
    ratio = exact / scores[top]
    assert ((ratio > 0.75) & (ratio < 1.35)).sum() >= 9
    effect = {edges[i]: value for i, value in zip(top, exact.tolist(), strict=True)}
    assert effect["a29.0", "logits"] > 1 and effect["a24.4", "logits"] > 1 and effect["a29.1", "logits"] < -1.5
    for edge in (("a20.0", "m20"), ("m0", "a8.0.q")):  # estimated several times too large
        assert abs(effect[edge]) < 0.5 * abs(scores[edges.index(edge)])
