"""Starts a worker and lets it reach for what is none of its business; prints, as JSON, what came of each attempt.

Run as ``python reach.py WALLS FOLDER``; a program of its own, so that a test can run it as another user, or where the
kernel refuses something. ``FOLDER`` is where the files lie that the attempts are after.
"""

import json
import sys
from pathlib import Path

from utils.grading.grader import Unprotected, WorkerProcess, Zygote

# Every one succeeds where nothing is in its way; {secret} is a file that whoever runs this may read and write.
ATTEMPTS = {
    "reading a file": "open('{secret}').read()",
    "listing a folder": "import os\nassert os.listdir('{folder}')",
    "listing the root": "os.listdir('/')",
    "reading through a link": "os.symlink('{secret}', f'{scratch}/link')\nopen(f'{scratch}/link').read()",
    "writing a file": "open('{secret}', 'a').write('x')",
    "cutting a file short": "os.truncate('{secret}', 1)",
    "removing a file": "os.unlink('{secret}')",
    "moving a file": "os.rename('{secret}', '{secret}.moved')",
    "linking a file": "os.link('{secret}', '{secret}.linked')",
    "a new folder": "os.mkdir('{secret}.folder')",
    "rights of a file": "os.chmod('{secret}', 0o777)",
    "the time of a file": "os.utime('{secret}', (0, 0))",
    "an attribute of a file": "os.setxattr('{secret}', 'user.x', b'x')",
    "writing into the course": "import utils\nopen(utils.__file__, 'a')",
    "writing into libraries": "import torch\nopen(torch.__file__, 'a')",
    "other processes": "assert [p for p in os.listdir('/proc') if p.isdigit() and p != str(os.getpid())]",
    "a signal to all": "os.kill(-1, 0)",
    "limits of others": "import resource\nresource.prlimit(other, resource.RLIMIT_CORE, (0, 0))",
    "urgency of others": "os.setpriority(os.PRIO_PROCESS, other, 19)",
    "processors of others": "os.sched_setaffinity(other, os.sched_getaffinity(0))",
    "a socket": "import socket\nsocket.socket()",
    "a fork": "if os.fork() == 0: os._exit(0)",
    "a program": "import subprocess\nsubprocess.run(['/bin/true'], check=True)",
    "shared memory": "import ctypes\nassert ctypes.CDLL(None).shmget(0, 4096, 0o1600) >= 0",
    "a large file": "open(f'{scratch}/large', 'wb').write(b'0' * 2**27)",
}
# What a notebook may do.
ALLOWED = {
    "a scratch file": "open(f'{scratch}/file', 'w').write('x')\nassert open(f'{scratch}/file').read() == 'x'",
    "a temporary folder": "import tempfile\ntempfile.mkdtemp()\nos.remove(tempfile.mkstemp()[1])",
    "threads": "import threading\nt = threading.Thread(target=print)\nt.start()\nt.join()",
    "a library": "import torch, scipy.stats\ntorch.randn(100, 100) @ torch.randn(100, 100)",
    "a random number": "import secrets\nos.urandom(3), secrets.randbelow(3)",
    "a figure": "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.savefig(f'{scratch}/figure.png')",
    "the course": "from utils.course import check, hint",
}

WALLS = {"none": None, "unsafe": "own world"}


def main(walls: str, folder: Path) -> None:
    zygote = Zygote("00_start_here", unsafe=walls == "unsafe", walls=WALLS.get(walls, walls))
    try:
        zygote.wait()
        found = {"protections": zygote.protections()}
        for number, (name, source) in enumerate((ATTEMPTS | ALLOWED).items()):
            secret = folder / f"secret{number}"
            secret.write_text("nobody's business")
            source = source.replace("{secret}", str(secret)).replace("{folder}", str(folder))
            begin = f"import os\nscratch, other = os.environ.get('TMPDIR', '{folder}'), os.getppid() or 2\n"
            worker = WorkerProcess(*zygote.spawn(0))
            found[name], _ = worker.ask("cell", label=name, source=begin + source)
            worker.kill()
    except Unprotected as error:
        found = {"unprotected": str(error)}
    finally:
        zygote.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
