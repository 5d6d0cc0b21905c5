"""`mi doctor`: each finding on machines that have it, and on machines that do not."""

import time

import pytest

from utils.course import doctor, runner
from utils.course.cli import main
from utils.course.doctor import Finding
from utils.course.manifest import exercises
from utils.course.runner import run_checks

GIGA = 10**9


@pytest.mark.parametrize(
    ("version", "status"), [((3, 10, 2), "mend"), ((3, 11, 0), "fine"), ((3, 13, 1), "fine"), ((3, 15, 0), "mend")]
)
def test_python(version, status):
    found = doctor.python(version)
    assert found.status == status and ("3.11 or newer" in found.text) == (status == "mend")


def test_packages():
    wanted = {"torch": "2.13.0", "numpy": "2.4.1", "einops": "0.8.1"}
    assert doctor.packages(wanted, {**wanted, "torch": "2.13.0+cpu"}.get).status == "fine"
    older = doctor.packages(wanted, {**wanted, "numpy": "1.26.0"}.get)
    assert older.status == "look" and "numpy 1.26.0 is not in the version" in older.text
    missing = doctor.packages(wanted, {"numpy": "1.26.0"}.get)
    assert missing.status == "mend" and missing.text.startswith("torch, einops are not installed: `make lab`")
    assert doctor.packages({c: "1" for c in "abcde"}, {}.get).text.startswith("a, b, c and 2 more are")


def test_the_tested_versions_are_those_of_this_machine():
    wanted = doctor.tested()
    assert {"torch", "jupyterlab", "transformer-lens"} <= {name.replace("_", "-").lower() for name in wanted}
    assert doctor.packages(wanted, doctor.installed).status == "fine"
    assert doctor.installed("no-such-package-as-this") is None


@pytest.mark.parametrize(("free", "status"), [(0.4, "mend"), (1.2, "fine")])
def test_disk(free, status):
    found = doctor.disk(int(free * GIGA))
    assert found.status == status and f"{free} GB" in found.text


@pytest.mark.parametrize(("total", "free", "status"), [(2, 1.5, "mend"), (8, 1.5, "look"), (8, 5, "fine")])
def test_memory(total, free, status):
    assert doctor.working_memory(int(total * GIGA), int(free * GIGA)).status == status


def test_clock():
    made = time.mktime((2026, 5, 1, 12, 0, 0, 0, 0, -1))
    assert doctor.clock(made + 60, made).status == "fine"
    early = doctor.clock(0.0, made)
    assert early.status == "mend" and "set it" in early.text


def test_proxy():
    assert doctor.proxy({}, False) == Finding("fine", "no proxy")
    through = doctor.proxy({"https": "http://ada:secret@proxy.example:3128"}, True)
    assert through.status == "fine" and "proxy.example:3128" in through.text and "secret" not in through.text
    assert doctor.proxy({"http": "proxy.example:3128"}, True).text.startswith("the proxy proxy.example:3128")
    assert "NO_PROXY=localhost" in doctor.proxy({"all": "http://proxy.example"}, False).text


def test_what_does_not_work_is_said_with_its_reason():
    def fails():
        raise RuntimeError("Kernel died\nbefore replying")

    found = doctor.attempt("The Jupyter kernel starts", fails, "Mend it.")
    assert found == Finding("mend", "The Jupyter kernel starts: no (RuntimeError: before replying). Mend it.")
    assert doctor.attempt("A check runs", lambda: None, "Mend it.") == Finding("fine", "a check runs")


def test_a_check_is_run_and_its_verdict_counts(monkeypatch):
    exercise = exercises()["row_means"]
    doctor.run_a_check(exercise)
    monkeypatch.setattr(runner, "run_checks", lambda exercise, answer: run_checks(exercise, lambda x: x))
    found = doctor.attempt("A check runs", lambda: doctor.run_a_check(exercise), "")
    assert found.status == "mend" and "✗ row_means" in found.text


@pytest.mark.parametrize(
    ("statuses", "code", "verdict"),
    [
        (["fine", "look"], 0, "This machine is ready."),
        (["mend", "fine"], 1, "1 of these has to be mended."),
        (["mend", "mend"], 1, "2 of these have to be mended."),
    ],
)
def test_the_command_ends_with_a_verdict(monkeypatch, capsys, statuses, code, verdict):
    monkeypatch.setattr(doctor, "diagnose", lambda: iter([Finding(status, "text") for status in statuses]))
    assert main(["doctor"]) == code
    assert capsys.readouterr().out.splitlines()[-1] == verdict


def test_without_the_packages_nothing_else_is_tried(monkeypatch):
    monkeypatch.setattr(doctor, "installed", lambda name: None)
    assert [finding.status for finding in doctor.diagnose()] == ["fine", "mend"]


@pytest.mark.slow
def test_this_machine_is_fit():
    """The whole of it, a kernel started."""
    assert {finding.status for finding in doctor.diagnose()} <= {"fine", "look"}
