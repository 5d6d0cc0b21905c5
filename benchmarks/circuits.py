"""Finding edges: how well ACDC, EAP and EAP-IG do it, and what they cost beside exact edge patching.

    OMP_NUM_THREADS=1 python benchmarks/circuits.py

Prints the area under the ROC curve on ten planted circuits of each kind with a 95 % interval over seeds (ACDC's score
of an edge is the number of eight thresholds at which it is kept), and the share of a circuit's edges among as many
highest scores; on the course model the rank correlation with exact edge patching with a bootstrap interval over
prompts; the forward and backward passes, the rows that they have, and the seconds of each in one run; and how all
this grows with the number of edges.
"""

import time
from unittest import mock

import torch

from utils.circuits.acdc import acdc
from utils.circuits.edge_scores import eap_ig, edge_attribution_patching, edge_patching
from utils.circuits.graph import build_graph
from utils.circuits.planted import KINDS, planted_circuit
from utils.circuits.roc import edge_roc
from utils.course.cases import estimate
from utils.data.prompts import ioi_prompts
from utils.models.config import TransformerConfig
from utils.models.course_model import load_course_model
from utils.models.hooked import hooked_transformer
from utils.models.network import Network
from utils.models.phenomena.measuring import to_batch
from utils.patching.metrics import logit_difference

SEEDS, PROMPTS = range(10), 16
THRESHOLDS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)


def by_threshold(*inputs):
    return sum(acdc(*inputs, threshold).double() for threshold in THRESHOLDS)


SCORES = {
    "exact": lambda *inputs: edge_patching(*inputs).mean(1),
    "ACDC, 8 thresholds": by_threshold,
    "EAP": lambda *inputs: edge_attribution_patching(*inputs).mean(1),
    "EAP-IG, 5 steps": lambda *inputs: eap_ig(*inputs).mean(1),
    "EAP-IG, 30 steps": lambda *inputs: eap_ig(*inputs, steps=30).mean(1),
}


def area(scores, truth):
    false_positives, true_positives = edge_roc(scores, truth)
    return torch.trapezoid(true_positives, false_positives).item()


def share_found(scores, truth):
    return truth[scores.argsort(descending=True, stable=True)[: int(truth.sum())]].double().mean().item()


def planted_circuits():
    print(f"planted circuits, {len(SEEDS)} seeds: area under the ROC curve; share found at the circuit's size")
    for kind in KINDS:
        networks = [planted_circuit(kind, seed, n=8) for seed in SEEDS]
        for label, method in SCORES.items():
            found = [(method(p.model, p.clean, p.corrupt, p.edges, p.metric).abs(), p.truth) for p in networks]
            areas, shares = (estimate([judge(*pair) for pair in found]) for judge in (area, share_found))
            print(
                f"  {kind:12}{label:20} {areas[0]:.3f} ± {areas[1]:.3f}     {shares[0]:.2f} ± {shares[1]:.2f}",
                flush=True,
            )


def rank_correlation(a, b):
    return torch.corrcoef(torch.stack([x.argsort().argsort().double() for x in (a, b)]))[0, 1].item()


def counted(model, run):
    """The seconds of a run, its forward passes, their rows, and its backward passes."""
    forward, backward, grad = [], [], torch.autograd.grad
    handle = model.register_forward_hook(lambda module, inputs, output: forward.append(len(output)))

    def counting(*arguments, **choices):
        backward.append(1)
        return grad(*arguments, **choices)

    try:
        with mock.patch("torch.autograd.grad", counting):
            start = time.perf_counter()
            result = run()
            seconds = time.perf_counter() - start
    finally:
        handle.remove()
    return result, seconds, len(forward), sum(forward), len(backward)


def gifts(n):
    batch = to_batch(ioi_prompts(n, seed=0))
    corrupt = batch.tokens.clone()
    corrupt[batch.rows(), batch.at["S2"]] = batch.tokens[batch.rows(), batch.at["IO"]]
    return (
        batch.tokens,
        corrupt,
        lambda logits: logit_difference(logits, batch.answers, batch.foils, batch.at["END"]),
    )


def course_model():
    model = load_course_model().requires_grad_(False)
    clean, corrupt, metric = gifts(PROMPTS)
    edges = build_graph(model.cfg.n_layers, model.cfg.n_heads)
    inputs = (model, clean, corrupt, edges, metric)
    edge_attribution_patching(*inputs)  # warm
    methods = {
        "exact": lambda: edge_patching(*inputs),
        "ACDC, threshold 0.3": lambda: acdc(*inputs, 0.3),
        "EAP": lambda: edge_attribution_patching(*inputs),
        "EAP-IG, 5 steps": lambda: eap_ig(*inputs),
        "EAP-IG, 30 steps": lambda: eap_ig(*inputs, steps=30),
    }
    print(f"\ncourse model, {len(edges)} edges, {PROMPTS} prompts, in one run")
    draws = torch.randint(PROMPTS, (1000, PROMPTS), generator=torch.Generator().manual_seed(0))
    for label, run in methods.items():
        result, seconds, forward, rows, backward = counted(model, run)
        if label == "exact":
            exact, slow = result, seconds
        line = f"  {label:20}{seconds:8.2f} s ({slow / seconds:5.1f} times as fast), {forward:4} forward passes of "
        line += f"{rows:5} rows in all, {backward:2} backward"
        if label.startswith("ACDC"):
            line += f"; keeps {int(result.sum())} edges"
        elif label != "exact":
            for what, size in (("rank correlation", lambda x: x), ("of sizes", torch.abs)):
                again = torch.tensor(
                    [rank_correlation(size(result[:, d].mean(1)), size(exact[:, d].mean(1))) for d in draws]
                )
                low, high = again.quantile(torch.tensor([0.025, 0.975])).tolist()
                value = rank_correlation(size(result.mean(1)), size(exact.mean(1)))
                line += f"; {what} {value:.3f} ({low:.3f} to {high:.3f})"
        print(line, flush=True)


def growth():
    print("\nrandom models, 4 prompts of 12 tokens: seconds by number of edges")
    for layers in (1, 2, 4, 8):
        cfg = TransformerConfig(d_model=64, n_layers=layers, n_heads=4, d_head=16, d_mlp=128, n_ctx=12, d_vocab=50)
        model = hooked_transformer(cfg, Network(cfg, torch.Generator().manual_seed(0)).standard_state())
        model.requires_grad_(False)
        clean, corrupt = torch.randint(50, (2, 4, 12), generator=torch.Generator().manual_seed(1))
        edges = build_graph(layers, 4)
        inputs = (model, clean, corrupt, edges, lambda logits: logits[:, -1, 1] - logits[:, -1, 0])
        edge_attribution_patching(*inputs)  # warm
        seconds = [
            counted(model, run)[1]
            for run in (
                lambda inputs=inputs: edge_patching(*inputs),
                lambda inputs=inputs: edge_attribution_patching(*inputs),
                lambda inputs=inputs: eap_ig(*inputs),
            )
        ]
        print(
            f"  {layers} layers, {len(edges):5} edges: exact {seconds[0]:7.2f}, EAP {seconds[1]:.3f}, "
            f"EAP-IG (5) {seconds[2]:.3f}; exact / EAP {seconds[0] / seconds[1]:.0f}",
            flush=True,
        )


if __name__ == "__main__":
    course_model()
    growth()
    planted_circuits()
