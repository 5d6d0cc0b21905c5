"""The instructor's sheet of a session: one page with what to ask, what goes wrong, what to show, and the answers.

All of it stands elsewhere already: in the executed solution notebook and in the catalogue of wrong answers.
"""

import ast
import html
import re
from collections import Counter
from collections.abc import Iterator

import nbformat
from nbconvert.filters.markdown import markdown2html
from nbformat import NotebookNode

from utils.course.catalogue import wrong_answers
from utils.course.cells import grade_id, plain_python
from utils.course.formulas import formula
from utils.course.manifest import Exercise, Question
from utils.course.masters import duration, without_markers
from utils.course.paths import solution_path
from utils.course.plan import Step, schedule
from utils.course.session import Session, clock, in_words

MISTAKES = 8  # shown of an exercise
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; color: #222;
       background: #fff }
h1, h2, h3 { line-height: 1.2 } h2 { border-top: 2px solid #555; padding-top: .6rem; margin-top: 2.5rem }
table { border-collapse: collapse } td, th { text-align: left; vertical-align: top; padding: .15rem .8rem .15rem 0 }
pre { font: 12.5px/1.35 ui-monospace, monospace; background: #f4f4f4; padding: .5rem; white-space: pre-wrap }
code { font-family: ui-monospace, monospace; font-size: .9em; overflow-wrap: anywhere }
img { max-width: 100%; display: block; margin: .5rem 0 }
.ask { border-left: 4px solid #1f5fa8; padding-left: .8rem }
.answer { border-left: 4px solid #777; padding-left: .8rem }
@page { margin: 1.5cm }
@media print { body { font-size: 10.5pt; margin: 0; max-width: none } h2, h3 { break-after: avoid }
               img, tr, li { break-inside: avoid } img { max-height: 9cm } pre { font-size: 8.5pt } }
"""


def as_page(session: Session, seen: Counter[tuple[str, str]]) -> str:
    """The sheet as one file of HTML, pictures and formulas within; a browser prints it, or saves it as PDF.

    Args:
        session: Whose sheet it is.
        seen: How often each misconception was recognised so far, by the exercise's name and its own.
    """
    solved = nbformat.read(solution_path(session.part.chapter, session.part.name), as_version=4).cells
    cells = {cell.id: cell for cell in solved}
    sections = {section[0].id: [cells[cell.id] for cell in section if cell.id in cells] for section in session.sections}
    title = html.escape(session.part.title)
    rows = "".join(
        f"<tr><td>{clock(start)}</td><th scope='row'>{html.escape(step.title)}</th>"
        f"<td>{_text(in_words(step))}</td></tr>"
        for start, step in schedule(session.steps)
    )
    parts = [
        "<!DOCTYPE html><html lang='en'><meta charset='utf-8'>"
        f"<meta name='viewport' content='width=device-width'><title>{title}: the sheet</title><style>{STYLE}</style>",
        f"<h1>{title}</h1><p>A session of {duration(session.minutes)}, breaks included, for whoever leads it. It holds "
        "the answers.</p>",
        f"<p>Given as our implementations: {_list(session.given)}.</p>" if session.given else "",
        f"<table><tbody>{rows}</tbody></table>",
    ]
    for start, step in schedule(session.steps):
        if shown := [*_section(sections[step.id], step, seen)] if step.id else []:
            parts += [f"<h2>{clock(start)} · {html.escape(step.title)}</h2>", *shown]
    return "\n".join([*parts, "</html>\n"])


def _section(cells: list[NotebookNode], step: Step, seen: Counter[tuple[str, str]]) -> Iterator[str]:
    """What is asked, shown and answered in one section, in the order of the notebook."""
    items = {item.name: item for item in step.items}
    for i, cell in enumerate(cells):
        name = grade_id(cell)
        if name in items and isinstance(items[name], Question):
            yield _question(cells[i - 2] if i > 1 else None, cell, items[name])
        elif name in items:
            yield _exercise(items[name], cell, seen)
        elif name is None and cell.cell_type == "code":
            yield from map(_prediction, predictions(cell.source))
            yield from filter(None, [_shown(cell, cells[i + 1] if i + 1 < len(cells) else None)])


def predictions(source: str) -> list[tuple[str, list[str]]]:
    """What a cell asks a learner to guess, and what there is to choose from."""
    calls = [node for node in ast.walk(ast.parse(plain_python(source))) if isinstance(node, ast.Call)]
    asked = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "predict"]
    return [
        (ast.literal_eval(call.args[0]), next((_options(k.value) for k in call.keywords if k.arg == "options"), []))
        for call in asked
    ]


def _options(node: ast.expr) -> list[str]:
    """The texts in a list, or the source of what makes it."""
    if isinstance(node, ast.List | ast.Tuple) and all(isinstance(item, ast.Constant) for item in node.elts):
        return [str(item.value) for item in node.elts]
    return [ast.unparse(node)]


def _prediction(asked: tuple[str, list[str]]) -> str:
    name, options = asked
    choice = f" ({html.escape(', '.join(options))})" if options else " (a number)"
    return f"<p class='ask'><strong>Ask the room:</strong> {html.escape(name)}?{choice}</p>"


def _shown(cell: NotebookNode, following: NotebookNode | None) -> str:
    """A cell's figures with the conclusion that stands below them, and what it prints if it answers a prediction."""
    figures = "".join(
        tag
        for output in cell.outputs
        for tag in re.findall(r"<img [^>]*>", output.get("data", {}).get("text/html", ""))
    )
    answers = "outcome(" in cell.source
    printed = "".join(output.text for output in cell.outputs if output.get("name") == "stdout") if answers else ""
    if not figures and not answers:
        return ""
    conclusion = re.match(r"\*\*.+?\*\*", following.source, re.DOTALL) if following is not None else None
    says = f"<p><strong>To discuss:</strong> {_text(conclusion[0].strip('*'))}</p>" if conclusion else ""
    return (f"<pre>{html.escape(printed)}</pre>" if printed else "") + figures + says


def _exercise(exercise: Exercise, cell: NotebookNode, seen: Counter[tuple[str, str]]) -> str:
    known = sorted(wrong_answers(exercise), key=lambda entry: -seen[exercise.name, entry.name])
    counts = [seen[exercise.name, entry.name] for entry in known]
    mistakes = "".join(
        f"<li>{f'{count} × ' if count else ''}<code>{html.escape(entry.name)}</code>: {_text(entry.sentence)}</li>"
        for entry, count in zip(known[:MISTAKES], counts, strict=False)
    )
    order = (
        "those met most often in what is graded here first"
        if any(counts)
        else "none is graded here yet, so in no order"
    )
    return (
        f"<h3>{html.escape(exercise.label.capitalize())} · <code>{html.escape(exercise.name)}</code>, "
        f"{exercise.minutes} minutes</h3><p>{min(MISTAKES, len(known))} of {len(known)} mistakes that its checks know "
        f"({order}), with what a learner reads:</p><ul>{mistakes}</ul>"
        f"<div class='answer'><p><strong>Our answer</strong></p>"
        f"<pre>{html.escape(without_docstring(without_markers(cell.source)))}</pre></div>"
    )


def without_docstring(source: str) -> str:
    """An answer without what its stub says already."""
    (node,) = ast.parse(source).body
    if ast.get_docstring(node) is None:
        return source
    lines, doc = source.splitlines(), node.body[0]
    return "\n".join(lines[: doc.lineno - 1] + lines[doc.end_lineno :])


def _question(asked: NotebookNode | None, answer: NotebookNode, question: Question) -> str:
    """A question in words, from the prose above its box, with the model answer."""
    text = re.sub(r"\A#+ .*\n*", "", asked.source) if asked is not None and asked.cell_type == "markdown" else ""
    return (
        f"<h3>Question · <code>{html.escape(question.name)}</code>, {question.minutes} minutes</h3>"
        f"<div class='ask'><p><strong>Ask the room:</strong></p>{_markdown(text)}</div>"
        f"<div class='answer'><p><strong>Our answer and the rubric</strong></p>{_markdown(answer.source)}</div>"
    )


def _markdown(text: str) -> str:
    """Markdown as HTML, its formulas as MathML."""
    formulas: list[str] = []

    def keep(found: re.Match) -> str:
        tex, display = (found[1], "block") if found[1] else (found[2], "inline")
        formulas.append(formula(tex, display))
        return f"\ue000{len(formulas) - 1}\ue001"

    kept = re.sub(r"(?<!`)\$\$(.+?)\$\$|(?<![`\\])\$([^$`]+)\$", keep, text, flags=re.DOTALL)
    return re.sub(r"\ue000(\d+)\ue001", lambda found: formulas[int(found[1])], markdown2html(kept))


def _text(text: str) -> str:
    """A line of prose: what stands between backticks is code."""
    return re.sub(r"\A<p>(.*)</p>\s*\Z", r"\1", _markdown(text).strip(), flags=re.DOTALL)


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(f"<code>{html.escape(name)}</code>" for name in names)
