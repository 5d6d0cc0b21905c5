"""Shuts a process in, with what the Linux kernel offers: the standard library alone, nothing to install.

``enter`` builds a world of its own for the zygote: no network, and a read-only file system that holds Python, its
libraries and the view of the course, and nothing else. ``shut_in`` does the rest in each worker: processes, scratch
space and identity of its own, no privileges, limits on what it may use, and no system calls that it has no need for.
"""

import contextlib
import ctypes
import errno
import os
import platform
import resource
import signal
import socket
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

MB = 2**20
MEMORY = 4096 * MB  # address space beyond what the libraries take
SCRATCH = 64 * MB
CPU_SECONDS = 3600  # a backstop: the grader stops whoever is over the time long before
THREADS = 64
FILES = 128

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 2**18
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_SET_DUMPABLE = 1, 38, 4
FIRST_UID = 200_000  # where root grades, each worker is a nobody of its own
STARTED = b"!"  # what a worker says first

_libc = ctypes.CDLL(None, use_errno=True)

# Numbers of the system calls that no exercise needs, for x86-64 and arm64 (-1: it has none).
DENIED = {
    "fork": (57, -1), "vfork": (58, -1), "execve": (59, 221), "execveat": (322, 281), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434), "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200),
    "listen": (50, 201), "accept": (43, 202), "accept4": (288, 242), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97), "setns": (308, 268), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "mount_setattr": (442, 442), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218), "memfd_create": (319, 279),
    "memfd_secret": (447, 447), "shmget": (29, 194), "shmat": (30, 196), "msgget": (68, 186), "semget": (64, 190),
    "mq_open": (240, 180), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142), "swapon": (167, 224),
    "swapoff": (168, 225), "syslog": (103, 116), "acct": (163, 89), "quotactl": (179, 60), "nfsservctl": (180, 42),
    "personality": (135, 92), "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
    "fanotify_init": (300, 262), "lookup_dcookie": (212, 18), "vmsplice": (278, 75), "setrlimit": (160, 164),
    "mknod": (133, -1), "mknodat": (259, 33),
}  # fmt: skip
CLONE, CLONE3 = (56, 220), (435, 435)
CLONE_THREAD = 0x10000
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


class Missing(Exception):
    """The machine does not offer a protection; the message names it."""


def call(name: str, *arguments: int | bytes | None) -> int:
    """A function of the C library that returns -1 on failure."""
    result = getattr(_libc, name)(*(ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments))
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def mount(source: str, target: Path | str, kind: str | None, flags: int, data: str | None = None) -> None:
    texts = [None if text is None else str(text).encode() for text in (source, target, kind, data)]
    call("mount", texts[0], texts[1], texts[2], flags, texts[3])


def enter(view: Path, staging: Path) -> None:
    """Give this process, and those it starts, a world without the rest of the machine. Call it single-threaded.

    The process that returns is the first one of that world.

    Args:
        view: The folder that will be ``/course``.
        staging: An empty folder on which the new root is built.

    Raises:
        Missing: If the kernel does not allow it.
    """
    is_root, uid, gid = os.geteuid() == 0, os.geteuid(), os.getegid()
    try:
        call("unshare", NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET | (0 if is_root else NEWUSER))
    except OSError as error:
        raise Missing(f"a file system, processes and a network of its own (namespaces: {error.strerror})") from error
    if not is_root:
        _map_ids(uid, gid)
    _follow(os.fork())
    try:
        _build_root(view, staging)
    except OSError as error:
        raise Missing(f"a read-only file system of its own ({error.strerror or error})") from error


def _map_ids(uid: int, gid: int) -> None:
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def _follow(child: int) -> None:
    """In the parent: wait for the child and end as it did. The child goes on, and ends with its parent."""
    if child:
        signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGKILL))
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 255)
    die_with_parent()


def die_with_parent() -> None:
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _build_root(view: Path, staging: Path) -> None:
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", staging, "tmpfs", MS_NOSUID | MS_NODEV, "size=4m,mode=755")
    for folder in _libraries():
        _bind(folder, staging)
    _bind(view, staging, "/course")
    if Path("/sys/devices/system/cpu").exists():  # what torch chooses its kernels by
        _bind(Path("/sys/devices/system/cpu"), staging)
    for name in ("null", "zero", "full", "random", "urandom"):
        _bind(Path("/dev") / name, staging, read_only=False)
    for folder in ("proc", "scratch", "old"):
        (staging / folder).mkdir(exist_ok=True)
    (staging / "etc").mkdir(exist_ok=True)
    (staging / "etc" / "passwd").write_text("nobody:x:65534:65534:nobody:/scratch:/bin/false\n")
    if Path("/etc/ld.so.cache").exists():
        (staging / "etc" / "ld.so.cache").write_bytes(Path("/etc/ld.so.cache").read_bytes())
    mount("tmpfs", staging / "scratch", "tmpfs", MS_NOSUID | MS_NODEV, f"size={SCRATCH},mode=777")
    if not (staging / "tmp").exists():  # it does where Python itself lies there
        (staging / "tmp").symlink_to("/scratch")
    _own_proc(staging / "proc")
    os.chdir(staging)
    call("syscall", {"x86_64": 155, "aarch64": 41}[platform.machine()], b".", b"old")
    os.chdir("/")
    call("umount2", b"/old", 2)
    os.rmdir("/old")
    mount("none", "/", None, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)


def _own_proc(place: Path) -> None:
    """The processes of this world alone; where even that is forbidden, a description of the machine, for torch."""
    with contextlib.suppress(OSError):
        mount("proc", place, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        return
    for name in ("cpuinfo", "meminfo"):
        (place / name).write_bytes((Path("/proc") / name).read_bytes())


def _libraries() -> list[Path]:
    """Folders that Python and its libraries are loaded from, none inside another."""
    wanted = [Path(p) for p in ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo")]
    prefixes = {Path(p) for p in (sys.prefix, sys.base_prefix) if p not in ("/usr", "/usr/local")}
    packages = {Path(p) for p in sys.path if Path(p).name in ("site-packages", "dist-packages")}
    found = [p for p in (*wanted, *prefixes, *packages) if p.exists()]
    return [p for p in found if not any(p != other and other in p.parents for other in found)]


def _bind(source: Path, root: Path, target: str | None = None, read_only: bool = True) -> None:
    place = root / (target or str(source)).lstrip("/")
    if source.is_symlink() and target is None and source.parent == Path("/"):  # /lib is a link where /usr is one
        place.symlink_to(os.readlink(source))
        return
    if source.is_dir():
        place.mkdir(parents=True, exist_ok=True)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    mount(str(source), place, None, MS_BIND | MS_REC)
    if read_only:
        kept = os.statvfs(place).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC | 1024 | 2048 | 2**21)
        mount("none", place, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | kept)


def shut_in(connection: socket.socket, slot: int) -> None:
    """Give this process, a child of the zygote, its own processes, scratch and limits. The one that returns is alone.

    It tells the grader its number, by sending one byte with the kernel's word for who sent it.
    """
    is_root = _is_real_root()
    call("unshare", NEWNS | NEWPID | NEWIPC | (0 if is_root else NEWUSER))
    if not is_root:
        _map_ids(0, 0)
    _follow(os.fork())
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", "/scratch", "tmpfs", MS_NOSUID | MS_NODEV, f"size={SCRATCH},nr_inodes=2000,mode=777")
    with contextlib.suppress(OSError):
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    os.setsid()
    _limit()
    if is_root:
        os.setgroups([])
        os.setresgid(FIRST_UID + slot, FIRST_UID + slot, FIRST_UID + slot)
        os.setresuid(FIRST_UID + slot, FIRST_UID + slot, FIRST_UID + slot)
        die_with_parent()  # a change of identity has cleared it
    os.chdir("/scratch")
    _drop_capabilities()
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _keep_only({connection.fileno()})
    _filter_system_calls()
    connection.sendall(STARTED)


def _is_real_root() -> bool:
    return Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]


def _limit() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    for kind, value in (
        (resource.RLIMIT_AS, pages * resource.getpagesize() + MEMORY),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_FSIZE, SCRATCH),
        (resource.RLIMIT_NOFILE, FILES),
        (resource.RLIMIT_NPROC, THREADS),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        resource.setrlimit(kind, (value, value))


def _drop_capabilities() -> None:
    header = struct.pack("II", 0x20080522, 0)
    call("capset", header, struct.pack("IIIIII", 0, 0, 0, 0, 0, 0))


def _keep_only(wanted: Iterable[int]) -> None:
    """Close every other open file; standard input and output lead nowhere."""
    nothing = os.open("/dev/null", os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    for number in range(3, 4096):
        if number not in wanted:
            with contextlib.suppress(OSError):
                os.close(number)


def _filter_system_calls() -> None:
    """Refuse what no exercise needs; threads may be started, processes not."""
    column, architecture = ARCHITECTURES[platform.machine()]

    def step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("HBBI", code, yes, no, value)

    load, equal, at_least, has_bits, back = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, kill = step(back, 0x7FFF0000), step(back, 0x80000000)

    def refuse(number: int) -> bytes:
        return step(back, 0x00050000 | number)

    steps = [step(load, 4), step(equal, architecture, 1, 0), kill, step(load, 0)]
    steps += [step(at_least, 0x40000000, 0, 1), refuse(errno.EPERM)]
    for numbers in DENIED.values():
        if numbers[column] >= 0:
            steps += [step(equal, numbers[column], 0, 1), refuse(errno.EPERM)]
    steps += [step(equal, CLONE3[column], 0, 1), refuse(errno.ENOSYS)]
    steps += [step(equal, CLONE[column], 0, 3), step(load, 16), step(has_bits, CLONE_THREAD, 1, 0), refuse(errno.EPERM)]
    program = b"".join([*steps, allow])
    buffer = ctypes.create_string_buffer(program)

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    filled = Program(len(program) // 8, ctypes.cast(buffer, ctypes.c_void_p).value)
    call("prctl", 22, 2, ctypes.addressof(filled), 0, 0)
