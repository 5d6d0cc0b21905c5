"""The course model's card: what it is, how it was made, and each measured phenomenon beside what was asked of it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from utils.data import corpus
from utils.models.bundled import MEASURED_FILE, WEIGHTS_FILE, read_model
from utils.models.catalogue import load_model
from utils.models.course_model import LESSONS, RECIPE, Lesson
from utils.models.phenomena import measure_all
from utils.models.phenomena.quotes import MULTIPLE

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

Measured = dict[str, dict]
N_SAMPLES, SAMPLE_TOKENS = 4, 60


@dataclass(frozen=True)
class Row:
    """One line of the card's table.

    Attributes:
        name: The phenomenon.
        target: What is asked, in words.
        number: The measured value that is compared, and its text, with interval or null.
        reached: Whether the target is reached.
    """

    name: str
    target: str
    number: Callable[[Measured], str]
    reached: Callable[[Measured], bool]


def estimate(found: dict, digits: int = 3) -> str:
    """A value with its 95 % confidence interval."""
    return f"{found['value']:.{digits}f} ({found['low']:.{digits}f} to {found['high']:.{digits}f})"


def fact_accuracies(measured: Measured) -> dict[str, dict]:
    """Accuracy on held-out phrasings, by relation."""
    return {name: found for name, found in measured["tasks"]["facts"].items() if name in corpus.PHRASINGS}


def matched_features(measured: Measured) -> dict[str, dict]:
    """The labels that a latent stands for with an F1 of at least 0.8, one label for each latent."""
    found: dict[int, str] = {}
    features = measured["dictionary"]["features"]
    for name in sorted(features, key=lambda name: -features[name]["F1"]["value"]):
        if features[name]["F1"]["value"] >= 0.8:
            found.setdefault(features[name]["latent"], name)
    return {name: features[name] for name in found.values()}


def probe_sites(measured: Measured) -> list[dict]:
    """The quotation probes, best site first."""
    return sorted(measured["quotes"]["probes"].values(), key=lambda site: -site["logistic"]["value"])


def steering(measured: Measured) -> tuple[dict, dict]:
    """Verbs in the wrong tense after a multiple of the classes' difference is added, and after random directions."""
    random, added = measured["quotes"]["random directions"], f"add {MULTIPLE}"
    return measured["quotes"]["interventions"][f"layer {random['layer']}"][added]["wrong tense"], random[added]


def preference(measured: Measured, when: str) -> float:
    """The name movers' attention to the receiver minus that to the giver, "before" or "after" the finders are gone."""
    found = measured["ioi"]["finders knocked out"][when]
    return found["movers' attention to IO"] - found["movers' attention to S1"]


def lens_gaps(measured: Measured) -> list[float]:
    """How far the tuned lens's KL is below the logit lens's at each site before the last, interval from interval."""
    logit, tuned = measured["lenses"]["logit lens KL"], measured["lenses"]["tuned lens KL"]
    return [logit[site]["low"] - tuned[site]["high"] for site in tuned]


def ranks(measured: Measured, task: str) -> list[float]:
    """Mean rank of the right answer, from the embedding to the last layer."""
    return [found["rank"]["value"] for found in measured["lenses"]["answer rank"][task].values()]


def finders(measured: Measured) -> str:
    """Which heads find the repeated name, and what becomes of the name movers without them, in words."""
    heads, found = measured["ioi"]["roles"]["repeated-name finders"], measured["ioi"]["finders knocked out"]
    if not heads:
        return "none"
    return (
        "{}: without them, the movers' attention to the receiver goes from {:.2f} to {:.2f}, to the giver from {:.2f} "
        "to {:.2f}, and accuracy from {:.2f} to {:.2f}".format(
            ", ".join(heads),
            *(
                found[when][what]
                for what in ("movers' attention to IO", "movers' attention to S1", "accuracy")
                for when in ("before", "after")
            ),
        )
    )


def self_repair(measured: Measured) -> str:
    """What comes back of the first name mover's direct effect, in words."""
    if not measured["ioi"]["self-repair"]:
        return "there is no name mover to knock out"
    found = measured["ioi"]["self-repair"]["top 1"]
    return "of the lost direct effect, {} comes back (through heads {}, MLPs {}, the layer norm {}, in logits)".format(
        estimate(found["made up"], 2),
        *(f"{found[f'made up by {part}']['value']:.2f}" for part in ("heads", "MLPs", "the layer norm")),
    )


ROWS = (
    Row(
        "IOI: who receives, held-out pairs, both orders, all templates",
        "accuracy ≥ 0.98, logit difference ≥ 4",
        lambda m: "accuracy {}, logit difference {}".format(
            estimate(m["tasks"]["ioi"]["all"]["accuracy"]), estimate(m["tasks"]["ioi"]["all"]["logit difference"], 1)
        ),
        lambda m: (
            m["tasks"]["ioi"]["all"]["accuracy"]["value"] >= 0.98
            and m["tasks"]["ioi"]["all"]["logit difference"]["value"] >= 4
        ),
    ),
    Row(
        "name movers: heads that attend from the end to the receiver and copy",
        "the top three carry most of the direct effect of the heads",
        lambda m: "name movers {}; {} carry {} of it, and {} of the whole logit difference".format(
            ", ".join(m["ioi"]["roles"]["name movers"]) or "none",
            ", ".join(m["ioi"]["direct effect"]["top three heads"]),
            estimate(m["ioi"]["direct effect"]["share of the helping heads' effect"], 2),
            estimate(m["ioi"]["direct effect"]["share of the logit difference"], 2),
        ),
        lambda m: (
            len(m["ioi"]["roles"]["name movers"]) > 0
            and m["ioi"]["direct effect"]["share of the helping heads' effect"]["low"] > 0.5
        ),
    ),
    Row(
        "heads that find the repeated name",
        "without them the name movers attend elsewhere",
        finders,
        lambda m: preference(m, "after") < 0.5 * preference(m, "before"),
    ),
    Row(
        "self-repair, first name mover knocked out",
        "measured, present or absent, on a model that solves the task",
        self_repair,
        lambda m: m["tasks"]["ioi"]["all"]["accuracy"]["value"] >= 0.98 and len(m["ioi"]["self-repair"]) > 0,
    ),
    Row(
        "facts, in a phrasing never seen for the landmark",
        "≥ 0.97 in every relation",
        lambda m: ", ".join(f"{name} {found['value']:.3f}" for name, found in fact_accuracies(m).items()),
        lambda m: min(found["value"] for found in fact_accuracies(m).values()) >= 0.97,
    ),
    Row(
        "causal tracing",
        "a site at the last subject token brings back at least half of the effect",
        lambda m: "{site}: {}".format(
            estimate(m["facts"]["best site at the last subject token"], 2),
            site=m["facts"]["best site at the last subject token"]["site"],
        ),
        lambda m: m["facts"]["best site at the last subject token"]["value"] >= 0.5,
    ),
    Row(
        "rank-one edit of a landmark's city",
        "efficacy ≥ 0.9, paraphrase ≥ 0.7, specificity ≥ 0.9",
        lambda m: "layer {}: efficacy {}, paraphrase {}, other landmarks' cities {}".format(
            m["edit"]["layer"],
            *(estimate(m["edit"][name], 2) for name in ("efficacy", "paraphrase", "others' cities")),
        ),
        lambda m: (
            m["edit"]["efficacy"]["value"] >= 0.9
            and m["edit"]["paraphrase"]["value"] >= 0.7
            and m["edit"]["others' cities"]["value"] >= 0.9
        ),
    ),
    Row(
        "induction on repeated random tokens",
        "loss < 0.1 nats on the repetition, a head ≥ 0.8, a previous-token head ≥ 0.7",
        lambda m: "loss {}, head {} {:.2f}, previous-token head {} {:.2f} on text ({:.2f} on random tokens)".format(
            estimate(m["induction"]["loss, second time"]),
            m["induction"]["best"]["induction"]["head"],
            m["induction"]["best"]["induction"]["score"],
            m["induction"]["best"]["previous token, text"]["head"],
            m["induction"]["best"]["previous token, text"]["score"],
            m["induction"]["best"]["previous token, random tokens"]["score"],
        ),
        lambda m: (
            m["induction"]["loss, second time"]["value"] < 0.1
            and m["induction"]["best"]["induction"]["score"] >= 0.8
            and m["induction"]["best"]["previous token, text"]["score"] >= 0.7
        ),
    ),
    Row(
        "quotation marks: tense of the next verb",
        "inside and outside separate",
        lambda m: "right in {}; log-odds of the present {} inside, {} outside".format(
            estimate(m["tasks"]["quotes"]["accuracy"]),
            estimate(m["tasks"]["quotes"]["tense difference inside"], 1),
            estimate(m["tasks"]["quotes"]["tense difference outside"], 1),
        ),
        lambda m: m["tasks"]["quotes"]["accuracy"]["value"] >= 0.95,
    ),
    Row(
        "quotation marks: probe",
        "accuracy above 0.97 at its best site, clearly above its control",
        lambda m: "{}; control {}".format(
            estimate(probe_sites(m)[0]["logistic"]), estimate(probe_sites(m)[0]["control"])
        ),
        lambda m: probe_sites(m)[0]["logistic"]["value"] > 0.97 and probe_sites(m)[0]["selectivity"]["low"] > 0.05,
    ),
    Row(
        f"quotation marks: adding the classes' difference, {MULTIPLE} times",
        "turns the tense of verbs where random directions of that length do not",
        lambda m: "{} of the verbs; random directions {:.2f} on average, at most {:.2f}".format(
            estimate(steering(m)[0]), steering(m)[1]["wrong tense"], steering(m)[1]["most wrong tense"]
        ),
        lambda m: steering(m)[0]["low"] > steering(m)[1]["most wrong tense"],
    ),
    Row(
        "lenses",
        "the answer's rank falls over layers; tuned below logit lens in KL before the last layer",
        lambda m: "ranks of facts {}; KL of the logit lens {}, of the tuned lens {}".format(
            " ".join(f"{rank:.1f}" for rank in ranks(m, "facts")),
            " ".join(f"{m['lenses']['logit lens KL'][site]['value']:.2f}" for site in m["lenses"]["tuned lens KL"]),
            " ".join(f"{found['value']:.2f}" for found in m["lenses"]["tuned lens KL"].values()),
        ),
        lambda m: min(lens_gaps(m)) > 0 and all(ranks(m, task)[-1] < ranks(m, task)[0] for task in ("ioi", "facts")),
    ),
    Row(
        "polysemantic neurons",
        "at least ten",
        lambda m: f"{m['neurons']['count']} of {RECIPE.cfg.n_layers * RECIPE.cfg.d_mlp}",
        lambda m: m["neurons"]["count"] >= 10,
    ),
    Row(
        "sparse autoencoder",
        "L0 ≤ 16, loss recovered ≥ 0.95, dead < 0.1, five latents with F1 ≥ 0.8",
        lambda m: "layer {}, L0 {:.1f}, recovered {}, dead {:.3f}, {} latents with F1 ≥ 0.8: {}".format(
            m["dictionary"]["layer"],
            m["dictionary"]["L0"]["value"],
            estimate(m["dictionary"]["loss recovered"]),
            m["dictionary"]["dead"],
            len(matched_features(m)),
            ", ".join(matched_features(m)),
        ),
        lambda m: (
            m["dictionary"]["L0"]["value"] <= 16.01
            and m["dictionary"]["loss recovered"]["value"] >= 0.95
            and m["dictionary"]["dead"] < 0.1
            and len(matched_features(m)) >= 5
        ),
    ),
)

CARD = """\
# course-model

The language model that the chapters from 02 on take apart: GPT-2's architecture, small, and a world of its own.

| | |
| --- | --- |
| architecture | {n_layers} layers, pre-layer-norm, d_model {d_model}, {n_heads} heads of {d_head}, d_mlp {d_mlp}, \
context {n_ctx}, {d_vocab} words |
| parameters | {n_parameters:,} ({megabytes:.1f} MB, float32) |
| data | `utils.data.corpus`: scenes about people, gifts, landmarks, quotations and dates, generated from a seed; \
held-out pairs of people, templates, phrasings and date sums are listed there |
| recipe | `mi train course-model`: AdamW, weight decay {weight_decay}, {n_steps:,} steps of {batch} documents, \
{tokens:.1f} million tokens, seed {seed}, in the lessons below |
| files | `checkpoints/`: the weights after {checkpoints} steps (float16); `losses.json`: training loss, every tenth \
step; `measured.json`: every figure below and many more, with intervals and nulls |

## How it was taught

Each lesson begins with a high learning rate and goes down along a cosine. In the fourth, about nothing but two \
people, the facts are forgotten; the fifth brings them back.

| learnt | steps | learning rate | rows | |
| --- | --- | --- | --- | --- |
{lessons}

## What it shows

Measured on held-out prompts and documents by `utils.models.phenomena`; in brackets 95 % confidence intervals.

| phenomenon | asked | measured | |
| --- | --- | --- | --- |
{table}

Beside them, in `measured.json`: what a model with random weights, random directions or shuffled labels give.
{other_seeds}
## What it writes

{n_samples} samples at temperature 1, from nothing, as they came:

{samples}

## What it does with dates

{dates}

## Known absences

{absences}
"""

OTHER_SEEDS = """
## The same recipe with other seeds

Other weights to begin with, and other documents; measured in the same way (`measured-seed-N.json`).

| phenomenon | {seeds} |
| --- | {rule} |
{table}

{readings}
"""

CIRCUIT = """\
- **Not GPT-2's IOI circuit.** No head attends from the second mention of the giver to the first (at most \
{duplicate:.2f}, random models {duplicate_null:.2f}): the finder attends from the end straight to the second. It also \
writes against the giver's name by itself ({finder_effect:.1f} of the logit difference), and so do MLPs \
({mlp_effect:.1f}). The movers still look at the giver in part. When a mover is knocked out, no other head takes over; \
what comes back comes through the layer norm."""

NO_CIRCUIT = """\
- **No IOI circuit.** The names are told apart without heads that find the repeated one or movers that turn away from \
it; {without}"""

ABSENCES = """\
{circuit}
- **Not every run gets there.** Whether the finder forms in its lesson depends on what the lessons before have left. \
In a run with a learning rate up to a tenth higher in the second lesson, in which the optimiser did not start afresh \
for the fourth, none had formed after the 800 steps; nor from the states after 600 and 2,000 steps, in 450 to 1,000. \
With seed 1 the names were told apart before that lesson, by step 6,000 (accuracy 1.00, after 2,000 steps 0.50), while \
MLPs learn too, and no finder formed any more.
- **No sums.** Dates are learnt by heart, see above.
- It knows nothing outside its world; a word that is not in its vocabulary is `<unk>`, which it has never seen."""


def absences(measured: Measured) -> str:
    """What the model can't do, and what of the papers' findings is not there."""
    if not has_circuit(measured):
        return ABSENCES.format(circuit=NO_CIRCUIT.format(without=without_circuit(measured)))
    heads = measured["ioi"]["heads"]
    circuit = CIRCUIT.format(
        duplicate=max(head["S2 to S1"] for head in heads.values()),
        duplicate_null=measured["ioi"]["null"]["S2 to S1"],
        finder_effect=sum(heads[head]["direct effect"] for head in measured["ioi"]["roles"]["repeated-name finders"]),
        mlp_effect=sum(measured["ioi"]["MLPs' direct effects"]),
    )
    return ABSENCES.format(circuit=circuit)


def has_circuit(measured: Measured) -> bool:
    """Whether there are name movers, and heads that find the repeated name for them."""
    return bool(measured["ioi"]["roles"]["name movers"] and measured["ioi"]["roles"]["repeated-name finders"])


def without_circuit(measured: Measured) -> str:
    """Where the logit difference comes from in a model without the circuit."""
    found, heads = measured["ioi"]["direct effect"], measured["ioi"]["heads"]
    mlps = sum(measured["ioi"]["MLPs' direct effects"])
    names = ", ".join(f"{name} ({heads[name]['direct effect']:.1f})" for name in found["top three heads"])
    return (
        f"of a logit difference of {found['logit difference']['value']:.1f}, MLPs write {mlps:.1f}, and the heads that "
        f"write most are {names}."
    )


def verdict(row: Row, measured: Measured) -> str:
    """Whether the row's target is reached, in the card's words."""
    return "reached" if row.reached(measured) else "**not reached**"


def other_seeds(folder: Path) -> str:
    """The section on what came of other seeds, from each ``measured-seed-N.json`` in the folder; empty without any."""
    files = {int(path.stem.removeprefix("measured-seed-")): path for path in folder.glob("measured-seed-*.json")}
    if not files:
        return ""
    found = [json.loads(files[seed].read_text()) for seed in sorted(files)]
    return OTHER_SEEDS.format(
        seeds=" | ".join(f"seed {seed}" for seed in sorted(files)),
        rule=" | ".join("---" for _ in files),
        table="\n".join(
            f"| {row.name} | {' | '.join(f'{verdict(row, each)}: {row.number(each)}' for each in found)} |"
            for row in ROWS
        ),
        readings="\n\n".join(
            f"With seed {seed} the names are told apart in another way, without heads that find the repeated one: "
            + without_circuit(each)
            for seed, each in zip(sorted(files), found, strict=True)
            if not has_circuit(each)
        ),
    )


def lesson_line(lesson: Lesson) -> str:
    """One row of the card's table of lessons."""
    stage, total = lesson.stage, sum(lesson.scenes.values())
    rows = f"{lesson.share_repeated:.0%} repeat random tokens"
    if lesson.scenes:
        shares = {scene.__name__.strip("_").replace("_", " "): share / total for scene, share in lesson.scenes.items()}
        largest = sorted(shares, key=lambda name: -shares[name])[:3]
        rows += f", the others are scenes, mostly {', '.join(f'{name} {shares[name]:.0%}' for name in largest)}"
    how = ["MLPs rest"] * stage.mlps_rest
    how += [f"heads of the upper layers are silent in {stage.head_dropout:.0%}"] * (stage.head_dropout > 0)
    return f"| {lesson.name} | {stage.n_steps:,} | {stage.max_lr} | {rows} | {'; '.join(how)} |"


@torch.no_grad()
def samples(model: "HookedTransformer", n: int, n_tokens: int, seed: int) -> list[str]:
    """``n`` texts that the model writes behind ``<bos>``, drawn from its own distribution."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.zeros(n, 1, dtype=torch.long)
    for _ in range(n_tokens):
        probabilities = model(tokens, prepend_bos=False)[:, -1].softmax(-1)
        tokens = torch.cat([tokens, torch.multinomial(probabilities, 1, generator=generator)], dim=1)
    return [corpus.decode(row[1:]) for row in tokens.tolist()]


def write_card(folder: Path, *, seed: int) -> None:
    """Measure the model in ``folder`` and write ``measured.json`` and ``CARD.md`` beside it."""
    model = load_model(folder)
    measured = measure_all(model) | {"samples": samples(model, N_SAMPLES, SAMPLE_TOKENS, seed=0)}
    measured = json.loads(json.dumps(measured))
    (folder / MEASURED_FILE).write_text(json.dumps(measured, indent=1) + "\n")
    (folder / "CARD.md").write_text(card(folder, measured, seed))


def card(folder: Path, measured: Measured, seed: int) -> str:
    """The card's text."""
    cfg, size = RECIPE.cfg, (folder / WEIGHTS_FILE).stat().st_size
    config, state = read_model(folder)
    table = "\n".join(
        f"| {row.name} | {row.target} | {row.number(measured)} | {verdict(row, measured)} |" for row in ROWS
    )
    dates = "; ".join(f"{name}: {estimate(found)}" for name, found in measured["tasks"]["dates"].items())
    return CARD.format(
        **config,
        n_parameters=sum(value.numel() for value in state.values()),
        megabytes=size / 1e6,
        lessons="\n".join(map(lesson_line, LESSONS)),
        weight_decay=RECIPE.weight_decay,
        n_steps=RECIPE.n_steps,
        batch=RECIPE.batch,
        tokens=RECIPE.n_steps * RECIPE.batch * cfg.n_ctx / 1e6,
        seed=seed,
        checkpoints=", ".join(map(str, RECIPE.checkpoints)),
        table=table,
        other_seeds=other_seeds(folder),
        n_samples=len(measured["samples"]),
        samples="\n\n".join(f"> {text}" for text in measured["samples"]),
        dates=f"Accuracy: {dates}. It learns the sums it reads by heart, and not how to do them.",
        absences=absences(measured),
    )
