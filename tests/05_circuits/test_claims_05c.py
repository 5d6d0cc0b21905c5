"""What part 05c says of the course model and of planted circuits, measured again."""

import random

import pytest
import torch

from utils.circuits.acdc import acdc
from utils.circuits.case_05c import EDGES, effects_of_pairs, what_an_edge_carries
from utils.circuits.edge_scores import eap_ig, edge_attribution_patching, edge_patching
from utils.circuits.graph import build_graph
from utils.circuits.messages import receiver_names, run_with_edges, sender_names, sender_outputs
from utils.circuits.planted import KINDS, planted_circuit
from utils.circuits.roc import edge_roc
from utils.data.prompts import UNFAMILIAR, giving_roles, ioi_prompts, passive_prompts, token_id, unfamiliar_prompts
from utils.data.world import NAMES
from utils.models.course_model import load_course_model
from utils.models.phenomena.measuring import to_batch, untrained
from utils.patching.hooks import run_with_cache
from utils.patching.metrics import logit_difference

GRAPH = build_graph(4, 4)
AT = {edge: i for i, edge in enumerate(GRAPH)}


def rank_correlation(a, b):
    return torch.corrcoef(torch.stack([x.argsort().argsort().double() for x in (a, b)]))[0, 1].item()


@pytest.fixture(scope="module")
def model():
    return load_course_model().requires_grad_(False)


class Gifts:
    """Prompts with another giver, and with another receiver."""

    def __init__(self, seed, n=8):
        self.prompts = ioi_prompts(n, seed=seed)
        self.batch = to_batch(self.prompts)
        self.clean, rows, at = self.batch.tokens, self.batch.rows(), self.batch.at
        self.giver, self.receiver, rng = self.clean.clone(), self.clean.clone(), random.Random(seed)
        self.giver[rows, at["S2"]] = self.clean[rows, at["IO"]]
        for i, prompt in enumerate(self.prompts):
            stranger = rng.choice([name for name in NAMES if name not in (prompt.answer, prompt.foil)])
            self.receiver[i, at["IO"][i]] = token_id(stranger)

    def metric(self, logits):
        return logit_difference(logits, self.batch.answers, self.batch.foils, self.batch.at["END"])


@pytest.fixture(scope="module", params=[0, 11])
def gifts(request):
    """The notebook's prompts, and others: what is said holds for both."""
    return Gifts(request.param)


@pytest.fixture(scope="module")
def exact(model, gifts):
    return {
        name: edge_patching(model, gifts.clean, getattr(gifts, name), GRAPH, gifts.metric).mean(1)
        for name in ("giver", "receiver")
    }


def test_few_edges_carry_who_gives_along_three_routes(model, gifts, exact):
    with torch.no_grad():
        assert gifts.metric(model(gifts.clean)).mean() > 7.5 and gifts.metric(model(gifts.giver)).mean() < -7.5
    effect = exact["giver"]
    assert 13 <= (effect.abs() > 0.5).sum() <= 27 and (effect.abs() < 0.05).sum() > 400
    for edge in (("embed", "a1.3.v"), ("m0", "a1.3.v"), ("a1.3", "m1"), ("a1.3", "logits"), ("m1", "logits")):
        assert effect[AT[edge]] < -3.5, edge
    assert effect[AT["a1.3", "a3.2.q"]] < -0.5
    assert effect.sum() < -45


def test_both_find_the_edges_and_differ_on_the_largest_sizes_and_on_the_smallest_ranks(model, gifts, exact):
    inputs = (model, gifts.clean, gifts.giver, GRAPH, gifts.metric)
    effect, eap, ig = exact["giver"], edge_attribution_patching(*inputs).mean(1), eap_ig(*inputs).mean(1)
    assert rank_correlation(eap, effect) > 0.85 and rank_correlation(eap.abs(), effect.abs()) > 0.95
    assert rank_correlation(ig, effect) < rank_correlation(eap, effect) - 0.05
    # What is large is measured better on the way, and what is small at the clean prompt.
    order = effect.abs().argsort(descending=True)
    top, small = order[:10], effect.abs() < 0.05
    assert (ig - effect)[top].abs().mean() < 0.6 * (eap - effect)[top].abs().mean()
    assert 0.4 < eap[AT["a1.3", "m1"]] / effect[AT["a1.3", "m1"]] < 0.65
    assert 0.8 < ig[AT["a1.3", "m1"]] / effect[AT["a1.3", "m1"]] < 1.1
    assert rank_correlation(eap[small], effect[small]) > rank_correlation(ig[small], effect[small]) + 0.05
    # Both find what is large, and among the thirty largest neither ranks worse by much.
    large = set((effect.abs() > 0.5).nonzero()[:, 0].tolist())
    for scores in (eap, ig):
        highest = set(scores.abs().argsort(descending=True)[: len(large)].tolist())
        assert len(large & highest) >= len(large) - 2
        assert rank_correlation(scores.abs()[order[:30]], effect.abs()[order[:30]]) > 0.88
    nulls = [edge_attribution_patching(untrained(model, seed), *inputs[1:]).mean(1).abs().detach() for seed in range(5)]
    assert max(null.max() for null in nulls) < 0.02
    assert all(0 < rank_correlation(null, effect.abs()) < 0.45 for null in nulls)


def test_two_corruptions_find_two_circuits(model, gifts, exact):
    giver, receiver = exact["giver"], exact["receiver"]
    for edge in (("a1.3", "m1"), ("a1.3", "logits"), ("embed", "a1.3.v")):
        assert giver[AT[edge]] < -3 and abs(receiver[AT[edge]]) < 0.3
    assert abs(giver[AT["a2.2", "logits"]]) < 0.1 and receiver[AT["a2.2", "logits"]] < -1.2
    assert giver[AT["a3.3", "logits"]] < -0.5 and receiver[AT["a3.3", "logits"]] < -0.5
    tops = [set(x.abs().argsort(descending=True)[:20].tolist()) for x in (giver, receiver)]
    assert 5 <= len(tops[0] & tops[1]) <= 13


class Orders:
    """Prompts in both orders of names, with a stranger for the receiver, or for the giver in both mentions."""

    def __init__(self, seed, n=40):
        gifts = Gifts(seed, n)
        self.clean, self.metric, self.receiver = gifts.clean, gifts.metric, gifts.receiver
        rows, self.at = gifts.batch.rows(), gifts.batch.at
        self.rows, self.giver = rows, self.clean.clone()
        stranger = self.receiver[rows, self.at["IO"]]
        self.giver[rows, self.at["S1"]] = self.giver[rows, self.at["S2"]] = stranger
        self.receiver_first = self.at["IO"] < self.at["S1"]
        self.first, self.second = torch.stack([self.at["IO"], self.at["S1"]]).sort(dim=0).values


@pytest.fixture(scope="module", params=[5, 12])
def orders(request):
    return Orders(request.param)


def test_head_2_2_copies_the_first_named_and_the_others_of_its_layer_the_second(model, orders):
    edges = [(f"a2.{head}", "logits") for head in range(4)]
    receiver = edge_patching(model, orders.clean, orders.receiver, edges, orders.metric)
    giver = edge_patching(model, orders.clean, orders.giver, edges, orders.metric)
    _, cache = run_with_cache(model, orders.clean, ["blocks.2.attn.hook_pattern"])
    for head in range(4):
        pattern = cache["blocks.2.attn.hook_pattern"][orders.rows, head, orders.at["END"]]
        copied = orders.first if head == 2 else orders.second
        says_receiver = orders.receiver_first if head == 2 else ~orders.receiver_first
        for which in (orders.receiver_first, ~orders.receiver_first):
            assert pattern[orders.rows, copied][which].mean() > 0.75
        least = 4 if head == 2 else 1.7
        assert receiver[head][says_receiver].mean() < -least and giver[head][~says_receiver].mean() > least
        assert receiver[head][~says_receiver].mean().abs() < 0.8 and giver[head][says_receiver].mean().abs() < 0.8


def test_slopes_miss_the_queries_and_keys_of_head_0_3_where_the_receiver_is_named_second(model, orders):
    inputs = (model, orders.clean, orders.receiver, [("embed", "a0.3.q"), ("embed", "a0.3.k")], orders.metric)
    exact, eap, ig = edge_patching(*inputs), edge_attribution_patching(*inputs), eap_ig(*inputs, steps=30)
    second = ~orders.receiver_first
    for i in range(2):
        assert exact[i][second].mean() < -1 and exact[i][~second].mean() > -0.5
        assert eap[i][second].mean() > 0.35 * exact[i][second].mean()
        assert ig[i][second].mean() > 0.25 * exact[i][second].mean() and ig[i][second].mean() > eap[i][second].mean()
    # The softmax is less sure where the effect is large.
    _, cache = run_with_cache(model, orders.clean, ["blocks.0.attn.hook_pattern"])
    own = cache["blocks.0.attn.hook_pattern"][orders.rows, 3, orders.at["IO"], orders.at["IO"]]
    assert own[second].mean() < own[~second].mean() - 0.05 and own[second].mean() > 0.7


def test_the_verdicts_of_the_reference_and_the_two_orders(model):
    for seed in (3, 5):
        pairs = []
        for prompt in ioi_prompts(16, seed=seed):
            stranger = next(name for name in NAMES if name not in (prompt.answer, prompt.foil))
            pairs.append((prompt.text, prompt.text.replace(prompt.answer, stranger)))
        effects = effects_of_pairs(model, pairs, [EDGES["2.2"]])[0]
        second = torch.tensor([next(iter(giving_roles(text).said)) == giving_roles(text).giver for text, _ in pairs])
        assert effects[~second].mean() < -3 and effects[second].abs().max() < 0.3
    design = what_an_edge_carries(model)
    assert [design[f"verdict_{edge}"] for edge in EDGES] == ["giver", "receiver", "both"]


def effects_with_another_giver(model, prompts):
    batch = to_batch(prompts)
    corrupt, rows = batch.tokens.clone(), batch.rows()
    corrupt[rows, batch.at["S2"]] = batch.tokens[rows, batch.at["IO"]]

    def metric(logits):
        return logit_difference(logits, batch.answers, batch.foils, batch.at["END"])

    edges = [("a1.3", "m1"), ("a1.3", "logits"), ("a2.2", "logits")]
    with torch.no_grad():
        ahead = metric(model(batch.tokens)).mean()
    return edge_patching(model, batch.tokens, corrupt, edges, metric).mean(1), ahead


@pytest.mark.parametrize("seed", [0, 3])
def test_in_twelve_other_forms_head_1_3_does_the_same_and_head_2_2_does_not(model, seed):
    prompts = unfamiliar_prompts(40, seed=seed)
    found, ahead = zip(
        *(effects_with_another_giver(model, [p for p in prompts if p.kind[1] == str(form)])
          for form in range(len(UNFAMILIAR))), strict=True,
    )  # fmt: skip
    found = torch.stack(found)
    assert (found[:, :2] < -1.7).all() and (found[:, :2] > -10.5).all() and min(ahead) < 0
    first, second = found[:, 2].sort(descending=True).values[:2]
    assert 8.5 < first < 12 and 4 < second < 6.5


def test_where_the_thing_has_an_owner_the_edges_of_head_1_3_do_little(model):
    for seed in (0, 3):
        for bystander in (False, True):
            found, ahead = effects_with_another_giver(model, passive_prompts(40, seed=seed, bystander=bystander))
            assert (found[:2] > -1).all() and (found[:2] < -0.3).all()
            assert bystander or ahead < -5


def test_acdc_and_as_many_edges_by_score_lie_within_a_nat_and_a_half_and_none_is_always_ahead(model):
    seen, unseen = Gifts(2, 18), Gifts(2, 18)
    seen.batch = to_batch(seen.prompts[:6])
    inputs = (model, seen.clean[:6], seen.giver[:6], GRAPH, seen.metric)
    scores = [method(*inputs).mean(1).abs() for method in (edge_patching, edge_attribution_patching, eap_ig)]
    others = sender_outputs(model, unseen.giver)
    best = []
    for threshold in (1.0, 0.1):
        circuits = [acdc(*inputs, threshold)]
        size = int(circuits[0].sum())
        circuits += [torch.zeros(len(GRAPH), dtype=torch.bool) for _ in scores]
        for kept, score in zip(circuits[1:], scores, strict=True):
            kept[score.argsort(descending=True)[:size]] = True
        runs = run_with_edges(model, unseen.clean, GRAPH, torch.stack(circuits), others)
        alone = torch.stack([unseen.metric(logits)[6:].mean() for logits in runs])
        assert alone.max() - alone.min() < 1.6, (threshold, alone)
        best.append(alone)
    assert best[0][3] > best[0][0] + 0.4 and best[1][0] > best[1][3] - 0.2, best


@pytest.fixture(scope="module")
def planted():
    """For each kind and method [seed, edge], and the truth."""
    methods = {
        "exact": edge_patching,
        "EAP": edge_attribution_patching,
        "5": eap_ig,
        "30": lambda *inputs: eap_ig(*inputs, steps=30),
    }
    found = {}
    for kind in KINDS:
        circuits = [planted_circuit(kind, seed, n=8) for seed in range(20, 28)]  # not the notebook's
        for label, method in methods.items():
            scores = [method(p.model, p.clean, p.corrupt, p.edges, p.metric).mean(1) for p in circuits]
            found[kind, label] = torch.stack(scores)
        found[kind] = circuits
    return found


def share_found(planted, kind, label):
    return sum(
        p.truth[x.abs().argsort(descending=True)[: int(p.truth.sum())]].double().mean().item()
        for x, p in zip(planted[kind, label], planted[kind], strict=True)
    ) / len(planted[kind])


def area(planted, kind, label, size=torch.abs):
    areas = []
    for x, p in zip(planted[kind, label], planted[kind], strict=True):
        false_positives, true_positives = edge_roc(size(x), p.truth)
        areas.append(torch.trapezoid(true_positives, false_positives).item())
    return sum(areas) / len(areas)


def test_each_method_misses_a_kind(planted):
    assert share_found(planted, "copy", "EAP") < 0.5 and share_found(planted, "copy", "exact") > 0.97
    assert share_found(planted, "or", "exact") < 0.7 and share_found(planted, "or", "EAP") < 0.7
    assert share_found(planted, "or", "30") > share_found(planted, "or", "exact") + 0.2
    for label in ("exact", "EAP", "5", "30"):
        assert 0.75 < share_found(planted, "cancelling", label) < 0.95
        assert share_found(planted, "and", label) > 0.97 and share_found(planted, "inhibition", label) > 0.95


def test_the_area_hardly_notices_and_the_sign_does_not_help(planted):
    assert all(area(planted, kind, "exact") > 0.9 for kind in KINDS)
    assert area(planted, "inhibition", "exact", torch.neg) < 0.65


def test_single_edges_of_the_kinds(planted):
    p = planted["copy"][0]
    key = next(i for i in p.truth.nonzero()[:, 0].tolist() if p.edges[i][1].endswith(".k"))
    assert planted["copy", "exact"][0, key] < -6 and abs(planted["copy", "EAP"][0, key]) < 0.05
    head = p.edges[key][1]
    with torch.no_grad():
        _, cache = run_with_cache(p.model, p.clean, ["blocks.1.attn.hook_pattern"])
    assert cache["blocks.1.attn.hook_pattern"][:, int(head[3]), -1].max(-1).values.min() > 0.9999
    steps = {
        n: eap_ig(p.model, p.clean, p.corrupt, [p.edges[key]], p.metric, steps=n).mean().item() for n in (1, 2, 20, 50)
    }
    assert abs(steps[1]) < 0.1 and steps[2] < 2.5 * planted["copy", "exact"][0, key]
    exact = planted["copy", "exact"][0, key].item()
    assert steps[20] == pytest.approx(exact, rel=0.1) and steps[50] == pytest.approx(exact, rel=0.1)
    gate = planted["and"][0]
    into = next(i for i in gate.truth.nonzero()[:, 0].tolist() if gate.edges[i][1].startswith("m"))
    exact, eap, ig = (planted["and", label][0, into] for label in ("exact", "EAP", "5"))
    assert eap < 1.3 * exact and ig > 0.8 * exact


def test_the_saturated_edge_is_flat_and_falls_halfway(planted):
    p = planted["copy"][0]
    key = next(i for i in p.truth.nonzero()[:, 0].tolist() if p.edges[i][1].endswith(".k"))
    own, others = sender_outputs(p.model, p.clean), sender_outputs(p.model, p.corrupt)
    kept = torch.arange(len(p.edges))[None] != key
    at = [
        p.metric(run_with_edges(p.model, p.clean, p.edges, kept, own + a * (others - own))[0]).mean().item()
        for a in (0, 0.3, 0.7, 1)
    ]
    assert abs(at[1] - at[0]) < 0.2 and abs(at[3] - at[2]) < 0.2 and at[0] - at[3] > 6


def test_acdc_is_exact_but_for_backups_and_what_cancels(planted):
    for kind in KINDS:
        for p in planted[kind][:5]:
            kept = acdc(p.model, p.clean, p.corrupt, p.edges, p.metric, 1.0)
            assert not (kept & ~p.truth).any()
            missing = [p.edges[i] for i in (p.truth & ~kept).nonzero()[:, 0].tolist()]
            assert len(missing) == {"or": 2, "cancelling": 1}.get(kind, 0), (kind, missing)


def test_the_order_decides_which_branch_of_an_or_is_kept(planted):
    for p in planted["or"][:3]:
        receivers, senders = receiver_names(p.model), sender_names(p.model)
        reversed_senders = sorted(p.edges, key=lambda e: (receivers.index(e[1]), -senders.index(e[0])))  # noqa: B023
        found = []
        for edges in (p.edges, reversed_senders):
            kept = acdc(p.model, p.clean, p.corrupt, edges, p.metric, 1.0)
            found.append({edge for edge, keep in zip(edges, kept, strict=True) if keep})
        assert len(found[0]) == len(found[1]) == 3 and len(found[0] & found[1]) == 1
