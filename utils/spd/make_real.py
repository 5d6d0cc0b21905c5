"""Make the results that part 09c ships.

    OMP_NUM_THREADS=1 python -m utils.spd.make_real residual-mlp
    OMP_NUM_THREADS=1 python -m utils.spd.make_real induction
    OMP_NUM_THREADS=1 python -m utils.spd.make_real course-model

The first decomposes two residual MLPs from several seeds and writes ``shipped/residual_mlp.json`` (about three minutes
on one core), the second two matrices of the induction circuit at two sharpnesses (``shipped/induction….safetensors``,
half a minute each), the third the output matrix of the course model's last MLP at two prices
(``shipped/course-model….safetensors``, five minutes each).
"""

import json
import sys

import torch
from torch import Generator, Tensor

from utils.spd.components import Forward, inputs_of_matrices, masked_forward
from utils.spd.course_model import finish, last_mlp_rows, spd_on_course_model
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
from utils.spd.losses import mean_squared_error
from utils.spd.residual_mlp import (
    importance_by_feature,
    residual_mlp_forward,
    residual_mlp_spd,
    signed_features,
    two_networks,
)
from utils.spd.shipped import FOLDER, save_decomposition
from utils.spd.training import Decomposition, train_spd

RESIDUAL = {"C": 16, "price": 5e-4, "n_steps": 4000}
INDUCTION = {"C": 10, "price": 3e-3, "n_steps": 2000, "lr": 1e-2}
SHARPNESS = {"induction": 5.0, "induction-sharp": 20.0}
COURSE = {"course-model": {"price": 1e-3, "n_steps": 2500}, "course-model-dear": {"price": 4e-3, "n_steps": 2000}}
COURSE_SETTINGS = {"C": 160, "lr": 4e-3, "batch": 256}


def importances(forward: Forward, weights: dict[str, Tensor], found: Decomposition, x: Tensor) -> dict[str, Tensor]:
    """Lower-leaky causal importances, cut off at 0, for some inputs."""
    inputs = inputs_of_matrices(forward, weights, x)[1]
    return {
        name: causal_importance(found.gates[name], found.components[name].V, a)[0].clamp(min=0)
        for name, a in inputs.items()
    }


def one_residual(network: str, seed: int) -> dict:
    """Decompose a network of ``two_networks``, and measure what came out on new inputs."""
    W_E, networks = two_networks()
    weights = networks[network]
    found = residual_mlp_spd(W_E, weights, seed=seed, **RESIDUAL)
    forward = residual_mlp_forward(W_E)
    x = signed_features(len(W_E), 2000)(Generator().manual_seed(10_000 + seed))
    wanted = inputs_of_matrices(forward, weights, x)[0]
    needed = {name: (g > 0.1).float() for name, g in importances(forward, weights, found, x).items()}
    zeros = {name: 0 * mask for name, mask in needed.items()}
    by_feature = importance_by_feature(found.gates["W_in"], found.components["W_in"], W_E)
    rows = torch.einsum("fd,cdo->cfo", W_E, found.components["W_in"].matrices())  # what it does with each feature
    return {
        "network": network,
        "seed": seed,
        **{name: history[-1] for name, history in found.history.items() if name != "step"},
        "only needed": mean_squared_error(masked_forward(forward, weights, found.components, x, needed), wanted).item(),
        "none": mean_squared_error(masked_forward(forward, weights, found.components, x, zeros), wanted).item(),
        "importance": [[round(g, 3) for g in row] for row in by_feature.tolist()],
        "rows": [[[round(v, 3) for v in row] for row in matrix] for matrix in rows.tolist()],
    }


def residual_mlp() -> None:
    runs = []
    for seed in range(5):
        for network in two_networks()[1]:
            runs.append(one_residual(network, seed))
            FOLDER.mkdir(exist_ok=True)
            (FOLDER / "residual_mlp.json").write_text("[\n" + ",\n".join(json.dumps(run) for run in runs) + "\n]\n")
            print(network, seed, {key: runs[-1][key] for key in ("faithfulness", "only needed", "none")}, flush=True)


def induction() -> None:
    for name, sharpness in SHARPNESS.items():
        state = balanced_circuit(D_VOCAB, N_CTX, sharpness)
        found = train_spd(
            induction_forward(state, CHOSEN),
            chosen_weights(state),
            said_twice(D_VOCAB, N_CTX, 48),
            distance=second_time,
            **INDUCTION,
        )
        about = {key: str(value) for key, value in {"sharpness": sharpness, **INDUCTION}.items()}
        save_decomposition(FOLDER / f"{name}.safetensors", found, about)
        print(name, {key: history[-1] for key, history in found.history.items()}, flush=True)


def course_model() -> None:
    from utils.data.prompts import documents
    from utils.models.course_model import load_course_model

    model = load_course_model().requires_grad_(False)
    x = last_mlp_rows(model, documents(200, 1)).x.flatten(0, 1)
    W_out = model.blocks[3].mlp.W_out.detach()
    for name, settings in COURSE.items():
        settings = settings | COURSE_SETTINGS
        found = spd_on_course_model(x, W_out, finish(model), **settings)[1]
        about = {key: str(value) for key, value in settings.items()}
        save_decomposition(FOLDER / f"{name}.safetensors", found, about)
        print(name, {key: history[-1] for key, history in found.history.items()}, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"residual-mlp": residual_mlp, "induction": induction, "course-model": course_model}[sys.argv[1]]()
