"""What part 05b says of the course model and of the second one, measured again on other prompts."""

from functools import cache

import pytest
import torch

from utils.circuits.effects import heads_replaced, outputs_at
from utils.circuits.ioi import answer_difference, gift_templates, ioi_dataset
from utils.circuits.knockout import attention_of_all_heads
from utils.circuits.overlap import circuit_overlap
from utils.circuits.paths import path_patch
from utils.circuits.repair import self_repair
from utils.circuits.roles import copy_score, duplicate_token_effect, name_mover_scores, s_inhibition_effect
from utils.data.corpus import words
from utils.data.prompts import UNFAMILIAR, documents, passive_prompts, token_id, unfamiliar_prompts
from utils.data.world import NAMES, PLACES, THINGS
from utils.models.catalogue import load_model
from utils.models.course_model import load_course_model
from utils.models.phenomena.measuring import end_logits, to_batch, untrained
from utils.patching.hooks import run_with_cache, run_with_hooks

ALL = [(layer, head) for layer in range(4) for head in range(4)]
MOVERS = [(3, 1), (3, 2), (3, 3)]
FINDER = ("blocks.1.attn.hook_z", 3)
UNEMBEDDING, MLP_1 = [("logits", None)], [("blocks.1.hook_mlp_out", None)]
QUERIES_3 = [("blocks.3.attn.hook_q", head) for head in range(4)]


@pytest.fixture(scope="module", autouse=True)
def no_graphs():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model():
    return load_course_model()


@pytest.fixture(scope="module")
def twin():
    return load_model("course-model-seed-1")


def gifts(seed, templates):
    names = torch.tensor([token_id(name) for name in NAMES])
    return ioi_dataset(templates, names, 2 * len(templates), torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=[0, 5])
def scenes(request):
    """The notebook's scenes, and others with other people: what is said holds for both."""
    return gifts(request.param, gift_templates(40, request.param))


# What many tests compare with, computed once for a model and its prompts.
outputs_there = cache(outputs_at)


@cache
def logits_of(model, tokens):
    return run_with_hooks(model, tokens, [])


def lead(model, tokens, clean, at, hooks=()):
    logits = run_with_hooks(model, tokens, list(hooks)) if hooks else logits_of(model, tokens)
    return answer_difference(logits, clean, at).mean().item()


def named(model, tokens, clean, at, who="IO", hooks=()):
    rows = torch.arange(len(tokens))
    said = run_with_hooks(model, tokens, list(hooks))[rows, at["END"]].argmax(-1)
    return (said == clean[rows, at[who]]).float().mean().item()


def fall(model, scenes, heads, kind, place="END"):
    prompts, at = scenes
    hooks = heads_replaced(heads, outputs_there(model, prompts[kind], at[place]), at[place])
    return lead(model, prompts["clean"], prompts["clean"], at) - lead(
        model, prompts["clean"], prompts["clean"], at, hooks
    )


def route(model, scenes, senders, receivers, kind="giver swapped", place="END"):
    prompts, at = scenes
    places = at["S2"] + 1 if place == "verb" else at[place]
    logits = path_patch(model, prompts["clean"], prompts[kind], senders, receivers, positions=places)
    return (
        lead(model, prompts["clean"], prompts["clean"], at)
        - answer_difference(logits, prompts["clean"], at).mean().item()
    )


def test_what_each_corruption_does_to_the_answer(model, scenes):
    prompts, at = scenes
    leads = {name: lead(model, tokens, prompts["clean"], at) for name, tokens in prompts.items()}
    assert leads["clean"] == pytest.approx(8.9, abs=0.7) and named(model, prompts["clean"], prompts["clean"], at) > 0.98
    for kind in ("giver swapped", "names swapped"):
        assert leads[kind] == pytest.approx(-leads["clean"], abs=0.7)
    assert abs(leads["ABC"]) < 1.6 and abs(leads["random names"]) < 1.6
    assert leads["said once"] == pytest.approx(15, abs=1)
    assert 0.3 < named(model, prompts["said once"], prompts["clean"], at) < 0.7
    assert named(model, prompts["said once"], prompts["clean"], at, "S2") < 0.02


def test_one_head_carries_the_choice(model, scenes):
    falls = {pair: fall(model, scenes, [pair], "giver swapped") for pair in ALL}
    assert falls[1, 3] == pytest.approx(17.7, abs=1.2) and max(falls, key=falls.get) == (1, 3)
    assert sorted(falls, key=falls.get)[-4:-1] == sorted(MOVERS, key=falls.get)
    assert max(falls[pair] for pair in ALL if pair not in [(1, 3), *MOVERS]) < 0.6
    assert fall(model, scenes, [(1, 3)], "ABC") == pytest.approx(falls[1, 3] / 2, abs=1)
    assert abs(fall(model, scenes, [(1, 3)], "said once")) < 0.05
    null = untrained(model, 1)
    assert max(abs(fall(null, scenes, [pair], "giver swapped")) for pair in ALL) < 0.05


def test_roles_by_score(model, scenes):
    prompts, at = scenes
    scores = {name: values.mean(0) for name, values in name_mover_scores(model, prompts["clean"], at).items()}
    names = torch.tensor([token_id(name) for name in NAMES])
    alone = torch.stack([torch.zeros_like(names), torch.full_like(names, token_id("Then")), names], dim=1)
    for layer, head in ALL:
        copies = copy_score(model, layer, head, alone).item()
        if layer > 1:
            assert copies > 0.99 and scores["to IO"][layer, head] > 0.4
        if (layer, head) in MOVERS:
            assert scores["direct"][layer, head] > 0.5 and scores["to IO"][layer, head] > 0.6
        elif layer > 1:
            assert abs(scores["direct"][layer, head]) < 0.35
    assert scores["direct"].flatten().argmax() == 7 and scores["to S"][1, 3] > 0.97
    assert copy_score(model, 1, 3, alone, sign=-1) > 0.95 and copy_score(model, 1, 3, alone) < 0.05
    assert max(copy_score(untrained(model, 0), *pair, alone, sign=sign) for pair in ALL for sign in (1, -1)) < 0.1


def test_no_head_at_s2_knows_of_the_repetition_and_the_movers_listen_to_the_finder(model, scenes):
    prompts, at = scenes
    assert abs(duplicate_token_effect(model, prompts, at, ALL).mean()) < 0.05
    change = s_inhibition_effect(model, prompts, at, [(1, 3)], MOVERS, source="giver swapped")
    assert change["to IO"].mean().item() == pytest.approx(-0.42, abs=0.06)
    assert change["to S"].mean().item() == pytest.approx(0.42, abs=0.06)
    assert change["to IO"][:, 1].mean() < -0.5
    for heads in ([(1, 0), (1, 1), (1, 2)], [(2, head) for head in range(4)]):
        other = s_inhibition_effect(model, prompts, at, heads, MOVERS, source="giver swapped")
        assert abs(other["to IO"].mean()) < 0.02
    same = s_inhibition_effect(model, prompts, at, [(1, 3)], MOVERS, source="said once")
    assert abs(same["to IO"].mean()) < 0.01


def test_the_split_by_route(model, scenes):
    whole = fall(model, scenes, [(1, 3)], "giver swapped")
    direct, mlp, queries = (route(model, scenes, [FINDER], receivers) for receivers in (UNEMBEDDING, MLP_1, QUERIES_3))
    assert (
        direct == pytest.approx(5.1, abs=0.5)
        and mlp == pytest.approx(9.0, abs=1)
        and queries == pytest.approx(2.3, abs=0.5)
    )
    assert 0.45 < mlp / whole < 0.56 and 0.25 < direct / whole < 0.33 and 0.1 < queries / whole < 0.17
    small = [[(f"blocks.{layer}.hook_mlp_out", None)] for layer in (2, 3)] + [
        [("blocks.2.attn.hook_q", h) for h in range(4)]
    ]
    values = [route(model, scenes, [FINDER], receivers) for receivers in small]
    assert max(values) < 0.7
    keys = [(f"blocks.{layer}.attn.hook_{kind}", head) for layer in (2, 3) for kind in "kv" for head in range(4)]
    assert abs(route(model, scenes, [FINDER], keys)) < 0.02
    everything = [*UNEMBEDDING, *MLP_1, *QUERIES_3, *keys, *(pair for receivers in small for pair in receivers)]
    together = route(model, scenes, [FINDER], everything)
    assert together == pytest.approx(13.7, abs=1) and abs(direct + mlp + queries + sum(values) - whole) < 1.2
    from_mlp = [route(model, scenes, MLP_1, receivers) for receivers in (UNEMBEDDING, QUERIES_3)]
    assert from_mlp[0] == pytest.approx(4.7, abs=0.5) and from_mlp[1] == pytest.approx(2.9, abs=0.6)
    assert route(model, scenes, [FINDER, *MLP_1], QUERIES_3) == pytest.approx(5.5, abs=0.8)
    assert route(model, scenes, [FINDER, *MLP_1], UNEMBEDDING) == pytest.approx(10.2, abs=0.9)
    assert max(abs(route(model, scenes, [("blocks.1.attn.hook_z", head)], MLP_1)) for head in range(3)) < 0.05


def test_the_storys_route_is_a_third_whatever_is_frozen(model, scenes):
    """With the MLPs computed anew, as Wang et al. do, the largest route is the unembedding, the queries a third."""
    prompts, at = scenes
    clean, late, asked = prompts["clean"], [f"blocks.{layer}.attn.hook_z" for layer in (2, 3)], "blocks.3.attn.hook_q"
    _, own = run_with_cache(model, clean, [*late, asked])
    swapped, heard = heads_replaced([(1, 3)], outputs_at(model, prompts["giver swapped"], at["END"]), at["END"]), []

    def held(*sites):
        return [(site, lambda _, site=site: own[site]) for site in sites]

    def fell(hooks):
        return lead(model, clean, clean, at) - lead(model, clean, clean, at, hooks)

    run_with_hooks(model, clean, [*swapped, *held(late[0]), (asked, lambda q: heard.append(q) or q)])
    whole = fell(swapped)
    unembedding, queries = fell([*swapped, *held(*late)]), fell([(asked, lambda _: heard[0])])
    assert 0.6 < unembedding / whole < 0.7 and 0.28 < queries / whole < 0.36
    assert unembedding > route(model, scenes, [FINDER], MLP_1) > queries
    assert 0.28 < 1 - fell([*swapped, *held(asked)]) / whole < 0.37


def test_the_split_in_other_forms(model):
    forms = {
        "held out": gift_templates(10, 0, held_out_templates=True),
        "somebody else's thing": gift_templates(20, 3, bystander=True),
    }
    for k in (10, 50):
        rows = documents(20, seed=4)
        forms[k] = [
            torch.cat([t[:1], row[1 : 1 + k], t[1:]]) for t, row in zip(gift_templates(20, 0), rows, strict=True)
        ]
    for form, templates in forms.items():
        found = gifts(1, templates)
        direct, mlp, queries = (
            route(model, found, [FINDER], receivers) for receivers in (UNEMBEDDING, MLP_1, QUERIES_3)
        )
        assert 4.4 < direct < 5.9 and 7.3 < mlp < 10.5 and 1.1 < queries < 3.3, form
        prompts, at = found
        share = named(model, prompts["clean"], prompts["clean"], at)
        assert (0.35 < share < 0.8) if isinstance(form, int) else share > 0.95
        assert lead(model, prompts["clean"], prompts["clean"], at) > 6.5


def test_the_split_breaks_in_two_sentences(model):
    stand_ins = {"Mary": -1, "Paul": -2, "Nina": -3}

    def built(sentence, first):
        found = []
        for place, thing in zip(PLACES[first : first + 10], THINGS[first : first + 10], strict=False):
            said = words(sentence.format(a="Mary", b="Paul", s="Nina", place=place, thing=thing))
            found.append(torch.tensor([0, *(stand_ins.get(word) or token_id(word) for word in said)]))
        return found

    for first in (0, 8):
        found = gifts(1, built(UNFAMILIAR[10], first))
        split = [route(model, found, [FINDER], receivers) for receivers in (UNEMBEDDING, MLP_1, QUERIES_3)]
        assert 4 < split[0] < 5.9 and 6 < split[1] < 10 and 1.1 < split[2] < 3.3
        found = gifts(1, built(UNFAMILIAR[0], first))
        split = [route(model, found, [FINDER], receivers) for receivers in (UNEMBEDDING, MLP_1, QUERIES_3)]
        prompts, at = found
        assert lead(model, prompts["clean"], prompts["clean"], at) < 2
        assert 0.3 < named(model, prompts["clean"], prompts["clean"], at) < 0.7
        assert 3.5 < split[0] < 5.5 and split[1] < split[0] + 1 and fall(model, found, [(1, 3)], "giver swapped") < 13


def test_what_comes_back_is_the_norm(model, scenes):
    prompts, at = scenes
    clean, strangers = prompts["clean"], outputs_at(model, prompts["random names"], at["END"])
    mean = strangers.mean(0, keepdim=True)

    def ledger(heads, outputs):
        found = self_repair(model, clean, at, heads, outputs)
        sums = {name: (x.flatten(1).sum(1) if x.dim() > 1 else x).mean().item() for name, x in found.items()}
        return sums, named(model, clean, clean, at, hooks=heads_replaced(heads, outputs, at["END"]))

    one, _ = ledger([(3, 2)], mean)
    assert one["lost"] == pytest.approx(1.3, abs=0.2) and 0.4 < one["norm"] / one["lost"] < 0.65
    assert abs(one["heads"]) < 0.01 and abs(one["mlps"]) < 0.1
    later = [(layer, head) for layer in (2, 3) for head in range(4)]
    by_mean, share = ledger(later, mean)
    assert by_mean["lost"] == pytest.approx(3, abs=0.4) and abs(by_mean["fall"]) < 0.9 and share < 0.02
    assert by_mean["norm"] == pytest.approx(3.25, abs=0.5)
    resampled, share = ledger(later, strangers)
    assert resampled["norm"] < 0 and resampled["fall"] > 3 and share < 0.02
    layer_2, _ = ledger(later[:4], mean)
    assert layer_2["fall"] == pytest.approx(-3.6, abs=0.6) and layer_2["norm"] == pytest.approx(3.4, abs=0.5)


def test_layer_2_brings_the_names_and_layer_3_tilts_the_difference(model, scenes):
    prompts, at = scenes
    clean, strangers = prompts["clean"], outputs_at(model, prompts["random names"], at["END"])
    mean, layer_2 = strangers.mean(0, keepdim=True), [(2, head) for head in range(4)]

    def share(heads, outputs):
        return named(model, clean, clean, at, hooks=heads_replaced(heads, outputs, at["END"]))

    assert share(MOVERS, mean) > 0.95 and share(MOVERS, strangers) > 0.93
    assert 0.65 < share(layer_2, mean) < 0.95 and share(layer_2, strangers) < 0.35
    for outputs, others in ((mean, 0.15), (strangers, -0.35)):
        found = self_repair(model, clean, at, layer_2, outputs)
        assert abs(found["lost"].mean()) < 0.5
        assert found["heads"].sum((1, 2)).mean().item() == pytest.approx(others, abs=0.35)
        assert abs(found["mlps"].sum(1).mean()) < 0.4
        for heads in ([(3, 2)], MOVERS, [*layer_2, *((3, head) for head in range(4))]):
            assert self_repair(model, clean, at, heads, outputs)["heads"].abs().max() < 1e-4  # nobody reads them
    for heads in ([(3, 2)], MOVERS):
        found = self_repair(model, clean, at, heads, strangers)
        assert 0.2 < (found["norm"].mean() / found["lost"].mean()) < 0.6


# The second model


def test_the_second_model_does_it_by_the_verb(twin, scenes):
    prompts, at = scenes
    clean, rows, verb = prompts["clean"], torch.arange(len(prompts["clean"])), at["S2"] + 1
    assert named(twin, clean, clean, at) > 0.98
    falls = {pair: fall(twin, scenes, [pair], "giver swapped") for pair in ALL}
    assert sorted(falls, key=falls.get)[-2:] == [(1, 0), (1, 2)]
    assert max(falls[pair] for pair in ALL if pair not in ((1, 0), (1, 2))) < 0.8
    patterns = attention_of_all_heads(twin, clean)
    for head in (0, 2):
        assert patterns[1][rows, head, at["END"], verb].mean() > 0.85
        looks = sum(patterns[1][rows, head, at["END"], at[place]].mean() for place in ("IO", "S1", "S2"))
        assert looks < 0.05
    assert patterns[0][rows, 3, verb, at["S2"]].mean() > 0.9
    values, keys = ([(f"blocks.1.attn.hook_{kind}", head) for head in (0, 2)] for kind in "vk")
    whole = fall(twin, scenes, [(1, 0), (1, 2)], "giver swapped")
    sender = [("blocks.0.attn.hook_z", 3)]
    assert route(twin, scenes, sender, values, place="verb") > 0.9 * whole
    assert abs(route(twin, scenes, sender, keys, place="verb")) < 0.2
    for head in range(3):
        assert abs(route(twin, scenes, [("blocks.0.attn.hook_z", head)], values, place="verb")) < 0.3
    both = [("blocks.1.attn.hook_z", 0), ("blocks.1.attn.hook_z", 2)]
    assert route(twin, scenes, both, UNEMBEDDING) / whole > 0.35 and route(twin, scenes, both, MLP_1) / whole > 0.25
    assert route(twin, scenes, both, QUERIES_3) / whole < 0.06
    assert abs(duplicate_token_effect(twin, prompts, at, ALL).mean()) < 0.05


def stream_swapped(network, scenes, layer, place):
    prompts, at = scenes
    clean, site, rows = prompts["clean"], f"blocks.{layer}.hook_resid_pre", torch.arange(len(prompts["clean"]))
    _, cache = run_with_cache(network, prompts["giver swapped"], [site])

    def edit(stream):
        changed = stream.clone()
        changed[rows, place] = cache[site][rows, place]
        return changed

    return lead(network, clean, clean, at) - lead(network, clean, clean, at, [(site, edit)])


def test_where_the_name_is_layer_by_layer(model, twin, scenes):
    at = scenes[1]
    for network, stations in ((model, ("S2", "S2", "END", "END")), (twin, ("S2", "verb", "END", "END"))):
        whole = stream_swapped(network, scenes, 0, at["S2"])
        assert whole > 15
        for layer, station in enumerate(stations):
            for name, place in {"S2": at["S2"], "verb": at["S2"] + 1, "END": at["END"]}.items():
                found = stream_swapped(network, scenes, layer, place)
                assert found == pytest.approx(whole if name == station else 0, abs=0.6), (layer, name)


def test_the_overlap_is_within_chance(model, twin, scenes):
    effects = {
        name: torch.tensor(
            [[fall(network, scenes, [(layer, head)], "giver swapped") for head in range(4)] for layer in range(4)]
        )
        for name, network in (("first", model), ("second", twin))
    }
    other = gifts(8, gift_templates(20, 9))
    again = torch.tensor(
        [[fall(model, other, [(layer, head)], "giver swapped") for head in range(4)] for layer in range(4)]
    )
    assert circuit_overlap(effects["first"], again, 0, torch.Generator())[0] > 0.93
    overlap, draws = circuit_overlap(effects["first"], effects["second"], 2000, torch.Generator().manual_seed(0))
    assert 0.4 < overlap < 0.75 and (draws >= overlap).float().mean() > 0.02


def test_outside_the_scenes_the_two_part(model, twin):
    found = {}
    for name, network in (("first", model), ("second", twin)):
        for bystander in (False, True):
            batch = to_batch(passive_prompts(200, 0, bystander=bystander))
            said = end_logits(network, batch).argmax(-1)
            found[name, bystander] = (said == batch.foils).float().mean().item()
    assert found["first", False] > 0.9 and 0.3 < found["first", True] < 0.6
    assert abs(found["second", False] - found["second", True]) < 0.15 and 0.5 < found["second", False] < 0.8


def test_in_which_sentences_of_another_build_the_two_part(model, twin):
    for seed in (0, 5):
        for i in range(len(UNFAMILIAR)):
            batch = to_batch([prompt for prompt in unfamiliar_prompts(40, seed) if prompt.unit == str(i)])
            said = [end_logits(network, batch).argmax(-1) for network in (model, twin)]
            shares = [[(x == people).float().mean() for people in (batch.answers, batch.foils)] for x in said]
            apart = max(abs(a - b) for a, b in zip(*shares, strict=True)).item()
            assert (apart > 0.3) if i in (3, 8, 9, 10) else (apart < 0.3), (seed, i, apart)
