"""The committed notebooks: what the masters give, executed without error, nothing leaked to the learner."""

import re
import subprocess
import sys
from dataclasses import replace
from functools import cache

import nbformat
from nbformat.v4 import new_code_cell

from utils.course.build import check_build, execute, read_masters
from utils.course.learner import collect_answers
from utils.course.manifest import parts
from utils.course.paths import release_path, solution_path
from utils.course.runner import run_checks

MARKS_OF_SOLUTIONS = ("SOLUTION", "HIDDEN TESTS", "Rubric.")
# The kernel's own peak. What getrusage tells of children is the largest of all so far, and begins with their parent's.
ITS_PEAK = "print(open('/proc/self/status').read())"
LINUX = sys.platform == "linux"
PEAK_LIMIT = 2 * 1024**2  # kB
WIDER = {"08_sparse_autoencoders": 3 * 1024**2}  # holds tables of a thousand latents for every word


masters = cache(read_masters)  # once in a test process


def test_what_is_committed_is_what_the_masters_give():
    assert check_build(say=lambda line: None) == []


class OnePart:
    def test_solution_notebook_executes(self, real_networks):
        built = masters()[self.part.name]
        notebook = nbformat.from_dict(built.notebook)  # a copy
        notebook.cells.append(new_code_cell(ITS_PEAK if LINUX else ""))
        *cells, last = execute(replace(built, notebook=notebook)).cells
        assert all(c.execution_count for c in cells if c.cell_type == "code" and c.source.strip())
        noisy = [c.id for c in cells for o in c.get("outputs", []) if o.output_type == "stream" and o.name == "stderr"]
        assert not noisy, f"cells that write to stderr: {noisy}"
        if LINUX:
            peak = int(re.search(r"VmHWM:\s*(\d+) kB", last.outputs[0].text)[1])
            assert peak < WIDER.get(self.part.chapter, PEAK_LIMIT), f"the kernel took {peak:,} kB"

    def test_every_answer_of_the_solution_notebook_passes_though_every_other_one_is_broken(self):
        """And so with all others intact: where an answer looks for another exercise, it finds its reference."""

        def broken(*args, **kwargs):
            raise ZeroDivisionError("an answer of the learner's that is not being checked was called")

        namespace, failed = collect_answers(self.part, solution_path(self.part.chapter, self.part.name))
        assert failed == {}
        answers = {exercise.name: namespace[exercise.name] for exercise in self.part.exercises}
        for exercise in self.part.exercises:
            namespace.update(dict.fromkeys(answers, broken) | {exercise.name: answers[exercise.name]})
            assert run_checks(exercise, answers[exercise.name]).status == "passed", exercise.name

    def test_the_learner_gets_no_solution_and_no_output(self):
        notebook = nbformat.read(release_path(self.part.chapter, self.part.name), as_version=4)
        for cell in notebook.cells:
            assert not any(mark in cell.source for mark in MARKS_OF_SOLUTIONS)
            assert not cell.get("outputs")

    def test_every_figure_has_a_text_alternative(self):
        for cell in nbformat.read(solution_path(self.part.chapter, self.part.name), as_version=4).cells:
            for output in cell.get("outputs", []):
                data = output.get("data", {})
                assert "image/png" not in data, (
                    f"{self.part.key}, cell {cell.id}: an image without a text alternative: plots.show"
                )
                for image in re.findall(r"<img [^>]*>", data.get("text/html", "")):
                    alt = re.search(r'alt="([^"]*)"', image)
                    assert alt and len(alt[1]) > 20, (
                        f"{self.part.key}, cell {cell.id}: a figure without a text alternative"
                    )

    def test_a_fresh_learner_notebook_is_all_not_attempted(self):
        namespace, failed = collect_answers(self.part, release_path(self.part.chapter, self.part.name))
        assert failed == {}
        for exercise in self.part.exercises:
            assert run_checks(exercise, namespace[exercise.name]).status == "not attempted"


# A class for each part, so that two test processes can share them: pytest-xdist keeps a class together.
for part in parts():
    name = f"TestPart{part.key}"
    globals()[name] = type(name, (OnePart,), {"part": part})


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
