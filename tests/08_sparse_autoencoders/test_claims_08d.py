"""What part 08d says of its experiments, measured again, on other seeds where they are said of any."""

import math

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch.nn.functional import normalize

from utils.data.prompts import documents, fact_prompts, token_id, token_labels
from utils.data.world import CITIES
from utils.models.course_model import load_course_model
from utils.models.modular_addition import load_modular_addition, modular_addition_data
from utils.models.phenomena.measuring import to_batch, untrained
from utils.patching.hooks import run_with_cache, run_with_hooks
from utils.probes.circular import frequency_plane, ring_score
from utils.sae.agreement import dictionary_agreement
from utils.sae.autoencoder import SparseAutoencoder, l1_objective
from utils.sae.circle import circle_explained, plane_of_latents
from utils.sae.clamp import clamp_feature, same_length, side_effects
from utils.sae.making import activations_at, topk_dictionary
from utils.sae.matryoshka import MatryoshkaSAE, matryoshka_objective
from utils.sae.metrics import dead_fraction, fraction_variance_explained, loss_recovered, matched_cosines, spliced_loss
from utils.sae.shipped import load_dictionary
from utils.sae.splitting import feature_absorption, feature_splitting, tree, tree_samples
from utils.sae.training import from_table, train_sae

SITE = "blocks.2.hook_resid_post"


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def model():
    return load_course_model().requires_grad_(False)


@pytest.fixture(scope="module")
def sae():
    return load_dictionary("course-model")


@pytest.fixture(scope="module")
def texts(model):
    """Texts to train on and others to measure on, other ones than the notebook's, with their activations."""
    read, new = documents(400, 21), documents(100, 22)
    return read, new, activations_at(model, read, SITE), activations_at(model, new, SITE)


@pytest.fixture(scope="module")
def small(texts):
    return [topk_dictionary(texts[2], 128, k=8, n_steps=800, lr=5e-3, batch=512, seed=seed) for seed in (200, 201)]


@pytest.fixture(scope="module")
def bridge(model, sae, texts):
    """The latent that the notebook's rule chooses, its largest value, and the cities."""
    cities = torch.tensor([token_id(word) for word in CITIES])
    largest = sae(texts[3])[1].amax(0)
    favoured = sae.W_dec @ model.W_U
    favoured = (favoured - favoured.mean(1, keepdim=True)) / favoured.std(1, keepdim=True)
    screening = documents(24, 28)[:, :10]
    eight = favoured[:, cities].mean(1).topk(8).indices.tolist()

    def raised(latent):
        hook = clamp_feature(sae, latent, 10 * largest[latent].item())
        return run_with_hooks(model, screening, [(SITE, hook)])[:, -1].softmax(-1)[:, cities].sum()

    return max(eight, key=raised), eight, largest, cities


def test_the_bridge_and_what_it_costs(model, sae, bridge):
    latent, _, largest, cities = bridge
    watched = documents(40, 23)
    before = model(watched)

    def effect(hook):
        return side_effects(before, run_with_hooks(model, watched, [(SITE, hook)]), watched, cities)

    found = {dose: effect(clamp_feature(sae, latent, dose * largest[latent].item())) for dose in (1, 2, 5)}
    assert found[1]["wanted"] < 0.25 < found[2]["wanted"] < 0.7 < found[5]["wanted"]
    assert found[5]["loss"] > 4 and found[5]["others"] > 0.5 and found[1]["loss"] < 0.8
    value = 5 * largest[latent].item()
    for one in same_length(sae.W_dec[latent], 3, generator(5)):
        at_random = effect(
            lambda x, one=one: x + (value - sae(x)[1][..., latent])[..., None] * one
        )  # fmt: skip
        assert (
            abs(at_random["wanted"]) < 0.2 and at_random["others"] > 0.4 and 0.8 < at_random["loss"] < found[5]["loss"]
        )


def test_the_name_is_too_large(model, sae, texts, bridge):
    latent, eight, _, cities = bridge
    facts = to_batch(fact_prompts("city"))

    def probability(latents):
        hooks = [(SITE, clamp_feature(sae, i, 0.0)) for i in latents]
        return run_with_hooks(model, facts.tokens, hooks)[facts.rows(), facts.at["END"]].softmax(-1)[:, cities].sum(1)

    assert probability([]).mean() > 0.97 and probability([latent]).mean() > 0.85 and probability(eight).mean() > 0.5
    due = token_labels(texts[1])["next: city"].flatten()
    assert due[sae(texts[3])[1][:, latent] > 0].float().mean() < 0.6


def test_most_latents_of_a_large_dictionary_come_from_none_of_a_small_one(sae, small, texts):
    root = torch.linalg.cholesky(torch.cov(texts[2].T) + 1e-4 * torch.eye(128))
    found = {}
    for name, rows in {"ours": sae.W_dec, "chance": torch.randn(1024, 128, generator=generator(9)) @ root.T}.items():
        parent = feature_splitting(small[0].W_dec, rows, 0.5)
        sizes = torch.bincount(parent[parent >= 0], minlength=128)
        found[name] = ((parent < 0).float().mean().item(), (sizes > 1).float().mean().item())
    assert 0.7 < found["ours"][0] < 0.93 and found["chance"][0] > 0.93
    assert found["ours"][1] > 0.25 and found["chance"][1] < 0.15


def test_the_l1_dictionary_absorbs_and_the_nested_one_does_not():
    parents, found = tree(4, 3), {}
    for seed in (10, 11):
        for kind in ("L1", "not nested", "Matryoshka"):
            g = generator(seed)
            features = tree_samples(parents, 10_000, p_root=0.15, p_child=0.25, generator=g)
            truth = torch.linalg.qr(torch.randn(20, 20, generator=g))[0][:16]
            x = features.float() @ truth
            if kind == "L1":
                sae, objective = SparseAutoencoder(20, 16, generator=g), l1_objective(0.2)
            else:
                prefixes = (4, 16) if kind == "Matryoshka" else (16,)
                sae, objective = MatryoshkaSAE(20, 16, 2, prefixes, generator=g), matryoshka_objective()
            train_sae(sae, from_table(x, 256, seed=seed), objective, n_steps=1000, lr=3e-3)
            with torch.no_grad():
                x_hat, z = sae(x)
            assert fraction_variance_explained(x, x_hat) > 0.93
            cosines = truth @ normalize(sae.W_dec.detach(), dim=1).T
            latents = torch.as_tensor(linear_sum_assignment(cosines.numpy(), maximize=True)[1])
            found.setdefault(kind, []).append(feature_absorption(z, features, latents, parents)[4:].mean().item())
    assert min(found["L1"]) > 0.3 and max(found["Matryoshka"]) < 0.2
    assert sum(found["L1"]) - sum(found["Matryoshka"]) > 0.7
    assert sum(found["L1"]) - 0.2 > sum(found["not nested"]) > sum(found["Matryoshka"]) + 0.2


def test_two_seeds_share_a_part(small, texts):
    a, b = small
    root = torch.linalg.cholesky(torch.cov(texts[2].T) + 1e-4 * torch.eye(128))
    rows = torch.randn(128, 128, generator=generator(3)) @ root.T
    share = dictionary_agreement(a.W_enc, a.W_dec, b.W_enc, b.W_dec).float().mean()
    assert 0.12 < share < 0.42
    assert dictionary_agreement(a.W_enc, a.W_dec, rows.T, rows).float().mean() < 0.02
    assert matched_cosines(b.W_dec, a.W_dec).mean() > 0.5 > 0.4 > matched_cosines(rows, a.W_dec).mean()


def test_what_tells_a_trained_network_from_a_random_one(model, texts):
    read, new, x, x_new = texts
    read = read[:200]
    x = x[: read.numel()]
    labels = {name: value.flatten() for name, value in token_labels(new).items()}
    sets = {
        kind: torch.stack([v for n, v in labels.items() if n.startswith("next: ") == (kind == "next")]).float()
        for kind in ("present", "next")
    }

    def metrics(network, dictionary, x, x_new):
        x_hat, z = dictionary(x_new)
        on, usual = (z > 0).float(), x.mean(0)
        losses = [
            spliced_loss(network, new[:40], SITE, f)
            for f in (lambda v: v, lambda v: dictionary(v)[0], lambda v: usual.expand_as(v))
        ]
        fits = {
            kind: (2 * (s @ on) / (s.sum(1, keepdim=True) + on.sum(0))).amax(1).mean().item()
            for kind, s in sets.items()
        }
        variance = fraction_variance_explained(x_new, x_hat)
        lost = {"loss": loss_recovered(*losses), "to lose": losses[2] - losses[0]}
        return {"variance": variance, "dead": dead_fraction(z)} | lost | fits

    random = untrained(model, 7).requires_grad_(False)
    acts = [activations_at(random, part, SITE) for part in (read, new)]
    made = [topk_dictionary(a, 128, k=8, n_steps=400, lr=5e-3, batch=256, seed=7) for a in (x, acts[0])]
    ours, theirs = metrics(model, made[0], x, x_new), metrics(random, made[1], *acts)
    assert abs(ours["variance"] - theirs["variance"]) < 0.12 and min(ours["variance"], theirs["variance"]) > 0.7
    assert ours["loss"] > 0.8 and ours["to lose"] > 1 and abs(theirs["to lose"]) < 0.1
    assert max(ours["dead"], theirs["dead"]) < 0.05
    assert ours["present"] > 2 * theirs["present"] and ours["next"] > 1.6 * theirs["next"]


def test_the_circle_is_shared():
    adder, sums = load_modular_addition().requires_grad_(False), modular_addition_data()
    behind = "blocks.0.hook_resid_post"
    x = run_with_cache(adder, sums.tokens, [behind])[1][behind][:, -1]
    means = torch.stack([x[sums.answers == c].mean(0) for c in range(59)])
    frequency = max(range(1, 30), key=lambda f: ring_score(means, f).item())
    assert frequency == 4
    angles = 2 * math.pi * frequency * sums.answers / 59
    held_out = torch.rand(len(x), generator=generator(1)) < 0.5
    circle = frequency_plane(means, frequency)
    sae = topk_dictionary(x, 128, k=8, n_steps=400, batch=512, seed=20)
    z = sae(x)[1]
    group = (normalize(sae.W_dec, dim=1) @ circle.T).square().sum(1).topk(16).indices
    single = max(circle_explained(z[:, [i]], angles, held_out) for i in range(128))
    several = circle_explained(z[:, group], angles, held_out)
    plane = circle_explained(x @ plane_of_latents(z, sae.W_dec, group).T, angles, held_out)
    order = torch.randperm(59, generator=generator(5))
    wrong_plane = frequency_plane(means[order.argsort()], frequency)
    wrong = (normalize(sae.W_dec, dim=1) @ wrong_plane.T).square().sum(1).topk(16).indices
    assert single < 0.16 and 0.4 < several < 0.7 and plane > 0.5
    assert circle_explained(z[:, wrong], 2 * math.pi * 4 * order[sums.answers] / 59, held_out) < several - 0.1
    assert circle_explained(x @ circle.T, angles, held_out) > 0.93 and fraction_variance_explained(x, sae(x)[0]) > 0.97
