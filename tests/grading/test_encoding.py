"""The encoding: what crosses comes out as what it was, and nothing else comes in."""

import contextlib
import json
import os
import random
import socket
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from utils.course.checking import Mismatch
from utils.grading.encoding import BadMessage, Side, Table, decode, dump, encode, expect_reachable, parse
from utils.grading.grader import WorkerProcess
from utils.grading.peer import partial_derivatives
from utils.grading.worker import Worker


def nothing(*args):
    raise AssertionError("not here")


def tables():
    grader = Side(False, lambda f: 0, nothing, lambda n, name, p: print, nothing, lambda v: None)
    worker = Side(True, lambda f: 0, nothing, lambda n, name, p: print, nothing, lambda v: None)
    return Table(grader), Table(worker)


def crossed(source, target, *values):
    header, blobs = encode(source, *values, graph=lambda tensor, known: 0)
    return decode(target, *parse(dump(header, blobs)), lambda number, tensor, known: tensor)


VALUES = {
    "none": None,
    "bool": True,
    "int": -(2**80),
    "float": float("inf"),
    "text": "é\u0000 <b>",
    "bytes": b"\x00\xff",
    "complex": 1 - 2j,
    "list": [1, [2, (3, "x")], {}],
    "dict": {"a": [1], 2: None, (1, 2): 3.5},
    "set": {1, 2},
    "slice": slice(1, None, 2),
    "range": range(3, 9, 2),
    "dtype": torch.bfloat16,
    "ellipsis": ...,
    "array": np.arange(6.0).reshape(2, 3),
    "texts": np.array(["a", "bc"]),
    "number": np.float32(1.5),
    "empty": torch.empty(0, 3),
    "scalar": torch.tensor(3),
    "half": torch.ones(2, dtype=torch.float16),
    "strided": torch.arange(24).reshape(4, 6)[1::2, ::3],
    "expanded": torch.ones(3, 1).expand(3, 5),
    "meta": torch.empty(2, 3, device="meta"),
    "ordered": OrderedDict(a=1),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_comes_out_as_what_it_was(name):
    value = VALUES[name]
    grader, worker = tables()
    (there,) = crossed(grader, worker, value)
    (back,) = crossed(worker, grader, [there])[0]
    if isinstance(value, torch.Tensor):
        assert (there.dtype, there.shape, there.stride()) == (value.dtype, value.shape, value.stride())
        assert value.is_meta or torch.equal(there, value)
        assert back is value
    elif isinstance(value, np.ndarray):
        assert there.dtype == value.dtype and (there == value).all()
    else:
        assert there == value and type(there) is type(value)


def test_aliases_and_identity_are_kept():
    grader, worker = tables()
    x = torch.zeros(4, 3)
    shared = [1]
    a, b, c, d, e = crossed(grader, worker, x, x[1], x.T, shared, {"s": shared})
    a[1, 0] = 5
    assert b[0] == 5 and c[0, 1] == 5 and e["s"] is d
    (result,) = crossed(worker, grader, a[2:])
    assert x[1, 0] == 5 and result.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()


def test_what_the_other_side_writes_is_seen():
    grader, worker = tables()
    here = ([1, 2], {"a": 1}, torch.zeros(3), np.zeros(2), torch.Generator().manual_seed(1))
    there = crossed(grader, worker, *here)
    there[0].append(3)
    there[1]["b"] = there[0]
    there[2].data.add_(1)
    there[3][:] = 7
    torch.randn(5, generator=there[4])
    crossed(worker, grader)
    assert here[0] == [1, 2, 3] and here[1]["b"] is here[0]
    assert here[2].tolist() == [1, 1, 1] and here[3].tolist() == [7, 7]
    expected = torch.Generator().manual_seed(1)
    torch.randn(5, generator=expected)
    assert torch.equal(here[4].get_state(), expected.get_state())


def test_a_generator_whose_draws_somebody_has_chosen_is_refused():
    mine = torch.Generator().manual_seed(1)
    drawn = torch.Generator().manual_seed(1)
    for size in (1, 3, 1000, 20):
        torch.randn(size, generator=drawn)
        expect_reachable(mine, drawn.get_state())
    with pytest.raises(BadMessage):
        expect_reachable(mine, torch.Generator().manual_seed(2).get_state())


def test_what_a_model_was_left_as_can_be_undone():
    grader, worker = tables()
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    before = {name: t.clone() for name, t in model.state_dict().items()}
    (there,) = crossed(grader, worker, model)
    with torch.no_grad():
        there[0].weight.zero_()
    there.eval()
    there[1].register_forward_hook(lambda *a: None)
    crossed(worker, grader)
    assert not model.training and not model[0].weight.any() and len(model[1]._forward_hooks) == 1
    for step in grader.left_otherwise():
        step()
    assert model.training and model[1].training and not model[1]._forward_hooks
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_partial_derivatives_stop_at_the_next_source():
    w = torch.tensor(2.0, requires_grad=True)
    a = w * 3
    b = a * a
    c = b * a
    found = partial_derivatives(c, [a, b, w], torch.tensor(1.0))
    assert found[0] == b and found[1] == a and not found[2]


HOSTILE = [
    {"nodes": [[0, ["path", "os.system"]]], "roots": [[0]]},
    {"nodes": [[0, ["object", "subprocess.Popen", [1]]], [1, ["dict", []]]], "roots": [[0]]},
    {"nodes": [[0, ["module", "M", "torch.nn.Linear", {}, [1]]], [1, ["dict", []]]], "roots": [[0]]},
    {"nodes": [[0, ["tokenizer", 0, {}]]], "roots": [[0]]},
    {"nodes": [[0, ["tuple", [[0]], None]]], "roots": [[0]]},
    {"nodes": [[5, ["list", []]]]},
    {"nodes": [[0, ["list", []]], [0, ["list", []]]]},
    {"nodes": [[0, ["array", "O", [1], 0, False]]], "roots": [[0]]},
    {"nodes": [[0, ["generator", 0]]], "roots": [[0]]},
    {"nodes": [[0, ["__init__"]]], "roots": [[0]]},
    {"nodes": [[0, ["plain", 1]]], "roots": [[0]]},
    {"nodes": [[0, ["span", 7]]], "roots": [[0]]},
    {"nodes": [[0, ["span", 0]], [1, ["tensor", 0, "float32", [3], [2], 0, False, True, False]]]},
    {"nodes": [[0, ["span", 0]], [1, ["tensor", 0, "float32", [-3], [1], 0, False, True, False]]]},
    {"nodes": [[0, ["span", 0]], [1, ["tensor", 0, "float32", [2**40], [0], 0, False, True, False]]]},
    {"nodes": [[0, ["span", 0]], [1, ["tensor", 0, "quint8", [2], [1], 0, False, True, False]]]},
    {"roots": [[3]]},
    {"roots": [{"a": 1}]},
    {"roots": ["x" * (2**20 + 1)]},
    {"roots": "text"},
    {"updates": [[0, "list", []]]},
    {"graphs": [[0, 0, []]]},
    {"start": 4},
    {"nodes": 3},
]


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_a_message_that_is_no_plain_value_is_refused(number):
    grader, _ = tables()
    header = {"start": 0, "nodes": [], "roots": [], "updates": []} | HOSTILE[number]
    with pytest.raises(BadMessage):
        decode(grader, header, [memoryview(b"0" * 16)], lambda number, tensor, known: tensor)


def test_messages_that_are_damaged_at_random_do_no_harm():
    """Whatever a message is turned into, it is refused or decodes; nothing else is raised."""
    draw = random.Random(0)
    for _ in range(1500):
        grader, worker = tables()
        x = torch.randn(3, 4)
        there = crossed(grader, worker, x, [1, {"a": (2, x)}])
        header, blobs = encode(worker, there[0] * 2, there[1], graph=lambda tensor, known: 0)
        data = bytearray(dump(header, blobs))
        for _ in range(draw.randint(1, 4)):
            place = draw.randrange(len(data))
            data[place : place + draw.randint(0, 2)] = bytes(
                draw.choices(b'0123456789[]{},":-e\x00"ntf', k=draw.randint(0, 3))
            )
        with contextlib.suppress(BadMessage):
            decode(grader, *parse(data), lambda number, tensor, known: tensor)


@pytest.fixture
def worker():
    """A worker without walls, for what is told to it."""
    mine, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        mine.close()
        try:
            Worker(theirs).run()
        finally:
            os._exit(0)
    theirs.close()
    end = WorkerProcess(mine, pid)
    yield end
    end.kill()
    os.waitpid(pid, 0)


def defined(worker, source, name="f"):
    error, _ = worker.ask("cell", label="cell", source=source)
    assert error is None
    found, header = worker.ask("answer", name=name, module="utils.transformer.attention", seed=1)
    worker.replied(header)
    return found


def test_calls_go_both_ways_with_their_gradients(worker):
    f = defined(worker, "def f(x, w, metric):\n    return metric(x * w).sum() + (w * w).sum()")
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    scale = torch.tensor(3.0, requires_grad=True)
    w = x * 2
    out = f(x, w, lambda y: scale * y)
    found = torch.autograd.grad(out, [x, scale])
    x2, s2 = x.detach().requires_grad_(), scale.detach().requires_grad_()
    expected = (s2 * x2 * (x2 * 2)).sum() + ((2 * x2) ** 2).sum()
    wanted = torch.autograd.grad(expected, [x2, s2])
    assert torch.allclose(found[0], wanted[0])
    assert found[1] is not None and torch.allclose(found[1], wanted[1])


@pytest.mark.parametrize("backward", [True, False])
def test_backward_leaves_gradients_on_what_only_a_function_of_the_check_holds(worker, backward):
    how = "total.backward()" if backward else "torch.autograd.grad(total, x)"
    f = defined(worker, f"import torch\ndef f(x, metric):\n    total = metric(x * 1).sum()\n    {how}")
    x, held = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor(3.0, requires_grad=True)
    f(x, lambda y: held * y * y)
    assert held.grad == 5 if backward else held.grad is None
    assert x.grad.tolist() == [6, 12] if backward else x.grad is None


def test_an_exception_comes_back_as_what_it_was(worker):
    class Own(Exception):
        pass

    def metric(x):
        raise Own("mine")

    f = defined(worker, "def f(g):\n    if g is None:\n        raise KeyError('theirs')\n    return g(1)")
    with pytest.raises(Own, match="mine"):
        f(metric)
    with pytest.raises(KeyError) as caught:
        f(None)
    assert str(caught.value) == "'theirs'" and type(caught.value).__name__ == "KeyError"


def test_a_verdict_of_a_function_of_the_check_can_t_be_swallowed(worker):
    def metric(x):
        raise Mismatch("wrong")

    f = defined(worker, "def f(g):\n    try:\n        return g(1)\n    except Exception:\n        return 4")
    with pytest.raises(Mismatch, match="wrong"):
        f(metric)


def test_nothing_of_the_grader_s_is_in_an_exception_over_there(worker):
    f = defined(worker, "def f(g):\n    try:\n        g(1)\n    except Exception as e:\n        return e.trace, str(e)")
    trace, text = f(lambda x: 1 / 0)
    assert (trace, text) == ("", "division by zero")


def test_json_alone_crosses():
    header, _ = parse(dump({"a": 1}, [b"xy"]))
    assert header == {"a": 1, "sizes": [2]} and json.dumps(header)
