"""The README and docs say what the course is: its parts, its claims, its files, and how it is started."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from matplotlib.image import imread

from utils.course.manifest import chapters, parts

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CLAIMS = (ROOT / "docs" / "CLAIMS.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CLAIMS_HEAD = "| claim | our number | measured on | where |"


def counted(number, thing):
    return f"{number} {thing}{'s' * (number != 1)}" if number else ""


def part_row(part):
    cases = sum(exercise.case for exercise in part.exercises)
    work = (len(part.exercises) - cases, "exercise"), (cases, "case"), (len(part.questions), "question")
    what = ", ".join(filter(None, (counted(*item) for item in work)))
    core = part.core_minutes if part.core else ""
    return f"| {part.title} | {what} | {part.minutes} | {core} |"


def parts_table():
    """The README's table of parts, as the manifest has it."""
    head = ["| part | what you do | minutes | core path |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *map(part_row, parts())])


def test_the_readme_lists_the_parts_as_they_are():
    assert parts_table() in README, f"the README's table should be\n{parts_table()}"


def test_the_readme_gives_the_hours_that_the_parts_add_up_to():
    hours = round(sum(part.minutes for part in parts()) / 60)
    assert f"**How long it takes.** About {hours} hours" in README


def test_the_readme_counts_the_chapters():
    words = ("ten", "eleven", "twelve")
    assert f"The course has {words[len(chapters()) - 10]} chapters." in README


def claims(text):
    """The rows of a table of claims."""
    rows = text.split(CLAIMS_HEAD)[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def test_the_readme_s_claims_are_rows_of_the_whole_table():
    assert len(claims(README)) == 8
    for row in claims(README):
        assert row in claims(CLAIMS)


@pytest.mark.parametrize("row", claims(CLAIMS), ids=lambda row: row[0][:40])
def test_a_claim_names_its_model_its_part_and_its_test(row):
    claim, number, model, where = row
    assert claim and number and model
    place, test = re.fullmatch(r"(.+), `(test_\w+\.py)`", where).groups()
    assert list((ROOT / "tests").glob(f"*/{test}"))
    known = {part.key for part in parts()} | {"card", "grading"}
    assert set(place.split(" and ")) <= known


@pytest.mark.parametrize("path", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))])
def test_links_to_files_lead_somewhere(path):
    text = (ROOT / path).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)\)", text):
        if "://" not in target:
            assert ((ROOT / path).parent / target).exists(), target


def test_the_picture_is_small_and_has_words():
    alt, path = re.search(r"!\[([^\]]+)\]\(([^)]+)\)", README).groups()
    assert len(alt) > 100 and (ROOT / path).stat().st_size < 150_000
    assert imread(ROOT / path).shape[1] <= 1200


def test_the_citation_agrees_with_the_project():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation.keys() >= {"cff-version", "message", "title", "authors"}
    assert (str(citation["version"]), citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert citation["authors"] == PROJECT["authors"]


def would_run(**variables):
    """The commands of `make lab`, not run."""
    command = ["make", "--dry-run", "--old-file=env", "lab"]
    return subprocess.run(command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True).stdout


@pytest.mark.skipif(os.name == "nt", reason="there is no make")
def test_make_lab_opens_the_learner_s_own_notebooks_with_mi_in_reach():
    said = would_run()
    assert said.index("mi work") < said.index("jupyter lab")
    assert f'PATH="{ROOT}/.venv/bin:$PATH"' in said
    assert "default_url=/lab/tree/work/00_start_here/00_start_here.ipynb" in said
    assert ("--allow-root" in said) == (os.getuid() == 0)
