"""Seconds that our explanations of a table's row take, beside those of the libraries, on the same model.

    python benchmarks/attribution_tables.py

``kernel_shap`` against shap's KernelExplainer: all coalitions of ten features, where both are exact, and some of those
of ten to thirty features, with the root mean square error of several runs of each at the same budget.
``lime_explain`` against lime's tabular explainer with as many neighbours. For times ours and theirs take turns, and the
median of the runs is printed.
"""

import math
import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from utils.attribution.lime import lime_explain
from utils.attribution.shapley import kernel_shap, shapley_exact, shapley_sampling

RUNS, ERROR_RUNS = 5, 20


def network(n_features: int, seed: int = 0) -> Callable[[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    W, v = torch.randn(n_features, 16, generator=generator).double(), torch.randn(16, generator=generator).double()
    return lambda X: torch.tanh(X @ W / math.sqrt(n_features)) @ v


def data(n_features: int, n_rows: int) -> Tensor:
    return torch.randn(n_rows, n_features, generator=torch.Generator().manual_seed(1)).double()


def in_numpy(model: Callable[[Tensor], Tensor]) -> Callable:
    return lambda X: model(torch.as_tensor(np.asarray(X), dtype=torch.float64)).numpy()


def compare(name: str, ours: Callable, theirs: Callable) -> tuple:
    """Time both in turn, print the medians and their ratio, and return the last results."""
    times = {"ours": [], "theirs": []}
    ours(), theirs()
    for _ in range(RUNS):
        for key, function in (("ours", ours), ("theirs", theirs)):
            start = time.perf_counter()
            result = function()
            times[key].append(time.perf_counter() - start)
            if key == "ours":
                own = result
    mine, library = statistics.median(times["ours"]), statistics.median(times["theirs"])
    print(f"{name}: ours {mine:.4f} s, library {library:.4f} s, library / ours = {library / mine:.1f}")
    return own, result


def benchmark_kernel_shap() -> None:
    import shap

    model, x, background = network(10), data(10, 1)[0], data(10, 100)
    explainer = shap.KernelExplainer(in_numpy(model), background.numpy())
    own, other = compare(
        "kernel_shap, 10 features, all 1,022 coalitions, background of 100",
        lambda: kernel_shap(model, x, background),
        lambda: explainer.shap_values(x.numpy(), nsamples=2**10, l1_reg=False, silent=True),
    )
    print(f"    largest difference {np.abs(own.numpy() - other).max():.1e}")

    model, x, background = network(30), data(30, 1)[0], data(30, 100)
    explainer = shap.KernelExplainer(in_numpy(model), background.numpy())
    generator = torch.Generator().manual_seed(0)
    compare(
        "kernel_shap, 30 features, 2,000 coalitions, background of 100",
        lambda: kernel_shap(model, x, background, n_coalitions=2000, generator=generator),
        lambda: explainer.shap_values(x.numpy(), nsamples=2000, l1_reg=False, silent=True),
    )


def benchmark_kernel_shap_errors() -> None:
    import shap

    for n_features, budget in ((10, 144), (10, 576), (14, 500), (14, 3000), (20, 1000), (30, 200), (30, 2000)):
        model, x, background = network(n_features), data(n_features, 1)[0], data(n_features, 20)
        generator = torch.Generator().manual_seed(0)
        if n_features <= 16:
            exact = shapley_exact(model, x, background)
        else:
            exact, _ = shapley_sampling(model, x, background, n_permutations=20_000, generator=generator)
        explainer = shap.KernelExplainer(in_numpy(model), background.numpy())
        squares = {"ours": [], "theirs": []}
        for seed in range(ERROR_RUNS):
            own = kernel_shap(model, x, background, n_coalitions=budget, generator=generator)
            np.random.seed(seed)  # the library draws from numpy's global state
            other = explainer.shap_values(x.numpy(), nsamples=budget, l1_reg=False, silent=True)
            squares["ours"].append((own - exact).square().mean().item())
            squares["theirs"].append((torch.as_tensor(other) - exact).square().mean().item())
        mine, library = (math.sqrt(statistics.mean(values)) for values in squares.values())
        print(
            f"kernel_shap, {n_features} features, {budget:,} coalitions: error ours {mine:.5f}, library {library:.5f}, "
            f"ours / library = {mine / library:.2f}"
        )


def benchmark_lime() -> None:
    from lime.lime_tabular import LimeTabularExplainer

    for n_features in (10, 30):
        model, x, table = network(n_features), data(n_features, 1)[0], data(n_features, 1000)
        explainer = LimeTabularExplainer(
            table.numpy(), mode="regression", discretize_continuous=False, sample_around_instance=True, random_state=0
        )
        scale, width = table.std(0, correction=0), 0.75 * math.sqrt(n_features) * math.sqrt(2)
        generator = torch.Generator().manual_seed(0)

        def ours(model=model, x=x, scale=scale, width=width, generator=generator):
            return lime_explain(model, x, scale, kernel_width=width, n_samples=5000, generator=generator)[0]

        def theirs(explainer=explainer, model=model, x=x, n_features=n_features):
            found = explainer.explain_instance(x.numpy(), in_numpy(model), num_features=n_features, num_samples=5000)
            return np.array([dict(found.local_exp[1])[i] for i in range(n_features)])

        own, other = compare(f"lime_explain, {n_features} features, 5,000 neighbours", ours, theirs)
        print(f"    largest difference {np.abs(own.numpy() - other).max():.3f} (each has its own neighbours)")


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    benchmark_kernel_shap()
    benchmark_kernel_shap_errors()
    benchmark_lime()


if __name__ == "__main__":
    main()
