"""The committed notebooks: what the masters give, executed without error, nothing leaked to the learner."""

import re
import resource
import subprocess
import sys

import nbformat
import pytest

from utils.course.build import check_build, execute, read_masters
from utils.course.learner import collect_answers
from utils.course.manifest import chapters, find_chapter
from utils.course.paths import learner_path, solution_path
from utils.course.runner import run_checks

NAMES = [chapter.name for chapter in chapters()]


def test_what_is_committed_is_what_the_masters_give():
    assert check_build(say=lambda line: None) == []


@pytest.mark.parametrize("name", NAMES)
def test_solution_notebook_executes(name):
    executed = execute(read_masters()[name])
    assert all(c.execution_count for c in executed.cells if c.cell_type == "code" and c.source.strip())
    noisy = [
        c.id for c in executed.cells for o in c.get("outputs", []) if o.output_type == "stream" and o.name == "stderr"
    ]
    assert not noisy, f"cells that write to stderr: {noisy}"
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 2 * 1024**2, "more than 2 GB"


@pytest.mark.parametrize("name", NAMES)
def test_every_answer_of_the_solution_notebook_passes(name):
    namespace, failed = collect_answers(find_chapter(name), solution_path(name))
    assert failed == {}
    for exercise in find_chapter(name).exercises:
        assert run_checks(exercise, namespace[exercise.name]).status == "passed"


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_passes_though_every_other_one_is_broken(name):
    def broken(*args, **kwargs):
        raise ZeroDivisionError("an answer of the learner's that is not being checked was called")

    exercises = find_chapter(name).exercises
    for exercise in exercises:
        namespace, _ = collect_answers(find_chapter(name), solution_path(name))
        namespace.update({other.name: broken for other in exercises if other is not exercise})
        assert run_checks(exercise, namespace[exercise.name]).status == "passed", exercise.name


@pytest.mark.parametrize("name", NAMES)
def test_the_learner_gets_no_solution_and_no_output(name):
    notebook = nbformat.read(learner_path(name), as_version=4)
    for cell in notebook.cells:
        assert "SOLUTION" not in cell.source and "HIDDEN TESTS" not in cell.source
        assert not cell.get("outputs")


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_has_a_text_alternative(name):
    for cell in nbformat.read(solution_path(name), as_version=4).cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            assert "image/png" not in data, f"{name}, cell {cell.id}: an image without a text alternative: plots.show"
            for image in re.findall(r"<img [^>]*>", data.get("text/html", "")):
                alt = re.search(r'alt="([^"]*)"', image)
                assert alt and len(alt[1]) > 20, f"{name}, cell {cell.id}: a figure without a text alternative"


@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_learner_notebook_is_all_not_attempted(name):
    namespace, failed = collect_answers(find_chapter(name))
    assert failed == {}
    for exercise in find_chapter(name).exercises:
        assert run_checks(exercise, namespace[exercise.name]).status == "not attempted"


def test_checks_import_no_oracle_library():
    """A learner's check must not wait for, or need, what only validates our references.

    Chapter 03 reads a ``HookedTransformer``, so its checks make some; all others do without these imports.
    """
    code = (
        "import sys\nfrom utils.course.manifest import exercises\nfrom utils.course.runner import run_checks\n"
        "oracles = {'captum', 'shap', 'lime', 'statsmodels', 'skimage', 'nnsight', 'tuned_lens', 'sae_lens'}\n"
        "heavy = {'transformer_lens', 'transformers', 'tokenizers'}\n"
        "for of_03 in (False, True):\n"
        "    chosen = [e for e in exercises().values() if (e.chapter == '03_lenses') == of_03]\n"
        "    assert chosen and all(run_checks(e, lambda *a, **k: None).status == 'failed' for e in chosen)\n"
        "    print(sorted((oracles if of_03 else oracles | heavy) & sys.modules.keys()))"
    )
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert outcome.stdout.split() == ["[]", "[]"]
