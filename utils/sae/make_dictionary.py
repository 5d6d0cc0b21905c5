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
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

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
)
from utils.sae.shipped import dictionary_folder, load_dictionary
from utils.sae.texts import peoples_rows, sample_rows
from utils.sae.topk import TopKSAE, topk_objective
from utils.sae.training import Batches, from_table, streamed, train_sae

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

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

{tables}{beware}
Known absences: no other settings than these were tried. A latent has no meaning because it is in a dictionary, and no \
latent here was labelled.
"""
TABLE = """\
On {where} ({activations:,} activations, {left out} left out for their length): {L0:.1f} latents are on, {dead:.1%} \
are never on. Loss, on {texts} of the texts, {loss:.3f}; with the site at zero {loss, zero ablation:.3f}, at the mean \
activation {loss, mean ablation:.3f}.

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
BEWARE = """
The rows below the first, and the mean activation, were fitted to texts that people wrote, in both tables: on texts that
the model wrote they are worth less than they could be. The people's texts are other ones than those of the training, of
the same two sources. The training was short, three rounds over 95,000 activations: a longer one may explain more.
"""
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
        model="smollm2-135m", site="blocks.15.hook_resid_post", d_in=576, d_sae=2048, k=32, n_steps=300,
        first_position=1,
    ),
}  # fmt: skip
N_SAMPLED, ROWS_SAMPLED, N_TOKENS = (
    6,
    64,
    128,
)  # files of texts that SmolLM2 writes (the last is held out), rows, tokens
N_TEXTS, N_SPLICED = 32, 16  # that SmolLM2's dictionary is measured on, and of which losses are taken
EVERY_ROW = 2  # of people's texts: half of them are read
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
    n_spliced: int | None = None,
) -> dict:
    """The dictionary on texts that it was not trained on, and the yardsticks beside it.

    Args:
        sae: As it ships.
        model: That it belongs to.
        held_out: Texts.
        earlier: Other activations of the site, for the yardsticks.
        longest: Activations that are longer are left as they are, and out of the sums.
        n_spliced: How many of the texts the losses are taken on, the first ones; all if not given.
    """
    first, after, mean = sae.first_position, int(sae.site.split(".")[1]) + 1, earlier.mean(dim=0)
    streams = activations(model, held_out, sae.site).unflatten(0, held_out.shape)  # [text, pos, d]
    lengths = streams.norm(dim=2, keepdim=True)
    used = lengths <= longest
    used[:, :first] = False
    x = streams[used.squeeze(2)]
    z = torch.cat([sae.encode(rows) for rows in x.split(4096)])
    ways = {"dictionary": lambda rows: sae(rows)[0]} | yardsticks(earlier, sae.W_dec.shape[0], sae.k)
    ablations = {"zero": torch.zeros_like, "mean": lambda rows: mean.expand_as(rows)}

    def loss(replace) -> float:
        """Of the first ``n_spliced`` texts, run on from the changed stream."""
        total = 0.0
        for tokens, stream, mask in zip(
            *(every[:n_spliced].split(16) for every in (held_out, streams, used)), strict=True
        ):
            changed = torch.where(mask, replace(stream.flatten(0, 1)).view_as(stream), stream)
            with torch.no_grad():
                log_probs = model(changed, start_at_layer=after)[:, :-1].log_softmax(-1)
            total -= log_probs.gather(2, tokens[:, 1:, None]).mean().item() * len(tokens)
        return total / len(held_out[:n_spliced])

    whole, lost = loss(lambda rows: rows), {name: loss(replace) for name, replace in ablations.items()}
    rows = {}
    for name, replace in ways.items():
        spliced = loss(replace)
        rows[name] = {"FVE": fraction_variance_explained(x, replace(x)), "loss": spliced} | {
            f"recovered, {kind} ablation": loss_recovered(whole, spliced, ablated) for kind, ablated in lost.items()
        }
    return {
        "activations": len(x),
        "left out": int((~used[:, first:]).sum()),
        "texts": len(held_out[:n_spliced]),
        "L0": l0(z),
        "dead": dead_fraction(z),
        "loss": whole,
        "loss, zero ablation": lost["zero"],
        "loss, mean ablation": lost["mean"],
        "ways": rows,
    }


def smollm2_table(recipe: Recipe, unfinished: Path) -> tuple[Float[Tensor, "n d"], Int[Tensor, "text pos"]]:
    """Activations to train on (float16), and texts that the model wrote and that are held out.

    Writing and reading run in bfloat16, which takes a third of the time; what is measured later runs in float32.
    """
    folder = packaged_folder(recipe.model)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    *written, held_out = (
        _kept(
            unfinished / f"texts-{number}.pt", lambda number=number: sample_rows(model, ROWS_SAMPLED, N_TOKENS, number)
        )
        for number in tqdm(range(N_SAMPLED), desc="texts")
    )
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    peoples = peoples_rows(tokenizer, N_TOKENS, held_out=False)[::EVERY_ROW]
    lower = model.model
    lower.layers, lower.norm = lower.layers[: int(recipe.site.split(".")[1]) + 1], torch.nn.Identity()

    def read(rows: Tensor) -> Tensor:
        with torch.no_grad():
            stream = lower(rows, use_cache=False).last_hidden_state
        return stream[:, recipe.first_position :].flatten(0, 1).half()

    parts = [
        _kept(unfinished / f"activations-{number}.pt", lambda rows=rows: read(rows))
        for number, rows in enumerate(tqdm(torch.cat([*written, peoples]).split(16), desc="activations"))
    ]
    return torch.cat(parts), held_out


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
        earlier = activations(model, written[::30], recipe.site, recipe.first_position)
        earlier = earlier[earlier.norm(dim=1) <= sae.longest]
        _, dreamt = smollm2_table(recipe, folder / "unfinished")
        found = {
            "texts that the model wrote": measure(sae, model, dreamt[:N_TEXTS], earlier, sae.longest, N_SPLICED),
            "texts that people wrote": measure(
                sae, model, own[:: len(own) // N_TEXTS][:N_TEXTS], earlier, sae.longest, N_SPLICED
            ),
        }
        n_written = (N_SAMPLED - 1) * ROWS_SAMPLED * N_TOKENS
        measured = {"held out": found, "trained on": {"written": n_written, "peoples": written[::EVERY_ROW].numel()}}
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
        beware="" if recipe.model == "course-model" else BEWARE,
        tables="\n".join(_table(texts, found) for texts, found in measured["held out"].items()),
    )


def _table(texts: str, found: dict) -> str:
    rows = "\n".join(
        f"| {name} | {way['FVE']:.3f} | {way['loss']:.3f} | {way['recovered, zero ablation']:.3f} | "
        f"{way['recovered, mean ablation']:.3f} |"
        for name, way in found["ways"].items()
    )
    return TABLE.format(**found | {"rows": rows, "where": texts})


def _kept(path: Path, make_it: Callable[[], Tensor]) -> Tensor:
    """What is in the file, which is written first, in one step, if it isn't there."""
    if not path.exists():
        torch.save(make_it(), path.with_suffix(".part"))
        os.replace(path.with_suffix(".part"), path)
    return torch.load(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train one of the shipped dictionaries again.")
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("folder", type=Path, nargs="?", help="where to; build/models/sae-NAME if not given")
    parser.add_argument("--ship", action="store_true", help="replace the shipped weights (for authors)")
    arguments = parser.parse_args()
    chosen = dictionary_folder(arguments.name) if arguments.ship else Path("build/models") / f"sae-{arguments.name}"
    make(arguments.name, arguments.folder or chosen)
