"""One page about a project: what was asked, what was measured, what is missing. One file, nothing to load."""

import html
import io
from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt

from utils.capstone.protocol import audit_protocol
from utils.course.cases import estimate
from utils.plots import COLOURS, image_tag

STEPS = {
    "proposal": "a feature, and what would refute it, written down first",
    "held out": "whole templates are held out",
    "units": "at least eight templates",
    "baseline": "what the word alone says",
    "control task": "labels without meaning",
    "correction": "as many tests as places",
    "random directions": "at least nineteen of them removed",
    "equal length": "random pushes as long as the direction's",
    "refutation": "the feature varied alone, and other things varied without it",
}
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem;
  color: #111; background: #fff }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { border: 1px solid #888; padding: .3rem .6rem; text-align: left }
img { max-width: 100%; height: auto } .missing { border-left: .4rem solid #a11; padding-left: 1rem }
"""


def protocol_report(record: Mapping[str, object], title: str) -> str:
    """A project's record as a self-contained HTML page.

    It begins with what is missing by ``audit_protocol``, and shows figures only of what is there. Whatever comes from
    the record is escaped; nothing runs, and nothing is loaded from elsewhere.
    """
    missing = audit_protocol(record)
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p><strong>The feature:</strong> {html.escape(str(record.get('feature') or 'not said'))}</p>",
        f"<p><strong>It would be refuted if</strong> {html.escape(str(record.get('would_refute') or 'not said'))}</p>",
        _missing(missing),
        "<h2>What came out</h2>",
        _numbers(record),
        *_figures(record),
        "<h2>The protocol</h2>",
        _steps(missing),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n<body><main>\n'
        + "\n".join(parts)
        + "\n</main></body></html>\n"
    )


def write_report(record: Mapping[str, object], title: str, path: str | Path) -> Path:
    """Write the page; it opens by a double click."""
    path = Path(path)
    path.write_text(protocol_report(record, title), encoding="utf-8")
    return path


def _missing(missing: list[str]) -> str:
    if not missing:
        return "<p>No step of the protocol is missing.</p>"
    items = "".join(f"<li>{html.escape(step)}: {STEPS[step]}</li>" for step in missing)
    return (
        f'<div class="missing"><h2>What is missing</h2><p>No conclusion stands on this page without:</p>'
        f"<ul>{items}</ul></div>"
    )


def _steps(missing: list[str]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{step}</th><td>{what}</td><td>{"missing" if step in missing else "kept"}</td></tr>'
        for step, what in STEPS.items()
    )
    head = '<tr><th scope="col">step</th><th scope="col">what it asks</th><th scope="col">here</th></tr>'
    return f"<table><caption>Steps of the protocol</caption><thead>{head}</thead><tbody>{rows}</tbody></table>"


def _shown(values) -> str:
    return "{:.2f} ± {:.2f}".format(*estimate(values))


def _numbers(record: Mapping[str, object]) -> str:
    rows = {}
    for key, what in (
        ("accuracy", "probe, templates held out"),
        ("baseline", "the word alone"),
        ("control", "control"),
    ):
        if record.get(key):
            rows[what] = f"{_shown(record[key])} over {len(record[key])} templates"
    if record.get("reported"):
        rows["probe, on templates not used for choosing"] = "{:.2f} ± {:.2f}".format(*record["reported"])
    if record.get("p_adjusted"):
        rows["p of the chosen place, corrected"] = f"{record['p_adjusted'][record.get('chosen', 0)]:.4f}"
    if record.get("effect"):
        effect = record["effect"]
        rows["cost of removing it, beyond random"] = (
            f"{effect['effect']:.2f} nats ({effect['low']:.2f} to {effect['high']:.2f}), p = {effect['p']:.3f}"
        )
    for name, value in (record.get("refutation") or {}).items():
        rows[f"effect on the behaviour: {name}"] = "{:.2f} ± {:.2f} nats".format(*value)
    if record.get("verdict"):
        rows["the name"] = str(record["verdict"])
    cells = "".join(f'<tr><th scope="row">{html.escape(k)}</th><td>{html.escape(v)}</td></tr>' for k, v in rows.items())
    head = '<tr><th scope="col">measure</th><th scope="col">value</th></tr>'
    return f"<table><caption>Means with 95 % intervals</caption><thead>{head}</thead><tbody>{cells}</tbody></table>"


def _figures(record: Mapping[str, object]) -> list[str]:
    found = []
    if record.get("all_accuracy"):
        found += ["<h2>Where it can be read</h2>", _by_place(record)]
    if record.get("steered"):
        found += ["<h2>What a push does</h2>", _by_dose(record)]
    if record.get("refutation"):
        found += ["<h2>The test that the name could have failed</h2>", _by_property(record)]
    return found


def _picture(figure: plt.Figure, alt: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    return image_tag(buffer.getvalue(), alt)


def _by_place(record: Mapping[str, object]) -> str:
    means = [estimate(values) for values in record["all_accuracy"]]
    words = [sum(values) / len(values) for values in record["all_baseline"]]
    figure, axes = plt.subplots(figsize=(6.4, 0.6 + 0.4 * len(means)))
    at = range(len(means))
    axes.errorbar(
        [m for m, _ in means], at, xerr=[h for _, h in means], fmt="o", color=COLOURS[0], capsize=3, label="probe"
    )
    axes.plot(words, at, "s", color=COLOURS[1], label="the word alone")
    axes.set_yticks(at, record["places"])
    axes.invert_yaxis()
    axes.set_xlabel("accuracy on templates held out; 95 % intervals over templates")
    axes.legend()
    told = "; ".join(
        f"{place}: probe {m:.2f}, the word alone {w:.2f}"
        for place, (m, _), w in zip(record["places"], means, words, strict=True)
    )
    return _picture(figure, f"Accuracy by place. {told}.")


def _by_dose(record: Mapping[str, object]) -> str:
    own, *random = record["steered"]
    figure, axes = plt.subplots(figsize=(5.6, 3.2))
    for i, values in enumerate(random):
        axes.plot(record["doses"], values, color=COLOURS[1], linewidth=0.9, label="random" if i == 0 else None)
    axes.plot(record["doses"], own, "o-", color=COLOURS[0], label="the direction")
    axes.set_xlabel("length of the push, in lengths of the direction")
    axes.set_ylabel("rise of the lead, nats")
    axes.legend()
    low, high = min(values[-1] for values in random), max(values[-1] for values in random)
    return _picture(
        figure,
        f"Rise of the lead by the length of the push. At the longest: the direction {own[-1]:.1f} nats, random "
        f"directions from {low:.1f} to {high:.1f}.",
    )


def _by_property(record: Mapping[str, object]) -> str:
    effects = record["refutation"]
    figure, axes = plt.subplots(figsize=(6.0, 0.8 + 0.4 * len(effects)))
    at = range(len(effects))
    axes.barh(at, [m for m, _ in effects.values()], color=COLOURS[0])
    axes.errorbar(
        [m for m, _ in effects.values()],
        at,
        xerr=[h for _, h in effects.values()],
        fmt="none",
        color="black",
        capsize=3,
    )
    axes.set_yticks(at, list(effects))
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("effect on the lead, nats; 95 % intervals over pairs")
    told = "; ".join(f"{name} {m:.1f} ± {h:.1f} nats" for name, (m, h) in effects.items())
    return _picture(figure, f"Effect of each property on the behaviour: {told}.")
