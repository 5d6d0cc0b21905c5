"""How values cross between grader and worker: as typed data, never as anything that could run.

A message is JSON with blobs of bytes behind it. Values that have an identity (tensors, containers, models, functions)
are entries of a table that both sides keep in step for the time of one call: an entry is made when it first crosses,
and every later message says what has changed in the old ones. So two arguments that share memory still do on the other
side, a result can *be* an argument, and what the other side writes into a list or a tensor is seen on this one.

The grader believes nothing that it reads: whatever does not decode into a plain value of an allowed type, dtype and
size is a ``BadMessage``.
"""

import copy
import importlib
import inspect
import json
import keyword
import struct
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

MAX_BYTES = 256 * 2**20  # of one message,
MAX_HEADER = 32 * 2**20  # and of what it says about itself, which takes many times as much when it is read
MAX_NUMBERS = 64 * 2**20  # entries of one tensor, also of one that repeats a few in memory
MAX_ENTRIES = 300_000  # of the table
MAX_TEXT = 2**20
MAX_DEPTH = 100
TOKENIZER = ("bos_token", "eos_token", "unk_token", "pad_token", "padding_side", "add_bos_token", "add_prefix_space")
LARGE = 2**15  # bytes of memory, above which a model's weights are not compared after each call
MAX_BLOCKS = 4000  # of 624 draws that one call may take from a generator
_USED, _BLOCK = slice(8, 24), slice(24, 24 + 624 * 8)  # where these are in a generator's state
SHOWN = ("torch", "numpy", "math", "operator", "builtins", "utils", "transformer_lens", "einops", "jaxtyping")

DTYPES = {str(t).removeprefix("torch."): t for t in vars(torch).values() if isinstance(t, torch.dtype)}
PLAIN_DTYPES = {name for name, t in DTYPES.items() if not any(w in name for w in ("bits", "quint", "qint", "float4"))}
CONTAINERS = {"list": list, "dict": dict, "odict": OrderedDict, "ddict": lambda: defaultdict(dict), "set": set}
KINDS = {list: "list", dict: "dict", OrderedDict: "odict", defaultdict: "ddict", set: "set"}


class BadMessage(Exception):
    """What the other side sent is no value that this side takes; the message says why."""


class Opaque:
    """Stands for an object of a kind that does not cross."""

    def __init__(self, kind: str):
        self.kind = kind

    def __repr__(self) -> str:
        return f"an object of the class {self.kind}"


@dataclass
class Entry:
    """One object of the table, and what the other side knows of it."""

    obj: Any
    kind: str
    known: Any = None
    internal: bool = False  # part of a model
    span: int | None = None  # the memory of a tensor
    version: int = 0  # torch's count of what was written into a tensor
    before: Any = None  # what it held before the other side changed it, in this call


@dataclass
class Side:
    """What encoding and decoding ask of the process that they run in.

    Args:
        is_worker: Whether this is the worker, which makes objects of the classes that the grader names.
        offer: Gives a number for a function or module, by which the other side can call it.
        offered: The function or module of such a number.
        proxy: Makes what stands here for a function of the other side: (number, name, names of its parameters).
        module_proxy: The same for a module: (number, name, tensors by name, training, names of its parameters).
        proxied: The number of what a proxy stands for; None for anything else.
    """

    is_worker: bool
    offer: Callable[[Any], int]
    offered: Callable[[int], Any]
    proxy: Callable[[int, str, list[str] | None], Any]
    module_proxy: Callable[[int, str, list[tuple[str, Tensor]], bool, list[str] | None], nn.Module]
    proxied: Callable[[Any], int | None]


def dump(header: dict, blobs: list[bytes]) -> bytes:
    """One message as bytes."""
    text = json.dumps({**header, "sizes": [len(blob) for blob in blobs]}).encode()
    return b"".join([len(text).to_bytes(8, "little"), text, *blobs])


def parse(data: bytes | memoryview) -> tuple[dict, list[memoryview]]:
    """Header and blobs of a message.

    Raises:
        BadMessage: If it is none.
    """
    view = memoryview(data)
    size = int.from_bytes(view[:8], "little")
    if size > len(view) - 8:
        raise BadMessage("a message is cut off")
    if size > MAX_HEADER:
        raise BadMessage("a message of too many parts")
    try:
        header = json.loads(bytes(view[8 : 8 + size]))
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"a message is no JSON ({type(error).__name__})") from None
    sizes = header.get("sizes") if isinstance(header, dict) else None
    if not isinstance(sizes, list) or not all(type(n) is int and n >= 0 for n in sizes):
        raise BadMessage("a message has no sizes")
    if sum(sizes) != len(view) - 8 - size:
        raise BadMessage("a message's sizes do not add up")
    blobs, place = [], 8 + size
    for n in sizes:
        blobs.append(view[place : place + n])
        place += n
    return header, blobs


class Table:
    """The objects that both sides know, by number, in the order in which they first crossed.

    What belongs to models stays for the time of a check, so that a model crosses once for many calls; all else for the
    time of a call.
    """

    def __init__(self, side: Side):
        self.side = side
        self.entries: dict[int, Entry] = {}
        self.next = 0
        self.by_id: dict[int, int] = {}
        self.spans: dict[int, list[int]] = {}  # storages by their place in memory
        self.changed: set[int] = set()  # what the other side has changed here
        self.parts: list[int] = []  # containers inside models, which are many,
        self.held: list[int] = []  # and the ids of all that is in them
        self.thorough = False

    # ---------------------------------------------------------------- out

    def encode(self, *values: Any, graph: Callable[[Tensor, list[Tensor]], int]) -> tuple:
        """(header, blobs) for values, with all that has changed in what the other side knows.

        Args:
            values: What to send.
            graph: Given a tensor that has a graph, and the tensors known to both sides that it was computed from, a
                number by which the other side can ask for gradients.
        """
        self.nodes, self.blobs, self.with_graph = [], [], []
        n_known = self.next
        roots = [self._ref(value) for value in values]
        updates = self._updates(n_known)
        header = {"start": n_known, "nodes": self.nodes, "roots": roots, "updates": updates}
        if not self.side.is_worker:
            header["inside"] = _ranges([place for place in range(n_known, self.next) if self.entries[place].internal])
        if self.with_graph:
            header["graphs"] = self._graphs(graph)
        return header, self.blobs

    def _graphs(self, graph: Callable) -> list:
        """Number, place and sources of each new tensor that has a graph; a source that is new itself comes earlier."""
        nodes, variables = {}, {}
        for place, entry in self.entries.items():
            if entry.kind == "tensor" and self.by_id.get(id(entry.obj)) == place and entry.obj.requires_grad:
                if entry.obj.is_leaf:
                    variables[id(entry.obj)] = place
                else:
                    nodes[entry.obj.grad_fn, entry.obj.output_nr] = place
        sources = {place: _sources(self.entries[place].obj, nodes, variables) - {place} for place in self.with_graph}
        ordered: dict[int, None] = {}
        waiting = list(reversed(self.with_graph))
        while waiting:
            first = [place for place in sources[waiting[-1]] if place in sources and place not in ordered]
            if first and len(waiting) <= len(sources) ** 2:
                waiting += first
            else:
                ordered[waiting.pop()] = None
        found = []
        for place in ordered:
            known = sorted(sources[place])
            number = graph(self.entries[place].obj, [self.entries[i].obj for i in known])
            found.append([number, place, known])
        return found

    def _blob(self, data: Any) -> int:
        self.blobs.append(bytes(data))
        return len(self.blobs) - 1

    def _ref(self, value: Any, internal: bool = False, depth: int = 0) -> Any:
        """Plain values stand for themselves; others are entries, named by their place in a list of one."""
        if value is None or type(value) in (bool, int, float, str):
            return value if type(value) is not int or abs(value) < 2**4000 else [self._opaque("int")]
        if id(value) in self.by_id:
            return [self.by_id[id(value)]]
        if depth > MAX_DEPTH:
            return [self._opaque("something nested too deep")]
        return [self._add(value, internal, depth + 1)]

    def _new(self, value: Any, kind: str, internal: bool = False) -> int:
        if internal and kind in CONTAINERS:
            self.parts.append(self.next)
        if len(self.entries) >= MAX_ENTRIES:
            raise BadMessage("too many objects in one call")
        place, self.next = self.next, self.next + 1
        self.entries[place] = Entry(value, kind, internal=internal)
        self.by_id[id(value)] = place
        return place

    def _opaque(self, kind: str) -> int:
        place = self._new(Opaque(kind), "opaque")
        self._put(place, ["opaque", kind[:200]])
        return place

    def _put(self, place: int, node: list) -> None:
        self.nodes.append([place, node])

    def _add(self, value: Any, internal: bool, depth: int) -> int:
        number = self.side.proxied(value)
        if number is not None:
            return self._add_proxy(value, number)
        if isinstance(value, Tensor):
            return self._add_tensor(value, internal, depth)
        if isinstance(value, nn.Module):
            return self._add_module(value, depth)
        if type(value) in KINDS:
            node = [KINDS[type(value)], None]
            place = self._new(value, node[0], internal)
            self._put(place, node)
            node[1] = self._refs(value, internal, depth)
            self.entries[place].known = _held(value)
            return place
        if isinstance(value, tuple):
            place = self._new(value, "tuple", internal)
            node = [
                "tuple",
                None,
                None if type(value) is tuple or not hasattr(value, "_fields") else _path(type(value)),
            ]
            self._put(place, node)
            node[1] = [self._ref(item, internal, depth) for item in value]
            return place
        return self._add_other(value, internal, depth)

    def _refs(self, value: Any, internal: bool, depth: int = 0) -> list:
        if isinstance(value, dict):
            return [[self._ref(k, internal, depth), self._ref(v, internal, depth)] for k, v in list(value.items())]
        return [self._ref(item, internal, depth) for item in list(value)]

    def _add_other(self, value: Any, internal: bool, depth: int) -> int:
        if isinstance(value, np.ndarray | np.generic):
            return self._add_array(value)
        place = self._new(value, "other", internal)
        node = self._plain_node(value)
        if node is None and isinstance(value, torch.Generator):
            state = value.get_state()
            self.entries[place] = Entry(value, "generator", known=state)
            node = ["generator", self._blob(state.numpy().tobytes())]
        if node is None and self._by_path(value):
            node = ["path", _path(value)]
        if node is None and self._known_class(value):
            node = ["object", _path(type(value)), None]
            self._put(place, node)
            self.entries[place].kind = "object"
            node[2] = self._ref(vars(value), internal, depth)
            return place
        if node is None and hasattr(value, "backend_tokenizer") and not self.side.is_worker:
            given = {key: getattr(value, key, None) for key in TOKENIZER}
            text = value.backend_tokenizer.to_str().encode()
            node = ["tokenizer", self._blob(text), {k: v for k, v in given.items() if isinstance(v, bool | str)}]
        if node is None and callable(value):
            name = str(getattr(value, "__name__", type(value).__name__))[:100]
            node = ["function", self.side.offer(value), name, _parameters(value)]
        self._put(place, node or ["opaque", type(value).__name__[:200]])
        return place

    def _plain_node(self, value: Any) -> list | None:
        if type(value) is complex:
            return ["complex", value.real, value.imag]
        if type(value) in (bytes, bytearray):
            return ["bytes", self._blob(value)]
        if isinstance(value, torch.dtype):
            return ["dtype", str(value).removeprefix("torch.")]
        if isinstance(value, torch.device):
            return ["device", str(value)]
        if type(value) is slice and all(x is None or type(x) is int for x in (value.start, value.stop, value.step)):
            return ["slice", value.start, value.stop, value.step]
        if type(value) is range:
            return ["range", value.start, value.stop, value.step]
        if value is Ellipsis:
            return ["ellipsis"]
        if isinstance(value, frozenset):
            return ["frozenset", [self._ref(item) for item in value]]
        return None

    def _by_path(self, value: Any) -> bool:
        """Whether this is a function or class of a library or of the course, that the other side may import."""
        if self.side.is_worker or not (inspect.isroutine(value) or inspect.isclass(value)):
            return False
        path = _path(value)
        if path.split(".")[0] not in SHOWN or "<" in path:
            return False
        try:
            return find(path) is value
        except (ImportError, AttributeError):
            return False

    def _known_class(self, value: Any) -> bool:
        """Whether the other side can make an object of this class from its attributes."""
        cls = type(value)
        known = cls.__module__.startswith(("utils.", "transformer_lens.", "torch.optim."))
        return known and hasattr(value, "__dict__") and not self.side.is_worker and not callable(value)

    def _add_array(self, value: Any) -> int:
        place = self._new(value, "array")
        array = np.asarray(value)
        if array.dtype.kind not in "biufcSU":
            self._put(place, ["opaque", f"{array.dtype} array"])
            return place
        node = ["array", array.dtype.str, list(array.shape), self._blob(array.tobytes()), isinstance(value, np.generic)]
        self.entries[place].known = array.copy()
        self._put(place, node)
        return place

    def _add_tensor(self, value: Tensor, internal: bool, depth: int) -> int:
        if torch._C._functorch.is_functorch_wrapped_tensor(value):
            raise BadMessage("a tensor inside torch.func, which can't leave its process")
        name = str(value.dtype).removeprefix("torch.")
        flags = [value.requires_grad, value.is_leaf, isinstance(value, nn.Parameter)]
        if value.is_meta:
            place = self._new(value, "meta")
            self._put(place, ["meta", name, list(value.shape), list(value.stride())])
            return place
        if value.layout is not torch.strided or value.device.type != "cpu" or name not in PLAIN_DTYPES:
            return self._opaque(f"tensor of layout {value.layout}, dtype {name}")
        if value.is_conj() or value.is_neg():
            value = value.resolve_conj().resolve_neg()
        span, offset = self._span(value, internal)
        place = self._new(value, "tensor", internal)
        self._put(place, ["tensor", span, name, list(value.shape), list(value.stride()), offset, *flags])
        entry = self.entries[place]
        entry.known = (value.requires_grad, None)
        entry.span, entry.version = span, _version(value)
        if value.requires_grad and not value.is_leaf:
            self.with_graph.append(place)
        return place

    def _span(self, value: Tensor, internal: bool) -> tuple[int, int]:
        """The entry for the stretch of memory that a tensor lies in, and where in it it begins, in entries."""
        size = value.element_size()
        last = sum((n - 1) * s for n, s in zip(value.shape, value.stride(), strict=True))
        start = value.storage_offset() * size
        stop = start + (last + 1) * size if value.numel() else start
        base = value.untyped_storage().data_ptr()
        for place in self.spans.get(base, ()):
            flat, begin = self.entries[place].obj, self.entries[place].obj.storage_offset()
            if begin <= start and stop <= begin + len(flat) and (start - begin) % size == 0:
                return place, (start - begin) // size
        begin = start - start % 16  # another dtype may look at the same memory
        flat = torch.empty(0, dtype=torch.uint8).set_(value.untyped_storage(), begin, (stop - begin,), (1,))
        place = self._new(flat, "span", internal)
        self.spans.setdefault(base, []).append(place)
        content = flat.clone()
        self.entries[place].known = content
        self._put(place, ["span", self._blob(memoryview(content.numpy()))])
        return place, (start - begin) // size

    def _add_module(self, value: nn.Module, depth: int) -> int:
        place = self._new(value, "module", True)
        alike = self._alike(value) if self.side.is_worker else None
        if alike is not None:
            node = ["alike", alike, None, value.training]
            self._put(place, node)
            node[2] = [[name, self._ref(t.detach().clone()), t.requires_grad] for name, t in _parts(value)]
        elif self.side.is_worker:
            self.entries[place].kind = "own"
            name = type(value).__name__[:100]
            node = ["remote", self.side.offer(value), name, None, value.training, _parameters(value.forward)]
            self._put(place, node)
            node[3] = [[name, self._ref(t, True, depth)] for name, t in _parts(value)]
        else:
            node = ["module", *self._class_of(value), None]
            self._put(place, node)
            node[-1] = self._ref(vars(value), True, depth)
        return place

    def _class_of(self, value: nn.Module) -> tuple[str, str, dict[str, int]]:
        """A model's class: its name, the nearest one that the worker has, and functions for what lies between.

        A check's own classes are not in the worker's course; it calls their methods here.
        """
        classes = type(value).__mro__
        known = next(i for i, cls in enumerate(classes) if _importable(cls))
        methods = {
            name: self.side.offer(method)
            for cls in reversed(classes[:known])
            for name, method in vars(cls).items()
            if inspect.isfunction(method) and (name == "forward" or not name.startswith("__"))
        }
        return type(value).__name__, _path(classes[known]), methods

    def _alike(self, value: nn.Module) -> int | None:
        """A model that came from the grader, of this one's class and shapes: the grader then copies its own."""
        mine = [(name, t.shape) for name, t in _parts(value)]
        for place, entry in self.entries.items():
            alike = entry.kind == "module" and type(entry.obj) is type(value) and entry.obj is not value
            if alike and [(name, t.shape) for name, t in _parts(entry.obj)] == mine:
                return place
        return None

    def _add_proxy(self, value: Any, number: int) -> int:
        """An object that lives on the other side goes by its number there; a module takes its weights along."""
        place = self._new(value, "proxy", True)
        node = ["yours", number, [], getattr(value, "training", None)]
        self._put(place, node)
        for name, tensor in _parts(value) if isinstance(value, nn.Module) else ():
            span, offset = self._span(tensor, True)
            entry = self._new(tensor, "tensor", True)
            self.entries[entry].known = (tensor.requires_grad, None)
            self.entries[entry].span, self.entries[entry].version = span, _version(tensor)
            self._put(entry, ["part"])
            node[2].append([name, span, entry, tensor.requires_grad])
        return place

    def _updates(self, n_known: int) -> list:
        """What has changed in the entries that the other side has seen before, and the gradients of all."""
        updates, looked_at, untouched, written = [], -1, self._models_hold_the_same(), self._written()
        while looked_at < self.next - 1:  # a change may bring new entries
            places = [place for place in self.entries if place > looked_at]
            looked_at = self.next - 1
            for place in places:
                entry = self.entries[place]
                if untouched and entry.internal and entry.kind in CONTAINERS:
                    continue
                if entry.kind == "span" and place not in written:
                    continue
                state = self._changed(entry, place < n_known)
                if state is not None:
                    updates.append([place, *state])
        return updates

    def _written(self) -> set[int]:
        """The stretches of memory that may have been written into.

        A large one inside a model is looked at only if torch has counted a write, or at the end of a check: comparing
        the weights of a network with each of a thousand calls would take longer than the calls.
        """
        found = set()
        for place, entry in self.entries.items():
            if entry.kind == "span" and (self.thorough or not entry.internal or len(entry.obj) < LARGE):
                found.add(place)
            elif entry.kind == "tensor" and entry.version != _version(entry.obj):
                entry.version = _version(entry.obj)
                found.add(entry.span)
        return found

    def _models_hold_the_same(self) -> bool:
        """Quickly, whether nothing was put into or taken out of the containers that models are made of."""
        held = self._all_held()
        same, self.held = held == self.held, held
        return same

    def _all_held(self) -> list[int]:
        objects = [self.entries[place].obj for place in self.parts]
        values = chain.from_iterable(map(dict.values, [obj for obj in objects if isinstance(obj, dict)]))
        return [*map(id, chain(chain.from_iterable(objects), values))]

    def drop_values(self) -> list[int]:
        """Forget all that is no part of a model; what is returned is for the other side to forget."""
        places = [place for place, entry in self.entries.items() if not entry.internal]
        self.drop(places)
        self.changed.clear()
        return places

    def drop_passing(self, start: int) -> None:
        """Forget what has crossed in a call back, from this number on: there may be thousands of them in one call.

        Not if gradients may be asked for, on their way through what has crossed.
        """
        passing = [place for place in range(start, self.next) if place in self.entries]
        passing = [place for place in passing if not self.entries[place].internal]
        if not any(self.entries[p].kind == "tensor" and self.entries[p].obj.requires_grad for p in passing):
            self.drop(passing)

    def drop(self, places: list[int]) -> None:
        for place in places:
            entry = self.entries.pop(place, None)
            if entry is None:
                continue
            if self.by_id.get(id(entry.obj)) == place:
                del self.by_id[id(entry.obj)]
            if place in self.parts:
                self.parts.remove(place)
            if entry.kind == "span":
                base = entry.obj.untyped_storage().data_ptr()
                self.spans[base] = [other for other in self.spans.get(base, ()) if other != place]

    def _changed(self, entry: Entry, seen: bool) -> list | None:
        if entry.kind == "tensor":
            grad = entry.obj.grad if entry.obj.is_leaf else None
            asks = entry.obj.requires_grad if entry.obj.is_leaf else entry.known[0]
            state = (asks, None if grad is None else id(grad))
            if state == entry.known and (grad is None or id(grad) in self.by_id):
                return None
            entry.known = state
            return ["tensor", state[0], self._ref(grad, True)]
        if not seen:
            return None
        if entry.kind in CONTAINERS:
            if _holds_the_same(entry):
                return None
            refs = self._refs(entry.obj, entry.internal)
            entry.known = _held(entry.obj)
            return [entry.kind, refs]
        if entry.kind == "span" and not torch.equal(entry.obj, entry.known):
            entry.known = entry.obj.clone()
            return ["span", self._blob(memoryview(entry.known.numpy()))]
        if entry.kind == "array" and isinstance(entry.obj, np.ndarray) and not _same_array(entry.obj, entry.known):
            entry.known = entry.obj.copy()
            return ["array", self._blob(entry.known.tobytes())]
        if entry.kind == "generator" and not torch.equal(state := entry.obj.get_state(), entry.known):
            entry.known = state
            return ["generator", self._blob(state.numpy().tobytes())]
        return None

    # ---------------------------------------------------------------- in

    def decode(self, header: dict, blobs: list[memoryview], link: Callable) -> list[Any]:
        """The values of a message.

        Args:
            header, blobs: From ``parse``.
            link: (A graph's number, a tensor, what it was computed from) to the tensor with a graph that leads to the
                other side.

        Raises:
            BadMessage: If it holds anything that is no plain value, or contradicts itself.
        """
        try:
            return self._decode(header, blobs, link)
        except BadMessage:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError) as error:
            text = f"{type(error).__name__}: {str(error)[:200]}"
            raise BadMessage(f"a message does not make sense ({text})") from error
        except (MemoryError, RecursionError) as error:
            raise BadMessage(f"a message is too large ({type(error).__name__})") from error

    def _decode(self, header: dict, blobs: list[memoryview], link: Callable) -> list[Any]:
        start, nodes = self.next, header["nodes"]
        if not all(type(header[key]) is list for key in ("nodes", "roots", "updates")):
            raise BadMessage("a message without lists")
        if header["start"] != start:
            raise BadMessage("a message belongs to another call")
        if len(self.entries) + len(nodes) > MAX_ENTRIES:
            raise BadMessage("too many objects in one call")
        self.incoming, self.read_blobs = {}, blobs
        self.linked = {place for _, place, _ in header.get("graphs", ())}
        self.next = start + len(nodes)
        self.entries |= {place: Entry(None, "missing") for place in range(start, self.next)}
        for place, node in nodes:
            if type(place) is not int or not start <= place < self.next or place in self.incoming:
                raise BadMessage("an object is named twice")
            self.incoming[place] = node
            if node[0] in CONTAINERS:  # they may hold each other: filled when all else is made
                self._set(place, CONTAINERS[node[0]](), node[0])
        for begin, end in header["inside"] if self.side.is_worker else ():
            for place in range(begin, end):
                self.entries[place].internal = True
                if self.incoming[place][0] in CONTAINERS:
                    self.parts.append(place)
        for first in (("yours",), ("span", "tensor")):
            for place, node in nodes:
                if node[0] in first:
                    self._make(place)
        for number, place, known in header.get("graphs", ()):
            self._link(_whole(number), place, known, link)
        for place, _ in nodes:
            self._make(place)
        for place, node in nodes:
            if node[0] in CONTAINERS:
                self._fill(self.entries[place], node[1])
        for place, kind, *state in header["updates"]:
            if type(place) is not int or place not in self.entries or self.entries[place].kind != kind:
                raise BadMessage("a change to nothing")
            self._apply(self.entries[place], place, kind, state)
        return [self._value(ref) for ref in header["roots"]]

    def _set(self, place: int, obj: Any, kind: str) -> Any:
        entry = self.entries[place]
        if self.by_id.get(id(entry.obj)) == place:  # its id may soon be another's
            del self.by_id[id(entry.obj)]
        entry.obj, entry.kind = obj, kind
        self.by_id[id(obj)] = place
        return obj

    def _value(self, ref: Any, depth: int = 0) -> Any:
        if ref is None or type(ref) in (bool, int, float):
            return ref
        if type(ref) is str:
            if len(ref) > MAX_TEXT:
                raise BadMessage("a text is too long")
            return ref
        if type(ref) is not list or len(ref) != 1 or type(ref[0]) is not int or ref[0] not in self.entries:
            raise BadMessage("a reference to nothing")
        return self._make(ref[0], depth)

    def _make(self, place: int, depth: int = 0) -> Any:
        entry = self.entries[place]
        if entry.kind != "missing":
            if entry.kind == "in the making":
                raise BadMessage("an object holds itself")
            return entry.obj
        if depth > MAX_DEPTH + 5:
            raise BadMessage("objects are nested too deep")
        entry.kind = "in the making"
        kind, *rest = self.incoming[place]
        worker_only = ("module", "object", "path", "tokenizer")
        if type(kind) is not str or kind in worker_only and not self.side.is_worker:
            raise BadMessage(f"an object of kind {str(kind)[:50]!r}")
        maker = getattr(self, f"_make_{kind}", None)
        if maker is None:
            raise BadMessage(f"an object of kind {kind[:50]!r}")
        return maker(place, depth + 1, *rest)

    def _make_complex(self, place: int, depth: int, real: float, imag: float) -> Any:
        return self._set(place, complex(real, imag), "other")

    def _make_bytes(self, place: int, depth: int, blob: int) -> Any:
        return self._set(place, bytes(self.read_blobs[blob]), "other")

    def _make_dtype(self, place: int, depth: int, name: str) -> Any:
        return self._set(place, DTYPES[name], "other")

    def _make_device(self, place: int, depth: int, name: str) -> Any:
        return self._set(place, torch.device(name), "other")

    def _make_slice(self, place: int, depth: int, *ends: int | None) -> Any:
        return self._set(place, slice(*ends), "other")

    def _make_range(self, place: int, depth: int, *ends: int) -> Any:
        return self._set(place, range(*ends), "other")

    def _make_ellipsis(self, place: int, depth: int) -> Any:
        return self._set(place, ..., "other")

    def _make_opaque(self, place: int, depth: int, name: str) -> Any:
        return self._set(place, Opaque(str(name)[:200]), "other")

    def _make_frozenset(self, place: int, depth: int, refs: list) -> Any:
        return self._set(place, frozenset(self._value(ref, depth) for ref in refs), "other")

    def _make_function(self, place: int, depth: int, number: int, name: str, parameters: Any) -> Any:
        return self._set(place, self.side.proxy(_whole(number), str(name)[:100], _names(parameters)), "other")

    def _make_tokenizer(self, place: int, depth: int, blob: int, given: dict) -> Any:
        from tokenizers import Tokenizer
        from transformers import PreTrainedTokenizerFast

        backend = Tokenizer.from_str(bytes(self.read_blobs[blob]).decode())
        value = PreTrainedTokenizerFast(tokenizer_object=backend, **given)
        vars(value).update({key: given[key] for key in given if key.startswith("add_")})
        return self._set(place, value, "other")

    def _make_path(self, place: int, depth: int, path: str) -> Any:
        return self._set(place, find(path), "other")

    def _make_tuple(self, place: int, depth: int, refs: list, named: str | None) -> Any:
        items = [self._value(ref, depth) for ref in refs]
        if named is None:
            return self._set(place, tuple(items), "tuple")
        if not self.side.is_worker and not (named.startswith("utils.") and hasattr(find(named), "_fields")):
            return self._set(place, tuple(items), "tuple")
        return self._set(place, find(named)(*items), "tuple")

    def _make_generator(self, place: int, depth: int, blob: int) -> Any:
        state = torch.frombuffer(bytearray(self.read_blobs[blob]), dtype=torch.uint8)
        value = torch.Generator()
        value.set_state(state)
        self.entries[place].known = state
        return self._set(place, value, "generator")

    def _make_array(self, place: int, depth: int, dtype: str, shape: list, blob: int, scalar: bool) -> Any:
        kind = np.dtype(dtype)
        if kind.kind not in "biufcSU":
            raise BadMessage(f"an array of {dtype}")
        value = np.frombuffer(bytes(self.read_blobs[blob]), dtype=kind).reshape(shape).copy()
        self.entries[place].known = value.copy()
        return self._set(place, value[()] if scalar and not shape else value, "array")

    def _make_meta(self, place: int, depth: int, name: str, shape: list, stride: list) -> Any:
        return self._set(place, torch.empty_strided(shape, stride, dtype=DTYPES[name], device="meta"), "meta")

    def _make_span(self, place: int, depth: int, blob: int) -> Any:
        content = self.read_blobs[blob]
        flat = torch.frombuffer(bytearray(content), dtype=torch.uint8) if len(content) else torch.empty(0).byte()
        flat = flat.clone()  # aligned as torch likes it
        self._know_span(place, flat)
        return self._set(place, flat, "span")

    def _know_span(self, place: int, flat: Tensor) -> None:
        self.entries[place].known = flat.clone()
        self.spans.setdefault(flat.untyped_storage().data_ptr(), []).append(place)

    def _make_tensor(
        self,
        place: int,
        depth: int,
        span: int,
        name: str,
        shape: list,
        stride: list,
        offset: int,
        asks: bool,
        leaf: bool,
        parameter: bool,
    ) -> Any:
        flat = self._make(_whole(span))
        if self.entries[span].kind != "span" or name not in PLAIN_DTYPES:
            raise BadMessage("a tensor without memory")
        dtype = DTYPES[name]
        size = dtype.itemsize
        if any(type(n) is not int or n < 0 for n in (*shape, *stride, offset)) or len(shape) != len(stride):
            raise BadMessage("a tensor of a shape that does not exist")
        numbers = 1
        for n in shape:
            numbers *= n
            if numbers > MAX_NUMBERS:
                raise BadMessage(f"a tensor of more than {MAX_NUMBERS} numbers")
        last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
        begin = flat.storage_offset()
        if numbers and (last + 1) * size > len(flat) or begin % size:
            raise BadMessage("a tensor beyond its memory")
        value = torch.empty(0, dtype=dtype)
        value.set_(flat.untyped_storage(), begin // size + (offset if numbers else 0), shape, stride)
        if parameter:
            value = nn.Parameter(value, requires_grad=bool(asks))
        elif asks and place not in self.linked:
            value.requires_grad_()
        entry = self.entries[place]
        entry.known = (bool(asks), None)
        entry.span, entry.version = span, _version(value)
        return self._set(place, value, "tensor")

    def _link(self, number: int, place: int, known: list, link: Callable) -> None:
        sources = [self.entries[_whole(other)] for other in known]
        fits = place in self.incoming and self.entries[place].kind == "tensor" and place in self.linked
        if not fits or any(entry.kind != "tensor" for entry in sources) or self.linked & set(known):
            raise BadMessage("a graph that leads nowhere")
        self.linked.discard(place)
        self._set(place, link(number, self.entries[place].obj, [entry.obj for entry in sources]), "tensor")

    def _make_module(self, place: int, depth: int, name: str, base: str, methods: dict, attributes: list) -> Any:
        cls = find(base)
        if methods:
            cls = type(name, (cls,), {key: _method(self.side.proxy(n, key, None)) for key, n in methods.items()})
        value = cls.__new__(cls)
        value.__dict__ = self._value(attributes)
        return self._set(place, value, "module")

    def _make_object(self, place: int, depth: int, path: str, attributes: list) -> Any:
        value = object.__new__(find(path))
        object.__setattr__(value, "__dict__", self._value(attributes))
        return self._set(place, value, "object")

    def _make_remote(
        self, place: int, depth: int, number: int, name: str, parts: list, training: bool, parameters: Any
    ) -> Any:
        tensors = [(str(part), self._value(ref)) for part, ref in parts]
        if not all(isinstance(tensor, Tensor) for _, tensor in tensors):
            raise BadMessage("a module with weights that are no tensors")
        value = self.side.module_proxy(_whole(number), str(name)[:100], tensors, bool(training), _names(parameters))
        for entry in (self.entries[ref[0]] for _, ref in parts):  # they stay with it
            entry.internal = self.entries[entry.span].internal = True
        self.entries[place].internal = True
        return self._set(place, value, "proxy")

    def _make_alike(self, place: int, depth: int, like: int, parts: list, training: bool) -> Any:
        if _whole(like) not in self.entries or self.entries[like].kind != "module":
            raise BadMessage("a copy of no model")
        value = copy.deepcopy(self.entries[like].obj)
        mine = dict(_parts(value))
        with torch.no_grad():
            for name, ref, asks in parts:
                mine[name].copy_(self._value(ref))
                mine[name].requires_grad_(bool(asks) and mine[name].is_floating_point())
        value.train(bool(training))
        return self._set(place, value, "module")

    def _make_yours(self, place: int, depth: int, number: int, parts: list, training: bool | None) -> Any:
        value = self.side.offered(_whole(number))
        mine = dict(_parts(value)) if parts else {}
        for name, span, entry, asks in parts:
            tensor = mine[name]
            if self.entries[span].kind == "missing":
                flat = torch.empty(0, dtype=torch.uint8)
                content = torch.frombuffer(bytearray(self.read_blobs[self.incoming[span][1]]), dtype=torch.uint8)
                begin = tensor.storage_offset() * tensor.element_size()
                flat.set_(tensor.untyped_storage(), begin - begin % 16, (len(content),), (1,))
                if not torch.equal(flat, content):
                    flat.copy_(content)
                self._know_span(span, flat)
                self._set(span, flat, "span")
            if tensor.requires_grad != asks:
                tensor.requires_grad_(asks)
            self.entries[entry].known = (asks, None)
            self.entries[entry].span, self.entries[entry].version = span, _version(tensor)
            self._set(entry, tensor, "tensor")
        if parts and value.training != training:
            value.train(training)
        return self._set(place, value, "proxy")

    def _fill(self, entry: Entry, refs: list) -> None:
        self._refill(entry.obj, refs)
        entry.known = _held(entry.obj)

    def _refill(self, obj: Any, refs: list) -> None:
        if isinstance(obj, dict):
            items = [(self._value(key), self._value(value)) for key, value in refs]
            obj.clear()
            obj.update(items)
        elif isinstance(obj, set):
            items = [self._value(ref) for ref in refs]
            obj.clear()
            obj.update(items)
        else:
            obj[:] = [self._value(ref) for ref in refs]

    def _apply(self, entry: Entry, place: int, kind: str, state: list) -> None:
        """Take over what the other side has changed in an object that both know."""
        if place not in self.changed:
            self.changed.add(place)
            entry.before = self._content(entry)
        if kind in CONTAINERS:
            self._fill(entry, state[0])
        elif kind == "span":
            content = torch.frombuffer(bytearray(self.read_blobs[state[0]]), dtype=torch.uint8)
            if len(content) != len(entry.obj):
                raise BadMessage("a change of another size")
            entry.obj.copy_(content)
            entry.known = content
        elif kind == "array":
            content = np.frombuffer(bytes(self.read_blobs[state[0]]), dtype=entry.obj.dtype).reshape(entry.obj.shape)
            entry.obj[...] = content
            entry.known = content
        elif kind == "generator":
            entry.known = torch.frombuffer(bytearray(self.read_blobs[state[0]]), dtype=torch.uint8)
            if not self.side.is_worker:
                expect_reachable(entry.obj, entry.known)
            entry.obj.set_state(entry.known)
        elif kind == "tensor":
            asks, grad = bool(state[0]), self._value(state[1])
            tensor = entry.obj
            if grad is not None and (
                not isinstance(grad, Tensor) or grad.shape != tensor.shape or grad.dtype != tensor.dtype
            ):
                raise BadMessage("a gradient of another shape")
            if tensor.is_leaf and tensor.requires_grad != asks:
                tensor.requires_grad_(asks)
            if tensor.is_leaf:
                tensor.grad = grad
            entry.known = (asks, None if grad is None else id(grad))
        else:
            raise BadMessage(f"a change of kind {kind[:50]!r}")

    @staticmethod
    def _content(entry: Entry) -> Any:
        if entry.kind == "span":
            return entry.obj.clone()
        if entry.kind in CONTAINERS:
            return _copied(entry.obj)
        return entry.obj.requires_grad if entry.kind == "tensor" else None

    def left_otherwise(self) -> list[Callable[[], None]]:
        """What puts each part of a model back that the other side has left otherwise than it was before the call.

        Gradients do not count, nor what torch notes when there has been a hook.
        """
        held = set(self._all_held())
        found = []
        for entry in (self.entries[place] for place in sorted(self.changed) if place in self.entries):
            if not entry.internal:
                continue
            if entry.kind == "span" and not torch.equal(entry.obj, entry.before):
                found.append(partial(_write_back, entry.obj, entry.before))
            elif entry.kind == "tensor" and entry.obj.requires_grad != entry.before:
                found.append(partial(entry.obj.requires_grad_, entry.before))
            elif entry.kind in CONTAINERS and not self._alike_inside(entry.obj, entry.before):
                is_part = id(entry.obj) in held or "_parameters" in entry.before  # not one that was replaced
                found += [partial(_put_back, entry.obj, _copied(entry.obj), entry.before)] if is_part else []
        return found

    def _alike_inside(self, now: Any, before: Any) -> bool:
        if not isinstance(now, dict):
            return len(now) == len(before) and all(map(self._same_or_alike, now, before))
        now, before = ({k: v for k, v in d.items() if k != "_is_full_backward_hook"} for d in (now, before))
        return now.keys() == before.keys() and all(self._same_or_alike(now[key], before[key]) for key in now)

    def _same_or_alike(self, now: Any, before: Any) -> bool:
        if _is(now, before) or type(now) is not type(before) or type(now) not in KINDS:
            return _is(now, before)
        place = self.by_id.get(id(before))
        return self._alike_inside(now, self.entries[place].before if place in self.changed else before)


def _write_back(flat: Tensor, content: Tensor) -> None:
    flat.copy_(content)


def _put_back(obj: Any, after: Any, before: Any) -> None:
    """Undo a change of a container, and leave alone what was done to it since."""
    if isinstance(obj, list):
        obj[:] = before if obj == after else obj
        return
    if isinstance(obj, set):
        obj -= after - before
        obj |= before - after
        return
    for key in after.keys() - before.keys():
        obj.pop(key, None)
    for key, value in before.items():
        if key not in after or after[key] is not value:
            obj[key] = value


def expect_reachable(generator: torch.Generator, state: Tensor) -> None:
    """Refuse a state that drawing from the generator does not lead to: one whose draws the other side has chosen.

    A state of torch's Mersenne twister is a block of 624 numbers, how much of it is used up, and at most one normal
    number that is left over.
    """
    ahead = torch.Generator()
    ahead.set_state(generator.get_state())
    block = torch.empty(624, dtype=torch.int32)
    if len(state) != len(ahead.get_state()):
        raise BadMessage("a generator's state of another size")
    for _ in range(MAX_BLOCKS):
        now = ahead.get_state()
        if torch.equal(now[_BLOCK], state[_BLOCK]):
            break
        block.random_(generator=ahead)
    else:
        raise BadMessage("a generator in a state that drawing from it does not lead to")
    used, left_over = state[_USED].numpy(), state[_BLOCK.stop :].numpy()
    left, seeded, following = struct.unpack("<iiQ", used.tobytes())
    numbers = np.frombuffer(left_over.tobytes()[: len(left_over) // 8 * 8], dtype=np.float64)
    if not 0 < left <= 624 or seeded != 1 or following > 624 or not np.all(np.abs(numbers) < 40):
        raise BadMessage("a generator in a state that it never is in")


def _sources(tensor: Tensor, nodes: dict, variables: dict[int, int]) -> set[int]:
    """Places of the known tensors that one meets first on the way back through a tensor's graph."""
    found, seen, stack = set(), {tensor.grad_fn}, [tensor.grad_fn]
    while stack:
        for node, number in stack.pop().next_functions:
            if (node, number) in nodes:
                found.add(nodes[node, number])
            elif node is not None and node not in seen:
                seen.add(node)
                stack.append(node)
                if hasattr(node, "variable") and id(node.variable) in variables:
                    found.add(variables[id(node.variable)])
    return found


def find(path: str) -> Any:
    """The class or function of a dotted path."""
    names = path.split(".")
    for split in range(len(names) - 1, 0, -1):
        try:
            found = importlib.import_module(".".join(names[:split]))
        except ModuleNotFoundError:
            continue
        for name in names[split:]:
            found = getattr(found, name)
        return found
    raise ImportError(f"There is nothing called {path}.")


def _method(function: Callable) -> Callable:
    """A proxy as a method: Python binds functions alone to the object that they are looked up on."""
    return lambda self, *args, **kwargs: function(self, *args, **kwargs)


def _version(tensor: Tensor) -> int:
    """How often torch has seen a tensor being written into."""
    return 0 if tensor.is_inference() else tensor._version


def _path(value: Any) -> str:
    return f"{getattr(value, '__module__', None)}.{getattr(value, '__qualname__', None)}"


def _importable(cls: type) -> bool:
    """Whether the other side has this class, too."""
    if cls.__module__.split(".")[0] not in ("torch", "utils", "transformer_lens"):
        return False
    try:
        return find(_path(cls)) is cls
    except (ImportError, AttributeError):
        return False


def _parts(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers by name."""
    return [*module.named_parameters(), *module.named_buffers()]


def _parameters(function: Any) -> list[str] | None:
    """Names of the positional parameters; None where there is no telling."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    return [p.name for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _names(value: Any) -> list[str] | None:
    if value is None:
        return None
    if type(value) is not list or len(value) > 100:
        raise BadMessage("a function with odd parameters")
    fine = all(type(name) is str and name.isidentifier() and not keyword.iskeyword(name) for name in value)
    return value if fine and len(set(value)) == len(value) else None


def _ranges(places: list[int]) -> list[list[int]]:
    """Sorted numbers as stretches [first, last + 1]."""
    found: list[list[int]] = []
    for place in places:
        if found and found[-1][1] == place:
            found[-1][1] += 1
        else:
            found.append([place, place + 1])
    return found


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise BadMessage("a number that is none")
    return value


def _held(value: Any) -> tuple[list[int], list[Any]]:
    """What a container holds: which objects, and these themselves, so that none of their ids is given away."""
    items = [*value.keys(), *value.values()] if isinstance(value, dict) else list(value)
    return [id(item) for item in items], items


def _holds_the_same(entry: Entry) -> bool:
    ids, items = _held(entry.obj)
    known_ids, known = entry.known
    return ids == known_ids or (len(ids) == len(known_ids) and all(map(_is, items, known)))


def _copied(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else type(value)(value)


def _is(a: Any, b: Any) -> bool:
    plain = (bool, int, float, str, type(None))
    return a is b or (type(a) is type(b) and isinstance(a, plain) and (a == b or a != a))


def _same_array(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.tobytes() == b.tobytes()
