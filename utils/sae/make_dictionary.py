"""How the shipped dictionaries are made: ``python -m utils.sae.make_dictionary NAME [FOLDER]``.

A run that was stopped goes on from where it was; until it is done, what it needs lies in ``FOLDER/unfinished``.
"""

import argparse
import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from utils.data.corpus import corpus
from utils.data.prompts import documents
from utils.models.bundled import MEASURED_FILE, write_model
from utils.models.catalogue import load_model
from utils.models.packaged import packaged_folder
from utils.models.phenomena.measuring import untrained
from utils.sae.metrics import (
    dead_fraction,
    fraction_variance_explained,
    l0,
    loss_recovered,
    spliced_loss,
)
from utils.sae.shipped import dictionary_folder, load_dictionary
from utils.sae.texts import peoples_rows, sample_rows
from utils.sae.topk import TopKSAE, topk_objective
from utils.sae.training import Batches, from_table, streamed, train_sae

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer
    from transformers import PreTrainedModel

DOCUMENT_SEED = 7 * 10**11  # of the documents read here: neither the model's own training's nor held out
DOCS_PER_CHUNK, N_MEASURED = 256, 256


CARD = """\
# The dictionary {name}

{what} `load_dictionary("{name}")`, from `utils.sae.shipped`, loads it.

| | |
| --- | --- |
| reads | `{site}` of {model}, unscaled, from position {first_position} on |
| architecture | `utils.sae.topk.TopKSAE`: {d_in} dimensions, {d_sae:,} latents, of which the {k} largest are kept; \
rows of W_dec of length 1 |
| weights | float16 in the file, float32 when loaded; the scale of training is folded in |
| trained on | {trained_on} |
| recipe | `python -m utils.sae.make_dictionary {name}`: `train_sae`, Adam, {n_steps:,} steps of {batch_size:,} \
activations, learning rate {lr}, auxiliary loss for dead latents, seed {seed} |

Measured by the recipe, with the weights as they ship (`measured.json`). FVE is the fraction of variance explained. \
"Recovered" is how much of the model's ability survives where the reconstruction takes the activation's place, between \
the ablated site (0) and the model as it is (1). The rows below the first say what it is worth: random directions, of \
which the same number is used for an activation, chosen by the activation and combined by least squares, which no \
encoder does; and as many main components.

{tables}
Known absences: a latent has no meaning because it is in a dictionary. No latent here was labelled.
"""
TABLE = """\
On {texts} ({n:,} activations, {left_out} left out for their length): {L0:.1f} latents are on, {dead:.1%} are never \
on. Loss {loss:.3f}; with the site at zero {zero:.3f}, at the mean activation {mean:.3f}.

| | FVE | loss | recovered, zero ablation | recovered, mean ablation |
| --- | --- | --- | --- | --- |
{rows}
"""
WHAT = {
    "course-model": "Of the course model's residual stream behind layer 2.",
    "course-model-seed-1": "The recipe of the dictionary course-model with other starting weights and other documents.",
    "course-model-untrained": "The recipe of the dictionary course-model on a course model with random weights, \
`untrained(load_course_model(), 0)`: the null for whatever is read into the other.",
    "smollm2-135m": "Of the middle of SmolLM2-135M-Instruct, the weights of 4 bits that the package index has.",
}
COURSE_TEXTS = "documents of `utils.data.corpus`, made as they are needed; each activation is seen once"
SMOLLM2_TEXTS = (
    "a corpus can't be had from a package index, so: texts of 128 tokens that the model writes itself behind "
    "<\\|endoftext\\|>, drawn from its own distribution (temperature 1), {written:,} tokens; and English that people "
    "wrote and every installation has, Python's reference (`pydoc_data.topics`) and the descriptions of scikit-learn's "
    "data sets, {peoples:,} tokens, so that technical English is over-represented. Left out: the first position of "
    "each text, whose activation is many times as long as others, and what else is longer than five times the usual. "
    "The activations were read in bfloat16. Sampling differs from machine to machine, so that a second run gives other "
    "texts"
)


@dataclass(frozen=True)
class Recipe:
    """What a dictionary is trained on, and how.

    Attributes:
        model: The name that ``load_model`` takes.
        site: The hook point.
        d_in: Dimensions of an activation.
        d_sae: Latents.
        k: Latents that are on.
        n_steps: Steps of ``batch_size`` activations.
        lr: Highest learning rate.
        seed: Of the starting weights, and of the documents.
        random_model: Whether the model's weights are random ones.
        first_position: The first position of a text whose activation is read.
    """

    model: str
    site: str
    d_in: int
    d_sae: int
    k: int
    n_steps: int
    batch_size: int = 1024
    lr: float = 2e-3
    seed: int = 0
    random_model: bool = False
    first_position: int = 0


COURSE = dict(model="course-model", site="blocks.2.hook_resid_post", d_in=128, d_sae=1024, k=16, n_steps=1200)
RECIPES = {
    "course-model": Recipe(**COURSE),
    "course-model-seed-1": Recipe(**COURSE, seed=1),
    "course-model-untrained": Recipe(**COURSE, random_model=True),
    "smollm2-135m": Recipe(
        model="smollm2-135m", site="blocks.15.hook_resid_post", d_in=576, d_sae=2048, k=32, n_steps=900,
        first_position=1,
    ),
}  # fmt: skip
N_SAMPLED, ROWS_SAMPLED, N_TOKENS = (
    6,
    64,
    128,
)  # files of texts that SmolLM2 writes (the last is held out), rows, tokens
TOO_LONG = 5.0  # times the usual length: activations that long are left out


def activations(
    model: "HookedTransformer", tokens: Int[Tensor, "text pos"], site: str, first_position: int = 0
) -> Float[Tensor, "n d"]:
    """What the model holds at a site, a row for each token from ``first_position`` on; later layers don't run."""
    after = int(site.split(".")[1]) + 1
    parts = []
    with torch.no_grad():
        for rows in tokens.split(32):
            _, cache = model.run_with_cache(rows, names_filter=site, stop_at_layer=after)
            parts.append(cache[site][:, first_position:].flatten(0, 1))
    return torch.cat(parts)


def unscaled(sae: TopKSAE, scale: float) -> dict[str, Tensor]:
    """Weights for activations x of a dictionary that was trained on scale · x: its latents come out divided by scale.

    Scaled up alike, x W_enc + b_enc and z W_dec + b_dec stay what they are if only the biases are divided.
    """
    state = {name: value.detach().clone() for name, value in sae.state_dict().items()}
    return state | {name: state[name] / scale for name in ("b_enc", "b_dec")}


def course_model_batches(recipe: Recipe, model: "HookedTransformer") -> tuple[Batches, float]:
    """Activations of documents that are made when they are needed, scaled to mean length √d_in; and the scale."""

    def read(number: int) -> Tensor:
        seed = DOCUMENT_SEED + 10**6 * recipe.seed + number
        return activations(model, torch.as_tensor(corpus(DOCS_PER_CHUNK, seed)).long(), recipe.site)

    scale = math.sqrt(recipe.d_in) / read(0).norm(dim=1).mean().item()

    def chunk(number: int) -> tuple[Tensor, Tensor]:
        x = read(number) * scale
        return x, x

    return streamed(chunk, recipe.batch_size, seed=recipe.seed), scale


def forced(
    x: Float[Tensor, "n d"], mean: Float[Tensor, "d"], directions: Float[Tensor, "d_sae d"], k: int
) -> Float[Tensor, "n d"]:
    """Each activation by the k of the directions that it points along most, combined by least squares.

    No encoder combines as well: a null that is built so is given more than the dictionary.
    """
    parts = []
    for rows in (x - mean).split(512):
        chosen = directions[(rows @ directions.T).topk(k, dim=1).indices]  # [rows, k, d]
        gram = chosen @ chosen.transpose(1, 2) + 1e-5 * torch.eye(k)
        weights = torch.linalg.solve(gram, chosen @ rows.unsqueeze(2))
        parts.append((weights * chosen).sum(dim=1) + mean)
    return torch.cat(parts)


def yardsticks(
    earlier: Float[Tensor, "m d"], d_sae: int, k: int
) -> dict[str, Callable[[Float[Tensor, "n d"]], Float[Tensor, "n d"]]]:
    """What a dictionary has to be compared with, by name: functions that take activations and give them back.

    Args:
        earlier: Activations of other texts, from which all three take the mean, and two more than that.
        d_sae: How many random directions.
        k: How many may be used for an activation.
    """
    mean, generator = earlier.mean(dim=0), torch.Generator().manual_seed(0)
    centred = earlier - mean
    values, axes = torch.linalg.eigh(centred.T @ centred / len(earlier))  # rising
    even = torch.randn(d_sae, earlier.shape[1], generator=generator)
    shaped = torch.randn(d_sae, earlier.shape[1], generator=generator) * values.clamp(min=0).sqrt() @ axes.T
    even, shaped = (rows / rows.norm(dim=1, keepdim=True) for rows in (even, shaped))
    main = axes[:, -k:]
    return {
        "random directions": lambda x: forced(x, mean, even, k),
        "random directions with the activations' covariance": lambda x: forced(x, mean, shaped, k),
        "main components, the same k for all": lambda x: (x - mean) @ main @ main.T + mean,
    }


def measure(
    sae: TopKSAE,
    model: "HookedTransformer",
    held_out: Int[Tensor, "text pos"],
    earlier: Float[Tensor, "m d"],
    longest: float = math.inf,
) -> dict:
    """The dictionary on texts that it was not trained on, and the yardsticks beside it.

    Args:
        sae: As it ships.
        model: That it belongs to.
        held_out: Texts.
        earlier: Other activations of the site, for the yardsticks.
        longest: Activations that are longer are left as they are, and out of the sums.
    """
    first, mean = sae.first_position, earlier.mean(dim=0)
    x = activations(model, held_out, sae.site, first)
    used = x.norm(dim=1) <= longest
    x = x[used]
    z = torch.cat([sae.encode(rows) for rows in x.split(4096)])
    ways = {"dictionary": lambda rows: sae(rows)[0]} | yardsticks(earlier, sae.W_dec.shape[0], sae.k)
    ablations = {"zero": torch.zeros_like, "mean": lambda rows: mean.expand_as(rows)}

    def loss(replace) -> float:
        def change(value: Tensor) -> Tensor:
            rows = value[:, first:].flatten(0, 1)
            changed = torch.where(rows.norm(dim=1, keepdim=True) <= longest, replace(rows), rows)
            return torch.cat([value[:, :first], changed.view_as(value[:, first:])], dim=1)

        return sum(spliced_loss(model, rows, sae.site, change) * len(rows) for rows in held_out.split(16)) / len(
            held_out
        )

    whole, lost = loss(lambda rows: rows), {name: loss(replace) for name, replace in ablations.items()}
    rows = {}
    for name, replace in ways.items():
        spliced = loss(replace)
        rows[name] = {"FVE": fraction_variance_explained(x, replace(x)), "loss": spliced} | {
            f"recovered, {kind} ablation": loss_recovered(whole, spliced, ablated) for kind, ablated in lost.items()
        }
    return {
        "activations": len(x), "left out": int((~used).sum()), "L0": l0(z), "dead": dead_fraction(z), "loss": whole,
        "loss, zero ablation": lost["zero"], "loss, mean ablation": lost["mean"], "ways": rows,
    }  # fmt: skip


def smollm2_texts(unfinished: Path, model: "PreTrainedModel") -> list[Int[Tensor, "text pos"]]:
    """The files of texts that the model writes; those that are there already are read."""
    files = []
    for number in tqdm(range(N_SAMPLED), desc="texts"):
        path = unfinished / f"texts-{number}.pt"
        if not path.exists():
            _save(sample_rows(model, ROWS_SAMPLED, N_TOKENS, number), path)
        files.append(torch.load(path))
    return files


def smollm2_table(recipe: Recipe, unfinished: Path) -> tuple[Float[Tensor, "n d"], Int[Tensor, "text pos"]]:
    """Activations to train on (float16, shuffled only when they are used), and texts that were written and held out.

    Writing and reading run in bfloat16, which takes a third of the time; what is measured later runs in float32.
    """
    from transformers import AutoModelForCausalLM

    path = unfinished / "activations.pt"
    model = AutoModelForCausalLM.from_pretrained(packaged_folder(recipe.model), dtype=torch.bfloat16).eval()
    *written, held_out = smollm2_texts(unfinished, model)
    if not path.exists():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(packaged_folder(recipe.model), local_files_only=True)
        rows = torch.cat([*written, peoples_rows(tokenizer, N_TOKENS, held_out=False)])
        lower = model.model
        lower.layers, lower.norm = lower.layers[: int(recipe.site.split(".")[1]) + 1], torch.nn.Identity()
        with torch.no_grad():
            parts = [
                lower(some, use_cache=False).last_hidden_state[:, recipe.first_position :].flatten(0, 1).half()
                for some in tqdm(rows.split(16), desc="activations")
            ]
        _save(torch.cat(parts), path)
    return torch.load(path), held_out


def smollm2_batches(recipe: Recipe, unfinished: Path) -> tuple[Batches, float, float]:
    """Batches of activations of mean length √d_in, the scale that gave them this length, and the longest allowed."""
    x, _ = smollm2_table(recipe, unfinished)
    lengths = x.float().norm(dim=1)
    longest = TOO_LONG * lengths.median().item()
    x = x[lengths <= longest]
    scale = math.sqrt(recipe.d_in) / lengths[lengths <= longest].mean().item()
    from_halves = from_table(x, recipe.batch_size, seed=recipe.seed)

    def batches(step: int) -> tuple[Tensor, Tensor]:
        rows = from_halves(step)[0].float() * scale
        return rows, rows

    return batches, scale, longest


def make(name: str, folder: Path) -> None:
    """Train a dictionary, measure it, and write weights (float16), ``measured.json`` and ``CARD.md``."""
    recipe, unfinished = RECIPES[name], folder / "unfinished"
    unfinished.mkdir(parents=True, exist_ok=True)
    longest = math.inf
    if recipe.model == "course-model":
        batches, scale = course_model_batches(recipe, the_model(recipe))
    else:
        batches, scale, longest = smollm2_batches(recipe, unfinished)
    sae = TopKSAE(recipe.d_in, recipe.d_sae, recipe.k, generator=torch.Generator().manual_seed(recipe.seed))
    train_sae(
        sae, batches, topk_objective(), n_steps=recipe.n_steps, lr=recipe.lr, progress=name,
        checkpoint=unfinished / "progress.pt",
    )  # fmt: skip
    config = asdict(recipe) | ({} if longest == math.inf else {"longest": longest})
    write_model(folder, config, {key: value.half() for key, value in unscaled(sae, scale).items()})
    write_card(name, folder)
    shutil.rmtree(unfinished)


def the_model(recipe: Recipe) -> "HookedTransformer":
    """The model that a recipe is about."""
    model = load_model(recipe.model)
    return untrained(model, 0) if recipe.random_model else model


def write_card(name: str, folder: Path) -> None:
    """Measure the dictionary in ``folder`` and write ``measured.json`` and ``CARD.md`` beside it."""
    recipe, sae = RECIPES[name], load_dictionary(folder)
    model = the_model(recipe)
    if recipe.model == "course-model":
        # Documents that neither the model nor the dictionary has seen; the yardsticks see others.
        earlier = activations(model, documents(128, 1), recipe.site)
        found = {"held-out documents": measure(sae, model, documents(N_MEASURED, 0), earlier)}
        measured = {"held out": found}
    else:
        written, own = (peoples_rows(model.tokenizer, N_TOKENS, held_out=held_out) for held_out in (False, True))
        earlier = activations(model, written[::10], recipe.site, recipe.first_position)
        earlier = earlier[earlier.norm(dim=1) <= sae.longest]
        _, dreamt = smollm2_table(recipe, folder / "unfinished")
        found = {
            "texts that the model wrote": measure(sae, model, dreamt, earlier, sae.longest),
            "texts that people wrote": measure(sae, model, own, earlier, sae.longest),
        }
        n_written = (N_SAMPLED - 1) * ROWS_SAMPLED * N_TOKENS
        measured = {"held out": found, "trained on": {"written": n_written, "peoples": written.numel()}}
    (folder / MEASURED_FILE).write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    (folder / "CARD.md").write_text(card(name, measured), encoding="utf-8")


def card(name: str, measured: dict) -> str:
    """The card's text."""
    recipe = RECIPES[name]
    return CARD.format(
        **asdict(recipe),
        name=name,
        what=WHAT[name],
        trained_on=COURSE_TEXTS if recipe.model == "course-model" else SMOLLM2_TEXTS.format(**measured["trained on"]),
        tables="\n".join(_table(texts, found) for texts, found in measured["held out"].items()),
    )


def _table(texts: str, found: dict) -> str:
    rows = "\n".join(
        f"| {name} | {way['FVE']:.3f} | {way['loss']:.3f} | {way['recovered, zero ablation']:.3f} | "
        f"{way['recovered, mean ablation']:.3f} |"
        for name, way in found["ways"].items()
    )
    return TABLE.format(
        texts=texts, rows=rows, dead=found["dead"], L0=found["L0"], n=found["activations"], left_out=found["left out"],
        loss=found["loss"], zero=found["loss, zero ablation"], mean=found["loss, mean ablation"],
    )  # fmt: skip


def _save(value: object, path: Path) -> None:
    """In one step, so that an interrupted run leaves no half file."""
    temporary = path.with_suffix(".part")
    torch.save(value, temporary)
    os.replace(temporary, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train one of the shipped dictionaries again.")
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("folder", type=Path, nargs="?", help="where to; build/models/sae-NAME if not given")
    parser.add_argument("--ship", action="store_true", help="replace the shipped weights (for authors)")
    arguments = parser.parse_args()
    chosen = dictionary_folder(arguments.name) if arguments.ship else Path("build/models") / f"sae-{arguments.name}"
    make(arguments.name, arguments.folder or chosen)
