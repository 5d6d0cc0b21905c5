"""The shipped dictionaries: they load, do what their cards say, and a damaged one says what is wrong."""

import json
import shutil

import pytest
import torch

from utils.course import paths
from utils.data.prompts import documents
from utils.models.bundled import MEASURED_FILE, WEIGHTS_FILE, ModelFileError
from utils.models.catalogue import SHIPPED, UnknownModel, load_model
from utils.sae import make_dictionary
from utils.sae.make_dictionary import RECIPES, activations, card, forced, measure, the_model, unscaled
from utils.sae.metrics import dead_fraction, fraction_variance_explained, l0
from utils.sae.shipped import DICTIONARIES, dictionary_folder, load_dictionary
from utils.sae.texts import BEGIN, peoples_rows
from utils.sae.topk import TopKSAE

COURSE = [name for name in DICTIONARIES if name.startswith("course-model")]


def measured(name):
    return json.loads((dictionary_folder(name) / MEASURED_FILE).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", DICTIONARIES)
def test_it_loads_ready_for_use_and_is_small(name):
    sae, recipe = load_dictionary(name), RECIPES[name]
    assert isinstance(sae, TopKSAE) and sae.W_enc.dtype == torch.float32
    assert (sae.W_enc.shape, sae.k) == ((recipe.d_in, recipe.d_sae), recipe.k)
    assert (sae.site, sae.model_name, sae.first_position) == (recipe.site, recipe.model, recipe.first_position)
    assert not any(parameter.requires_grad for parameter in sae.parameters())
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(recipe.d_sae), atol=1e-3, rtol=0)
    n_numbers = recipe.d_sae * (2 * recipe.d_in + 1) + recipe.d_in
    assert (dictionary_folder(name) / WEIGHTS_FILE).stat().st_size < 2 * n_numbers + 1000


@pytest.mark.parametrize("name", COURSE)
def test_the_course_models_dictionaries_have_the_measured_values(name):
    sae, found = load_dictionary(name), measured(name)["held out"]["held-out documents"]
    x = activations(the_model(RECIPES[name]), documents(64, 5), sae.site)
    x_hat, z = sae(x)
    assert fraction_variance_explained(x, x_hat) == pytest.approx(found["ways"]["dictionary"]["FVE"], abs=0.02)
    assert l0(z) == pytest.approx(found["L0"], abs=0.5) and l0(z) <= sae.k
    assert dead_fraction(z) == pytest.approx(found["dead"], abs=0.1)  # of fewer texts, so a little more


def test_the_card_of_the_course_model_can_be_measured_again():
    name = "course-model"
    sae, found = load_dictionary(name), measured(name)["held out"]["held-out documents"]
    model = load_model(name)
    again = measure(sae, model, documents(24, 0), activations(model, documents(24, 1), sae.site))
    assert set(again) == set(found) and set(again["ways"]) == set(found["ways"])
    for way in found["ways"]:
        for key in ("FVE", "recovered, zero ablation", "recovered, mean ablation"):
            assert again["ways"][way][key] == pytest.approx(found["ways"][way][key], abs=0.05), (way, key)


@pytest.mark.parametrize("name", DICTIONARIES)
def test_cards_have_the_measured_numbers_and_the_dictionary_beats_the_null(name):
    assert (dictionary_folder(name) / "CARD.md").read_text(encoding="utf-8") == card(name, measured(name))
    for found in measured(name)["held out"].values():
        best, *others = (way["FVE"] for way in found["ways"].values())
        assert best > max(others) + 0.03


@pytest.mark.parametrize("name", DICTIONARIES)
def test_the_list_of_models_names_it_and_its_door(name):
    assert f"sae-{name}" in SHIPPED
    with pytest.raises(UnknownModel, match=rf"load_dictionary\('{name}'\) loads it"):
        load_model(f"sae-{name}")


def test_the_readme_lists_each():
    readme = (paths.ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"utils/models/weights/sae-{name}/CARD.md" in readme for name in DICTIONARIES)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(LookupError, match="no dictionary 'gpt2'. There are course-model, "):
        load_dictionary("gpt2")


@pytest.fixture
def copied(tmp_path):
    return shutil.copytree(dictionary_folder("course-model"), tmp_path / "copy")


def test_a_folder_of_ones_own_is_loaded_by_its_path(copied):
    assert torch.equal(load_dictionary(copied).W_dec, load_dictionary("course-model").W_dec)


def test_a_damaged_file_is_named(copied):
    path = copied / WEIGHTS_FILE
    content = bytearray(path.read_bytes())
    path.write_bytes(content[:-10])
    with pytest.raises(ModelFileError, match=r"model.safetensors has .* bytes where config.json says .*cut short"):
        load_dictionary(copied)
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"model.safetensors does not have the checksum"):
        load_dictionary(copied)
    path.unlink()
    with pytest.raises(ModelFileError, match=r"model.safetensors cannot be read"):
        load_dictionary(copied)


@pytest.mark.parametrize(("change", "reason"), [({"d_sae": 7}, "size mismatch|loading"), ({"site": None}, "'site'")])
def test_a_config_of_another_dictionary_is_named(copied, change, reason):
    about = json.loads((copied / "config.json").read_text(encoding="utf-8"))
    about["config"] |= change
    about["config"] = {key: value for key, value in about["config"].items() if value is not None}
    (copied / "config.json").write_text(json.dumps(about))
    with pytest.raises(ModelFileError, match=rf"config.json does not describe a dictionary .*({reason})"):
        load_dictionary(copied)


def test_folding_the_scale_changes_no_reconstruction():
    generator = torch.Generator().manual_seed(3)
    sae = TopKSAE(5, 11, 3, generator=generator)
    for parameter in sae.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    folded = TopKSAE(5, 11, 3)
    folded.load_state_dict(unscaled(sae, 0.25))
    x = 10 * torch.randn(40, 5, generator=generator)
    for ours, scaled in zip(folded(x), sae(0.25 * x), strict=True):
        torch.testing.assert_close(ours, scaled / 0.25)


def test_the_null_combines_its_directions_as_well_as_can_be():
    """Against a least-squares solver; and with as many directions as dimensions nothing is left over."""
    generator = torch.Generator().manual_seed(4)
    x, directions = (torch.randn(n, 6, generator=generator) for n in (9, 20))
    mean = torch.randn(6, generator=generator)
    found = forced(x, mean, directions, 3)
    for row, got in zip(x - mean, found - mean, strict=True):
        chosen = directions[(directions @ row).topk(3).indices].T
        torch.testing.assert_close(got, chosen @ torch.linalg.lstsq(chosen, row).solution, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(forced(x, mean, torch.eye(6), 6), x, atol=1e-3, rtol=1e-3)


def test_a_recipe_goes_on_after_a_stop_and_ends_where_it_would_have(tmp_path, monkeypatch):
    short = make_dictionary.Recipe(
        model="course-model", site="blocks.0.hook_resid_post", d_in=128, d_sae=32, k=4, n_steps=6, batch_size=64
    )
    monkeypatch.setitem(RECIPES, "course-model", short)
    monkeypatch.setattr(make_dictionary, "DOCS_PER_CHUNK", 2)
    monkeypatch.setattr(make_dictionary, "N_MEASURED", 2)
    make_dictionary.make("course-model", tmp_path / "whole")
    train = make_dictionary.train_sae

    def stopped(sae, batches, objective, **options):
        def some(step):
            if step == 3:
                raise KeyboardInterrupt
            return batches(step)

        train(sae, some, objective, **options | {"every": 1})

    monkeypatch.setattr(make_dictionary, "train_sae", stopped)
    with pytest.raises(KeyboardInterrupt):
        make_dictionary.make("course-model", tmp_path / "stopped")
    monkeypatch.setattr(make_dictionary, "train_sae", train)
    make_dictionary.make("course-model", tmp_path / "stopped")
    whole, gone_on = (load_dictionary(tmp_path / name) for name in ("whole", "stopped"))
    torch.testing.assert_close(gone_on.W_enc, whole.W_enc)
    assert not (tmp_path / "stopped" / "unfinished").exists() and (tmp_path / "stopped" / "CARD.md").exists()


def test_peoples_texts_are_rows_that_begin_as_texts_do(smollm2):
    rows = {held_out: peoples_rows(smollm2.tokenizer, 128, held_out=held_out) for held_out in (False, True)}
    assert all(len(row) > 30 and (row[:, 0] == BEGIN).all() for row in rows.values())
    assert not set(map(tuple, rows[True].tolist())) & set(map(tuple, rows[False].tolist()))


def test_smollm2s_dictionary_has_the_measured_values(smollm2):
    sae, found = load_dictionary("smollm2-135m"), measured("smollm2-135m")["held out"]["texts that people wrote"]
    x = activations(smollm2, peoples_rows(smollm2.tokenizer, 128, held_out=True)[::4], sae.site, sae.first_position)
    x = x[x.norm(dim=1) <= sae.longest]
    x_hat, z = sae(x)
    assert fraction_variance_explained(x, x_hat) == pytest.approx(found["ways"]["dictionary"]["FVE"], abs=0.05)
    assert l0(z) <= sae.k and l0(z) == pytest.approx(found["L0"], abs=1)
