"""Running checks on answers: verdicts, diagnosis, isolation from other answers, endless loops, output."""

import logging
import signal
import sys
import time
import warnings
from dataclasses import replace

import pytest
import torch

from utils.course import feedback
from utils.course.build import read_masters
from utils.course.containment import Overtime, _interrupt_from_a_thread, limited_time
from utils.course.manifest import dump, exercises, find_exercise
from utils.course.paths import load_file
from utils.course.runner import run_checks


@pytest.fixture(autouse=True)
def course(mini):
    (mini / "chapters").mkdir()
    (mini / "chapters" / "manifest.json").write_text(dump(tuple(b.chapter for b in read_masters().values())))
    return mini


def learner(source):
    """Names that a learner's cell leaves in a notebook's namespace."""
    namespace = {"__name__": "__main__", "torch": torch}
    exec("from torch import nn", namespace)
    exec(source, namespace)
    return namespace


def report_on(name, source, **options):
    return run_checks(find_exercise(name), learner(source)[name], **options)


def test_the_reference_passes():
    for exercise in exercises().values():
        assert run_checks(exercise, exercise.reference).status == "passed"


def test_a_stub_is_not_attempted():
    report = report_on("double", "def double(x):\n    raise NotImplementedError()")
    assert report.status == "not attempted"
    assert "Traceback" not in feedback.as_text(report)


def test_a_wrong_answer_is_diagnosed_by_its_values_not_its_code():
    report = report_on("double", "def double(x):\n    return x ** 2")
    assert report.status == "failed"
    assert report.diagnosis.name == "squared" and report.whole_diagnosis


def test_an_unheard_of_mistake_gets_no_diagnosis():
    assert report_on("double", "def double(x):\n    return x - 17").diagnosis is None


def test_two_mistakes_at_once_are_told_the_one_that_is_known():
    report = report_on(
        "double", "def double(x):\n    return 2 * (x.detach() if x.dim() == 1 and x.shape[0] == 4 else x)"
    )
    assert report.diagnosis.name == "detached"


def test_a_mistake_costs_its_own_exercise_only():
    source = "def double(x):\n    return x\ndef quadruple(x):\n    return double(double(x))"
    assert report_on("double", source).status == "failed"
    assert report_on("quadruple", source).status == "passed"


def test_a_helper_of_the_learners_sees_the_references_too():
    source = "def helper(x):\n    return double(x)\ndef quadruple(x):\n    return helper(helper(x))"
    assert report_on("quadruple", source).status == "passed"


def test_the_learners_names_come_back_after_a_check():
    namespace = learner("def double(x):\n    return x\ndef quadruple(x):\n    return double(double(x))")
    mine = namespace["double"]
    run_checks(find_exercise("quadruple"), namespace["quadruple"])
    assert namespace["double"] is mine
    assert "scaffolded" not in namespace


def test_changing_an_input_is_caught_and_said():
    report = report_on("double", "def double(x):\n    x *= 2\n    return x")
    assert "changed one of its inputs" in report.failures[0].note


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("torch.manual_seed(0)", "global random state"),
        ("torch.set_grad_enabled(False)", "is_grad_enabled"),
        ("torch.set_default_dtype(torch.float64)", "get_default_dtype"),
        ("x.requires_grad_()", "requires_grad` of one of its inputs"),
    ],
)
def test_changing_what_others_rely_on_is_caught_said_and_put_back(line, said):
    before = torch.get_rng_state(), torch.is_grad_enabled(), torch.get_default_dtype()
    report = report_on("double", f"def double(x):\n    {line}\n    return 2 * x")
    assert report.status == "failed" and said in report.failures[0].note
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.is_grad_enabled(), torch.get_default_dtype()) == before[1:]


def test_what_an_answer_changed_before_it_raised_is_put_back_too():
    before = torch.is_grad_enabled(), torch.get_default_dtype()
    lines = "torch.set_grad_enabled(False)\n    torch.set_default_dtype(torch.float64)\n    raise KeyError(x)"
    assert report_on("double", f"def double(x):\n    {lines}").status == "failed"
    assert (torch.is_grad_enabled(), torch.get_default_dtype()) == before


def test_a_check_leaves_no_trace_in_the_global_random_state_and_repeats_with_its_seed():
    before = torch.get_rng_state()
    source = "def double(x):\n    return 2 * x + torch.randn(())"
    first, again = (run_checks(find_exercise("double"), learner(source)["double"], seed=5) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.status == "failed" and first.failures[0].returned == again.failures[0].returned


def test_another_error_than_the_one_asked_for_is_told_beside_it():
    report = report_on("scaffolded", "def scaffolded(x, n):\n    return [][n] if isinstance(x, str) else x")
    failure = next(f for f in report.failures if f.check.startswith("x has to be"))
    assert (failure.kind, failure.expected) == ("raised", "TypeError") and failure.note.startswith("IndexError")
    assert "a TypeError" in feedback.as_text(replace(report, failures=[failure]))


def test_an_exception_shows_the_learners_own_lines():
    report = report_on("double", "def double(x):\n    return inner(x)\ndef inner(x):\n    return x.no_such_thing")
    assert report.failures[0].kind == "raised"
    text = feedback.as_text(report)
    assert "no_such_thing" in text and "in inner" in text and "utils/course" not in text


def test_an_exception_inside_a_hook_shows_no_lines_of_torch():
    report = report_on(
        "double",
        "def double(x):\n"
        "    module = nn.Identity()\n"
        "    module.register_forward_hook(lambda module, inputs, output: output.no_such_method())\n"
        "    return module(x)",
    )
    text = feedback.as_text(report)
    assert "no_such_method" in text and text.count("in <lambda>") == 1 and "in double" in text
    assert "site-packages" not in text and "_call_impl" not in text


def test_a_fault_of_a_check_is_not_the_learners(course):
    tests = load_file(course / "tests" / "01_mini" / "test_mini.py")
    tests.TestDouble.test_values.__globals__["expect_close"] = lambda *args: 1 / 0
    report = report_on("double", "def double(x):\n    return 2 * x")
    assert report.status == "broken"
    assert "not at fault" in feedback.as_text(report)


def test_a_result_that_a_check_stumbles_over_is_the_learners(course):
    tests = load_file(course / "tests" / "01_mini" / "test_mini.py")
    tests.TestDouble.test_values.__globals__["expect_close"] = lambda actual, expected: actual + expected
    report = report_on("double", "def double(x):\n    return 'two times x'")
    assert report.status == "failed"
    assert "could do nothing with this result" in feedback.as_text(report)


@pytest.mark.parametrize(
    "loop",
    [
        "while True: pass",
        "import time; time.sleep(60)",
        "while True:\n        try:\n            sum(range(100))\n        except Exception: pass",
        "while True:\n        try:\n            sum(range(100))\n        except: pass",
    ],
)
def test_an_endless_loop_is_interrupted_with_a_message(loop):
    start = time.monotonic()
    report = report_on("double", f"def double(x):\n    {loop}\n    return 2 * x", time_limit=0.3)
    assert report.failures[0].kind == "overtime"
    assert time.monotonic() - start < 30
    assert "loop that never ends" in " ".join(feedback.as_text(report).split())


@pytest.fixture
def interruptible():
    """Interrupts are heeded, as in a kernel or a terminal; started in the background of a script, they are not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("limit", [limited_time, _interrupt_from_a_thread])
def test_a_real_interrupt_stays_one(limit):
    with pytest.raises(KeyboardInterrupt), limit(30):
        raise KeyboardInterrupt


def test_a_system_without_alarms_is_interrupted_too(interruptible):
    with pytest.raises(Overtime), _interrupt_from_a_thread(0.2):
        while True:
            pass


def test_an_alarm_is_silent_once_the_block_is_left():
    for _ in range(20):
        with pytest.raises(Overtime), limited_time(0.005):
            while True:
                pass
    time.sleep(0.1)


def test_output_is_caught_and_shown_only_in_part():
    source = "import sys\ndef double(x):\n    print('hello')\n    print('y' * 10**6, file=sys.stderr)\n    return 2 * x"
    out, err = sys.stdout, sys.stderr
    report = report_on("double", source)
    assert report.status == "passed"
    assert report.output.startswith("hello\nyyy")
    assert len(report.output) <= 2000
    assert (sys.stdout, sys.stderr) == (out, err)


@pytest.mark.parametrize("name", [None, "some.library"])
def test_a_log_handler_made_earlier_writes_nothing_to_stderr(capsys, name):
    handler = logging.StreamHandler(sys.stderr)
    logging.getLogger(name).addHandler(handler)
    try:
        source = f"import logging\ndef double(x):\n    logging.getLogger({name!r}).warning('noise')\n    return 2 * x"
        report = report_on("double", source)
    finally:
        logging.getLogger(name).removeHandler(handler)
    assert "noise" not in capsys.readouterr().err
    assert "noise" in report.output


def test_the_same_seed_gives_the_same_failure():
    first, second = (report_on("double", "def double(x):\n    return x - 17", seed=5) for _ in range(2))
    assert first.failures[0].returned == second.failures[0].returned
    assert (
        report_on("double", "def double(x):\n    return x - 17", seed=6).failures[0].returned
        != first.failures[0].returned
    )


def test_checks_leave_global_random_state_alone():
    before = torch.get_rng_state()
    report_on("double", "def double(x):\n    return x - 17")
    assert torch.equal(before, torch.get_rng_state())


def test_gradients_are_checked_though_the_notebook_has_switched_them_off():
    with torch.no_grad():
        assert report_on("double", "def double(x):\n    return 2 * x").status == "passed"


def test_a_module_with_wrong_names_says_which():
    source = (
        "class Scale(nn.Module):\n    def __init__(self, size):\n        super().__init__()\n"
        "        self.weight = nn.Parameter(torch.ones(size))\n        self.b = nn.Parameter(torch.zeros(size))\n"
        "    def forward(self, x):\n        return self.weight * x + self.b"
    )
    failure = report_on("Scale", source).failures[0]
    assert "standard names" in failure.note


def test_warnings_filters_of_the_session_do_not_matter():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = "import warnings\ndef double(x):\n    return 2 * x"
        assert report_on("double", source).status == "passed"
