"""The committed notebooks: what the masters give, executed without error, nothing leaked to the learner."""

import re
import resource
import subprocess
import sys

import nbformat
import pytest

from utils.course.build import check_build, execute, read_masters
from utils.course.learner import collect_answers
from utils.course.manifest import parts
from utils.course.paths import release_path, solution_path
from utils.course.runner import run_checks

EACH_PART = pytest.mark.parametrize("part", parts(), ids=[part.key for part in parts()])
MARKS_OF_SOLUTIONS = ("SOLUTION", "HIDDEN TESTS", "Rubric.")


def test_what_is_committed_is_what_the_masters_give():
    assert check_build(say=lambda line: None) == []


@EACH_PART
def test_solution_notebook_executes(part, real_networks):
    executed = execute(read_masters()[part.name])
    assert all(c.execution_count for c in executed.cells if c.cell_type == "code" and c.source.strip())
    noisy = [
        c.id for c in executed.cells for o in c.get("outputs", []) if o.output_type == "stream" and o.name == "stderr"
    ]
    assert not noisy, f"cells that write to stderr: {noisy}"
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 2 * 1024**2, "more than 2 GB"


@EACH_PART
def test_every_answer_of_the_solution_notebook_passes(part):
    namespace, failed = collect_answers(part, solution_path(part.chapter, part.name))
    assert failed == {}
    for exercise in part.exercises:
        assert run_checks(exercise, namespace[exercise.name]).status == "passed"


@EACH_PART
def test_an_answer_passes_though_every_other_one_is_broken(part):
    def broken(*args, **kwargs):
        raise ZeroDivisionError("an answer of the learner's that is not being checked was called")

    exercises = part.exercises
    for exercise in exercises:
        namespace, _ = collect_answers(part, solution_path(part.chapter, part.name))
        namespace.update({other.name: broken for other in exercises if other is not exercise})
        assert run_checks(exercise, namespace[exercise.name]).status == "passed", exercise.name


@EACH_PART
def test_the_learner_gets_no_solution_and_no_output(part):
    notebook = nbformat.read(release_path(part.chapter, part.name), as_version=4)
    for cell in notebook.cells:
        assert not any(mark in cell.source for mark in MARKS_OF_SOLUTIONS)
        assert not cell.get("outputs")


@EACH_PART
def test_every_figure_has_a_text_alternative(part):
    for cell in nbformat.read(solution_path(part.chapter, part.name), as_version=4).cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            assert "image/png" not in data, (
                f"{part.key}, cell {cell.id}: an image without a text alternative: plots.show"
            )
            for image in re.findall(r"<img [^>]*>", data.get("text/html", "")):
                alt = re.search(r'alt="([^"]*)"', image)
                assert alt and len(alt[1]) > 20, f"{part.key}, cell {cell.id}: a figure without a text alternative"


@EACH_PART
def test_a_fresh_learner_notebook_is_all_not_attempted(part):
    namespace, failed = collect_answers(part, release_path(part.chapter, part.name))
    assert failed == {}
    for exercise in part.exercises:
        assert run_checks(exercise, namespace[exercise.name]).status == "not attempted"


def test_checks_import_no_oracle_library():
    """A learner's check must not wait for, or need, what only validates our references.

    Parts with an exercise whose docstring asks for a ``HookedTransformer`` try theirs on one, and cases are experiments
    on one; all others do without these imports.
    """
    code = (
        "import sys\nfrom utils.course.manifest import exercises\nfrom utils.course.runner import run_checks\n"
        "oracles = {'captum', 'shap', 'lime', 'statsmodels', 'skimage', 'nnsight', 'tuned_lens', 'sae_lens'}\n"
        "heavy = {'transformer_lens', 'transformers', 'tokenizers'}\n"
        "reads = {e.part for e in exercises().values() if 'HookedTransformer' in e.reference.__doc__}\n"
        "def hooked(e): return e.case or e.part in reads\n"
        "def fails(e): return run_checks(e, lambda *a, **k: None, diagnose=not e.case).status == 'failed'\n"
        "for on_hooked in (False, True):\n"
        "    chosen = [e for e in exercises().values() if hooked(e) == on_hooked]\n"
        "    assert chosen and all(map(fails, chosen))\n"
        "    print(sorted((oracles if on_hooked else oracles | heavy) & sys.modules.keys()))"
    )
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert outcome.stdout.split() == ["[]", "[]"]
