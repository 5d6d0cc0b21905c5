"""What part 07a says of the course model's quotation probes, measured again, on the notebook's texts and on others."""

import random

import pytest
import torch

from utils.course.cases import estimate
from utils.data import world
from utils.data.corpus import vocabulary
from utils.models.course_model import load_course_model
from utils.models.phenomena.measuring import untrained
from utils.models.phenomena.quotes import balanced, quoting_documents
from utils.probes.activations import collect_activations
from utils.probes.baselines import last_words, place_in_text, words_so_far
from utils.probes.case_07a import ordinary_texts, reader_of, what_a_probe_reads
from utils.probes.evaluate import control_task, probe_by_layer, selectivity
from utils.probes.fit import least_squares_probe, logistic_probe, mass_mean_probe
from utils.probes.labels import inside_quotes_labels
from utils.probes.quotes import QUOTE, evenly_by_word, quote_texts, residual_sites

SEEDS = (0, 11)  # 0 is the notebook's


@pytest.fixture(scope="module")
def model():
    return load_course_model()


@pytest.fixture(scope="module")
def random_network(model):
    return untrained(model, seed=0)


@pytest.fixture(scope="module", params=SEEDS)
def texts(request):
    return quote_texts(6, seed=request.param)


def activations(model, texts, chosen):
    sites = residual_sites(model)
    found = collect_activations(model, texts.tokens, list(sites.values()), chosen)
    return dict(zip(sites, found.values(), strict=True))


@pytest.fixture(scope="module")
def x(model, texts):
    return activations(model, texts, texts.words)


def accuracies(tables, texts, chosen, fit=least_squares_probe):
    found = probe_by_layer(tables, texts.inside[chosen], texts.frames_of(chosen), fit)
    return {name: shares.mean().item() for name, shares in found.items()}


def test_words_give_the_side_away(texts):
    told = {side: set(texts.tokens[texts.words & (texts.inside == side)].tolist()) for side in (True, False)}
    words = vocabulary()
    assert len(told[True] - told[False]) > 40 and len(told[False] - told[True]) > 70
    only_inside = {words[i] for i in told[True] - told[False]}
    assert "I" in only_inside and not only_inside & {past for _, _, past in world.VERBS}
    assert 1 - texts.inside[texts.words].float().mean().item() == pytest.approx(0.594, abs=0.02)


def test_layer_2_knows_and_layer_1_does_no_better_than_four_words(model, random_network, texts, x):
    course = accuracies(x, texts, texts.words, logistic_probe)
    assert course["embedding"] == pytest.approx(0.65, abs=0.05) and course["layer 0"] == pytest.approx(0.71, abs=0.05)
    assert course["layer 1"] == pytest.approx(0.85, abs=0.03)
    assert min(course["layer 2"], course["layer 3"]) > 0.965
    null = accuracies(activations(random_network, texts, texts.words), texts, texts.words, logistic_probe)
    assert min(null.values()) > 0.58 and max(null.values()) < 0.68
    tables = {
        "word": last_words(texts.tokens, texts.words, 1),
        "four": last_words(texts.tokens, texts.words, 4),
        "bag": words_so_far(texts.tokens, texts.words),
        "place": place_in_text(texts.words),
    }
    alone = accuracies(tables, texts, texts.words)
    assert alone["word"] == pytest.approx(0.64, abs=0.03) and alone["four"] == pytest.approx(0.865, abs=0.02)
    assert alone["bag"] == pytest.approx(0.82, abs=0.03) and alone["place"] < 0.68
    assert course["layer 1"] < alone["four"] + 0.02 and course["layer 2"] > alone["four"] + 0.08
    assert abs(max(null.values()) - alone["word"]) < 0.05
    means = accuracies(x, texts, texts.words, mass_mean_probe)
    assert means["layer 2"] == pytest.approx(0.82, abs=0.03) and means["layer 2"] == max(means.values())
    assert accuracies(x, texts, texts.words)["layer 2"] > 0.955


def test_the_coloured_text(model):
    texts = quote_texts(6, seed=0)
    x, frames = activations(model, texts, texts.words), texts.frames_of(texts.words)
    row = torch.zeros_like(texts.words)
    row[78] = texts.words[78]
    one, truth = activations(model, texts, row), texts.inside[row]
    right = {
        site: ((logistic_probe(x[site][frames != 13], texts.inside[texts.words][frames != 13])(one[site]) > 0) == truth)
        for site in ("embedding", "layer 2")
    }
    assert right["layer 2"].float().mean() > 0.95 and right["embedding"].float().mean() < 0.92
    assert right["embedding"].float().mean() > accuracies(x, texts, texts.words, logistic_probe)["embedding"]


def test_a_coin_for_each_frame_leaks(texts, x):
    n, frames = len(x["layer 2"]), texts.frames_of(texts.words)
    text = torch.arange(len(texts.tokens))[:, None].expand_as(texts.tokens)[texts.words]
    found = {"tokens": [], "texts": [], "frames": []}
    for seed in range(20, 32):
        rng = torch.Generator().manual_seed(seed)
        coin = (torch.randperm(16, generator=rng) < 8)[frames]
        halves = {
            "tokens": torch.rand(n, generator=rng) < 0.5,
            "texts": (torch.randperm(len(texts.tokens), generator=rng) % 2 == 0)[text],
            "frames": (torch.arange(16) // 2 % 2 == 0)[torch.randperm(16, generator=rng)][frames],
        }
        for name, half in halves.items():
            shares = probe_by_layer({"a": x["layer 2"]}, coin, half.long(), least_squares_probe)["a"]
            found[name].append(shares.mean().item())
    (tokens, half), (by_text, _), (by_frame, _) = (estimate(found[name]) for name in ("tokens", "texts", "frames"))
    assert tokens - half > 0.53 and tokens < 0.65 and by_text > 0.52 and by_frame < 0.53 and tokens > by_frame + 0.04
    labels = texts.inside[texts.words]
    easy = probe_by_layer(x, labels, torch.arange(n) % 16, least_squares_probe)
    fair = probe_by_layer(x, labels, frames, least_squares_probe)
    gap = {site: (easy[site].mean() - fair[site].mean()).item() for site in x}
    assert gap["layer 2"] < 0.02 and 0.01 < gap["layer 0"] < 0.06 and 0.01 < gap["embedding"] < 0.06


def test_which_words_it_is_tried_on(model, random_network, texts):
    together = balanced(texts.tokens, texts.inside & texts.words, seed=0) & texts.words
    assert accuracies({"a": last_words(texts.tokens, together, 1)}, texts, together)["a"] < 0.32
    even = evenly_by_word(texts, seed=0)
    tables = {
        "word": last_words(texts.tokens, even, 1),
        "four": last_words(texts.tokens, even, 4),
        "bag": words_so_far(texts.tokens, even),
    }
    alone = accuracies(tables, texts, even)
    assert alone["word"] == 0.5 and alone["bag"] == 1.0 and alone["four"] == pytest.approx(0.77, abs=0.04)
    course = accuracies(activations(model, texts, even), texts, even, logistic_probe)
    assert (
        course["layer 2"] > 0.965 and course["embedding"] < 0.66 and course["layer 1"] == pytest.approx(0.82, abs=0.04)
    )
    null = accuracies(activations(random_network, texts, even), texts, even, logistic_probe)
    assert max(null.values()) < 0.66


def test_twice_the_colons_less_the_marks_is_the_state(texts):
    words = vocabulary()
    colons, marks = (texts.tokens == words.index(":")).cumsum(1), (texts.tokens == QUOTE).cumsum(1)
    even = evenly_by_word(texts, seed=0)
    assert torch.equal((2 * colons - marks)[even], texts.inside[even].long())


def test_labels_without_meaning_are_read_in_any_network(model, random_network, texts):
    even = evenly_by_word(texts, seed=0)
    tokens, frames, labels = texts.tokens[even], texts.frames_of(even), texts.inside[even]
    assert len(tokens.unique()) < 75
    for network, trained in ((model, True), (random_network, False)):
        x, rng = activations(network, texts, even), torch.Generator().manual_seed(3)
        task = probe_by_layer(x, labels, frames, logistic_probe)
        draws = [control_task(tokens, len(vocabulary()), 0.5, rng) for _ in range(3)]
        runs = [probe_by_layer(x, drawn, frames, logistic_probe) for drawn in draws]
        control = {site: torch.stack([run[site] for run in runs]) for site in x}
        chosen = {site: selectivity(task[site], control[site]) for site in x}
        assert control["layer 1"].mean() > 0.94
        if trained:
            assert chosen["layer 1"][0] < -0.08 and abs(chosen["layer 2"][0]) < 0.05 and 0 < chosen["layer 3"][0] < 0.1
            assert control["layer 3"].mean() < control["embedding"].mean() - 0.02
            unseen = probe_by_layer(x, draws[0], tokens % 16, logistic_probe)["layer 2"].mean()
            assert unseen < 0.68
        else:
            assert max(mean for mean, _ in chosen.values()) < -0.25 and control["layer 3"].mean() > 0.94


@pytest.mark.parametrize("seed", [5, 8])
def test_tenses_swapped(model, random_network, texts, x, seed):
    labels, found = texts.inside[texts.words], {}
    for kind in ("usual", "swapped", "random"):
        others = quote_texts(6, seed=seed, tense=kind)
        rows = activations(model, others, others.words)
        for site in ("layer 1", "layer 2", "layer 3"):
            right = (logistic_probe(x[site], labels)(rows[site]) > 0) == others.inside[others.words]
            found[kind, site] = right.float().mean().item()
    assert found["usual", "layer 1"] == pytest.approx(0.88, abs=0.03)
    assert found["swapped", "layer 1"] == pytest.approx(0.71, abs=0.04)
    assert found["swapped", "layer 2"] > 0.93 and found["swapped", "layer 3"] > 0.92
    assert found["usual", "layer 2"] - found["swapped", "layer 2"] < 0.05
    swapped = quote_texts(6, seed=seed, tense="swapped")
    probe = logistic_probe(activations(random_network, texts, texts.words)["layer 2"], labels)
    said = probe(activations(random_network, swapped, swapped.words)["layer 2"]) > 0
    assert (said == swapped.inside[swapped.words]).float().mean() < 0.68


def test_it_does_not_read_the_marks(model, texts, x):
    probe = logistic_probe(x["layer 2"], texts.inside[texts.words])
    reader = reader_of(model, residual_sites(model)["layer 2"], probe)
    ordinary, inside = ordinary_texts(96, seed=0)
    assert sum(reader(text) == label for text, label in zip(ordinary, inside, strict=True)) > 91
    design = what_a_probe_reads(reader)
    mean, half = design["effect_marks"]
    assert mean + half < 0.5 and design["verdict"] != "marks"
    assert abs(design["effect_tense"][0]) < 0.2 and abs(design["effect_control"][0]) < 0.2
    rng, said = random.Random(9), {"open": [], "and": [], '."': [], '"': [], '".': [], "never": []}
    for _ in range(30):
        who, other, subject = rng.sample(world.NAMES, 3)
        (_, saw, _), (_, now, _) = rng.sample(world.VERBS, 2)
        end = f"{subject} {now} the {rng.choice(world.ADJECTIVES)}"
        begin = f'{who} said: "{other} {saw} the {rng.choice(world.THINGS)}'
        for way, text in {
            "open": f"{begin}. {end}", "and": f"{begin} and {end}", '."': f'{begin}." {end}', '"': f'{begin}" {end}',
            '".': f'{begin}". {end}', "never": f"{who} said: {end}",
        }.items():  # fmt: skip
            said[way].append(reader(text))
    shares = {way: sum(rows) / len(rows) for way, rows in said.items()}
    assert shares['."'] < 0.15 and min(shares['"'], shares['".'], shares["and"]) > 0.8
    assert shares["open"] > 0.5 and shares["never"] < 0.4


@pytest.mark.parametrize("seed", [77, 78])
def test_outside_the_frames_it_is_no_better_than_the_majority(model, texts, x, seed):
    documents, site = quoting_documents(60, seed=seed), residual_sites(model)["layer 2"]
    chosen = documents != 0
    inside = inside_quotes_labels(documents, QUOTE, QUOTE)[chosen]
    said = logistic_probe(x["layer 2"], texts.inside[texts.words])(
        collect_activations(model, documents, [site], chosen)[site]
    )
    said, majority = said > 0, 1 - inside.float().mean().item()
    assert majority == pytest.approx(0.83, abs=0.03)
    assert (said == inside).float().mean() < majority + 0.04
    assert said[inside].float().mean() > 0.88 and 0.1 < said[~inside].float().mean() < 0.35
