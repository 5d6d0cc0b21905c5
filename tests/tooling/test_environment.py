"""pyproject.toml, constraints.txt, environment.yml, bootstrap.py and what is installed say the same."""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
import yaml
from nbclient import NotebookClient
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CORE = [Requirement(text) for text in PROJECT["dependencies"]]
CLUSTER = [Requirement(text) for text in PROJECT["optional-dependencies"]["cluster"]]  # of one module of ``utils``
EXTRAS = [Requirement(text) for extra in PROJECT["optional-dependencies"].values() for text in extra]
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8")
PINS = {
    canonicalize_name(name): Version(version)
    for name, version in re.findall(r"^([^#\s=]+)==(\S+)$", CONSTRAINTS, re.MULTILINE)
}


def needed_here():
    """Names of the course's dependencies on this machine, and theirs, down to the last."""
    needed, waiting = set(), [*CORE, *EXTRAS]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in requirement.extras | {""}:
            if (name, extra) in needed:
                continue
            needed.add((name, extra))
            for text in installed_requires(name):
                child = Requirement(text)
                if child.marker is None or child.marker.evaluate({"extra": extra}):
                    child.marker = None
                    waiting.append(child)
    return {name for name, _ in needed}


def installed_requires(name):
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:  # an extra that is not installed here
        return []


def imports(folder):
    """The installed distributions that the Python files of a folder import, with one file each."""
    providers = metadata.packages_distributions()
    found = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            for name in names:
                for distribution in providers.get(name.split(".")[0], []):
                    found[canonicalize_name(distribution)] = str(path.relative_to(ROOT))
    found.pop(canonicalize_name(PROJECT["name"]), None)
    return found


def test_constraints_are_exact_pins_and_nothing_else():
    lines = [line for line in CONSTRAINTS.splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    assert len(lines) == len(PINS)


@pytest.mark.parametrize("requirement", CORE + EXTRAS, ids=str)
def test_every_direct_dependency_is_pinned_within_its_limits(requirement):
    assert PINS[canonicalize_name(requirement.name)] in requirement.specifier


def test_every_indirect_dependency_is_pinned():
    assert sorted(needed_here() - set(PINS)) == []


def test_what_is_installed_is_what_is_pinned():
    differing = []
    for name in sorted(needed_here() & set(PINS)):
        try:
            version = Version(metadata.version(name))
        except metadata.PackageNotFoundError:
            continue
        if Version(version.public) != PINS[name]:
            differing.append(f"{name}: {version} is installed, constraints.txt has {PINS[name]}")
    assert differing == [], "the remedy: delete .venv/installed.txt and run `python3 bootstrap.py`"


def test_nothing_brings_torchvision():
    """Beside the CPU build of torch it breaks `transformers`."""
    assert "torchvision" not in PINS.keys() | needed_here()
    assert importlib.util.find_spec("torchvision") is None


@pytest.mark.parametrize("folder, declared", [("utils", CORE + CLUSTER), ("tests", CORE + EXTRAS)])
def test_every_import_is_a_declared_dependency(folder, declared):
    names = {canonicalize_name(requirement.name) for requirement in declared}
    assert {name: path for name, path in imports(folder).items() if name not in names} == {}


def test_conda_gets_the_same_environment():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, pip, packages = environment["dependencies"]
    assert environment["name"] == PROJECT["name"]
    assert Version(python.removeprefix("python=")) in SpecifierSet(PROJECT["requires-python"])
    assert pip == "pip"
    assert packages == {"pip": ["--constraint constraints.txt", "--editable .[test]"]}


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt", "environment.yml", "bootstrap.py"])
def test_no_package_index_is_named(name):
    assert "://" not in (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture
def bootstrap(tmp_path):
    """The module bootstrap.py, in a folder of its own."""
    for name in ("bootstrap.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    spec = importlib.util.spec_from_file_location("bootstrap", tmp_path / "bootstrap.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.VENV.mkdir()
    return module


def test_bootstrap_accepts_the_versions_of_python_that_the_project_does(bootstrap):
    limits = f">={bootstrap.dotted(bootstrap.OLDEST)},<{bootstrap.dotted(bootstrap.TOO_NEW)}"
    assert SpecifierSet(limits) == SpecifierSet(PROJECT["requires-python"])


def test_an_old_python_can_read_bootstrap():
    ast.parse((ROOT / "bootstrap.py").read_text(encoding="utf-8"), feature_version=(3, 6))


@pytest.mark.parametrize("version", [(3, 6, 15), (3, 10, 13), (3, 15, 0)])
def test_a_python_that_will_not_do_is_named(bootstrap, monkeypatch, capsys, version):
    monkeypatch.setattr(sys, "version_info", version)
    monkeypatch.setattr(bootstrap, "other_python", lambda: None)
    assert bootstrap.main() == 1
    said = capsys.readouterr().err
    assert f"This is Python {bootstrap.dotted(version)}" in said
    assert "needs Python 3.11 or newer" in said and "Install one" in said


def test_a_missing_venv_module_is_named_with_the_package_that_has_it(bootstrap):
    with pytest.raises(bootstrap.Stop, match=r"(?s)ensurepip is missing.*sudo apt install python3\.\d+-venv"):
        bootstrap.check_modules(find=lambda name: None if name == "ensurepip" else "a spec")


@pytest.mark.parametrize(
    "gigabytes, cuda, way_out",
    [(1, False, "Free some space"), (1, True, "Free some space"), (5, True, "PIP_EXTRA_INDEX_URL")],
)
def test_a_full_disk_is_told_before_anything_is_installed(bootstrap, gigabytes, cuda, way_out):
    with pytest.raises(bootstrap.Stop, match=rf"(?s)Too little disk space: {gigabytes}\.0 GB.*{way_out}"):
        bootstrap.check_disk(gigabytes * 10**9, cuda)


@pytest.mark.parametrize("gigabytes, cuda", [(5, False), (20, True)])
def test_enough_disk_is_enough(bootstrap, gigabytes, cuda):
    bootstrap.check_disk(gigabytes * 10**9, cuda)


@pytest.mark.skipif(sys.platform != "linux", reason="only the builds for Linux bring CUDA")
def test_pip_pointed_to_another_index_is_trusted_not_to_bring_cuda(bootstrap, monkeypatch):
    monkeypatch.setattr(bootstrap, "PYTHON", Path(sys.executable))
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    assert bootstrap.takes_cuda()
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "file:///wheels")
    assert not bootstrap.takes_cuda()


@pytest.mark.parametrize(
    "pip_said, meaning",
    [
        ("WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError", "not be reached"),
        ("pip._vendor.urllib3.exceptions.ReadTimeoutError: Read timed out.", "not be reached"),
        ("ERROR: Could not install packages due to an OSError: No space left on device", "disk is full"),
        ("ERROR: No matching distribution found for torch==9", "does not find a package"),
        ("ERROR: ResolutionImpossible: for help visit", "does not find a package"),
        ("  error: subprocess-exited-with-error", "could not install"),
    ],
)
def test_a_failed_install_is_summarised(bootstrap, pip_said, meaning):
    summary = bootstrap.explain(f"Collecting torch\n{pip_said}\n")
    assert meaning in summary
    assert "Run the same command again" in summary and "install.log" in summary


@pytest.mark.parametrize(
    "pip_said, doing",
    [
        ("", "looking up packages"),
        ("  Downloading torch-2.13.0-cp311-cp311-x.whl (526.6 MB)", "downloading torch (526.6 MB)"),
        ("  Using cached a/numpy-2.4.6-cp311.whl.metadata (6.5 kB)", "using cached numpy (6.5 kB)"),
        ("WARNING: Retrying (Retry(total=4)) after", "the network does not answer, trying again"),
        ("Installing collected packages: a, b", "unpacking"),
    ],
)
def test_progress_says_what_pip_is_doing(bootstrap, pip_said, doing):
    assert bootstrap.activity(pip_said) == doing


def test_an_up_to_date_environment_is_left_alone(bootstrap, monkeypatch):
    calls = []
    monkeypatch.setattr(bootstrap, "usable", lambda: True)
    monkeypatch.setattr(bootstrap, "install", lambda: calls.append("install"))
    bootstrap.STAMP.write_text(bootstrap.fingerprint(), encoding="utf-8")
    assert bootstrap.main() == 0 and calls == []
    (bootstrap.ROOT / "constraints.txt").write_text("numpy==1.0\n", encoding="utf-8")
    assert bootstrap.main() == 0 and calls == ["install"]


@pytest.mark.parametrize("stamp, remade", [(None, False), ("{root}\nolder\n", False), ("/elsewhere\nx\n", True)])
def test_an_environment_is_updated_in_place_but_made_again_where_it_was_moved(bootstrap, monkeypatch, stamp, remade):
    calls = []
    monkeypatch.setattr(bootstrap, "usable", lambda: True)
    monkeypatch.setattr(bootstrap, "takes_cuda", lambda: False)
    monkeypatch.setattr(bootstrap, "check_disk", lambda free, cuda: None)
    monkeypatch.setattr(bootstrap, "make_venv", lambda: calls.append("venv"))
    monkeypatch.setattr(bootstrap, "pip_install", lambda what, *packages: calls.append(packages))
    if stamp:
        bootstrap.STAMP.write_text(stamp.format(root=bootstrap.ROOT), encoding="utf-8")
    bootstrap.install()
    pins = [(f"torch=={PINS['torch']}",), ("--editable", ".[test]")]
    assert calls == (["venv"] if remade else []) + pins
    assert bootstrap.STAMP.read_text(encoding="utf-8") == bootstrap.fingerprint()
    assert bootstrap.KERNEL.read_text(encoding="utf-8") == bootstrap.KERNEL_SETTINGS


@pytest.fixture
def shadows(tmp_path):
    """A folder with files called like the course's package and like packages it uses, and a file of the learner's."""
    folder = tmp_path / "a learner's files"
    folder.mkdir()
    for name in ("utils", "einops", "nbformat", "mine"):
        (folder / f"{name}.py").write_text(f"TEXT = '{name}'\n")
    return folder


IMPORTS = """
from utils.course.paths import ROOT
import einops, nbformat, mine
print(einops.rearrange.__name__, nbformat.v4.nbformat, mine.TEXT)
"""


def test_packages_come_before_files_of_the_same_name_on_the_python_path(shadows):
    code = (
        f"import sys; sys.path.append({str(ROOT)!r}); import mechinterp_course as m; m.own_packages_first()\n{IMPORTS}"
    )
    command, environment = [sys.executable, "-c", code], os.environ | {"PYTHONPATH": str(shadows)}
    ran = subprocess.run(command, env=environment, cwd=shadows.parent, capture_output=True, text=True)
    assert ran.stdout.split() == ["rearrange", "4", "mine"], ran.stderr
    assert subprocess.run([sys.executable, "-c", IMPORTS], env=environment, capture_output=True).returncode == 1


def test_packages_come_before_files_of_the_same_name_beside_a_notebook(bootstrap, shadows, tmp_path, monkeypatch):
    profile = tmp_path / "ipython" / "profile_default"
    profile.mkdir(parents=True)
    (profile / bootstrap.KERNEL.name).write_text(bootstrap.KERNEL_SETTINGS, encoding="utf-8")
    monkeypatch.setenv("IPYTHONDIR", str(profile.parent))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(IMPORTS)])
    NotebookClient(notebook, kernel_name="python3", timeout=60, resources={"metadata": {"path": shadows}}).execute()
    assert notebook.cells[0].outputs[-1].text.split() == ["rearrange", "4", "mine"]


def test_the_command_line_puts_the_course_s_packages_first():
    assert PROJECT["scripts"] == {"mi": "mechinterp_course:main"}


def test_what_pip_was_installing_when_it_was_stopped_is_installed_again(bootstrap):
    packages = bootstrap.VENV / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    for name in ("whole-1.0.dist-info", "half-1.0.dist-info"):
        (packages / name).mkdir(parents=True)
        (packages / name / "METADATA").touch()
    (packages / "whole-1.0.dist-info" / "INSTALLER").touch()
    bootstrap.drop_half_installed()
    assert [path.name for path in packages.iterdir()] == ["whole-1.0.dist-info"]
