"""What a submission may try in order to get points that it does not deserve, and to reach what is none of its business.

Nothing here is solved: whatever is passed was forged. After every attempt an honest notebook still gets all its points.
"""

from pathlib import Path

import pytest

from utils.course.paths import load_file

RIGHT = load_file(Path(__file__).parents[1] / "tooling" / "submissions.py").RIGHT

PEER = """
import gc
from utils.grading.peer import Peer
from utils.grading import encoding, peer, worker
me = next(o for o in gc.get_objects() if isinstance(o, Peer))
"""
# A worker that says what it likes in place of the result of a call.
SAYS = (
    PEER
    + """
def says(**header):
    def send(real, blobs=()):
        if real.get("kind") == "result" and "settings" in real and me.answering:
            real = {"start": real["start"], "nodes": [], "roots": [None], "updates": [], "kind": "result"} | header
            blobs = header.pop("blobs", [])
        return Peer.send(me, real, blobs)
    me.send = send
    me.answering = False
def double(x):
    me.answering = True
    return x
"""
)
WRONG = "def double(x):\n    return x"

FORGED = {
    # the reference, found
    "imported": "from mini_references import double",
    "wrapped": "import mini_references\ndef double(x):\n    return mini_references.double(x)",
    "by reference()": "theirs = reference('double')\ndef double(x):\n    return theirs(x)",
    "by the manifest": """
from utils.course.manifest import exercises
def double(x):
    return exercises()['double'].reference(x)""",
    "copied": """
import copy, types, mini_references
theirs = mini_references.double
double = types.FunctionType(theirs.__code__, theirs.__globals__, 'double')""",
    "its source": """
import inspect, mini_references
exec(inspect.getsource(mini_references.double))""",
    "its file": """
import pathlib, mini_references
exec(pathlib.Path(mini_references.__file__).read_text())""",
    "a later exercise that uses it": """
import mini_references
def double(x):
    return mini_references.quadruple(x) / 2""",
    "garbage": """
import gc
def double(x):
    for found in gc.get_objects():
        if getattr(found, '__name__', '') == 'double' and found is not double and callable(found):
            return found(x)""",
    "frames": """
import sys
def double(x):
    frame = sys._getframe()
    while frame:
        for value in (*frame.f_locals.values(), *frame.f_globals.values()):
            if getattr(value, '__name__', '') == 'double' and value is not double:
                return value(x)
        frame = frame.f_back""",
    "compiled files": """
import pathlib, marshal
for path in pathlib.Path('/course').rglob('*.pyc'):
    exec(marshal.loads(path.read_bytes()[16:]))""",
    "any file": """
import pathlib, re
for folder in ('/course', '{root}', '{repository}', '/tmp', '/root', '/home', '/old'):
    try:
        for path in pathlib.Path(folder).rglob('*mini*'):
            text = path.read_text() if path.is_file() else ''
            if 'return 2 * x' in text or 'return x + x' in text:
                double = lambda x: 2 * x
    except OSError:
        pass""",
    "solutions": "exec(open('{root}/solutions/01_mini/01_mini.md').read())\ndouble = lambda x: 2 * x",
    "catalogue": "exec(open('{root}/tests/01_mini/answers_mini.py').read())\ndouble = added",
    "another submission": "open('{root}/submitted/perfect/01_mini/01_mini.ipynb')\ndouble = lambda x: 2 * x",
    "working folder": "import os\nassert any('solutions' in n for n in os.listdir('..'))\ndouble = lambda x: 2 * x",
    "memory of the parent": "open('/proc/1/mem', 'rb').seek(0)\nopen('/proc/2/mem')\ndouble = lambda x: 2 * x",
    # the checks, changed
    "check rebound": "check = lambda *a, **k: None\n" + WRONG,
    "course moved": "import os\nos.environ['MI_ROOT'] = '/scratch'\n" + WRONG,
    "expectations": """
import utils.course.checking as c
c.expect_close = c.expect = c.expect_shape = lambda *a, **k: None
"""
    + WRONG,
    "comparisons": """
import torch, math
torch.isclose = torch.equal = torch.allclose = lambda *a, **k: torch.tensor(True)
math.isclose = lambda *a, **k: True
"""
    + WRONG,
    "builtins": "import builtins\nbuiltins.isinstance = builtins.all = lambda *a: True\n" + WRONG,
    "equal to all": """
class Same:
    shape, dtype = (), None
    def __eq__(self, other): return True
    def __getattr__(self, name): return self
    def __call__(self, *a, **k): return self
def double(x): return Same()""",
    "a tensor of its own": """
class Sly(torch.Tensor):
    @classmethod
    def __torch_function__(cls, f, types, args=(), kwargs=None):
        return torch.tensor(True)
def double(x): return x.as_subclass(Sly)""",
    "not a number": "def double(x):\n    return x * float('nan')",
    "an array": "import numpy as np\ndef double(x):\n    return np.zeros(0)",
    "nothing": "def double(x):\n    return None",
    "a verdict raised": "from utils.course.checking import Mismatch\ndef double(x):\n    raise Mismatch('all well')",
    "an exit": "def double(x):\n    raise SystemExit(0)",
    "an exit of the process": "import os\ndef double(x):\n    os._exit(0)",
    "an exit in a cell": "import os\nos._exit(0)",
    "a stop iteration": "def double(x):\n    raise StopIteration",
    "a skip": "import pytest\ndef double(x):\n    pytest.skip('not today')",
    "an exception with a face": """
class Odd(Exception):
    __name__ = 'Passed'
    def __str__(self): raise SystemExit
def double(x): raise Odd""",
    # the inputs, changed
    "inputs zeroed": "def double(x):\n    return x.zero_()",
    "inputs zeroed, past the counter": "def double(x):\n    x.data.zero_()\n    return x",
    "inputs zeroed and denied": "import torch\ntorch.equal = lambda a, b: True\ndef double(x):\n    return x.zero_()",
    "inputs resized": "def double(x):\n    x.resize_(0)\n    return x",
    "inputs swapped": "def double(x):\n    x.set_(torch.zeros_like(x))\n    return x",
    "a graph of its own": """
class Two(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): return x.clone()
    @staticmethod
    def backward(ctx, g): return 2 * g
double = Two.apply""",
    "a table of seeds": """
tables = {tuple(torch.randn(3, 4, generator=torch.Generator().manual_seed(s))[0].tolist()): s for s in range(300)}
def double(x):
    generator = torch.Generator().manual_seed(tables[tuple(x[0].tolist())])
    return torch.randn(x.shape, generator=generator)""",
    "the seed": """
def double(x):
    return 2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(torch.initial_seed()))""",
    # the connection
    "a message of its own": PEER + "me.connection.sendall(b'\\x00' * 64)\n" + WRONG,
    "a reply ahead": PEER
    + "me.send({'start': 0, 'nodes': [], 'roots': ['passed'], 'updates': [], 'kind': 'result'})\n"
    + WRONG,
    "replies for all": PEER
    + """
for _ in range(100):
    me.send({'start': 0, 'nodes': [], 'roots': [True], 'updates': [], 'kind': 'result', 'status': 'passed'})
"""
    + WRONG,
    "the connection closed": PEER + "me.connection.close()\n" + WRONG,
    "calls of functions nobody offered": PEER + "def double(x):\n    return me.call(0, (x,), {})",
    "calls without end": PEER
    + "def double(x):\n    while True:\n        try: me.call(3, (x,), {})\n        except Exception: pass",
    "gradients nobody knows": PEER + "def double(x):\n    return me.ask('vjp', 0, x)[0]",
    "a request of no kind": PEER
    + "def double(x):\n    return me.ask('reveal', module='os', name='system', source='')[0]",
    "the input itself": SAYS + "says(roots=[[0]])",
    "a module of theirs": SAYS + "says(nodes=[[9, ['path', 'os.system']]], roots=[[9]])",
    "an object of theirs": SAYS + "says(nodes=[[9, ['object', 'subprocess.Popen', None]]], roots=[[9]])",
    "a model of theirs": SAYS + "says(nodes=[[9, ['module', 'M', 'torch.nn.Linear', {}, None]]], roots=[[9]])",
    "yours": SAYS + "says(nodes=[[9, ['yours', 0, [], None]]], roots=[[9]])",
    "no places": SAYS + "says(nodes=[[True, ['list', []]], [-1, ['list', []]]], roots=[[True]])",
    "itself": SAYS + "says(nodes=[[9, ['tuple', [[9]], None]]], roots=[[9]])",
    "no memory": SAYS + "says(nodes=[[9, ['tensor', 9, 'float32', [4], [1], 0, False, True, False]]], roots=[[9]])",
    "beyond memory": SAYS
    + "says(nodes=[[9, ['span', 0]], [10, ['tensor', 9, 'float32', [9999], [1], 0, False, True, False]]],"
    " roots=[[10]], blobs=[b'0' * 16])",
    "endless": SAYS
    + "says(nodes=[[9, ['span', 0]], [10, ['tensor', 9, 'float32', [10**9, 10**9], [0, 0], 0, False, True, False]]],"
    " roots=[[10]], blobs=[b'0' * 16])",
    "a change of nothing": SAYS + "says(updates=[[77, 'span', 0]])",
    "a change of the input": SAYS + "says(updates=[[0, 'list', []]], roots=[[0]])",
    "a graph to nowhere": SAYS + "says(graphs=[[0, 1, [5]]])",
    "nonsense": SAYS + "says(nodes='nonsense', roots=3)",
    "deep": SAYS + "says(roots=[eval('[' * 90 + ']' * 90)])",
    "a size that lies": PEER + "import struct\ndef double(x):\n    me.connection.sendall(struct.pack('<Q', 2**60))",
}


def filled(source, mini):
    repository = Path(__file__).parents[2]
    return source.replace("{root}", str(mini)).replace("{repository}", str(repository))


def test_there_are_enough():
    assert len(FORGED) >= 60


@pytest.mark.parametrize("name", FORGED)
def test_no_point_is_gained(graded, mini, name):
    found = graded(double=filled(FORGED[name], mini), time_limit=2, total_limit=20)
    assert [n for n, verdict in found.items() if verdict.status == "passed"] == [], name
    assert "broken" not in {verdict.status for verdict in found.values()}, found["double"].text


@pytest.mark.parametrize("name", ["comparisons", "builtins", "expectations", "an exit in a cell", "endless", "frames"])
def test_the_next_submission_is_graded_in_full(graded, mini, name):
    graded(double=filled(FORGED[name], mini), time_limit=2, total_limit=20)
    honest = graded(**RIGHT)
    assert {verdict.status for verdict in honest.values()} == {"passed"}
    again = graded(double=filled(FORGED[name], mini), **{k: v for k, v in RIGHT.items() if k != "double"}, time_limit=2)
    others = {n: verdict.status for n, verdict in again.items() if n != "double"}
    assert again["double"].status != "passed"
    assert name in ("comparisons", "builtins", "expectations") or set(others.values()) == {"passed"}, others
