"""What of a notebook is run, and what a worker may know and do."""

import re
import time
from pathlib import Path

import nbformat
import pytest
from nbconvert.filters.markdown_mistune import markdown2html_mistune
from nbformat import from_dict
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from utils.course.autograding import plain
from utils.course.manifest import CourseError, find_parts
from utils.grading.gradebook import harmless, without_tags
from utils.grading.grader import Unprotected, Zygote
from utils.grading.submission import cells_to_run
from utils.grading.view import without_bodies

SOURCE = '''
import math

@staticmethod
def kept(x):
    return math.sqrt(x)


def hidden(x: int) -> int:
    """What it does."""
    inner = x + 1
    return inner


class Hidden:
    """What it is."""

    def method(self):
        return 3
'''


def test_of_an_exercise_nothing_but_the_signature_is_in_the_view():
    text = without_bodies(SOURCE, {"hidden", "Hidden"})
    assert "math.sqrt" in text and '"""What it does."""' in text and "def method(self):" in text
    assert "inner" not in text and "return 3" not in text
    space = {}
    exec(text, space)
    with pytest.raises(NotImplementedError, match="hidden is an exercise"):
        space["hidden"](1)


def test_the_course_that_a_worker_sees_holds_no_answer(mini, mini_zygote):
    view = Path(mini_zygote.folder.name) / "course"
    text = (view / "mini_references.py").read_text()
    for line in ("return 2 * x", "double(double(x))", "result = x + 1", "self.w * x + self.b"):
        assert line in (mini / "mini_references.py").read_text() and line not in text
    assert "return triple(triple(x))" in text  # another chapter's
    hints = [hint for exercise in find_parts("01_mini")[0].exercises for hint in exercise.hints]
    assert not any(hint in (view / "chapters" / "manifest.json").read_text() for hint in hints)
    assert not list(view.rglob("*.ipynb")) and not (view / "tests").exists() and not (view / "solutions").exists()


def test_experiments_are_left_out_unless_a_student_has_changed_or_added_them(mini):
    (part,) = find_parts("01_mini")
    released = [new_code_cell("experiment()"), new_code_cell("import torch", metadata={"tags": ["setup"]})]
    sources = ["experiment()", "experiment(2)", "mine = 1", "import torch", "def double(x):\n    return x"]
    cells = [new_markdown_cell("text"), *(new_code_cell(source) for source in sources)]
    cells.append(new_code_cell("check(double)", metadata={"nbgrader": {"grade_id": "check_double"}}))
    found = cells_to_run(part, cells, released)
    assert [cell.source for cell in found] == sources[1:]
    assert [cell.exercise for cell in found] == [None, None, None, "double"]
    assert [cell.setup for cell in found] == [False, False, True, False]


def test_a_submission_s_own_settings_cost_nothing(graded):
    loud = """
import torch, random
torch.manual_seed(0); torch.set_default_dtype(torch.float64); torch.set_num_threads(7)
torch.set_grad_enabled(False); random.seed(0)
print("x" * 10**6)"""
    found = graded(loud, double="def double(x):\n    return x + x")
    assert found["double"].status == "passed", found["double"].text


def test_the_answers_of_a_notebook_are_graded_with_references_for_the_earlier_ones(graded):
    found = graded(double="def double(x):\n    return x", quadruple="def quadruple(x):\n    return double(double(x))")
    assert (found["double"].status, found["quadruple"].status) == ("failed", "passed")


def test_the_time_of_a_notebook_is_limited(graded):
    found = graded(
        double="def double(x):\n    while True: pass",
        quadruple="def quadruple(x):\n    while True: pass",
        scaffolded="def scaffolded(x, n):\n    return (x + 1) * 2 ** n",
        time_limit=2,
        total_limit=3,
    )
    assert found["scaffolded"].status == "failed" and "used up its time" in found["scaffolded"].text


def test_nothing_is_graded_without_protection_unless_one_insists(mini, monkeypatch):
    monkeypatch.setattr("utils.grading.grader.HERE", mini / "elsewhere")
    (mini / "elsewhere").mkdir()
    says = "s = socket.socket(fileno=os.dup(0))\ns.send(json.dumps({'missing': 'walls'}).encode())"
    (mini / "elsewhere" / "zygote.py").write_text(f"import json, os, socket\n{says}")
    zygote = Zygote("01_mini")
    with pytest.raises(Unprotected, match="does not offer walls.*--unsafe"):
        zygote.wait()
    zygote.close()
    assert issubclass(Unprotected, CourseError)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a < b, <b>", "a < b, &lt;b>"),
        ("<!-- x --><SCRIPT>", "&lt;!-- x -->&lt;SCRIPT>"),
        ("[x](javascript&#58;alert(1))", "[x](javascript&amp;#58;alert(1))"),
        ("&#36;\\href{x}{y}&#36;", "&amp;#36;\\h\u200bref{x}{y}&amp;#36;"),
    ],
)
def test_markdown_loses_what_could_run(text, shown):
    assert without_tags(text) == shown
    ours = new_markdown_cell(text)
    assert harmless([ours], [ours])[0].source == text
    assert harmless([new_markdown_cell(text)], [])[0].source.strip() == shown


WEB = ("//x", "https://x.y/a:b", "mailto:x@y", "a.png", "#a:b", "?a:b", "a/b:c")
ELSEWHERE = ("javascript:x", "JaVaScript\\:x", "data:text/html,x", "vb:x", "file:///x")


@pytest.mark.parametrize("target", WEB + ELSEWHERE)
def test_links_lead_to_the_web_or_are_shown_as_they_are(target):
    (shown,) = harmless([new_markdown_cell(f"[x]({target})")], [])
    assert shown.source.startswith("[" if target in WEB else "    [")


@pytest.mark.parametrize("text", ["<b onclick='x'>", "<svg></svg>", "[x](&#106;avascript:x)", "[x](<javascript:x>)"])
def test_what_the_renderer_makes_of_prose_is_a_second_wall(monkeypatch, text):
    monkeypatch.setattr("utils.grading.gradebook.without_tags", lambda text: text)
    assert harmless([new_markdown_cell(text)], [])[0].source == f"    {text}"


PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def test_a_picture_that_a_student_pastes_is_kept_and_anything_else_that_is_attached_is_not():
    cell = new_markdown_cell("![plot](attachment:a.png)")
    cell.attachments = {
        "a.png": {"image/png": PNG},
        "b.svg": {"image/svg+xml": "<svg/>"},
        "c": 3,
        "d": {"image/png": 3},
    }
    (kept,) = harmless(plain([cell]), [])
    assert kept.source == "![plot](attachment:a.png)" and kept.attachments == {"a.png": {"image/png": PNG}}


@pytest.mark.parametrize(
    "text", ["![x](attachment:gone.png)", "\\begin{a}" * 4000, "[" * 40_000, "x" * 10**6], ids=lambda text: text[:9]
)
def test_prose_that_the_pages_cannot_render_soon_is_shown_as_it_is(text):
    started = time.thread_time()
    (shown,) = harmless([new_markdown_cell(text)], [])
    markdown2html_mistune(shown.source)
    assert time.thread_time() - started < 10
    assert shown.source.lstrip().startswith(text[:40_000]) or "begin" in text


@pytest.mark.parametrize(
    "junk", [{"id": 'x"><script>'}, {"id": 3}, {"attachments": 3}, {"metadata": {"tags": 7}}, {"metadata": 7}]
)
def test_a_cell_with_junk_in_it_is_a_cell_all_the_same(junk):
    (found,) = plain([from_dict(new_markdown_cell("text") | junk)])
    assert found.source == "text" and re.fullmatch(r"[\w-]+", found.id) and found.metadata == {}
    nbformat.validate(new_notebook(cells=[found]))


WALLS = {
    "network": "import socket\nsocket.socket()",
    "processes": "import subprocess\nsubprocess.run(['true'])",
    "forks": "import os\nos.fork()",
    "files of the machine": "open('/etc/shadow')",
    "folders of users": "import os\nos.listdir('/home')",
    "writing into the course": "open('/course/utils/__init__.py', 'w')",
    "writing into libraries": "import torch\nopen(torch.__file__, 'a')",
    "mounting": "import ctypes\nassert ctypes.CDLL(None).mount(b'none', b'/scratch', b'tmpfs', 0, None) == 0",
    "namespaces": "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0",
    "tracing": "import ctypes\nassert ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0",
    "signals to the rest": "import os, signal\nassert len([p for p in os.listdir('/proc') if p.isdigit()]) > 1",
    "identity": "import os\nos.setuid(1)",
    "large files": "open('/scratch/x', 'wb').write(b'0' * 2**27)",
}


@pytest.mark.parametrize("name", WALLS)
def test_walls(graded, name):
    """A cell that gets through would define the answer."""
    found = graded(WALLS[name] + "\ndouble = lambda x: 2 * x")
    assert found["double"].status == "not attempted", name


def test_what_one_submission_leaves_is_not_there_for_the_next(graded):
    graded("open('/scratch/note', 'w').write('x')\nimport torch\ntorch.left = 1")
    found = graded(
        "import os, torch\nassert os.path.exists('/scratch/note') or hasattr(torch, 'left')\ndouble = lambda x: 2 * x"
    )
    assert found["double"].status == "not attempted"
