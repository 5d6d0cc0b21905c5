"""The edge methods of part 05c against things that are independent of them."""

from pathlib import Path

import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve

from utils.circuits.acdc import acdc
from utils.circuits.edge_scores import eap_ig, edge_attribution_patching, edge_patching
from utils.circuits.graph import build_graph, edge_count
from utils.circuits.messages import (
    receiver_gradients,
    receiver_names,
    run_with_edges,
    sender_names,
    sender_outputs,
)
from utils.circuits.planted import planted_circuit
from utils.circuits.roc import edge_roc
from utils.course.paths import load_file

networks = load_file(Path(__file__).with_name("edge_networks.py"))


def drawn(seed, **how):
    return networks.cases(torch.Generator().manual_seed(seed), **how)


def test_the_count_is_the_length_of_the_list():
    for layers in range(1, 5):
        for heads in range(1, 5):
            for mlps in (True, False):
                assert edge_count(layers, heads, mlps=mlps) == len(build_graph(layers, heads, mlps=mlps))
    assert edge_count(4, 4) == 479 and edge_count(12, 12) == 32491 and edge_count(2, 4) == 110


def test_names_are_those_of_the_graph():
    for model, _, _, edges, _ in drawn(0):
        assert sender_names(model) == list(dict.fromkeys(sender for sender, _ in edges))
        assert receiver_names(model) == list(dict.fromkeys(receiver for _, receiver in edges))


def forward_by_hand(model, tokens, cut, replaced):
    """A transformer written out, head by head: `cut` maps a receiver to the senders whose messages are replaced."""
    cfg, n_pos = model.cfg, tokens.shape[1]
    sent = {"embed": model.W_E[tokens] + model.W_pos[:n_pos]}
    bias = torch.zeros(cfg.d_model)

    def read(receiver):
        names = list(sent)
        return bias + sum(replaced[n] if n in cut.get(receiver, ()) else sent[n] for n in names)

    def normed(x, ln):
        if cfg.normalization_type is None:
            return x
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + cfg.eps).sqrt() * ln.w + ln.b

    for layer, block in enumerate(model.blocks):
        attn, new = block.attn, {}
        for head in range(cfg.n_heads):
            q, k, v = (
                normed(read(f"a{layer}.{head}.{part}"), block.ln1) @ getattr(attn, f"W_{part.upper()}")[head]
                + getattr(attn, f"b_{part.upper()}")[head]
                for part in "qkv"
            )
            scores = (q @ k.mT / cfg.d_head**0.5).masked_fill(torch.ones(n_pos, n_pos).triu(1).bool(), -torch.inf)
            new[f"a{layer}.{head}"] = scores.softmax(-1) @ v @ attn.W_O[head]
        sent |= new
        bias = bias + attn.b_O
        if cfg.d_mlp:
            hidden = normed(read(f"m{layer}"), getattr(block, "ln2", None)) @ block.mlp.W_in + block.mlp.b_in
            act = torch.relu if cfg.act_fn == "relu" else lambda x: torch.nn.functional.gelu(x, approximate="tanh")
            sent[f"m{layer}"] = act(hidden) @ block.mlp.W_out + block.mlp.b_out
    return normed(read("logits"), getattr(model, "ln_final", None)) @ model.W_U + model.b_U, sent


@pytest.mark.parametrize("plain", [False, True])
def test_a_run_with_edges_is_a_transformer_written_out(plain):
    for model, clean, corrupt, edges, _ in drawn(1, plain=plain):
        _, others = forward_by_hand(model, corrupt, {}, {})
        replaced = sender_outputs(model, corrupt)
        for i, name in enumerate(sender_names(model)):
            assert torch.allclose(replaced[i], others[name], rtol=1e-3, atol=1e-3)
        kept = torch.rand(4, len(edges), generator=torch.Generator().manual_seed(0)) < 0.6
        found = run_with_edges(model, clean, edges, kept, replaced)
        for row, logits in zip(kept, found, strict=True):
            cut = {}
            for (sender, receiver), keep in zip(edges, row.tolist(), strict=True):
                if not keep:
                    cut.setdefault(receiver, set()).add(sender)
            wanted, _ = forward_by_hand(model, clean, cut, others)
            assert torch.allclose(logits, wanted, rtol=1e-3, atol=1e-3)


def test_nothing_kept_gives_the_corrupt_run_and_mean_and_zero_do_not():
    for model, clean, corrupt, edges, _ in drawn(2):
        nothing = torch.zeros(1, len(edges), dtype=torch.bool)
        replaced = sender_outputs(model, corrupt)
        assert torch.allclose(run_with_edges(model, clean, edges, nothing, replaced)[0], model(corrupt), atol=1e-3)
        for other in (torch.zeros_like(replaced), replaced.mean(1, keepdim=True).expand_as(replaced)):
            found = run_with_edges(model, clean, edges, nothing, other)[0]
            assert torch.allclose(found, found[:1].expand_as(found), atol=1e-3)  # every prompt alike: nothing arrives
            assert not torch.allclose(found, model(corrupt), atol=1e-2)


def test_slopes_are_finite_differences():
    for model, clean, corrupt, edges, metric in drawn(3):
        model.cfg.dtype = torch.float64  # else attention is rounded to float32
        model = model.double()
        slopes, change = receiver_gradients(model, clean, metric), sender_outputs(model, corrupt)
        own, nudge = sender_outputs(model, clean), 1e-5
        for i in range(0, len(edges), 7):
            kept = torch.ones(2, len(edges), dtype=torch.bool)
            kept[:, i] = False
            s, r = sender_names(model).index(edges[i][0]), receiver_names(model).index(edges[i][1])
            up, down = (
                metric(run_with_edges(model, clean, edges, kept[:1], own + sign * nudge * (change - own))[0])
                for sign in (1, -1)
            )
            wanted = ((change - own)[s] * slopes[r]).sum((-1, -2))
            assert torch.allclose((up - down) / (2 * nudge), wanted, rtol=1e-4, atol=1e-7)


def test_attribution_is_exact_on_a_linear_network_and_sums_to_the_whole_difference():
    rng, sizes = torch.Generator().manual_seed(4), networks.SIZES[1]
    model = networks.random_model(rng, sizes, linear=True)
    clean, corrupt = torch.randint(sizes["d_vocab"], (2, 2, sizes["n_ctx"]), generator=rng)
    edges = build_graph(sizes["n_layers"], sizes["n_heads"], mlps=False)
    weights = torch.randn(sizes["d_vocab"], generator=rng)

    def metric(logits):
        return logits[:, -1] @ weights

    inputs = (model, clean, corrupt, edges, metric)
    exact = edge_patching(*inputs)
    for method in (edge_attribution_patching, eap_ig):
        assert torch.allclose(method(*inputs), exact, rtol=1e-3, atol=1e-3)
    into_logits = exact[[i for i, edge in enumerate(edges) if edge[1] == "logits"]].sum(0)
    assert torch.allclose(into_logits, metric(model(corrupt)) - metric(model(clean)), rtol=1e-3, atol=1e-3)


def with_library_hooks(model, clean, corrupt, metric, steps):
    """EAP-IG with ``transformer_lens``'s own hooks: a matrix of senders and receivers, filled on the way back."""
    model.set_use_split_qkv_input(True)
    model.set_use_attn_result(True)
    model.cfg.use_hook_mlp_in = True
    _, a = model.run_with_cache(clean)
    _, b = model.run_with_cache(corrupt)
    senders = ["blocks.0.hook_resid_pre"]
    receivers = []
    for layer in range(model.cfg.n_layers):
        for head in range(model.cfg.n_heads):
            receivers += [(f"blocks.{layer}.hook_{part}_input", head) for part in "qkv"]
        senders += [(f"blocks.{layer}.attn.hook_result", head) for head in range(model.cfg.n_heads)]
        if model.cfg.d_mlp:
            receivers.append((f"blocks.{layer}.hook_mlp_in", None))
            senders.append(f"blocks.{layer}.hook_mlp_out")
    receivers.append((f"blocks.{model.cfg.n_layers - 1}.hook_resid_post", None))

    def of(cache, sender):
        return cache[sender] if isinstance(sender, str) else cache[sender[0]][:, :, sender[1]]

    change = torch.stack([of(b, s) - of(a, s) for s in senders])
    scores = torch.zeros(len(senders), len(receivers), len(clean))
    for k in range(1, steps + 1):
        slopes = {}
        embedding = b["blocks.0.hook_resid_pre"] + k / steps * (
            a["blocks.0.hook_resid_pre"] - b["blocks.0.hook_resid_pre"]
        )

        def walk(value, hook, embedding=embedding):
            return embedding.clone().requires_grad_()

        def keep(value, hook, slopes=slopes):
            slopes[hook.name] = value.detach().clone()

        with model.hooks(
            fwd_hooks=[("blocks.0.hook_resid_pre", walk)], bwd_hooks=[(name, keep) for name, _ in receivers]
        ):
            metric(model(clean)).sum().backward()
        for j, (name, head) in enumerate(receivers):
            slope = slopes[name] if head is None else slopes[name][:, :, head]
            scores[:, j] += torch.einsum("sbpd,bpd->sb", change, slope) / steps
    model.set_use_split_qkv_input(False)
    model.set_use_attn_result(False)
    model.cfg.use_hook_mlp_in = False
    return scores


def test_eap_and_eap_ig_are_those_of_the_librarys_hooks():
    for model, clean, corrupt, edges, metric in drawn(5):
        s = [sender_names(model).index(sender) for sender, _ in edges]
        r = [receiver_names(model).index(receiver) for _, receiver in edges]
        for steps in (1, 4):
            wanted = with_library_hooks(model, clean, corrupt, metric, steps)[s, r]
            found = eap_ig(model, clean, corrupt, edges, metric, steps=steps)
            assert torch.allclose(found, wanted, rtol=1e-3, atol=1e-4)
            if steps == 1:
                found = edge_attribution_patching(model, clean, corrupt, edges, metric)
                assert torch.allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_what_acdc_returns_is_what_its_definition_says_run_by_run():
    """Each edge that is kept changes the circuit made of the decisions before it by more than the threshold."""
    for kind, seed in (("and", 0), ("or", 1), ("cancelling", 2)):
        p, threshold = planted_circuit(kind, seed, n=4), 0.3
        kept = acdc(p.model, p.clean, p.corrupt, p.edges, p.metric, threshold)
        replaced = sender_outputs(p.model, p.corrupt)
        n = len(p.edges)
        # Row i is the circuit when edge i comes up: those before it in the list all there, those behind it decided.
        now = torch.ones(n, n, dtype=torch.bool)
        for i in range(n):
            now[i, i + 1 :] = kept[i + 1 :]
        without = now & ~torch.eye(n, dtype=torch.bool)
        values = [
            torch.stack([p.metric(x).mean() for x in run_with_edges(p.model, p.clean, p.edges, rows, replaced)])
            for rows in (now, without)
        ]
        change = (values[1] - values[0]).abs()
        assert torch.equal(change > threshold, kept)


def test_the_roc_curve_is_sklearns():
    rng = torch.Generator().manual_seed(0)
    for n, levels in ((40, 0), (40, 3), (200, 7)):
        scores = torch.randn(n, generator=rng) if not levels else torch.randint(levels, (n,), generator=rng).float()
        truth = torch.rand(n, generator=rng) < 0.3
        false_positives, true_positives = edge_roc(scores, truth)
        their_false, their_true, _ = roc_curve(truth.numpy(), scores.numpy(), drop_intermediate=False)
        assert torch.allclose(false_positives, torch.from_numpy(their_false))
        assert torch.allclose(true_positives, torch.from_numpy(their_true))
        area = torch.trapezoid(true_positives, false_positives).item()
        assert area == pytest.approx(roc_auc_score(truth.numpy(), scores.numpy()))
