"""Words a report for its reader: plain text for shells and feedback files, HTML for the notebook."""

import html
import os
import re
import textwrap

from utils.course.runner import Failure, Report
from utils.course.values import article

WIDTH = 110
LABEL = 13
OTHERS_SHOWN = 2


def headline(report: Report) -> str:
    """The verdict in one line."""
    name = report.exercise.name
    if report.status == "passed":
        return f"✓ {name}: {'the check' if report.total == 1 else f'all {report.total} checks'} passed"
    if report.status == "not attempted":
        return f"○ {name}: not attempted"
    if report.status == "broken":
        return f"! {name}: a check broke, and that is not your fault"
    return f"✗ {name}: {len(report.failures)} of {report.total} checks failed"


def place(report: Report) -> str:
    points = report.exercise.points
    return f"{report.exercise.label} · {points} point{'s' if points != 1 else ''}"


def rows(report: Report) -> list[tuple[str, str]]:
    """Label and text of each line under the verdict, in the order in which a reader needs them."""
    if report.status == "passed":
        return [("you printed", report.output)] if report.output.strip() else []
    if report.status == "not attempted":
        return [("next", _next_step(report))]
    failure = report.shown
    found = [("check", failure.check), ("called with", _call_line(report, failure))]
    if report.status == "broken":
        again = f"please report this, with seed {report.seed}; {report.exercise.name} is not at fault"
        return [*found, ("error", failure.trace), ("next", again)]
    found += _what_happened(failure)
    if report.diagnosis:
        found.append(("diagnosis", report.diagnosis.sentence + _reach(report)))
    others = [f.check for f in report.failures if f is not failure]
    if others:
        rest = f"; and {len(others) - OTHERS_SHOWN} more" if len(others) > OTHERS_SHOWN else ""
        found.append(("also failed", "; ".join(others[:OTHERS_SHOWN]) + rest))
    if report.output.strip():
        found.append(("you printed", report.output))
    return [*found, ("next", _next_step(report))]


def _next_step(report: Report) -> str:
    """How to go on; who reads a graded report has handed in, and can't go on with the reference."""
    name = report.exercise.name
    step = f'hint("{name}")'
    graded = "NBGRADER_EXECUTION" in os.environ
    return step if graded else f'{step}   ·   move on with the reference: {name} = reference("{name}")'


def _reach(report: Report) -> str:
    """For a diagnosis that does not account for everything: what it is about."""
    if report.whole_diagnosis:
        return ""
    explained, failed = len(report.explained), len(report.failures)
    if explained == 1:
        others = "The other one" if failed == 2 else f"The other {failed - 1}"
        return f" (This explains the check shown here. {others} that failed may have another cause.)"
    rest = "the other one" if failed - explained == 1 else f"the other {failed - explained}"
    return (
        f" (This explains {explained} of the {failed} checks that failed, the one shown here among them; {rest} may "
        "have another cause.)"
    )


def _call_line(report: Report, failure: Failure) -> str:
    if failure.call is None:
        return f"not called yet   (seed {report.seed})"
    which = "" if failure.sure else f"the last of {failure.place.n_calls} calls; "
    return f"{failure.call.text}   ({which}seed {report.seed})"


def _what_happened(failure: Failure) -> list[tuple[str, str]]:
    if failure.kind == "raised":
        wanted = article(failure.expected) if failure.expected else "no exception: this is good input"
        return [("raised", failure.returned), ("expected", wanted), ("where", failure.trace)]
    if failure.kind == "overtime":
        return [
            (
                "stopped",
                f"Your code was {failure.note} and was interrupted. Is there a loop that never ends, or does it wait "
                "for something?",
            )
        ]
    if failure.kind == "ended":
        return [("stopped", f"Your code {failure.note}.")]
    happened = [
        ("returned" if failure.is_result else "found", failure.returned),
        ("expected", failure.expected),
        ("because", failure.note),
    ]
    return [(label, text) for label, text in happened if text]


def as_text(report: Report) -> str:
    """The report in plain text, at most ``WIDTH`` columns where its parts allow."""
    head, where = headline(report), place(report)
    lines = [f"{head}{where.rjust(max(len(where) + 3, WIDTH - len(head)))}"]
    for label, text in rows(report):
        if "\n" in text.strip():
            wrapped = text.strip("\n").splitlines()
        else:
            wrapped = textwrap.wrap(text, WIDTH - LABEL - 2, break_long_words=False, break_on_hyphens=False) or [""]
        lines += [f"  {label if i == 0 else '':<{LABEL}}{line}" for i, line in enumerate(wrapped)]
    return "\n".join(lines)


# Colours come from JupyterLab's theme where there is one; the mark and the words carry the meaning without them.
_EDGE = {
    "passed": "var(--jp-success-color1, #1b7837)",
    "failed": "var(--jp-error-color1, #b35806)",
    "not attempted": "var(--jp-border-color1, #888)",
    "broken": "var(--jp-warn-color1, #b8860b)",
}


_PROSE = ("check", "because", "diagnosis", "also failed", "stopped")
_CELL = "text-align:left;vertical-align:top;line-height:1.4;background:none"  # JupyterLab stripes tables
_LABEL_CELL = f"{_CELL};padding:1px 14px 1px 0;font-weight:600;white-space:nowrap"
_TEXT_CELL = f"{_CELL};padding:1px 0;white-space:pre-wrap"
_TABLE = "border:none;border-collapse:collapse;margin:4px 0 0 0;color:inherit;font-size:inherit"


def as_html(report: Report) -> str:
    """The report as a card that inherits the page's text and background colours."""
    lines = "".join(
        f'<tr style="background:none"><th scope="row" style="{_LABEL_CELL}">{html.escape(label)}</th>'
        f'<td style="{_TEXT_CELL};{_font(label)}">{_marked_up(label, text.strip())}</td></tr>'
        for label, text in rows(report)
    )
    table = f'<table style="{_TABLE}">{lines}</table>' if lines else ""
    edge = f"border-left:4px solid {_EDGE[report.status]}"
    return (
        f'<div role="status" style="{edge};padding:4px 12px;color:inherit">'
        f"<div><strong>{html.escape(headline(report))}</strong>"
        f'<span style="float:right;opacity:0.8">{html.escape(place(report))}</span></div>{table}</div>'
    )


def _font(label: str) -> str:
    return "" if label in _PROSE else "font-family:var(--jp-code-font-family, monospace)"


def _marked_up(label: str, text: str) -> str:
    """The text as HTML: in prose, what stands between backticks is code."""
    text = html.escape(text)
    return re.sub(r"(`+)([^`]+)\1", r"<code>\2</code>", text) if label in _PROSE else text
