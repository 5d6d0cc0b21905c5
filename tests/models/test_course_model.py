"""The shipped course model: it loads in every way it should, and its card says what was measured and nothing else."""

import json

import pytest
import torch

from utils.data import corpus
from utils.models import course_model
from utils.models.bundled import MEASURED_FILE, WEIGHTS_FILE, read_model
from utils.models.course_model import CFG, FOLDER, checkpoint_steps, course_model_weights, load_course_model
from utils.models.course_model_card import ROWS, card
from utils.models.training import Recipe, Stage
from utils.transformer.model import Transformer

NOT_REACHED = {
    "IOI: who receives, held-out pairs, both orders, all templates",
    "name movers: heads that attend from the end to the receiver and copy",
    "heads that find the repeated name",
    "self-repair, first name mover knocked out",
    "causal tracing",
    "induction on repeated random tokens",
    "quotation marks: probe",
    "quotation marks: adding the classes' difference, twice",
    "sparse autoencoder",
}


@pytest.fixture(scope="module")
def measured() -> dict:
    return json.loads((FOLDER / MEASURED_FILE).read_text())


def test_it_reads_text_and_knows_where_the_eiffel_tower_stands():
    model = load_course_model()
    tokens = model.to_tokens("The Eiffel Tower is located in")
    assert tokens.tolist() == [[0, *corpus.encode("The Eiffel Tower is located in")]]
    assert model.to_string(model(tokens)[0, -1].argmax()) == "Paris"
    assert not model.training and not any(module.training for module in model.modules())


@pytest.mark.parametrize("step", [None, "first checkpoint"])
def test_the_learners_transformer_computes_the_same(step):
    step = step and checkpoint_steps()[0]
    cfg, state = course_model_weights(step)
    assert cfg == CFG
    learners = Transformer(cfg)
    learners.load_state_dict(state)
    tokens = torch.from_numpy(corpus.corpus(4, 10**12)).long()
    with torch.no_grad():
        ours, theirs = learners(tokens), load_course_model(step)(tokens)
    torch.testing.assert_close(ours.log_softmax(-1), theirs.log_softmax(-1), atol=1e-4, rtol=1e-4)


def test_checkpoints_get_better_with_training():
    tokens = torch.from_numpy(corpus.corpus(40, 10**12, share_repeated=0.0)).long()
    steps = checkpoint_steps()
    assert list(course_model.RECIPE.checkpoints) == steps
    losses = [load_course_model(step)(tokens, return_type="loss").item() for step in (*steps, None)]
    assert losses == sorted(losses, reverse=True), losses
    with pytest.raises(ValueError, match=f"no checkpoint after step 7. There are .{steps[0]}"):
        load_course_model(7)


def test_the_weights_are_small_and_those_of_the_recipe():
    assert (FOLDER / WEIGHTS_FILE).stat().st_size <= 10_000_000
    config, state = read_model(FOLDER)
    assert config["d_vocab"] == len(corpus.vocabulary())
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in state.values())
    losses = json.loads((FOLDER / "losses.json").read_text())
    assert len(losses) == course_model.RECIPE.n_steps // 10


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_each_phenomenon_reaches_its_target_or_is_known_not_to(row, measured):
    """The card says "not reached" of the same ones; who reaches one takes it off the list."""
    assert row.reached(measured) == (row.name not in NOT_REACHED), f"{row.target}: {row.number(measured)}"


def test_the_card_is_made_of_what_was_measured(measured):
    assert (FOLDER / "CARD.md").read_text() == card(FOLDER, measured, seed=0)


def test_the_recipe_trains_and_writes_everything(tmp_path, monkeypatch):
    """The whole command on three steps; the measuring, which takes minutes, has tests of its own."""
    tiny = Recipe(CFG, (Stage(3, 1e-3, 3),), batch=2, checkpoints=(2,))
    monkeypatch.setattr(course_model, "RECIPE", tiny)
    monkeypatch.setattr("utils.models.course_model_card.write_card", lambda folder, *, seed: None)
    course_model.make(tmp_path, seed=5)
    from utils.models.catalogue import load_model

    trained, checkpoint = load_model(tmp_path), load_model(tmp_path / "checkpoints" / "step-2")
    assert trained.to_string(trained.to_tokens("Mary and")[0]) == "<bos> Mary and"
    assert not torch.equal(trained.W_E, checkpoint.W_E)
