"""nbgrader from end to end, with the commands and the page that an instructor uses, on the mini course.

One class of students is graded once for the whole module; the tests look at what came of it.
"""

import csv
import html
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell

from utils.course.autograding import restored
from utils.course.paths import load_file

HERE = Path(__file__).parent
submissions = load_file(HERE / "submissions.py")
server = load_file(HERE / "server.py")
MINI, RIGHT, SPOKEN = submissions.MINI, submissions.RIGHT, submissions.SPOKEN
Submission = submissions.Submission

SQUARE = "def double(x):\n    return x ** 2"
BY_HAND = 4
COMMENT = "Say why the two twos multiply."

# Points out of 15: double 2, quadruple 3, scaffolded 1, Scale 4, and the free-response question 5.
EXPECTED = {
    "perfect": 10 + BY_HAND,
    "blank": 0,
    "partly": 8,
    "crashing": 4,
    "noisy": 10,
    "skipping": 8,
    "tampering": 9,
    "scheming": 4,
    "linked": 0,
    "behind": 0,
    "damaged": 0,
}
UNREADABLE = ["behind", "damaged", "linked"]

EARLIER = """\
import logging, os, sys, warnings
from tqdm import tqdm
logging.basicConfig(level=logging.INFO)
logging.getLogger("library").addHandler(logging.StreamHandler(sys.stderr))
stderr_of_the_kernel = sys.stderr"""

NOISE = {
    "double": """\
def double(x):
    print("a print")
    print("a print to stderr", file=sys.stderr)
    warnings.warn("a warning")
    logging.warning("a log line")
    logging.getLogger("library").warning("a library's log line")
    for _ in tqdm(range(3)):
        pass
    return 2 * x""",
    "quadruple": """\
def quadruple(x):
    print("past any redirection", file=stderr_of_the_kernel, flush=True)
    return 4 * x""",
    "scaffolded": """\
def scaffolded(x, n):
    os.write(2, b"past Python itself")
    return (x + 1) * 2 ** n""",
}


def hand_in_all(course):
    Submission(course, **RIGHT, why_four=SPOKEN).hand_in("perfect")
    Submission(course).hand_in("blank")
    Submission(course, **RIGHT | {"double": SQUARE}).hand_in("partly")
    crashes = {"double": "def double(x)\n    return 2 * x", "Scale": "class Scale(Module):\n    pass"}
    Submission(course, **RIGHT | crashes).hand_in("crashing")
    Submission(course, **RIGHT | NOISE).insert_before("double", EARLIER).hand_in("noisy")
    Submission(course, **RIGHT | {"double": 'double = reference("double")'}).hand_in("skipping")
    tampered = Submission(course, **RIGHT, check_double="pass")
    tampered.cell("check_double").metadata.nbgrader.points = 200
    tampered.cell("Scale").metadata.nbgrader.schema_version = 1
    tampered.duplicate("check_Scale").delete("check_quadruple", "scaffolded", "check_scaffolded")
    tampered.hand_in("tampering")
    scheming = Submission(course, double="2").insert_before(
        "double", f"import os\nos.environ['MI_ROOT'] = '{course}/no'"
    )
    scheming.notebook.cells.remove(check := scheming.cell("check_double"))
    scheming.notebook.cells.insert(0, check)
    check.metadata.tags = ["skip-execution"]
    scheming.fill(quadruple="def quadruple(x):\n    return x", Scale=RIGHT["Scale"])
    scheming.hand_in("scheming")
    secret = course / "secret.txt"
    secret.write_text("nobody's business")
    (course / "submitted" / "scheming" / MINI / "notes.txt").symlink_to(secret)
    linked = course / "submitted" / "linked" / MINI
    linked.mkdir(parents=True)
    (linked / f"{MINI}.ipynb").symlink_to(course / "solutions" / MINI / f"{MINI}.ipynb")
    (course / "submitted" / "behind").symlink_to(course / "submitted" / "perfect")
    damaged = Submission(course, **RIGHT).hand_in("damaged")
    damaged.write_text(damaged.read_text()[:1000])


@pytest.fixture(scope="module")
def shell(course_environment):
    """Run an nbgrader command in a course's folder, as an instructor types it."""

    def run(course, *arguments, **variables):
        environment = course_environment(course) | {"OMP_NUM_THREADS": "1"} | variables
        command = [Path(sys.executable).with_name("nbgrader"), *arguments]
        return subprocess.run(command, cwd=course, env=environment, text=True, capture_output=True)

    return run


@pytest.fixture(scope="module")
def course(built_mini, tmp_path_factory, shell):
    """A course folder with an assignment and a class's submissions."""
    root = tmp_path_factory.mktemp("class") / "course"
    shutil.copytree(built_mini, root)
    generated = shell(root, "generate_assignment", MINI, "--force")
    assert generated.returncode == 0, generated.stderr
    hand_in_all(root)
    return root


@pytest.fixture(scope="module")
def autograded(course, shell):
    return shell(course, "autograde", MINI)


@pytest.fixture(scope="module")
def formgrader(course, autograded, course_environment, tmp_path_factory):
    """What the page shows, before and after an answer was graded by hand on it."""
    state = tmp_path_factory.mktemp("jupyter")
    with server.jupyter_server(course, course_environment(course), state) as jupyter:

        def fetch(path):
            return jupyter.json(f"formgrader/api/{path}")

        def of_the_question(kind):
            found = fetch(f"{kind}?submission_id={notebooks['perfect']}")
            return next(one["id"] for one in found if one["name"] == "why_four")

        seen = SimpleNamespace(page=jupyter.get("formgrader/manage_assignments"))
        seen.assignments = fetch("assignments")
        seen.before = {s["student"]: s for s in fetch(f"submissions/{MINI}")}
        notebooks = {n["student"]: n["id"] for n in fetch(f"submitted_notebooks/{MINI}/{MINI}")}
        seen.submission = jupyter.get(f"formgrader/submissions/{notebooks['perfect']}")
        jupyter.put(
            f"formgrader/api/grade/{of_the_question('grades')}", {"manual_score": BY_HAND, "extra_credit": None}
        )
        jupyter.put(f"formgrader/api/comment/{of_the_question('comments')}", {"manual_comment": COMMENT})
        seen.after = {s["student"]: s for s in fetch(f"submissions/{MINI}")}
    return seen


@pytest.fixture(scope="module")
def finished(course, formgrader, shell):
    """Feedback and export, after the grades by hand."""
    for command in (["generate_feedback", MINI], ["export"]):
        outcome = shell(course, *command)
        assert outcome.returncode == 0, outcome.stderr
    return course


def feedback_of(course, student):
    """The text that a student reads on their feedback page."""
    page = (course / "feedback" / student / MINI / f"{MINI}.html").read_text()
    page = re.sub(r"<(style|script).*?</\1>", "", page, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]+>", "", page))


def test_generating_the_assignment_gives_what_the_build_gave(course, built_mini):
    names = f"chapters/{MINI}/{MINI}.ipynb"
    assert (course / names).read_bytes() == (built_mini / names).read_bytes()


def test_validate(course, shell):
    wrong = Submission(course, **RIGHT | {"double": SQUARE}).write(course / "wrong.ipynb")
    outcome = shell(course, "validate", f"solutions/{MINI}/{MINI}.ipynb", wrong.name)
    wrong.unlink()
    good, _, bad = outcome.stdout.partition("\n")
    assert good == "Success! Your notebook passes all the tests."
    assert "check(double)" in bad and "✗ double: 2 of 2 checks failed" in bad
    assert "You square the number. Twice x is x + x." in bad
    assert "check(quadruple)" not in bad and "check(Scale)" not in bad
    assert "You did not provide a response." in bad  # the question
    assert "\x1b" not in bad and "Traceback" not in bad and "..." not in bad
    assert len(bad.splitlines()) < 40
    assert "WARNING" not in outcome.stderr


def test_a_submission_that_is_damaged_or_a_link_stops_nobody_and_is_named(autograded):
    assert autograded.returncode == 0, autograded.stderr
    assert re.findall(r"(\w+): 01_mini could not be graded: ", autograded.stderr) == UNREADABLE
    assert "is a link. A submission is a file of its own." in autograded.stderr


def test_a_notebook_that_was_not_graded_says_why_and_holds_nothing_of_what_it_links_to(finished):
    for name in UNREADABLE:
        assert "This notebook could not be graded:" in feedback_of(finished, name)
        (graded,) = (finished / "autograded" / name / MINI).glob("*.ipynb")
        assert "return x + x" not in graded.read_text()


def test_no_other_file_of_a_submission_is_taken(autograded, course):
    assert [path.name for path in (course / "autograded" / "scheming" / MINI).iterdir()] == [f"{MINI}.ipynb"]


def test_the_page_lists_the_assignment_and_what_is_to_be_graded_by_hand(formgrader):
    assert "formgrader/static" in formgrader.page and "mechinterp" in formgrader.page
    assert [(a["name"], a["num_submissions"]) for a in formgrader.assignments] == [
        (MINI, len(EXPECTED)),
        ("02_pair", 0),
    ]
    assert [name for name, s in formgrader.before.items() if s["needs_manual_grade"]] == ["perfect"]
    assert not [name for name, s in formgrader.after.items() if s["needs_manual_grade"]]
    assert all(s["autograded"] for s in formgrader.before.values())
    assert SPOKEN in formgrader.submission


def test_scores(finished):
    with open(finished / "grades.csv", newline="") as file:
        rows = {row["student_id"]: row for row in csv.DictReader(file)}
    assert {name: float(row["score"]) for name, row in rows.items()} == EXPECTED
    assert {row["max_score"] for row in rows.values()} == {"15.0"}
    unread = [name for name, row in rows.items() if row["status"] == "not graded: could not be read or run"]
    assert sorted(unread) == UNREADABLE and rows["blank"]["status"] == "graded"


def test_the_rubric_stands_above_the_answer_that_is_graded_by_hand(formgrader):
    page = formgrader.submission
    assert "To be graded by hand:" in page and 'href="#why_four"' in page
    rubric, answer = page.index("Model answer and rubric of why_four"), page.index(SPOKEN)
    assert rubric < answer


def test_feedback_begins_with_points_by_exercise_and_leaves_out_unchanged_prose(finished):
    text = re.sub(r"\s+", " ", feedback_of(finished, "partly"))
    assert text.count("exercisepointsdouble0 of 2quadruple3 of 3scaffolded1 of 1Scale4 of 4why_four0 of 5") == 1
    assert "The end." not in text and "an experiment:" not in text
    assert "move on with the reference" not in text


@pytest.mark.parametrize(
    ("student", "parts"),
    [
        ("perfect", ["✓ double: all 2 checks passed", "(Score: 14.0 / 15.0)", COMMENT]),
        ("blank", ["○ double: not attempted", "○ Scale: not attempted", "(Score: 0.0 / 15.0)"]),
        (
            "partly",
            [
                "✗ double: 2 of 2 checks failed",
                "diagnosis    You square the number. Twice x is x + x.",
                "✓ quadruple: the check passed",
                "✓ scaffolded: all 2 checks passed",
                "(Score: 8.0 / 15.0)",
            ],
        ),
        (
            "crashing",
            [
                "expected ':'",
                "name 'Module' is not defined",
                "✓ quadruple: the check passed",
            ],
        ),
        ("noisy", ["a print", "a library's log line", "past any redirection", "past Python itself"]),
        ("skipping", ["○ double: our reference, not an answer of your own: skipped, no points"]),
        (
            "tampering",
            ["✓ double: all 2 checks passed", "✓ quadruple: the check passed", "○ scaffolded: not attempted"],
        ),
    ],
)
def test_feedback_says_what_happened(finished, student, parts):
    text = feedback_of(finished, student)
    assert [part for part in parts if part not in text] == []
    assert "\x1b" not in text and "utils/course" not in text


def outputs_of(course, student):
    path = course / "autograded" / student / MINI / f"{MINI}.ipynb"
    return {c.id: str(c.outputs) for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"}


def test_another_hand_in_is_graded_by_itself_and_an_endless_loop_costs_its_own_points(finished, shell):
    loop = RIGHT["Scale"].replace("return", "while True: pass\n        return")
    Submission(finished, **RIGHT | {"Scale": loop}).hand_in("damaged")
    outcome = shell(finished, "autograde", MINI, "--student=damaged", "--force", MI_TIME_LIMIT="2")
    assert outcome.returncode == 0, outcome.stderr
    assert "TCP" not in outcome.stderr
    outputs = outputs_of(finished, "damaged")
    assert "Your code was still running after 2 seconds" in outputs["check_Scale"]
    assert all("passed" in outputs[f"check_{name}"] for name in ("double", "quadruple", "scaffolded"))


def test_experiments_are_not_run(finished):
    assert outputs_of(finished, "perfect")["doubling-2"] == "[]"


@pytest.mark.slow
def test_an_endless_experiment_is_cut_short_and_costs_nothing(finished, shell):
    Submission(finished, **RIGHT, **{"doubling-2": "while True:\n    pass"}).hand_in("endless")
    outcome = shell(finished, "autograde", MINI, "--student=endless", MI_TIME_LIMIT="2")
    assert outcome.returncode == 0, outcome.stderr
    outputs = outputs_of(finished, "endless")
    assert all("passed" in outputs[f"check_{name}"] for name in RIGHT)


def cell_list(*names):
    """Cells with grade ids; a name in parentheses is a cell of prose."""
    return [
        new_markdown_cell(name)
        if name.startswith("(")
        else new_code_cell(
            name, metadata={"nbgrader": {"grade_id": name, "points": 1, "locked": name.startswith("check_")}}
        )
        for name in names
    ]


@pytest.mark.parametrize(
    ("handed_in", "expected"),
    [
        (["a", "(prose)", "check_a", "b"], ["a", "(prose)", "check_a", "b"]),
        (["a", "(prose)", "b"], ["a", "check_a", "(prose)", "b"]),
        (["(prose)"], ["a", "check_a", "b", "(prose)"]),
        (["(prose)", "b", "a"], ["(prose)", "b", "a", "check_a"]),
        (["a", "check_a", "unknown", "b"], ["a", "check_a", "unknown", "b"]),
        (["check_a", "(prose)", "a", "b"], ["(prose)", "a", "check_a", "b"]),
    ],
)
def test_cells_come_back_where_they_belong(handed_in, expected):
    cells = restored(cell_list(*handed_in), cell_list("a", "check_a", "b"))
    assert [cell.source for cell in cells] == expected
    graded = [cell.metadata.nbgrader.grade_id for cell in cells if "nbgrader" in cell.metadata]
    assert sorted(graded) == ["a", "b", "check_a"]


def test_all_metadata_are_the_releases():
    cells = cell_list("a", "check_a")
    for cell in cells:
        cell.metadata |= {"tags": ["skip-execution"], "mine": 1}
    assert [list(cell.metadata) for cell in restored(cells, cell_list("a", "check_a"))] == [["nbgrader"]] * 2


@pytest.mark.parametrize("junk", ["text", None, {}, {"grade_id": ["a"]}, {"grade_id": "a", "points": 99}])
def test_junk_in_the_metadata_does_no_harm(junk):
    cells = cell_list("a", "check_a")
    cells[0].metadata["nbgrader"] = junk
    assert len([c for c in restored(cells, cell_list("a", "check_a")) if "nbgrader" in c.metadata]) == 2
