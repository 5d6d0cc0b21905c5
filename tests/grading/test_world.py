"""The walls around a worker: as root and as an ordinary user, and on machines that lack what some of them need."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from utils.course.paths import load_file
from utils.grading import world

HERE = Path(__file__).parent
reach = load_file(HERE / "reach.py")

# Runs a program where the kernel refuses these system calls: as in a container, or on a kernel that is older.
WITHOUT = """
import ctypes, os, struct, sys
step = lambda code, value, yes=0, no=0: struct.pack("HBBI", code, yes, no, value)
steps = [step(0x20, 0)]
for number in map(int, filter(None, sys.argv[1].split(","))):
    steps += [step(0x15, number, 0, 1), step(0x06, 0x00050000 | 1)]
program = ctypes.create_string_buffer(b"".join([*steps, step(0x06, 0x7FFF0000)]))
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Filter(len(steps) + 1, ctypes.addressof(program)))) == 0
os.execv(sys.argv[2], sys.argv[2:])
"""
NAMESPACES, LANDLOCK = "272", "444"
ROOT, NOBODY = 0, 65534
# Where Python lies in a folder of root's, it is shown to the other user in a view of the file system for this program.
AS_NOBODY = """
set -e
mount --make-rprivate /
if [ "$4" = masked ]; then mount --bind /dev/null /proc/interrupts; fi
if ! setpriv --reuid 65534 --clear-groups test -x "$1"; then
    mkdir "$2/python" && mount --rbind "$3" "$2/python" && mount -t tmpfs -o mode=755 none "/$(echo "$3" | cut -d/ -f2)"
    mkdir -p "$3" && mount --move "$2/python" "$3"
fi
shift 4
exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"
"""

slow = pytest.mark.slow
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="left out: the walls are made of Linux")


@pytest.fixture
def reached(tmp_path):
    """What a worker reached, by attempt: "None" for what it did, else how it was stopped."""
    place = Path(tempfile.mkdtemp(prefix="mi-reach-"))

    def run(walls, user=ROOT, refused="", proc=""):
        if os.geteuid() != ROOT and user == ROOT:
            pytest.skip("left out: this is run by an ordinary user")
        command = [sys.executable, "-c", WITHOUT, refused, sys.executable, HERE / "reach.py", walls, place / "files"]
        (place / "files").mkdir()
        if user != os.geteuid():
            os.chmod(place, 0o755)  # noqa: S103
            os.chown(place / "files", user, user)
            arguments = [sys.executable, place, sys.base_prefix, proc]
            command = ["unshare", "--mount", "sh", "-c", AS_NOBODY, "sh", *arguments, *command]
        environment = os.environ | {"PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1", "HOME": str(place)}
        done = subprocess.run(
            list(map(str, command)), env=environment, cwd=HERE.parents[1], text=True, capture_output=True, timeout=500
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    yield run
    shutil.rmtree(place)


def got_through(found, wanted=reach.ATTEMPTS):
    return [name for name in wanted if found[name] is None]


def test_without_walls_every_attempt_succeeds(reached):
    """So none of the others is stopped by something else."""
    found = reached("none")
    assert {name: how for name, how in found.items() if how is not None and name in reach.ATTEMPTS} == {}


@pytest.mark.parametrize("user", [ROOT, pytest.param(NOBODY, marks=slow)])
@pytest.mark.parametrize("walls", ["own world", "in place"])
def test_what_is_out_of_reach(reached, walls, user):
    found = reached(walls, user)
    if walls == "own world" and "unprotected" in found:
        pytest.skip(f"left out: {found['unprotected']}")
    if not world.landlock():
        pytest.skip("left out: this kernel has no Landlock")
    assert got_through(found) == []
    assert got_through(found, reach.ALLOWED) == list(reach.ALLOWED), found
    assert ("off: namespaces" in found["protections"]) == (walls == "in place")


@slow
@pytest.mark.parametrize("user", [ROOT, NOBODY])
def test_where_namespaces_are_refused_nothing_is_graded_unless_one_insists(reached, user):
    found = reached("own world", user, refused=NAMESPACES)
    assert "does not offer a file system, processes and a network of its own" in found["unprotected"]
    assert "--unsafe" in found["unprotected"]


@slow
def test_whoever_insists_is_left_with_the_walls_that_there_are(reached):
    found = reached("unsafe", refused=NAMESPACES)
    assert found["protections"] == "protected by Landlock, seccomp, resource limits; off: namespaces"
    assert got_through(found) == []


@slow
def test_a_container_that_hides_parts_of_proc_lacks_a_protection_and_it_is_named(reached):
    """As Docker does by default: the kernel then refuses a view of processes to those inside."""
    found = reached("own world", NOBODY, proc="masked")
    assert "does not offer a read-only file system of its own" in found["unprotected"]


@slow
def test_without_landlock_its_absence_is_named_and_the_first_wall_stands(reached):
    found = reached("own world", refused=LANDLOCK)
    if "unprotected" in found:
        pytest.skip(f"left out: {found['unprotected']}")
    assert found["protections"].endswith("; off: Landlock")
    assert got_through(found) == ["listing the root"]  # of a world that holds nothing else


@slow
def test_without_either_files_are_open_and_it_is_said(reached):
    found = reached("in place", refused=f"{NAMESPACES},{LANDLOCK}")
    assert found["protections"].endswith("; off: namespaces; off: Landlock")
    assert "reading a file" in got_through(found) and "a socket" not in got_through(found)
