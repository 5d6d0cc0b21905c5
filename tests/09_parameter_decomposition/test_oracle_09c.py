"""References of part 09c against closed forms and properties, and what its shipped files hold."""

import json

import torch

from utils.circuits.networks import attention_only
from utils.spd.case_09c import KINDS, claimed_network, needed_for_what
from utils.spd.compare import Parts, compare_decompositions, strongest_parts
from utils.spd.components import RankOneComponents, inputs_of_matrices, masked_forward
from utils.spd.course_model import adversarial_masks, kl_distance, what_it_writes
from utils.spd.gates import ComponentGates
from utils.spd.induction import balanced_circuit, entries, induction_forward, said_twice
from utils.spd.losses import mean_squared_error
from utils.spd.make_real import COURSE, COURSE_SETTINGS, INDUCTION, RESIDUAL, SHARPNESS
from utils.spd.residual_mlp import residual_mlp_forward, signed_features, two_networks
from utils.spd.shipped import FOLDER, load_decomposition, save_decomposition
from utils.spd.training import Decomposition


def generator(seed):
    return torch.Generator().manual_seed(seed)


def random_components(seed, d_in, d_out, C):
    return RankOneComponents(d_in, d_out, C, generator=generator(seed)).requires_grad_(False)


def test_two_networks_are_equally_wrong():
    W_E, networks = two_networks()
    torch.testing.assert_close(W_E @ W_E.T, torch.eye(10), atol=1e-5, rtol=0)
    x = torch.rand(10, 1) * torch.eye(10)
    for weights in networks.values():
        found = inputs_of_matrices(residual_mlp_forward(W_E), weights, x)[0]
        error = (found - x - x.relu()).square().sum()
        if weights is networks["pairs"]:
            for column in weights["W_in"].T:
                assert (W_E @ column > 0.1).sum() == 4  # each neuron serves four features
        each = torch.eye(10)
        ones = inputs_of_matrices(residual_mlp_forward(W_E), weights, each)[0]
        torch.testing.assert_close((ones - 2 * each).square().sum(), torch.tensor(5.0), atol=1e-4, rtol=0)
        assert error < x.square().sum()


def test_signed_features_have_one_feature_at_least():
    x = signed_features(7, 5000, 0.2)(generator(0))
    assert (x != 0).any(1).all() and x.abs().max() <= 1
    share = (x != 0).float().mean()
    assert abs(share - (0.2 + 0.8**7 / 7)) < 0.01 and abs(x.mean()) < 0.01


def test_the_balanced_circuit_attends_as_that_of_05a():
    from utils.circuits.by_hand import two_head_induction_by_hand

    tokens = said_twice(9, 12, 5)(generator(1))
    assert torch.equal(tokens[:, :6], tokens[:, 6:]) and all(len(set(row[:6].tolist())) == 6 for row in tokens)
    ours, theirs = balanced_circuit(9, 12), two_head_induction_by_hand(9, 12)
    torch.testing.assert_close(attention_only(ours, tokens)[1], attention_only(theirs, tokens)[1])
    logits = induction_forward(ours, ())(tokens, lambda name, a: a)
    torch.testing.assert_close(20 * logits, attention_only(theirs, tokens)[0], atol=1e-3, rtol=1e-3)
    W = ours["blocks.0.attn.W_Q"][0]
    torch.testing.assert_close(entries(W).sum(0), W)
    assert all(torch.linalg.matrix_rank(part) == 1 for part in entries(W))


def test_kl_is_that_of_torch():
    p, q = torch.randn(2, 6, 9, generator=generator(2))
    given = torch.distributions.Categorical(logits=p), torch.distributions.Categorical(logits=q)
    torch.testing.assert_close(kl_distance(q, p), torch.distributions.kl_divergence(*given).mean())


def test_what_is_written_is_what_ablation_takes_away():
    components, a = random_components(3, 5, 4, 6), torch.randn(30, 5, generator=generator(4))
    needed = torch.rand(30, 6, generator=generator(5)) < 0.5
    W_U = torch.randn(4, 7, generator=generator(6))
    found = what_it_writes(components, a, needed, W_U)
    for c in range(6):
        mask = torch.ones(6)
        mask[c] = 0.0
        gone = (components(a) - components(a, mask.expand(30, 6)))[needed[:, c]].mean(0)
        logits = (gone - gone.mean()) @ W_U
        torch.testing.assert_close(found[c], logits - logits.mean(), atol=1e-4, rtol=1e-4)


def test_gradient_ascent_finds_worse_masks_than_chance_and_never_better_than_the_worst_corner():
    components, W = {"W": random_components(7, 4, 3, 5)}, {"W": torch.randn(4, 3, generator=generator(8))}
    x = torch.randn(6, 4, generator=generator(9))

    def forward(x, linear):
        return linear("W", x)

    wanted, needed = x @ W["W"], {"W": torch.zeros(6, 5, dtype=torch.bool)}

    def errors(mask):
        return (masked_forward(forward, W, components, x, {"W": mask}) - wanted).square().sum(1)

    found = adversarial_masks(forward, W, components, x, wanted, needed, mean_squared_error)["W"]
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 5)
    worst = torch.stack([errors(corner.expand(6, 5)) for corner in corners]).amax(0)
    chance = torch.stack([errors(torch.rand(6, 5, generator=generator(s))) for s in range(50)]).mean(0)
    assert (errors(found) <= worst + 1e-4).all() and errors(found).sum() > 2 * chance.sum()


def test_all_parts_keep_everything():
    a, W = torch.randn(20, 6, generator=generator(10)), torch.randn(6, 4, generator=generator(11))
    y = a @ W
    everything = Parts(a, W, torch.zeros(4), strongest_parts(a, W, 6))
    row = compare_decompositions(y, {"all": everything}, lambda o: (o - y).norm().item(), generator(0))["all"]
    assert row["cost"] < 1e-4 and row["variance"] > 0.9999 and row["needed"] == row["alive"] == row["parts"] == 6


def test_the_case_names_each_kind():
    for seed in range(20):
        for kind in KINDS:
            assert needed_for_what(claimed_network(kind, 100 + seed))["verdict"] == kind


def test_what_is_saved_comes_back(tmp_path):
    gates = ComponentGates(6, 5, generator=generator(1))
    saved = Decomposition({"a.b": random_components(0, 4, 3, 6)}, {"a.b": gates}, {})
    save_decomposition(tmp_path / "sub" / "one.safetensors", saved, {"price": "0.5"})
    found, about = load_decomposition(tmp_path / "sub" / "one.safetensors")
    assert about == {"price": "0.5"} and not found.components["a.b"].V.requires_grad
    torch.testing.assert_close(found.components["a.b"].U, saved.components["a.b"].U, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found.gates["a.b"].W_out, gates.W_out.detach(), atol=1e-3, rtol=1e-3)


def test_shipped_files_say_how_they_were_made_and_are_small():
    settings = {name: {**one, **COURSE_SETTINGS} for name, one in COURSE.items()}
    settings |= {name: {"sharpness": sharpness, **INDUCTION} for name, sharpness in SHARPNESS.items()}
    for name, one in settings.items():
        assert load_decomposition(name)[1] == {key: str(value) for key, value in one.items()}
        assert (FOLDER / f"{name}.safetensors").stat().st_size < 300_000
    runs = json.loads((FOLDER / "residual_mlp.json").read_text())
    assert {(run["network"], run["seed"]) for run in runs} == {(n, s) for n in two_networks()[1] for s in range(5)}
    assert all(len(run["importance"][0]) == RESIDUAL["C"] for run in runs)
