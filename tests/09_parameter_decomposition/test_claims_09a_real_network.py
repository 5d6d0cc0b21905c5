"""What part 09a says of SmolLM2-135M, measured again on other texts, with another turn."""

from pydoc_data.topics import topics

import torch
import torch.nn.functional as F


def test_neurons_are_sparser_than_singular_vectors_and_a_turned_basis(smollm2, layer=28, k=64):
    texts = [topics[name] for name in sorted(topics) if len(topics[name]) > 600][12:20]
    tokens = torch.cat([smollm2.to_tokens(text[:1200])[:, :40] for text in texts])
    names = [f"blocks.{layer}.hook_resid_mid", f"blocks.{layer}.mlp.hook_post"]
    with torch.no_grad():
        cache = smollm2.run_with_cache(tokens, names_filter=names, stop_at_layer=layer + 1)[1]
        stream, post = (cache[name] for name in names)
        W = smollm2.blocks[layer].mlp.W_out
        left, values, right = torch.linalg.svd(W, full_matrices=False)
        turn = torch.linalg.qr(torch.randn(len(W), len(W), generator=torch.Generator().manual_seed(8)))[0]
        bases = {
            "neurons": (post, W),
            "singular": (post @ left, values[:, None] * right),
            "turned": (post @ turn, turn.T @ W),
        }

        def loss(written):
            logits = smollm2(stream + written, start_at_layer=layer + 1)[:, :-1]
            return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).item()

        intact, without = loss(post @ W), loss(torch.zeros_like(stream))
        kept = {}
        for name, (inner, U) in bases.items():
            order = (inner.abs() * U.norm(dim=1)).topk(k).indices
            chosen = {name: order, f"{name}, another text's": order.roll(1, 0)}
            for label, indices in chosen.items():
                mask = torch.zeros_like(inner).scatter(-1, indices, 1.0)
                kept[label] = 1 - (loss((inner * mask) @ U) - intact) / (without - intact)
    assert without - intact > 0.4
    assert kept["neurons"] > 0.9 and kept["singular"] < 0.7 and kept["turned"] < 0.6, kept
    assert 0.6 < kept["neurons, another text's"] < kept["neurons"] - 0.04, kept
