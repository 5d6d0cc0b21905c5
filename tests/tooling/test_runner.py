"""Running checks on answers: verdicts, diagnosis, isolation from other answers, endless loops, output."""

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from dataclasses import replace

import pytest
import torch

from utils.course import feedback
from utils.course.build import course_of, read_masters
from utils.course.containment import PATIENCE, Clock, Overtime, _interrupt_from_a_thread, limited_time, noted_interrupts
from utils.course.manifest import dump, exercises, find_exercise
from utils.course.paths import load_file
from utils.course.runner import own_state, run_checks


@pytest.fixture(autouse=True)
def course(mini):
    (mini / "chapters").mkdir()
    (mini / "chapters" / "manifest.json").write_text(dump(course_of(read_masters())))
    return mini


def learner(source):
    """Names that a learner's cell leaves in a notebook's namespace."""
    namespace = {"__name__": "__main__", "torch": torch}
    exec("from torch import nn", namespace)
    exec(source, namespace)
    return namespace


def report_on(name, source, **options):
    return run_checks(find_exercise(name), learner(source)[name], **options)


def rewrite(course, checks, answers=""):
    """Give the exercise ``double`` these checks (methods of its class) and this catalogue of wrong answers."""
    folder = course / "tests" / "01_mini"
    (folder / "test_mini.py").write_text(
        "import torch\nfrom utils.course.checking import *\nfrom utils.course.checking import expect_close\n\n\n"
        f'class TestDouble:\n    exercise = "double"\n\n{textwrap.indent(textwrap.dedent(checks), "    ")}'
    )
    (folder / "answers_mini.py").write_text(
        f"import torch\nfrom utils.course.catalogue import wrong\n\n\n{textwrap.dedent(answers)}"
    )


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
    assert "changed its input `x` in place" in report.failures[0].note
    text = feedback.as_text(report)
    assert "x, afterwards: row 0 = [" in text and "x, as it was: row 0 = [" in text


@pytest.mark.parametrize("change", ["parts['a'][1].zero_()", "parts['a'].append(0)", "parts['b'] = 3"])
def test_a_changed_part_of_an_input_is_named(course, change):
    rewrite(course, "def test_it(self, answer):\n    answer({'a': [torch.ones(2), torch.ones(2)], 'b': 4})")
    note = report_on("double", f"def double(parts):\n    {change}\n    return 1").failures[0].note
    name = change.partition(".")[0].partition(" ")[0]
    assert f"its input `{name.replace('parts', 'x')}` in place" in note  # the reference calls its argument x


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("torch.manual_seed(0)", "global random state"),
        ("torch.set_grad_enabled(False)", "is_grad_enabled"),
        ("torch.set_default_dtype(torch.float64)", "get_default_dtype"),
        ("torch.set_default_device('meta')", "get_default_device"),
        ("x.requires_grad_()", "changed `requires_grad` of its input `x`"),
    ],
)
def test_changing_what_others_rely_on_is_caught_said_and_put_back(line, said):
    before = torch.get_rng_state(), torch.is_grad_enabled(), torch.get_default_dtype()
    report = report_on("double", f"def double(x):\n    y = 2 * x\n    {line}\n    return y")
    assert report.status == "failed" and said in report.failures[0].note
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.is_grad_enabled(), torch.get_default_dtype()) == before[1:]
    assert torch.get_default_device() == torch.device("cpu")


def test_what_an_answer_changed_before_it_raised_is_put_back_too():
    before = torch.is_grad_enabled(), torch.get_default_dtype()
    lines = (
        "torch.set_grad_enabled(False)\n    torch.set_default_dtype(torch.float64)\n"
        "    torch.set_default_device('meta')\n    raise KeyError(x)"
    )
    assert report_on("double", f"def double(x):\n    {lines}").status == "failed"
    assert (torch.is_grad_enabled(), torch.get_default_dtype()) == before
    assert torch.get_default_device() == torch.device("cpu")


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
    assert report.failures[0].note == "still running after 0.3 seconds"
    assert "loop that never ends" in " ".join(feedback.as_text(report).split())


@pytest.fixture
def interruptible():
    """Interrupts are heeded, as in a kernel or a terminal; started in the background of a script, they are not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def from_a_thread(seconds):
    return _interrupt_from_a_thread(Clock(seconds, cpu=time.process_time))


@pytest.mark.parametrize("limit", [limited_time, from_a_thread])
def test_a_real_interrupt_stays_one(limit):
    with pytest.raises(KeyboardInterrupt), limit(30):
        raise KeyboardInterrupt


def test_a_system_without_alarms_is_interrupted_too(interruptible):
    with pytest.raises(Overtime), from_a_thread(0.2):
        while True:
            pass


def test_a_block_that_ends_in_time_is_left_alone_on_such_a_system(interruptible):
    for _ in range(20):
        with from_a_thread(5):
            sum(range(1000))
    time.sleep(0.1)


class Times:
    """A CPU clock and a wall clock that show what a test says."""

    def __init__(self):
        self.cpu = self.wall = 0.0

    def clock(self, seconds, **options):
        return Clock(seconds, cpu=lambda: self.cpu, wall=lambda: self.wall, **options)

    def run(self, cpu, wall):
        self.cpu, self.wall = self.cpu + cpu, self.wall + wall


def test_what_a_busy_machine_gives_to_others_does_not_count():
    times = Times()
    clock = times.clock(20)
    times.run(cpu=15, wall=150)
    assert not clock.is_over()
    times.run(cpu=6, wall=10)
    assert clock.is_over()


def test_who_waits_is_stopped_by_the_time_that_passes():
    times = Times()
    clock = times.clock(20)
    times.run(cpu=0.01, wall=19)
    assert not clock.is_over()
    times.run(cpu=0.01, wall=2)
    assert clock.is_over()


def test_only_the_learners_part_counts_in_full():
    times = Times()
    clock = times.clock(20, counting=False)
    times.run(cpu=25, wall=25)
    with clock.theirs():
        times.run(cpu=15, wall=15)
        assert not clock.is_over()
    times.run(cpu=10, wall=10)
    assert not clock.is_over()
    with clock.theirs():
        times.run(cpu=6, wall=6)
        assert clock.is_over()


def test_a_check_that_never_ends_by_itself_is_stopped_too():
    times = Times()
    clock = times.clock(20, counting=False)
    times.run(cpu=61, wall=61)
    assert clock.is_over()


def test_imports_are_free_and_not_interrupted_but_for_one_that_never_ends():
    times = Times()
    clock = times.clock(20)
    times.run(cpu=30, wall=30)
    assert not clock.is_over(importing=True)
    times.run(cpu=15, wall=15)
    assert not clock.is_over()
    times.run(cpu=0, wall=20 * PATIENCE)
    assert clock.is_over(importing=True)


def test_a_slow_import_inside_an_answer_is_finished_and_not_charged(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "slow_to_load.py").write_text(
        "import time\nend = time.thread_time() + 1\nwhile time.thread_time() < end: pass\nready = True\n"
    )
    try:
        load = "def double(x):\n    import slow_to_load\n    assert slow_to_load.ready\n"
        assert report_on("double", f"{load}    return 2 * x", time_limit=0.4).status == "passed"
        del sys.modules["slow_to_load"]
        assert report_on("double", f"{load}    while True: pass", time_limit=0.4).failures[0].kind == "overtime"
        assert sys.modules["slow_to_load"].ready
    finally:
        sys.modules.pop("slow_to_load", None)


def test_the_first_use_of_a_device_is_not_charged():
    """In a process of its own, as it is slow once only."""
    script = (
        "import torch\nfrom utils.course.containment import limited_time\n"
        "with limited_time(0.3):\n    mask = torch.ones(3, 3, device='meta').triu()\nprint(mask.device)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "meta", done.stderr


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


def test_the_global_state_does_not_draw_what_the_generator_of_a_check_draws():
    """Else who takes no notice of a generator that is handed in is right by chance."""
    for seed in (0, 7, 2**31, 2**40 + 3):
        with own_state(seed):
            drawn = torch.rand(5)
        assert not torch.equal(drawn, torch.rand(5, generator=torch.Generator().manual_seed(seed)))


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


PLAIN = "def double(x):\n    return 2 * x"


@pytest.mark.parametrize(
    "changed",
    [
        lambda: torch.inference_mode(),
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        lambda: torch.device("meta"),
        lambda: default(torch.set_default_dtype, torch.float64, torch.float32),
        lambda: default(torch.set_default_device, "meta", None),
    ],
)
@pytest.mark.parametrize("name", ["double", "Scale"])
def test_a_check_works_whatever_the_notebook_has_set_and_leaves_it_so(changed, name):
    def settings():
        modes = torch.is_inference_mode_enabled(), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")
        return *modes, torch.get_default_dtype(), torch.get_default_device()

    with changed():
        before = settings()
        report = run_checks(find_exercise(name), find_exercise(name).reference)
        assert settings() == before
    assert report.status == "passed", feedback.as_text(report)


@contextlib.contextmanager
def default(set_it, value, usual):
    set_it(value)
    try:
        yield
    finally:
        set_it(usual)


def test_one_thread_while_a_check_runs():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        report = report_on("double", "def double(x):\n    print('threads', torch.get_num_threads())\n    return 2 * x")
        assert set(report.output.splitlines()) == {"threads 1"}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    "line",
    [
        "import sys; sys.exit(0)",
        "raise KeyboardInterrupt",
        "raise GeneratorExit",
        "raise Silent",
        "return 10 ** 5000",
        "return Secret()",
        "return {'a': Secret()}",
        "return Quitter()",
        "return [10 ** 5000]",
        "return (lambda a: a.append(a) or a)([])",
    ],
)
def test_an_odd_answer_is_one_failure_and_the_rest_is_checked(line):
    helpers = (
        "class Silent(Exception):\n    def __str__(self): raise ValueError\n"
        "class Secret:\n    def __repr__(self): raise ValueError\n    def __eq__(self, other): raise ValueError\n"
        "class Quitter(dict):\n    def __repr__(self): raise SystemExit(0)\n    def items(self): raise SystemExit(0)\n"
    )
    source = f"{helpers}def double(x):\n    if x.dim() == 1: return 2 * x\n    {line}"
    report = report_on("double", source)
    assert (report.status, len(report.failures)) == ("failed", 1)
    assert feedback.as_text(report) and feedback.as_html(report)


def test_an_odd_answer_is_compared_with_the_catalogue_and_breaks_nothing(course):
    answers = """
        class Odd:
            def __eq__(self, other): raise ValueError

        @wrong("double", "Odd.")
        def odd(x): return Odd()
    """
    rewrite(course, "def test_it(self, answer):\n    expect_close(answer(1), 2)", answers)
    from utils.course.catalogue import wrong_answers

    entry = wrong_answers(find_exercise("double"))[0]
    assert run_checks(find_exercise("double"), entry.obj).status == "failed"


def test_a_person_who_presses_ctrl_c_stops_the_check(interruptible):
    source = "import os, signal\ndef double(x):\n    os.kill(os.getpid(), signal.SIGINT)\n    return 2 * x"
    with pytest.raises(KeyboardInterrupt):
        report_on("double", source)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_where_interrupts_are_ignored_they_stay_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with noted_interrupts():
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


CURVE = """
    def test_curve(self, answer, reference):
        expect_close([answer(x) for x in range(6)], [reference(x) for x in range(6)])
"""


def test_the_failing_call_is_shown_and_not_the_last(course):
    rewrite(course, CURVE)
    failure = report_on("double", "def double(x):\n    return 0 if x == 2 else 2 * x").failures[0]
    assert failure.call.text == "double(x=2)" and failure.sure
    assert (failure.returned, failure.expected) == ("entry 2: 0", "entry 2: 4")


def test_a_row_of_a_result_and_a_part_of_it_tell_their_call(course):
    rewrite(
        course,
        """
        def test_it(self, answer):
            first, second = answer(torch.tensor([[1, 1, 1]])), answer(torch.tensor([[0, 0, 0]]))
            expect_close(second["y"], torch.tensor([[0, 0, 0]]))
            expect_close(first["y"][0].detach(), torch.tensor([2, 2, 2]))
        """,
    )
    failure = report_on("double", "def double(x):\n    return {'y': 3 * x}").failures[0]
    assert failure.call.text == "double(x=[[1, 1, 1]] (int64))"
    assert failure.sure and failure.is_result


def test_where_the_failing_call_cannot_be_told_that_is_said(course):
    rewrite(
        course,
        """
        def test_it(self, answer):
            total = sum(answer(x) for x in range(4))
            expect(total == 12, "The sum should be 12.", actual=total)
        """,
    )
    report = report_on("double", "def double(x):\n    return x + 0.5")
    text = feedback.as_text(report)
    assert "double(x=3)   (the last of 4 calls; seed" in text
    assert re.search(r"^  found +8\.0$", text, re.MULTILINE) and "  returned" not in text


TWO_ASSERTIONS = """
    def test_it(self, answer):
        expect(answer(1) == 2, "One.", actual="wrong")
        expect(answer(2) == 4, "Two.", actual="wrong")
"""
TWO_ANSWERS = """
    @wrong("double", "You forget one.")
    def forgets_one(x): return 2 * x * (x != 1)

    @wrong("double", "You forget two.")
    def forgets_two(x): return 2 * x * (x != 2)
"""


@pytest.mark.parametrize(("missing", "told"), [(1, "You forget one."), (2, "You forget two.")])
def test_two_assertions_with_the_same_value_are_told_apart(course, missing, told):
    rewrite(course, TWO_ASSERTIONS, TWO_ANSWERS)
    report = report_on("double", f"def double(x):\n    return 7 if x == {missing} else 2 * x")
    assert report.diagnosis.sentence == told


def test_the_same_assertion_at_another_call_is_another_mistake(course):
    loop = """
        def test_it(self, answer):
            for x in (1, 2):
                expect(answer(x) == 2 * x, "Wrong.", actual="wrong")
    """
    rewrite(course, loop, TWO_ANSWERS)
    report = report_on("double", "def double(x):\n    return 7 if x == 2 else 2 * x")
    assert report.diagnosis.sentence == "You forget two."


CUT = """
    @wrong("double", "You cut a.")
    def cut_a(a, b): return a.detach() * b

    @wrong("double", "You cut b.")
    def cut_b(a, b): return a * b.detach()

    @wrong("double", "You cut everything.")
    def cut_both(a, b): return (a * b).detach()
"""


@pytest.mark.parametrize(
    ("body", "told"), [("a.data * b", "a"), ("a * b.data", "b"), ("a.data * b.data", "everything")]
)
def test_which_gradient_is_cut_makes_a_difference(course, body, told):
    checks = """
        def test_it(self, answer, rng):
            a, b = torch.randn(2, 3, generator=rng)
            expect_same_gradients(lambda *args: answer(*args), lambda *args: args[0] * args[1], a, b, rng=rng)
    """
    rewrite(course, checks, CUT)
    report = report_on("double", f"def double(a, b):\n    return {body}")
    assert report.diagnosis.sentence == f"You cut {told}."
    assert "No gradient reaches `x`" in report.failures[0].note or told == "b"  # the reference calls its argument x


def test_a_message_with_the_functions_own_name_in_it_is_still_compared(course):
    answers = """
        @wrong("double", "You take no arguments.")
        def without(): return 1
    """
    rewrite(course, "def test_it(self, answer):\n    expect_close(answer(1), 2)", answers)
    assert report_on("double", "def double():\n    return 3").diagnosis.sentence == "You take no arguments."


def test_numbers_of_numpy_and_of_tensors_count_as_numbers_in_lists_too(course):
    rewrite(course, CURVE)
    for number in ("np.float64(2 * x)", "torch.tensor(2 * x)", "np.int64(2 * x)", "np.array(2 * x)"):
        report = report_on("double", f"import numpy as np\ndef double(x):\n    return {number}")
        assert report.status == "passed", feedback.as_text(report)


@pytest.mark.parametrize("wrong", ["np.float64(3.0 * x)", "np.float32(3.0 * x)", "3.0 * x"])
def test_numbers_of_numpy_are_told_what_plain_ones_are(course, wrong):
    answers = """
        @wrong("double", "You triple.")
        def triple(x): return 3.0 * x
    """
    rewrite(course, "def test_it(self, answer):\n    expect_close(answer(1.1), 2.2)", answers)
    report = report_on("double", f"import numpy as np\ndef double(x):\n    return {wrong}")
    assert report.diagnosis and report.diagnosis.sentence == "You triple."


def test_frames_of_the_course_are_left_out_of_a_traceback():
    source = "from utils.plots import heatmap\ndef double(x):\n    return heatmap('no values')"
    trace = report_on("double", source).failures[0].trace
    assert "in double" in trace and "plots.py" not in trace


def test_a_check_that_raises_inside_the_answer_tells_its_own_sentence(course):
    checks = """
        def test_it(self, answer):
            def model(x):
                expect(x != 3, "The model was called with 3.", actual=x)
                return x
            answer(model)
    """
    rewrite(course, checks)
    failure = report_on("double", "def double(model):\n    return model(3)").failures[0]
    assert (failure.kind, failure.note) == ("mismatch", "The model was called with 3.")


def test_words_of_a_check_that_are_the_same_for_both_are_not_shown(course):
    checks = """
        def test_it(self, answer):
            result = answer(1)
            expect(isinstance(result, tuple), "A tuple.", actual=result, returned="two ints", expected="two ints")
    """
    rewrite(course, checks)
    found = dict(feedback.rows(report_on("double", "def double(x):\n    return [1, 2]")))
    assert (found["returned"], found["because"]) == ("[1, 2]", "A tuple.") and "expected" not in found


@pytest.mark.parametrize("name", ["x", "values"])
def test_what_a_learner_calls_an_argument_of_a_module_makes_no_difference(course, name):
    entry = """
        @wrong("Scale", "You change the input.")
        class Changes(mini_references.Scale):
            def forward(self, x):
                x *= self.w
                return x + self.b
    """
    path = course / "tests" / "01_mini" / "answers_mini.py"
    path.write_text(f"{path.read_text()}\n\n{textwrap.dedent(entry)}")
    source = (
        "class Scale(nn.Module):\n    def __init__(self, size):\n        super().__init__()\n"
        "        self.w = nn.Parameter(torch.ones(size))\n        self.b = nn.Parameter(torch.zeros(size))\n"
        f"    def forward(self, {name}):\n        {name} *= self.w\n        return {name} + self.b"
    )
    report = report_on("Scale", source)
    assert "changed its input `x` in place" in report.failures[0].note  # as the reference calls it
    assert report.diagnosis.sentence == "You change the input."


@pytest.mark.parametrize(("body", "told"), [("x.detach() * 2", "rest"), ("x.detach() * 3", None)])
def test_a_sentence_that_calls_the_rest_right_is_for_answers_whose_rest_is(course, body, told):
    checks = """
        def test_values(self, answer):
            expect_close(answer(torch.ones(2)).detach(), 2 * torch.ones(2))

        def test_graph(self, answer):
            x = torch.ones(2, requires_grad=True)
            expect(answer(x).requires_grad, "No graph.", actual="no graph")
    """
    answers = """
        @wrong("double", "Your values are right, but they are cut off from x.")
        def rest(x): return 2 * x.detach()
    """
    rewrite(course, checks, answers)
    diagnosis = report_on("double", f"def double(x):\n    return {body}").diagnosis
    assert (diagnosis and diagnosis.name) == told
