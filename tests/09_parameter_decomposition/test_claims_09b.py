"""What part 09b says of its experiments: of those that ship, and measured again with other seeds."""

import json

import pytest
import torch
from torch import Generator

from utils.spd.components import RankOneComponents, inputs_of_matrices
from utils.spd.make_toys import RESULTS, load_target, load_toys, measured
from utils.spd.score import (
    ablate_the_rest,
    components_per_input,
    match_components,
    mean_max_cosine_similarity,
    random_needed,
    recovered,
)
from utils.spd.side_by_side import train_side_by_side
from utils.spd.toys import active_features

SHIPPED = json.loads(RESULTS.read_text(encoding="utf-8"))


def runs_of(recipe):
    return SHIPPED[recipe]["runs"]


def test_most_runs_find_every_feature_and_random_starts_do_not():
    found = [run["down"]["recovered"] + run["up"]["recovered"] for run in runs_of("5-2")]
    assert sorted(found)[1] == 10 and len(found) == 5
    for run in runs_of("5-2"):
        assert run["live"]["down"] == 5 and min(run["down"]["cosine"]) > 0.99 and run["MMCS"] > 0.99
    at_random = [run["down"]["recovered"] for run in runs_of("random start")]
    assert sum(at_random) / 5 < 4 and min(run["MMCS"] for run in runs_of("random start")) > 0.9


def test_a_hidden_identity_and_forty_features():
    assert all(run["live"]["hidden"] == 2 for run in runs_of("5-2, hidden"))
    assert sum(run["down"]["recovered"] == 5 for run in runs_of("5-2, hidden")) >= 3
    forty = runs_of("40-10")
    assert sum(run["down"]["recovered"] for run in forty) > 150 and min(run["MMCS"] for run in forty) > 0.98
    assert sum(run["up"]["recovered"] for run in forty) < 5 and max(run["live"]["up"] for run in forty) < 40


def test_untrained_weights_have_a_component_for_each_feature_too():
    for run in runs_of("untrained"):
        assert run["live"]["down"] == 5 and min(run["down"]["cosine"]) > 0.98
        assert run["live"]["up"] < 5 and run["down"]["recovered"] < 5
    assert SHIPPED["untrained"]["agreement"]["down"] > 0.8


def test_what_fails_and_what_tells():
    error = {name: [run["error under random masks"] for run in runs_of(name)] for name in SHIPPED}
    needed = {name: [sum(run["needed"].values()) for run in runs_of(name)] for name in SHIPPED}
    for name in ("random start", "price too low", "price too high", "too few components"):
        assert sum(run["down"]["recovered"] for run in runs_of(name)) <= 15
        assert min(run["MMCS"] for run in runs_of(name)) > 0.95  # which is what the published score sees of it
        assert SHIPPED[name]["agreement"]["down"] < 0.5 < SHIPPED["5-2"]["agreement"]["down"]
    assert min(needed["price too low"]) > 2 * max(needed["5-2"])
    assert min(error["price too high"]) > 5 * max(error["5-2"])
    assert all(run["live"]["down"] == 4 for run in runs_of("too few components"))
    for name in ("random start", "too few components"):  # errors do not tell
        assert sum(error[name]) < 2 * sum(error["5-2"]) and min(needed[name]) > max(needed["5-2"])


@pytest.mark.parametrize("recipe", ["5-2", "random start", "too few components"])
def test_shipped_tensors_are_what_the_table_says(recipe):
    target = load_target()
    x = active_features(5, 2000)(Generator().manual_seed(77))
    for run, told in zip(load_toys(recipe), runs_of(recipe), strict=True):
        again = measured(target, run, x)
        assert again["live"] == told["live"]
        assert again["MMCS"] == pytest.approx(told["MMCS"], abs=2e-3)
        for name in ("down", "up"):
            assert sorted(again[name]["cosine"]) == pytest.approx(sorted(told[name]["cosine"]), abs=5e-3)


def test_chance_gets_the_published_score_and_recovers_nothing():
    target = load_target()
    scores, counts = [], []
    for seed in range(40):
        matrices = RankOneComponents(5, 2, 20, generator=Generator().manual_seed(seed)).matrices().detach()
        scores.append(mean_max_cosine_similarity(target.weights["down"], matrices).item())
        counts.append(int(recovered(matrices, target.truth["down"]).sum()))
    assert 0.965 < sum(scores) / 40 < 0.99 and max(counts) == 0


@pytest.fixture(scope="module")
def again():
    """Three runs with other seeds."""
    target = load_target()
    found = train_side_by_side(
        target.forward, target.weights, active_features(5, 64), seeds=[10, 11, 12],
        C=12, price=3e-3, lr=1e-2, n_steps=3000, every=1000,
    )  # fmt: skip
    return target, found


def test_other_seeds_find_the_features(again):
    target, found = again
    counts = [int(recovered(run.components["down"].matrices(), target.truth["down"]).sum()) for run in found]
    assert sorted(counts)[1] == 5, counts


def test_the_rest_may_stand_at_any_magnitude_and_random_sets_may_not(again):
    (forward, weights, truth, _), found = again
    best = max(found, key=lambda run: int(sum(recovered(run.components[n].matrices(), truth[n]).sum() for n in truth)))
    x = active_features(5, 1500)(Generator().manual_seed(2))
    output = inputs_of_matrices(forward, weights, x)[0]
    needed = components_per_input(forward, weights, best.components, best.gates, x)
    null = {name: random_needed(keep, keep.any(0), Generator().manual_seed(3)) for name, keep in needed.items()}

    def error(keep, magnitude):
        wrong = ablate_the_rest(forward, weights, best.components, x, keep, magnitude) - output
        return (wrong.square().mean() / output.square().mean()).item()

    drawn = {name: torch.rand(keep.shape, generator=Generator().manual_seed(4)) for name, keep in needed.items()}
    for magnitude in (0.0, 0.5, drawn):
        assert error(needed, magnitude) < 0.05 and error(null, magnitude) > 8 * error(needed, magnitude)
    assert error(null, 0.0) > 0.5

    c = int(match_components(best.components["down"].matrices(), truth["down"]).partner[2])
    with_it = active_features(5, 300, 0.2)(Generator().manual_seed(5))
    with_it[:, 2] = 0.3 + 0.7 * torch.rand(300, generator=Generator().manual_seed(6))
    without = with_it.clone()
    without[:, 2] = 0
    share = [
        components_per_input(forward, weights, best.components, best.gates, inputs)["down"][:, c].float().mean()
        for inputs in (with_it, without)
    ]
    assert share[0] > 0.95 and share[1] < 0.05
