"""The course model and the figures that stand in its card, for the tests that measure it again."""

import json
import os
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from utils.models.bundled import BUNDLED
from utils.models.catalogue import load_model

# A folder that `mi train course-model` wrote, to test it before it is shipped.
FOLDER = Path(os.environ.get("MI_COURSE_MODEL", BUNDLED / "course-model"))


@pytest.fixture(scope="session")
def course_model():
    return load_model(FOLDER)


@pytest.fixture(scope="session")
def measured():
    """What was measured when the model was shipped, by phenomenon."""
    return json.loads((FOLDER / "measured.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def measure_again(course_model):
    """``measure_again("ioi")`` measures a phenomenon on the shipped model, once for all tests that ask."""
    return cache(lambda name: import_module(f"utils.models.phenomena.{name}").measure(course_model))


@pytest.fixture(scope="session")
def expect_agreement():
    """Compares nested measurements: words exactly, numbers within what another machine's rounding may change."""

    def compare(again, before, where=""):
        if isinstance(before, dict):
            assert set(again) == set(before), where
            for name in before:
                compare(again[name], before[name], f"{where} / {name}")
        elif isinstance(before, float | int):
            assert again == pytest.approx(before, abs=0.02, rel=0.03), where
        else:
            assert again == before, where

    return compare
