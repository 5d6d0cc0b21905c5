"""Values into a message."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from utils.grading.encoding.messages import BadMessage
from utils.grading.encoding.table import (
    CONTAINERS,
    KINDS,
    MAX_DEPTH,
    PLAIN_DTYPES,
    Entry,
    Opaque,
    Table,
    find,
    held,
    is_same,
    tensors_of,
    version_of,
)

TOKENIZER = ("bos_token", "eos_token", "unk_token", "pad_token", "padding_side", "add_bos_token", "add_prefix_space")
SHOWN = ("torch", "numpy", "math", "operator", "builtins", "utils", "transformer_lens", "einops", "jaxtyping")


def encode(table: Table, *values: Any, graph: Callable[[Tensor, list[Tensor]], int]) -> tuple[dict, list[bytes]]:
    """(header, blobs) for values, with all that has changed in what the other side knows.

    Args:
        table: What it knows.
        values: What to send.
        graph: Given a tensor that has a graph, and the tensors known to both sides that it was computed from, a
            number by which the other side can ask for gradients.
    """
    message, n_known = Outgoing(table), table.next
    roots = [message.ref(value) for value in values]
    updates = message.updates(n_known)
    header = {"start": n_known, "nodes": message.nodes, "roots": roots, "updates": updates}
    if not table.side.is_worker:
        header["inside"] = _ranges([place for place in range(n_known, table.next) if table.entries[place].internal])
    if message.with_graph:
        header["graphs"] = message.graphs(graph)
    return header, message.blobs


class Outgoing:
    """One message on its way out.

    Args:
        table: What the other side knows.
    """

    def __init__(self, table: Table):
        self.table = table
        self.nodes: list[list] = []
        self.blobs: list[bytes] = []
        self.with_graph: list[int] = []

    def graphs(self, graph: Callable) -> list:
        """Number, place and sources of each new tensor that has a graph; a source that is new itself comes earlier."""
        nodes, variables = {}, {}
        for place, entry in self.table.entries.items():
            if entry.kind == "tensor" and self.table.by_id.get(id(entry.obj)) == place and entry.obj.requires_grad:
                if entry.obj.is_leaf:
                    variables[id(entry.obj)] = place
                else:
                    nodes[entry.obj.grad_fn, entry.obj.output_nr] = place
        sources = {
            place: _sources(self.table.entries[place].obj, nodes, variables) - {place} for place in self.with_graph
        }
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
            number = graph(self.table.entries[place].obj, [self.table.entries[i].obj for i in known])
            found.append([number, place, known])
        return found

    def _blob(self, data: Any) -> int:
        self.blobs.append(bytes(data))
        return len(self.blobs) - 1

    def ref(self, value: Any, internal: bool = False, depth: int = 0) -> Any:
        """Plain values stand for themselves; others are entries, named by their place in a list of one."""
        if value is None or type(value) in (bool, int, float, str):
            return value if type(value) is not int or abs(value) < 2**4000 else [self._opaque("int")]
        if id(value) in self.table.by_id:
            return [self.table.by_id[id(value)]]
        if depth > MAX_DEPTH:
            return [self._opaque("something nested too deep")]
        return [self._add(value, internal, depth + 1)]

    def _opaque(self, kind: str) -> int:
        place = self.table.add(Opaque(kind), "opaque")
        self._put(place, ["opaque", kind[:200]])
        return place

    def _put(self, place: int, node: list) -> None:
        self.nodes.append([place, node])

    def _add(self, value: Any, internal: bool, depth: int) -> int:
        number = self.table.side.proxied(value)
        if number is not None:
            return self._add_proxy(value, number)
        if isinstance(value, Tensor):
            return self._add_tensor(value, internal, depth)
        if isinstance(value, nn.Module):
            return self._add_module(value, depth)
        if type(value) in KINDS:
            node = [KINDS[type(value)], None]
            place = self.table.add(value, node[0], internal)
            self._put(place, node)
            node[1] = self._refs(value, internal, depth)
            self.table.entries[place].known = held(value)
            return place
        if isinstance(value, tuple):
            place = self.table.add(value, "tuple", internal)
            node = [
                "tuple",
                None,
                None if type(value) is tuple or not hasattr(value, "_fields") else _path(type(value)),
            ]
            self._put(place, node)
            node[1] = [self.ref(item, internal, depth) for item in value]
            return place
        return self._add_other(value, internal, depth)

    def _refs(self, value: Any, internal: bool, depth: int = 0) -> list:
        if isinstance(value, dict):
            return [[self.ref(k, internal, depth), self.ref(v, internal, depth)] for k, v in list(value.items())]
        return [self.ref(item, internal, depth) for item in list(value)]

    def _add_other(self, value: Any, internal: bool, depth: int) -> int:
        if isinstance(value, np.ndarray | np.generic):
            return self._add_array(value)
        place = self.table.add(value, "other", internal)
        node = self._plain_node(value)
        if node is None and isinstance(value, torch.Generator):
            state = value.get_state()
            self.table.entries[place] = Entry(value, "generator", known=state)
            node = ["generator", self._blob(state.numpy().tobytes())]
        if node is None and self._by_path(value):
            node = ["path", _path(value)]
        if node is None and self._known_class(value):
            node = ["object", _path(type(value)), None]
            self._put(place, node)
            self.table.entries[place].kind = "object"
            node[2] = self.ref(vars(value), internal, depth)
            return place
        if node is None and hasattr(value, "backend_tokenizer") and not self.table.side.is_worker:
            given = {key: getattr(value, key, None) for key in TOKENIZER}
            text = value.backend_tokenizer.to_str().encode()
            node = ["tokenizer", self._blob(text), {k: v for k, v in given.items() if isinstance(v, bool | str)}]
        if node is None and callable(value):
            name = str(getattr(value, "__name__", type(value).__name__))[:100]
            node = ["function", self.table.side.offer(value), name, _parameters(value)]
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
            return ["frozenset", [self.ref(item) for item in value]]
        return None

    def _by_path(self, value: Any) -> bool:
        """Whether this is a function or class of a library or of the course, that the other side may import."""
        if self.table.side.is_worker or not (inspect.isroutine(value) or inspect.isclass(value)):
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
        return known and hasattr(value, "__dict__") and not self.table.side.is_worker and not callable(value)

    def _add_array(self, value: Any) -> int:
        place = self.table.add(value, "array")
        array = np.asarray(value)
        if array.dtype.kind not in "biufcSU":
            self._put(place, ["opaque", f"{array.dtype} array"])
            return place
        node = ["array", array.dtype.str, list(array.shape), self._blob(array.tobytes()), isinstance(value, np.generic)]
        self.table.entries[place].known = array.copy()
        self._put(place, node)
        return place

    def _add_tensor(self, value: Tensor, internal: bool, depth: int) -> int:
        if torch._C._functorch.is_functorch_wrapped_tensor(value):
            raise BadMessage("a tensor inside torch.func, which can't leave its process")
        name = str(value.dtype).removeprefix("torch.")
        flags = [value.requires_grad, value.is_leaf, isinstance(value, nn.Parameter)]
        if value.is_meta:
            place = self.table.add(value, "meta")
            self._put(place, ["meta", name, list(value.shape), list(value.stride())])
            return place
        if value.layout is not torch.strided or value.device.type != "cpu" or name not in PLAIN_DTYPES:
            return self._opaque(f"tensor of layout {value.layout}, dtype {name}")
        if value.is_conj() or value.is_neg():
            value = value.resolve_conj().resolve_neg()
        span, offset = self._span(value, internal)
        place = self.table.add(value, "tensor", internal)
        self._put(place, ["tensor", span, name, list(value.shape), list(value.stride()), offset, *flags])
        entry = self.table.entries[place]
        entry.known = (value.requires_grad, None)
        entry.span, entry.version = span, version_of(value)
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
        for place in self.table.spans.get(base, ()):
            flat, begin = self.table.entries[place].obj, self.table.entries[place].obj.storage_offset()
            if begin <= start and stop <= begin + len(flat) and (start - begin) % size == 0:
                return place, (start - begin) // size
        begin = start - start % 16  # another dtype may look at the same memory
        flat = torch.empty(0, dtype=torch.uint8).set_(value.untyped_storage(), begin, (stop - begin,), (1,))
        place = self.table.add(flat, "span", internal)
        self.table.spans.setdefault(base, []).append(place)
        content = flat.clone()
        self.table.entries[place].known = content
        self._put(place, ["span", self._blob(memoryview(content.numpy()))])
        return place, (start - begin) // size

    def _add_module(self, value: nn.Module, depth: int) -> int:
        place = self.table.add(value, "module", True)
        alike = self._alike(value) if self.table.side.is_worker else None
        if alike is not None:
            node = ["alike", alike, None, value.training]
            self._put(place, node)
            node[2] = [[name, self.ref(t.detach().clone()), t.requires_grad] for name, t in tensors_of(value)]
        elif self.table.side.is_worker:
            self.table.entries[place].kind = "own"
            name = type(value).__name__[:100]
            node = ["remote", self.table.side.offer(value), name, None, value.training, _parameters(value.forward)]
            self._put(place, node)
            node[3] = [[name, self.ref(t, True, depth)] for name, t in tensors_of(value)]
        else:
            node = ["module", *self._class_of(value), None]
            self._put(place, node)
            node[-1] = self.ref(vars(value), True, depth)
        return place

    def _class_of(self, value: nn.Module) -> tuple[str, str, dict[str, int]]:
        """A model's class: its name, the nearest one that the worker has, and functions for what lies between.

        A check's own classes are not in the worker's course; it calls their methods here.
        """
        classes = type(value).__mro__
        known = next(i for i, cls in enumerate(classes) if _importable(cls))
        methods = {
            name: self.table.side.offer(method)
            for cls in reversed(classes[:known])
            for name, method in vars(cls).items()
            if inspect.isfunction(method) and (name == "forward" or not name.startswith("__"))
        }
        return type(value).__name__, _path(classes[known]), methods

    def _alike(self, value: nn.Module) -> int | None:
        """A model that came from the grader, of this one's class and shapes: the grader then copies its own."""
        mine = [(name, t.shape) for name, t in tensors_of(value)]
        for place, entry in self.table.entries.items():
            alike = entry.kind == "module" and type(entry.obj) is type(value) and entry.obj is not value
            if alike and [(name, t.shape) for name, t in tensors_of(entry.obj)] == mine:
                return place
        return None

    def _add_proxy(self, value: Any, number: int) -> int:
        """An object that lives on the other side goes by its number there; a module takes its weights along."""
        place = self.table.add(value, "proxy", True)
        node = ["yours", number, [], getattr(value, "training", None)]
        self._put(place, node)
        for name, tensor in tensors_of(value) if isinstance(value, nn.Module) else ():
            span, offset = self._span(tensor, True)
            entry = self.table.add(tensor, "tensor", True)
            self.table.entries[entry].known = (tensor.requires_grad, None)
            self.table.entries[entry].span, self.table.entries[entry].version = span, version_of(tensor)
            self._put(entry, ["part"])
            node[2].append([name, span, entry, tensor.requires_grad])
        return place

    def updates(self, n_known: int) -> list:
        """What has changed in the entries that the other side has seen before, and the gradients of all."""
        updates, looked_at, untouched, written = [], -1, self.table.models_hold_the_same(), self.table.written()
        while looked_at < self.table.next - 1:  # a change may bring new entries
            places = [place for place in self.table.entries if place > looked_at]
            looked_at = self.table.next - 1
            for place in places:
                entry = self.table.entries[place]
                if untouched and entry.internal and entry.kind in CONTAINERS:
                    continue
                if entry.kind == "span" and place not in written:
                    continue
                state = self._changed(entry, place < n_known)
                if state is not None:
                    updates.append([place, *state])
        return updates

    def _changed(self, entry: Entry, seen: bool) -> list | None:
        if entry.kind == "tensor":
            grad = entry.obj.grad if entry.obj.is_leaf else None
            asks = entry.obj.requires_grad if entry.obj.is_leaf else entry.known[0]
            state = (asks, None if grad is None else id(grad))
            if state == entry.known and (grad is None or id(grad) in self.table.by_id):
                return None
            entry.known = state
            return ["tensor", state[0], self.ref(grad, True)]
        if not seen:
            return None
        if entry.kind in CONTAINERS:
            if _holds_the_same(entry):
                return None
            refs = self._refs(entry.obj, entry.internal)
            entry.known = held(entry.obj)
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


def _parameters(function: Any) -> list[str] | None:
    """Names of the positional parameters; None where there is no telling."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    return [p.name for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _ranges(places: list[int]) -> list[list[int]]:
    """Sorted numbers as stretches [first, last + 1]."""
    found: list[list[int]] = []
    for place in places:
        if found and found[-1][1] == place:
            found[-1][1] += 1
        else:
            found.append([place, place + 1])
    return found


def _holds_the_same(entry: Entry) -> bool:
    ids, items = held(entry.obj)
    known_ids, known = entry.known
    return ids == known_ids or (len(ids) == len(known_ids) and all(map(is_same, items, known)))


def _same_array(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.tobytes() == b.tobytes()
