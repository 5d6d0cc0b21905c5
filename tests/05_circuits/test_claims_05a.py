"""What part 05a says of the course model and of small networks in training, measured again."""

import itertools
import math
import random

import pytest
import torch

from utils.circuits.by_hand import two_head_induction_by_hand
from utils.circuits.case_05a import KINDS
from utils.circuits.detectors import duplicate_token_score, induction_score, previous_token_score
from utils.circuits.knockout import attention_of_all_heads, mean_outputs, without_heads
from utils.circuits.networks import attention_only
from utils.circuits.ngrams import ngram_log_probs
from utils.circuits.phase import induction_phase_change
from utils.circuits.repeats import in_context_learning_score, loss_by_position, repeated_random_tokens
from utils.circuits.training import training_history
from utils.circuits.weights import composition_score, ov_copying_score
from utils.data import world
from utils.data.corpus import corpus
from utils.data.prompts import documents, token_id
from utils.models.course_model import load_course_model
from utils.models.phenomena.measuring import untrained
from utils.patching.hooks import run_with_cache, run_with_hooks

PERIOD = 40
PREVIOUS, LAYER_2 = [(1, 0), (1, 1)], [(2, head) for head in range(4)]


@pytest.fixture(scope="module", autouse=True)
def no_graphs():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model():
    return load_course_model()


def rows(n, seed, period=PERIOD):
    return repeated_random_tokens(n, period, torch.arange(2, 666), 0, torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=[0, 11])
def tokens(request):
    """The notebook's rows, and others: what is said holds for both."""
    return rows(40, request.param)


@pytest.fixture(scope="module")
def means(model):
    return mean_outputs(model, rows(60, 1))


def second_time(losses):
    return losses[:, losses.shape[1] // 2 + 2 :].mean().item()


def scores(model, tokens):
    patterns = attention_of_all_heads(model, tokens)
    return (
        torch.stack([previous_token_score(p).mean(0) for p in patterns]),
        torch.stack([duplicate_token_score(p, tokens).nanmean(0) for p in patterns]),
        torch.stack([induction_score(p, tokens).nanmean(0) for p in patterns]),
    )


def test_how_many_orders_there_are():
    assert round(sum(math.log10(664 - i) for i in range(40))) == 112


def test_the_loss_falls_from_guessing_to_nothing(model, tokens):
    losses = loss_by_position(model(tokens), tokens)
    assert losses[:, 2 : PERIOD + 1].mean().item() == pytest.approx(math.log(666), abs=0.1)
    assert second_time(losses) < 0.01
    assert losses[:, PERIOD + 2].mean() < 0.1


def test_no_order_gains_by_the_repetition(tokens):
    train, text = torch.tensor(corpus(1000, seed=0)).long(), documents(20, seed=0)[:, : tokens.shape[1]]
    on_text = {}
    for order in (1, 2, 3, 5):
        losses = -ngram_log_probs(train, torch.cat([tokens[:20], text]), order, 666)
        assert losses[:20, 1 : PERIOD + 1].mean().item() == pytest.approx(second_time(losses[:20]), abs=0.15)
        assert second_time(losses[:20]) > math.log(666)
        on_text[order] = losses[20:, 1:].mean().item()
    assert 2 < on_text[3] < min(4, on_text[1])


def test_who_looks_where(model, tokens):
    previous, duplicate, induction = scores(model, tokens)
    assert previous[1, 0] == pytest.approx(0.78, abs=0.03) and previous[1, 1] == pytest.approx(0.65, abs=0.03)
    assert previous[[0, 2, 3]].max() < 0.15 and duplicate.max() < 0.05
    assert induction[2].min() > 0.88 and induction[2].argmax() == 3 and induction[:2].max() < 0.05
    assert induction[3, 0] == pytest.approx(0.57, abs=0.04)
    for seed in range(3):
        assert max(found.max() for found in scores(untrained(model, seed), tokens)) < 0.06


def test_on_text_the_scores_are_low(model):
    previous, _, induction = scores(model, documents(40, seed=0))
    assert previous[1, 0] > 0.65 and induction.max() < 0.2


def to_the_token_before(model, tokens):
    """Heads 1.0 and 1.1 by position of the query, which is one more than the index."""
    return attention_of_all_heads(model, tokens)[1].diagonal(offset=-1, dim1=-2, dim2=-1)[:, :2].mean(0)


def test_the_previous_token_heads_fade_on_random_words_alone(model, tokens):
    by_place, text = to_the_token_before(model, tokens), to_the_token_before(model, documents(60, seed=0))
    assert by_place[0, 1:39].mean() > 0.97 and by_place[1, 1:39].mean() > 0.93
    assert by_place[0, 63:79].mean() == pytest.approx(0.38, abs=0.05)
    assert by_place[1, 63:79].mean() == pytest.approx(0.13, abs=0.05)
    for head in range(2):
        assert (text[head, 1:39].mean() - text[head, 63:79].mean()).abs() < 0.12


def test_rows_of_the_kind_are_one_in_twelve():
    train = torch.tensor(corpus(1000, seed=3)).long()
    repeated = torch.stack([(train[:, p + 1 :] == train[:, 1:-p]).float().mean(1) > 0.95 for p in range(4, 49)]).any(0)
    assert repeated.float().mean().item() == pytest.approx(1 / 12, abs=0.025)


def test_a_counting_head_passes_at_its_own_period_alone(model):
    for period, score in ((40, 1.0), (39, 0.0), (20, 0.0)):
        tokens = rows(5, period, period)
        n_pos = tokens.shape[1]
        pattern = torch.zeros(5, 1, n_pos, n_pos)
        pattern[:, :, torch.arange(n_pos), (torch.arange(n_pos) - 39).clamp(min=0)] = 1.0
        assert induction_score(pattern, tokens).mean().item() == pytest.approx(score, abs=1e-6)
        assert scores(model, tokens)[2][2, 3] > 0.85


def test_two_heads_suffice(tokens):
    state = two_head_induction_by_hand(666, tokens.shape[1])
    logits, _ = attention_only(state, tokens)
    assert (logits[:, PERIOD + 1 : -1].argmax(-1) == tokens[:, PERIOD + 2 :]).all()
    alone = state | {"blocks.0.attn.W_O": torch.zeros_like(state["blocks.0.attn.W_O"])}
    logits, patterns = attention_only(alone, tokens)
    assert second_time(loss_by_position(logits, tokens)) > 6
    assert induction_score(patterns[1], tokens).mean() < 0.05


def table(model, of):
    """Writers of layers 0 and 1, averaged over the readers of layer 2."""
    return torch.stack(
        [torch.stack([of(model, *divmod(writer, 4), reader) for reader in range(4)]).mean(0) for writer in range(8)]
    )


def composition(model, layer, head, reader):
    OV = model.W_V[layer, head] @ model.W_O[layer, head]
    QK, later = model.W_Q[2, reader] @ model.W_K[2, reader].T, model.W_V[2, reader] @ model.W_O[2, reader]
    return torch.stack([composition_score(OV, later if kind == "V" else QK, kind) for kind in "QKV"])


def matching(model, layer, head, reader):
    words = model.W_E[2:]
    back = model.W_K[2, reader].T @ (model.W_V[layer, head] @ model.W_O[layer, head]).T
    found = (words @ model.W_Q[2, reader] @ back @ words.T).argmax(1) == torch.arange(len(words))
    return torch.stack([ov_copying_score(words, model.W_Q[2, reader], back, words.T), found.float().mean()])


def test_heads_of_layers_2_and_3_copy_and_head_1_3_suppresses(model):
    def copying(model, layer, head):
        return ov_copying_score(model.W_E, model.W_V[layer, head], model.W_O[layer, head], model.W_U).item()

    assert min(copying(model, layer, head) for layer in (2, 3) for head in range(4)) > 0.98
    assert copying(model, 1, 3) == pytest.approx(-0.96, abs=0.01)
    assert all(0.65 < copying(model, *head) < 0.95 for head in [(0, 0), (1, 0), (1, 1), (1, 2)])
    assert max(abs(copying(untrained(model, 0), layer, head)) for layer in range(4) for head in range(4)) < 0.2


def test_the_composition_score_does_not_single_out_the_previous_token_heads(model):
    found, null = table(model, composition), table(untrained(model, 0), composition)
    assert 0.08 < null.min() < null.max() < 0.1
    assert found[4:6, 1].min() > 0.13 and found[4:6, [0, 2]].max() < 0.065 < null.min()
    assert int(found[:, 1].argmax()) == 1  # head 0.1
    pairs = [found[list(pair), 1].mean() for pair in itertools.combinations(range(8), 2)]
    assert sum(value > found[4:6, 1].mean() for value in pairs) == 10


def test_the_line_on_the_vocabulary_does(model):
    found, null = table(model, matching), table(untrained(model, 0), matching)
    assert found[4:6, 0].min() > 0.99 and found[4, 1] > 0.95 and found[5, 1] == pytest.approx(0.85, abs=0.02)
    assert found[6, 1] == pytest.approx(0.21, abs=0.02) and found[[0, 1, 2, 3, 7], 1].max() < 0.02
    assert null[:, 0].abs().max() < 0.25 and null[:, 1].max() < 0.01
    assert found[6, 0] > 0.9 and found[0, 0] > 0.75  # eigenvalues alone do not single the two out


def test_knocked_out_singly_and_together(model, tokens, means):
    def loss(heads):
        logits, patterns = without_heads(model, tokens, heads, means)
        return second_time(loss_by_position(logits, tokens)), [induction_score(p, tokens).mean(0) for p in patterns]

    whole, _ = loss([])
    assert whole < 0.01
    assert loss([(0, 1)])[0] < whole + 0.005
    for head in range(4):
        assert whole < loss([(2, head)])[0] < 0.03
    for pair in itertools.combinations(LAYER_2, 2):
        assert 0.04 < loss(pair)[0] < 0.14
    for head in LAYER_2:
        assert 0.25 < loss([other for other in LAYER_2 if other != head])[0] < 1.2
    assert loss(LAYER_2)[0] == pytest.approx(4.6, abs=0.4)
    late = [(3, head) for head in range(3)]
    assert loss(late)[0] < 0.03
    assert loss(LAYER_2 + late)[0] == pytest.approx(8.7, abs=0.4)
    assert loss([(1, 0)])[0] == pytest.approx(0.8, abs=0.2) and loss([(1, 1)])[0] < 0.06
    without, left = loss(PREVIOUS)
    assert without == pytest.approx(6.4, abs=0.15)
    assert left[2].max() < 0.08


def test_what_any_four_heads_of_other_layers_cost(model, means):
    costs, few = {False: [], True: []}, rows(4, 7)
    others = [divmod(i, 4) for i in range(16) if i // 4 != 2]
    for heads in itertools.combinations(others, 4):
        cost = second_time(loss_by_position(without_heads(model, few, heads, means)[0], few))
        costs[(1, 0) in heads].append(cost)
    assert len(costs[False]) == 330 and max(costs[False]) < 0.7
    assert len(costs[True]) == 165 and min(costs[True]) > 0.35 and 7 < max(costs[True]) < 9


def test_three_heads_without_a_name_are_no_reserve(model, tokens, means):
    unnamed, few = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (3, 3)], tokens[:10]
    costs = sorted(
        second_time(loss_by_position(without_heads(model, few, [*LAYER_2, *three], means)[0], few))
        for three in itertools.combinations(unnamed, 3)
    )
    assert costs[17] == pytest.approx(4.7, abs=0.4) and costs[-1] < 6.6


SAID = slice(-12, -1)  # what predicts the repetition of a string of twelve, all but its first word


def filled(k, seed, period=12, n=40):
    once = rows(n, seed, k + period)[:, : k + period + 1]
    return torch.cat([once, once[:, k + 1 :]], dim=1)


def on_repetition(losses):
    return losses[:, -11:].mean().item()


def outputs(model, tokens, positions):
    sites = [f"blocks.{layer}.attn.hook_z" for layer in range(4)]
    _, cache = run_with_cache(model, tokens, sites)
    return [cache[site][:, positions].mean((0, 1)) for site in sites]


def given(model, tokens, layer, head, output):
    def edit(z):
        changed = z.clone()
        changed[:, SAID, head] = output
        return changed

    return on_repetition(
        loss_by_position(run_with_hooks(model, tokens, [(f"blocks.{layer}.attn.hook_z", edit)]), tokens)
    )


@pytest.mark.parametrize("seed", [0, 5])
def test_what_is_found_is_not_always_said(model, seed):
    to_words, found = model.ln_final.w[:, None] * model.W_U, {}
    to_words = to_words - to_words.mean(1, keepdim=True)
    for k in (0, 1, 5, 10, 20, 50, 60):
        tokens = filled(k, seed)
        logits, cache = run_with_cache(model, tokens, ["blocks.2.hook_attn_out", "blocks.3.hook_resid_post"])
        written, stream = (x[:, SAID] - x[:, SAID].mean(-1, keepdim=True) for x in cache.values())
        pushed = (written @ to_words).gather(-1, tokens[:, -11:, None]).mean()
        score = induction_score(attention_of_all_heads(model, tokens)[2], tokens).mean()
        loss = on_repetition(loss_by_position(logits, tokens))
        found[k] = loss, score, pushed, stream.pow(2).mean(-1).sqrt().mean()
    assert found[0][0] < 0.05 and 0.3 < found[1][0] < 0.9 and found[10][0] == pytest.approx(2.3, abs=0.35)
    assert found[60][0] > 6.3 and found[10][1] > 0.77 and found[50][1] < 0.25
    assert found[10][2] > 0.92 * found[0][2] and 2.7 < found[10][3] / found[0][3] < 3.6


@pytest.mark.parametrize("seed", [0, 5])
def test_head_3_3_decides_and_goes_by_the_first_word(model, means, seed):
    plain, ten = filled(0, seed), filled(10, seed)
    repeating, first_time = (outputs(model, filled(0, 1), positions) for positions in (SAID, slice(1, 13)))
    by_head = {
        pair: given(model, ten, *pair, repeating[pair[0]][pair[1]]) for pair in itertools.product(range(4), range(4))
    }
    assert by_head.pop((3, 3)) < 0.1 and min(by_head.values()) > 1.2
    assert given(model, plain, 3, 3, first_time[3][3]) == pytest.approx(3.6, abs=0.4)
    assert given(model, filled(20, seed), 3, 3, repeating[3][3]) < 0.7
    assert given(model, filled(50, seed), 3, 3, repeating[3][3]) > 4.5
    assert attention_of_all_heads(model, plain)[3][:, 3, SAID, 13].mean() == pytest.approx(0.7, abs=0.06)
    on_our_rows = rows(20, seed)
    assert second_time(loss_by_position(without_heads(model, on_our_rows, [(3, 3)], means)[0], on_our_rows)) < 0.01
    whole = on_repetition(loss_by_position(model(ten), ten))
    cost = {}
    for which in (1, 2, 3):
        tokens = torch.cat([ten[:, :23], ten[:, which : which + 1], ten[:, 23:]], dim=1)
        cost[which] = on_repetition(loss_by_position(model(tokens), tokens))
    assert cost[1] < 0.45 and min(cost[2], cost[3]) > whole / 2
    third = torch.cat([ten, ten[:, -12:]], dim=1)
    assert loss_by_position(model(third), third)[:, -12:].mean() < 0.3


def test_materials_are_hardly_told_apart_and_late_pairs_not_found(model):
    kinds, kept, twice = KINDS | {"material": world.MATERIALS}, {}, {}
    for kind, words in kinds.items():
        rng, texts, places = random.Random(3), [], []
        rest = [word for other, of_it in kinds.items() if other != kind for word in of_it]
        for _ in range(40):
            word, similar = rng.sample(words, 2)
            others, place = rng.sample(rest, 15), rng.randint(1, 12)
            texts.append(model.to_tokens(" ".join([*others[:place], word, *others[place:], similar])))
            places.append(place + 2)
        pattern = attention_of_all_heads(model, torch.cat(texts))[2]
        kept[kind] = pattern[torch.arange(40), :, -1, torch.tensor(places)].mean()
        ids = torch.tensor([token_id(word) for word in words])
        tokens = repeated_random_tokens(40, 8, ids, 0, torch.Generator().manual_seed(3))
        twice[kind] = second_time(loss_by_position(model(tokens), tokens))
    assert 0.12 < kept.pop("material") < 0.35 and max(kept.values()) < 0.14
    assert twice.pop("material") > 6.5 and max(twice.values()) < 0.3
    once = rows(60, 3, 90)[:, :91]
    for place, low, high in ((30, 0.7, 0.9), (60, 0.0, 0.2)):
        pattern = attention_of_all_heads(model, torch.cat([once, once[:, place : place + 1]], dim=1))[2]
        assert low < pattern[:, :, -1, place + 1].mean() < high


def test_it_is_the_keys(model, tokens, means):
    sites, kept = [f"blocks.2.attn.hook_{name}" for name in "qkv"], {}

    def silenced(z):
        return torch.cat([means[1][:, :2].expand(len(z), -1, -1, -1), z[:, :, 2:]], dim=2)

    def keep(site):
        return lambda x: kept.setdefault(site, x)

    run_with_hooks(model, tokens, [("blocks.1.attn.hook_z", silenced), *((site, keep(site)) for site in sites)])
    losses = [
        second_time(loss_by_position(run_with_hooks(model, tokens, [(site, lambda x, s=site: kept[s])]), tokens))
        for site in sites
    ]
    assert losses[1] == pytest.approx(5.2, abs=0.3)
    assert losses[0] < 0.01 and losses[2] < 0.01


@pytest.mark.parametrize("seed", [0, 4])
def test_ordinary_text_has_nothing_to_gain_behind_the_first_sentence(model, seed):
    text = documents(200, seed=seed)
    losses = loss_by_position(model(text), text)
    assert abs(in_context_learning_score(losses, (10, 20), (80, 96)).mean()) < 0.15
    assert in_context_learning_score(losses, (1, 10), (80, 96)).mean().item() == pytest.approx(-0.37, abs=0.12)


def measure(tokens, logits, patterns):
    losses = loss_by_position(logits, tokens)
    return {
        "loss": losses[:, 25:].mean(),
        "score": in_context_learning_score(losses, (1, 7), (40, 48)).mean(),
        "induction": induction_score(patterns[-1], tokens).nanmean(0).max(),
        "previous": previous_token_score(patterns[0]).mean(0).sum(),
        "words": on_words_of_the_row(tokens, logits),
    }


def on_words_of_the_row(tokens, logits):
    in_row = torch.zeros_like(logits[:, 0]).scatter(1, tokens[:, 1:], 1.0)
    return (logits[:, 25:].softmax(-1) * in_row[:, None]).sum(-1).mean()


@pytest.mark.parametrize("seed", [0, 2])
def test_the_phase_change(seed):
    with torch.enable_grad():
        steps, history = training_history(seed, measure)
    times = {name: induction_phase_change(steps, values) for name, values in history.items()}
    assert abs(times["score"][1] - times["induction"][1]) < 20
    assert 80 < times["induction"][1] < 125
    assert times["induction"][2] - times["induction"][0] < 60
    assert times["previous"][1] > times["induction"][1]
    assert history["words"][0] < 0.25 and history["words"][steps == 60].item() == pytest.approx(0.49, abs=0.06)
    assert history["loss"][steps == 60].item() < history["loss"][0] - 0.6 and history["induction"][steps == 60] < 0.15
    assert history["loss"][-1] < 0.4


def test_one_layer_has_no_induction_head_and_a_score_all_the_same():
    with torch.enable_grad():
        steps, history = training_history(0, measure, n_layers=1)
    assert history["induction"].max() < 0.15 and history["loss"][-1] > 2.6
    assert history["score"][-1].item() == pytest.approx(-1.4, abs=0.25)
    score, induction = (induction_phase_change(steps, history[name])[1] for name in ("score", "induction"))
    assert abs(score - induction) < 20  # times agree where nothing has come about
    assert history["loss"][steps == 60] > history["loss"][-1] + 0.2
    assert history["words"][steps == 60].item() == pytest.approx(0.49, abs=0.06)
    assert history["words"][-1].item() == pytest.approx(0.72, abs=0.06)
