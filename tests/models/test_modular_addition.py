"""The model that adds modulo a prime: what its card says, measured again, and what would be said of a random model."""

import json

import pytest
import torch

from utils.models import modular_addition_card
from utils.models.bundled import read_model
from utils.models.catalogue import load_model
from utils.models.circles import fourier_power, principal_plane, ring
from utils.models.modular_addition import (
    FOLDER,
    load_modular_addition,
    logits_at_end,
    modular_addition_config,
    modular_addition_data,
    train_modular_addition,
)
from utils.models.modular_addition_card import card, key_frequencies, make, measure, number_embeddings
from utils.models.network import Network
from utils.transformer.model import Transformer

MEASURED = json.loads((FOLDER / "measured.json").read_text(encoding="utf-8"))
HISTORY = json.loads((FOLDER / "history.json").read_text(encoding="utf-8"))
P = MEASURED["p"]


@pytest.fixture(scope="module")
def model():
    return load_modular_addition()


@pytest.fixture(scope="module")
def measured(model):
    return measure(model, P)


def flat(tree, path=""):
    if isinstance(tree, list):
        tree = dict(enumerate(tree))
    if not isinstance(tree, dict):
        return {path: 0 if tree is None else tree}  # no frequency is 0, and approx takes no None
    return {key: value for name, part in tree.items() for key, value in flat(part, f"{path}/{name}").items()}


def test_the_card_and_the_file_say_what_the_weights_give(measured):
    assert MEASURED.keys() == measured.keys() | {"seed", "n_steps"}
    stored, again = flat({name: MEASURED[name] for name in measured}), flat(measured)
    assert again == pytest.approx(stored, rel=1e-2, abs=1e-3)
    assert (FOLDER / "CARD.md").read_text(encoding="utf-8") == card(MEASURED)


def test_it_generalises(measured):
    assert measured["unseen_accuracy"] >= 0.99 and measured["train_accuracy"] >= 0.99


def test_few_frequencies_carry_the_embeddings(measured):
    assert len(measured["power"]) <= 10 < min(measured["n_frequencies_random"])


def test_the_embeddings_lie_on_a_circle(model):
    embeddings = number_embeddings(model)
    found = ring(principal_plane(embeddings))
    assert found.share > 0.9 and found.radius_cv < 0.25 and found.angle_error < 20
    assert found.frequency == key_frequencies(fourier_power(embeddings))[0]


def test_with_b_fixed_only_the_trained_model_is_near_a_ring(measured):
    rings = measured["rings"]["end_b_fixed"]
    # Several circles share the first plane, so that one of them is only about half of it.
    assert rings["trained"]["share"] > 0.4
    assert rings["random"]["highest_share"] < 0.2


def test_a_mean_over_all_b_makes_no_ring_where_there_is_none(measured):
    rings = measured["rings"]["end_mean_by_answer"]
    assert rings["trained"]["share"] > 0.9
    assert rings["random"]["highest_share"] < 0.3


def test_averages_over_neighbours_make_rings_in_random_models(measured):
    rings = measured["rings"]
    assert rings["end_mean_by_answer_few_b"]["random"]["share"] > 0.7
    assert rings["end_mean_by_answer_few_b"]["random"]["frequency"] == 1
    assert rings["embedding"]["random"]["highest_share"] < 0.2


def test_its_frequencies_are_needed_and_others_are_not(measured):
    accuracy = measured["accuracy_with"]
    assert accuracy["key_removed"] < 0.1
    assert accuracy["others_removed"] > 0.9


def test_the_history_shows_training_ahead_of_generalisation():
    assert len({len(column) for column in HISTORY.values()}) == 1
    assert HISTORY["step"][0] == 0 and HISTORY["step"][-1] == MEASURED["n_steps"]
    first_right = {
        which: next(i for i, value in enumerate(HISTORY[f"{which}_accuracy"]) if value >= 0.99)
        for which in ("train", "unseen")
    }
    assert first_right["train"] < first_right["unseen"]
    assert HISTORY["unseen_accuracy"][-1] == pytest.approx(MEASURED["unseen_accuracy"], abs=1e-3)


def test_it_is_the_architecture_of_chapter_02(model):
    config, state = read_model(FOLDER)
    assert config == vars(modular_addition_config(P))
    transformer = Transformer(modular_addition_config(P))
    transformer.load_state_dict(state)
    tokens = modular_addition_data(P).tokens[::50]
    with torch.no_grad():
        torch.testing.assert_close(transformer(tokens), model(tokens), atol=1e-4, rtol=1e-4)


def test_every_question_is_there_once_with_its_answer():
    data = modular_addition_data(7)
    assert data.tokens.shape == (49, 3) and len(set(map(tuple, data.tokens.tolist()))) == 49
    for (a, b, equals), answer in zip(data.tokens.tolist(), data.answers.tolist(), strict=True):
        assert equals == 7 and answer == (a + b) % 7
    assert data.in_training.sum() == round(0.35 * 49)
    assert torch.equal(data.in_training, modular_addition_data(7).in_training)


@pytest.mark.parametrize("p", [-3, 0, 1, 2, 9, 51])
def test_what_is_no_odd_prime_is_refused(p):
    with pytest.raises(ValueError, match=f"p must be an odd prime, got {p}"):
        modular_addition_data(p)


@pytest.mark.parametrize("argument", ["n_steps", "measure_every"])
def test_numbers_below_one_are_refused(argument):
    with pytest.raises(ValueError, match=f"at least 1, got .*{argument}=0"):
        train_modular_addition(0, p=7, **{argument: 0})


def test_the_short_cut_to_the_last_logits_is_exact():
    generator = torch.Generator().manual_seed(2)
    network = Network(modular_addition_config(11), generator)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        tokens = modular_addition_data(11).tokens
        torch.testing.assert_close(logits_at_end(network, tokens), network(tokens)[:, -1], atol=1e-4, rtol=1e-4)


def test_training_depends_on_the_seed_alone():
    state = torch.get_rng_state()
    one = train_modular_addition(1, p=11, n_steps=3, measure_every=2)
    assert torch.equal(torch.get_rng_state(), state)
    again, other = (train_modular_addition(seed, p=11, n_steps=3, measure_every=2) for seed in (1, 2))
    assert one.history == again.history and one.history != other.history
    assert one.history["step"] == [0, 2, 3]
    assert all(torch.equal(value, again.state[name]) for name, value in one.state.items())


def test_training_learns_the_training_pairs():
    history = train_modular_addition(0, p=11, n_steps=150).history
    assert history["train_loss"][-1] < 0.5 * history["train_loss"][0]
    assert history["train_accuracy"][-1] > 0.9


def test_making_writes_a_model_that_loads(tmp_path, monkeypatch, capsys):
    short_run = train_modular_addition(3, n_steps=2)
    monkeypatch.setattr(modular_addition_card, "train_modular_addition", lambda seed, progress: short_run)
    make(tmp_path / "model", seed=3)
    stored = json.loads((tmp_path / "model" / "measured.json").read_text(encoding="utf-8"))
    made = load_model(tmp_path / "model")
    assert torch.equal(made.W_E, short_run.state["embed.W_E"])
    assert (stored["seed"], stored["n_steps"]) == (3, 2) and stored["unseen_accuracy"] < 0.1
    assert (tmp_path / "model" / "CARD.md").read_text(encoding="utf-8") == card(stored)
    assert json.loads((tmp_path / "model" / "history.json").read_text(encoding="utf-8")) == short_run.history
