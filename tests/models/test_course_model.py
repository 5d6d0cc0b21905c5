"""The shipped course model: it loads in every way it should, and its card says what was measured and nothing else."""

import json
import random
from dataclasses import asdict

import pytest
import torch

from utils.data import corpus, prompts
from utils.data.corpus import quote_clause, words
from utils.data.world import JOBS, NAMES, VERBS
from utils.models import course_model, course_model_card
from utils.models.bundled import MEASURED_FILE, WEIGHTS_FILE, read_model, write_model
from utils.models.catalogue import load_model
from utils.models.course_model import CFG, FOLDER, checkpoint_steps, course_model_weights, load_course_model
from utils.models.course_model_card import ROWS, card
from utils.models.phenomena.measuring import end_logits, to_batch
from utils.models.training import Recipe, Stage
from utils.transformer.model import Transformer

SEED_1 = FOLDER.parent / "course-model-seed-1"


@pytest.fixture(scope="module")
def measured() -> dict:
    return json.loads((FOLDER / MEASURED_FILE).read_text(encoding="utf-8"))


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


def test_checkpoints_show_what_formed_when():
    """Copying first, then the facts, then who receives; the three measured on few prompts."""
    assert list(course_model.RECIPE.checkpoints) == checkpoint_steps()
    facts, gifts = to_batch(prompts.fact_prompts("city")), to_batch(prompts.ioi_prompts(60, 0))
    repeated = prompts.repeated_random_tokens(20, 20, 0)

    def measure(step: int | None) -> tuple[float, float, float]:
        model = load_course_model(step)
        with torch.no_grad():
            losses = model(repeated, return_type="loss", loss_per_token=True)
        right = [
            (end_logits(model, batch).argmax(1) == batch.answers).float().mean().item() for batch in (facts, gifts)
        ]
        return losses[:, 20:].mean().item(), *right

    found = {step: measure(step) for step in (*checkpoint_steps(), None)}
    copying, knowing, telling_apart = ({step: row[i] for step, row in found.items()} for i in range(3))
    assert copying[200] > 1 > max(loss for step, loss in copying.items() if step != 200) and copying[400] < 0.3
    assert knowing[400] < 0.05 and min(knowing[step] for step in (2000, 6000, None)) > 0.9
    assert max(telling_apart[step] for step in (400, 1000, 2000, 6000)) < 0.7 < 0.95 < telling_apart[6800]
    assert knowing[6800] < 0.5  # forgotten, for a while
    with pytest.raises(ValueError, match=r"no checkpoint after step 7. There are .200"):
        load_course_model(7)


def test_the_weights_are_small_and_those_of_the_recipe():
    assert (FOLDER / WEIGHTS_FILE).stat().st_size <= 10_000_000
    config, state = read_model(FOLDER)
    assert config["d_vocab"] == len(corpus.vocabulary())
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in state.values())
    losses = json.loads((FOLDER / "losses.json").read_text(encoding="utf-8"))
    assert len(losses) == course_model.RECIPE.n_steps // 10


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_each_phenomenon_reaches_its_target(row, measured):
    assert row.reached(measured), f"{row.target}: {row.number(measured)}"


def test_the_card_is_made_of_what_was_measured(measured):
    assert (FOLDER / "CARD.md").read_text(encoding="utf-8") == card(FOLDER, measured, seed=0)


def test_the_recipe_trains_and_writes_everything(tmp_path, monkeypatch):
    """The whole command on three steps; the measuring, which takes minutes, has tests of its own."""
    tiny = Recipe(CFG, (Stage(3, 1e-3, 3),), batch=2, checkpoints=(2,))
    for module in (course_model, course_model_card):
        monkeypatch.setattr(module, "RECIPE", tiny)
    monkeypatch.setattr(course_model_card, "write_card", lambda folder, *, seed: None)
    course_model_card.make(tmp_path, seed=5)
    from utils.models.catalogue import load_model

    trained, checkpoint = load_model(tmp_path), load_model(tmp_path / "checkpoints" / "step-2")
    assert trained.to_string(trained.to_tokens("Mary and")[0]) == "<bos> Mary and"
    assert not torch.equal(trained.W_E, checkpoint.W_E)


@pytest.mark.parametrize("name", ["course-model", "course-model-seed-1"])
def test_speech_of_three_clauses_is_no_longer_speech(name):
    model, right = load_model(name), {}
    for n in (2, 3):
        rng, scenes = random.Random(30), []
        for _ in range(60):
            said = ". ".join(quote_clause(rng, True, rng.choice(NAMES)).capitalize() for _ in range(n))
            now, past = rng.choice(VERBS)[1:]
            text = f'{rng.choice(NAMES)} said: "{said}. The {rng.choice(JOBS)}'
            scenes.append(prompts.Prompt(text, now, past, {"END": len(words(text))}))
        batch = to_batch(scenes)
        logits = end_logits(model, batch)
        rows = batch.rows()
        right[n] = (logits[rows, batch.answers] > logits[rows, batch.foils]).float().mean().item()
    assert right[2] > 0.8
    assert right[3] < 0.25


def test_the_card_of_a_model_without_the_circuit_says_so(measured):
    """With another seed the recipe may lead elsewhere; that is a result, and no reason to lose an hour's training."""
    other = json.loads((SEED_1 / MEASURED_FILE).read_text(encoding="utf-8"))
    assert [row.name for row in ROWS if not row.reached(other)] == [
        "heads that look from the end at the giver, said twice or not",
        "by which routes these heads count, in nats of logit difference (they overlap)",
        "self-repair, first of the copying heads that prefer the receiver knocked out",
        "quotation marks: adding the classes' difference, 4 times",
    ]
    text, ours = (SEED_1 / "CARD.md").read_text(encoding="utf-8"), card(FOLDER, measured, seed=0)
    assert text == card(SEED_1, other, seed=1)
    assert text.startswith("# course-model-seed-1\n") and "`mi train course-model --seed 1`" in text
    assert "| none | **not reached** |" in text and "No head that looks at the giver" in text
    assert "Not GPT-2's IOI circuit" not in text and "No head that looks at the giver" not in ours
    assert "With seed 1 the names are told apart in another way" in ours and "checkpoints" not in text


def test_the_second_seed_ships_too_and_does_the_same():
    from utils.models.catalogue import load_model

    model, gifts = load_model("course-model-seed-1"), to_batch(prompts.ioi_prompts(60, 0))
    assert (end_logits(model, gifts).argmax(1) == gifts.answers).float().mean() >= 0.95
    assert not torch.equal(model.W_E, load_course_model().W_E)


def test_a_head_that_goes_by_repetition_does_not_count_as_one_that_looks_at_the_giver(measured):
    """The row is about two properties, and falls if either is the other way round."""
    row = next(row for row in ROWS if row.name.startswith("heads that look from the end at the giver"))
    assert row.reached(measured)
    for scene, value in (("nobody twice", 1.0), ("another twice", 1.0), ("another gives", 8.0)):
        other = json.loads(json.dumps(measured))
        other["giver"]["output"][scene]["logit difference"]["value"] = value
        assert not row.reached(other), scene


def test_a_model_measured_alone_has_no_other_seeds_in_its_card(tmp_path, measured):
    write_model(tmp_path, asdict(CFG), read_model(FOLDER)[1])
    assert "other seeds" not in card(tmp_path, measured, seed=0)
