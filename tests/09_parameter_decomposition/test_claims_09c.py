"""What part 09c says of residual MLPs, the induction circuit and the course model, measured again on other inputs."""

import json

import pytest
import torch

from utils.data.prompts import documents, token_id
from utils.data.world import FIRST_WORDS, JOBS, PLACES
from utils.models.course_model import load_course_model
from utils.spd.compare import Parts, compare_decompositions, strongest_parts
from utils.spd.components import RankOneComponents, inputs_of_matrices, masked_forward
from utils.spd.course_model import adversarial_masks, finish, kl_distance, last_mlp_rows
from utils.spd.gates import causal_importance
from utils.spd.induction import (
    CHOSEN,
    D_VOCAB,
    N_CTX,
    balanced_circuit,
    chosen_weights,
    induction_forward,
    said_twice,
    second_time,
)
from utils.spd.residual_mlp import importance_by_feature, residual_mlp_spd, two_networks
from utils.spd.score import ablate_the_rest, components_per_input, random_needed
from utils.spd.shipped import FOLDER, load_decomposition


def generator(seed):
    return torch.Generator().manual_seed(seed)


def live_and_alone(importance):
    """How many components any feature needs, and how many features need exactly one."""
    needed = torch.as_tensor(importance) > 0.1
    return int(needed.any(0).sum()), int((needed.sum(1) == 1).sum())


def test_components_are_features_where_features_are_spread_and_neurons_where_they_are_not():
    runs = json.loads((FOLDER / "residual_mlp.json").read_text())
    found = {n: [live_and_alone(r["importance"]) for r in runs if r["network"] == n] for n in two_networks()[1]}
    assert all(both == (5, 5) for both in found["a neuron each"])
    assert all(10 <= live <= 12 for live, _ in found["pairs"])
    alone = sorted(alone for _, alone in found["pairs"])
    assert alone[-1] == 9 and alone[0] <= 2 and all(a <= 5 for a in alone[:-1])
    assert all(r["only needed"] < 0.05 * r["none"] for r in runs)


@pytest.mark.slow
def test_a_new_run_finds_the_neurons():
    W_E, networks = two_networks(seed=3)
    found = residual_mlp_spd(W_E, networks["a neuron each"], C=16, price=5e-4, n_steps=3000, seed=11)
    live, alone = live_and_alone(importance_by_feature(found.gates["W_in"], found.components["W_in"], W_E))
    assert live <= 6 and alone >= 4


def circuit(name, sharpness):
    state = balanced_circuit(D_VOCAB, N_CTX, sharpness)
    weights, forward = chosen_weights(state), induction_forward(state, CHOSEN)
    found, texts = load_decomposition(name)[0], said_twice(D_VOCAB, N_CTX, 300)(generator(99))
    needed = components_per_input(forward, weights, found.components, found.gates, texts)

    def error(magnitude, keep=needed):
        wanted = inputs_of_matrices(forward, weights, texts)[0]
        return second_time(ablate_the_rest(forward, weights, found.components, texts, keep, magnitude), wanted).item()

    return needed, texts, error


def test_the_induction_circuit_comes_apart_into_tokens_and_the_positions_that_are_read():
    needed, texts, _ = circuit("induction", 5.0)
    torch.testing.assert_close(needed["0.W_Q"].float().sum(-1).mean(0), torch.tensor([0.0, 0, 1, 1, 1, 0, 0, 0]))
    torch.testing.assert_close(needed["0.W_V"].float().sum(-1).mean(0), torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0]))
    which = needed["0.W_V"][:, :4].float().argmax(-1)
    assert len({(t, c) for t, c in zip(texts[:, :4].flatten().tolist(), which.flatten().tolist(), strict=True)}) == 6
    assert len(which.unique()) == 6


def test_random_masks_do_not_show_that_the_sharp_circuit_needs_its_queries():
    needed, _, error = circuit("induction-sharp", 20.0)
    assert not needed["0.W_Q"].any()
    random = error({key: torch.rand(on.shape, generator=generator(1)) for key, on in needed.items()})
    nothing = error(0.0, {key: torch.zeros_like(on) for key, on in needed.items()})
    assert random < 0.001 and error(0.0) > 0.1 and abs(error(0.0) - nothing) < 0.05


@pytest.fixture(scope="module")
def matrix():
    """The course model's last MLP on documents that the part does not use: (rows, forward, weights, inputs, logits)."""
    model = load_course_model().requires_grad_(False)
    rows, end = last_mlp_rows(model, documents(30, 9)), finish(model)
    weights = {"W_out": model.blocks[3].mlp.W_out.detach()}

    def forward(x, linear):
        return end(x[..., 512:] + linear("W_out", x[..., :512]))

    x = rows.x.flatten(0, 1)
    return rows, forward, weights, x, inputs_of_matrices(forward, weights, x)[0]


@pytest.mark.parametrize(
    ("name", "n_needed", "n_live", "at_zero"),
    [("course-model", (12, 16), (90, 110), 0.05), ("course-model-dear", (2, 3.2), (20, 26), 0.2)],
)
def test_few_components_keep_the_predictions_unless_masks_are_chosen_badly(matrix, name, n_needed, n_live, at_zero):
    _, forward, weights, x, logits = matrix
    found = load_decomposition(name)[0]
    needed = components_per_input(forward, weights, found.components, found.gates, x)
    on = needed["W_out"]
    live = on.any(0)
    assert n_needed[0] < on.sum(1).float().mean() < n_needed[1] and n_live[0] <= live.sum() <= n_live[1]

    def cost(keep, magnitude):
        return kl_distance(ablate_the_rest(forward, weights, found.components, x, keep, magnitude), logits).item()

    none = cost({"W_out": torch.zeros_like(on)}, 0.0)
    drawn = cost({"W_out": random_needed(on, live, generator(1))}, 0.0)
    by_chance = cost(needed, {"W_out": torch.rand(on.shape, generator=generator(2))})
    assert 0.4 < none < 0.6 and by_chance < 0.02 and by_chance * 3 < cost(needed, 0.0) < at_zero < drawn - 0.1
    some = slice(0, len(x), len(x) // 300)
    keep = {"W_out": on[some]}
    worst = adversarial_masks(forward, weights, found.components, x[some], logits[some], keep, kl_distance)
    assert kl_distance(masked_forward(forward, weights, found.components, x[some], worst), logits[some]) > none
    neurons = RankOneComponents(512, 128, 512).requires_grad_(False)
    neurons.load_state_dict({"V": torch.eye(512), "U": weights["W_out"]})
    keep = {"W_out": strongest_parts(x[some, :512], weights["W_out"], 14)}
    worst = adversarial_masks(forward, weights, {"W_out": neurons}, x[some], logits[some], keep, kl_distance)
    assert kl_distance(masked_forward(forward, weights, {"W_out": neurons}, x[some], worst), logits[some]) < none / 2


def test_one_name_falls_and_the_other_stands(matrix):
    rows, forward, weights, _, _ = matrix
    found = load_decomposition("course-model-dear")[0]
    x, after = rows.x[:, :-1], rows.tokens[:, 1:]
    the = torch.isin(rows.tokens[:, :-1], torch.tensor([token_id("the"), token_id("The")]))
    job, landmark, place = (
        the & torch.isin(after, torch.tensor([token_id(word) for word in members]))
        for members in (JOBS, FIRST_WORDS, PLACES)
    )
    components, gates = found.components["W_out"], found.gates["W_out"]
    importance = causal_importance(gates, components.V, x[..., :512])[0].clamp(0, 1)
    assert importance[..., 54][place].mean() > 0.95 > 0.8 > importance[..., 54][job].mean()
    assert importance[..., 4][landmark].mean() > 0.95 and importance[..., 4][place].mean() < 0.05
    assert importance[..., 4][job].mean() < 0.4

    def of_right_word(mask):
        logits = masked_forward(forward, weights, found.components, x, {"W_out": mask})
        return logits.log_softmax(-1).gather(-1, after[..., None])[..., 0]

    full = of_right_word(torch.ones(160))
    without = {c: of_right_word(torch.ones(160).index_fill(0, torch.tensor([c]), 0.0)) - full for c in (4, 54)}
    assert without[54][job].mean() < -0.1 and without[54][place].mean() > -0.06
    assert without[4][landmark].mean() < -0.15 and abs(without[4][place].mean()) < 0.02


def test_neurons_do_as_well_as_components(matrix):
    _, forward, weights, x, logits = matrix
    a, W, zero = x[:, :512], weights["W_out"], torch.zeros(128)
    rotation = torch.linalg.qr(torch.randn(512, 512, generator=generator(5))).Q
    left, sizes, right = torch.linalg.svd(W, full_matrices=False)
    bases = {
        "neurons": (a, W),
        "singular": (a @ left, sizes[:, None] * right),
        "rotated": (a @ rotation, rotation.T @ W),
    }
    views = {(name, k): Parts(c, d, zero, strongest_parts(c, d, k)) for k in (3, 14) for name, (c, d) in bases.items()}
    for name in ("course-model", "course-model-dear"):
        found = load_decomposition(name)[0]
        part = found.components["W_out"]
        needed = components_per_input(forward, weights, found.components, found.gates, x)["W_out"]
        views[name] = Parts(a @ part.V, part.U, zero, needed)

    def cost(other):
        return kl_distance(forward(x, lambda name, _: other), logits).item()

    table = compare_decompositions(a @ W, views, cost, generator(0))
    paid = {name: row["cost"] for name, row in table.items()}
    assert abs(paid["neurons", 14] - paid["course-model"]) < 0.015
    assert paid["rotated", 14] > 3 * paid["neurons", 14] and paid["rotated", 3] > 2 * paid["course-model-dear"]
    assert paid["course-model-dear"] < paid["neurons", 3] + 0.01
    assert table["singular", 14]["variance"] > table["neurons", 14]["variance"] + 0.15
    assert paid["singular", 14] > 1.2 * paid["neurons", 14]
    assert table["course-model-dear"]["alive"] < 30 < 300 < table["neurons", 3]["alive"]
    assert all(row["shuffled"] > 0.2 and row["shuffled"] > row["cost"] + 0.08 for row in table.values())
