"""Shuts a process in, with what the Linux kernel offers: the standard library alone, nothing to install.

``enter`` builds a world of its own for the zygote: no network, and a read-only file system that holds Python, its
libraries and the view of the course, and nothing else. ``shut_in`` does the rest in each worker: processes, scratch
space and identity of its own, no privileges, limits on what it may use, no system calls that it has no need for, and
Landlock as a second wall around the files. ``shut_in_place`` is for a kernel that lets nobody enter a world of their
own: Landlock and the filter of system calls are the only walls then.
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
# Landlock: its three system calls, the version that also guards against cutting files short, and rights on files.
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT, LANDLOCK_NEEDED = 444, 445, 446, 3
LL_EXECUTE, LL_WRITE, LL_READ_FILE, LL_READ_FOLDER, LL_TRUNCATE, LL_DEVICE = 1, 2, 4, 8, 1 << 14, 1 << 15
LL_READ, LL_OF_FILES = LL_EXECUTE | LL_READ_FILE | LL_READ_FOLDER, LL_EXECUTE | LL_WRITE | LL_READ_FILE | LL_TRUNCATE
LL_SPECIAL = LL_EXECUTE | LL_DEVICE | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11  # devices, sockets and pipes are not made
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
# And those that reach what a world of its own keeps out of sight: processes of the same user, and properties of files.
DENIED_IN_PLACE = {
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424), "setpriority": (141, 140),
    "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119), "sched_setparam": (142, 118),
    "sched_setattr": (314, 274), "ioprio_set": (251, 30), "migrate_pages": (256, 238), "move_pages": (279, 239),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "kcmp": (312, 272), "shmctl": (31, 195),
    "msgctl": (71, 187), "msgsnd": (69, 189), "msgrcv": (70, 188), "semctl": (66, 191), "semop": (65, 193),
    "semtimedop": (220, 192), "inotify_add_watch": (254, 27), "chmod": (90, -1), "fchmod": (91, 52),
    "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, -1), "lchown": (94, -1), "fchown": (93, 55),
    "fchownat": (260, 54), "utime": (132, -1), "utimes": (235, -1), "futimesat": (261, -1), "utimensat": (280, 88),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "setxattrat": (463, 463),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16), "removexattrat": (466, 466),
    "file_setattr": (469, 469),
}  # fmt: skip
CLONE, CLONE3, PRLIMIT = (56, 220), (435, 435), (302, 261)
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
        raise Missing(
            "a file system, processes and a network of its own, nor a limit on the space that a submission takes on "
            f"the disk (namespaces: {error.strerror})"
        ) from error
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
    mount("proc", staging / "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    os.chdir(staging)
    call("syscall", {"x86_64": 155, "aarch64": 41}[platform.machine()], b".", b"old")
    os.chdir("/")
    call("umount2", b"/old", 2)
    os.rmdir("/old")
    mount("none", "/", None, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)


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
    _close_the_door(connection, Path("/course"), Path("/scratch"), DENIED)


def shut_in_place(connection: socket.socket, course: Path, scratch: Path) -> None:
    """Likewise, but in the one file system and among the processes that there are."""
    os.setsid()
    _limit(of_the_user=False)  # the others are the instructor's own processes
    _close_the_door(connection, course, scratch, DENIED | DENIED_IN_PLACE)


def _close_the_door(connection: socket.socket, course: Path, scratch: Path, denied: dict[str, tuple[int, int]]) -> None:
    os.chdir(scratch)
    _drop_capabilities()
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _keep_only({connection.fileno()})
    if landlock():
        _fence_files([course, *_libraries()], scratch)
    _filter_system_calls(denied)
    connection.sendall(STARTED)


def _is_real_root() -> bool:
    return Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]


def _limit(of_the_user: bool = True) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    for kind, value in (
        (resource.RLIMIT_AS, pages * resource.getpagesize() + MEMORY),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_FSIZE, SCRATCH),
        (resource.RLIMIT_NOFILE, FILES),
        *([(resource.RLIMIT_NPROC, THREADS)] if of_the_user else []),
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


def landlock() -> int:
    """The version of the kernel's Landlock, 0 if it has none that can fence off files."""
    version = _libc.syscall(LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)
    return version if version >= LANDLOCK_NEEDED else 0


def _fence_files(readable: Iterable[Path], writable: Path) -> None:
    """From here on no other file can be opened, and, by newer kernels, no port and no other's socket or signal."""
    version = landlock()
    everything = (1 << (16 if version >= 5 else 15)) - 1
    ports, scopes = (3 if version >= 4 else 0), (3 if version >= 6 else 0)
    fields = struct.pack("QQQ", everything, ports, scopes)[: 8 * (1 + (version >= 4) + (version >= 6))]
    rules = call("syscall", LANDLOCK_CREATE, fields, len(fields), 0)
    system = ("/etc/ld.so.cache", "/etc/localtime", "/etc/passwd", "/proc/cpuinfo", "/proc/meminfo", "/proc/self")
    devices = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
    allowed = dict.fromkeys([*readable, Path("/sys/devices/system/cpu"), *map(Path, system)], LL_READ)
    allowed |= dict.fromkeys(map(Path, devices), LL_READ | LL_WRITE) | {writable: everything & ~LL_SPECIAL}
    for path, rights in allowed.items():
        with contextlib.suppress(FileNotFoundError):
            place = os.open(path, os.O_PATH)
            if not path.is_dir():
                rights &= LL_OF_FILES
            call("syscall", LANDLOCK_ADD, rules, 1, struct.pack("=Qi", rights, place), 0)
            os.close(place)
    call("syscall", LANDLOCK_RESTRICT, rules, 0)
    os.close(rules)


def _filter_system_calls(denied: dict[str, tuple[int, int]]) -> None:
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
    for numbers in denied.values():
        if numbers[column] >= 0:
            steps += [step(equal, numbers[column], 0, 1), refuse(errno.EPERM)]
    steps += [step(equal, CLONE3[column], 0, 1), refuse(errno.ENOSYS)]
    steps += [step(equal, PRLIMIT[column], 0, 4), step(load, 16), step(equal, 0, 0, 1), allow, refuse(errno.EPERM)]
    steps += [step(equal, CLONE[column], 0, 3), step(load, 16), step(has_bits, CLONE_THREAD, 1, 0), refuse(errno.EPERM)]
    program = b"".join([*steps, allow])
    buffer = ctypes.create_string_buffer(program)

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    filled = Program(len(program) // 8, ctypes.cast(buffer, ctypes.c_void_p).value)
    call("prctl", 22, 2, ctypes.addressof(filled), 0, 0)
