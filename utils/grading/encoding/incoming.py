"""A message into values; on the grader's side, after a suspicious look at each."""

import copy
import keyword
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from utils.grading.encoding.generators import expect_reachable
from utils.grading.encoding.messages import BadMessage
from utils.grading.encoding.table import (
    CONTAINERS,
    DTYPES,
    MAX_DEPTH,
    MAX_ENTRIES,
    PLAIN_DTYPES,
    Entry,
    Opaque,
    Table,
    find,
    held,
    tensors_of,
    version_of,
)

MAX_NUMBERS = 64 * 2**20  # entries of one tensor, also of one that repeats a few in memory
MAX_TEXT = 2**20


def decode(table: Table, header: dict, blobs: list[memoryview], link: Callable) -> list[Any]:
    """The values of a message.

    Args:
        table: What this side knows.
        header, blobs: From ``parse``.
        link: (A graph's number, a tensor, what it was computed from) to the tensor with a graph that leads to the
            other side.

    Raises:
        BadMessage: If it holds anything that is no plain value, or contradicts itself.
    """
    try:
        return Incoming(table, blobs).values(header, link)
    except BadMessage:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError) as error:
        text = f"{type(error).__name__}: {str(error)[:200]}"
        raise BadMessage(f"a message does not make sense ({text})") from error
    except (MemoryError, RecursionError) as error:
        raise BadMessage(f"a message is too large ({type(error).__name__})") from error


class Incoming:
    """One message on its way in, with a maker for each kind of object.

    Args:
        table: What this side knows.
        blobs: The bytes that the message speaks of.
    """

    def __init__(self, table: Table, blobs: list[memoryview]):
        self.table, self.blobs = table, blobs
        self.incoming: dict[int, list] = {}
        self.linked: set[int] = set()

    def values(self, header: dict, link: Callable) -> list[Any]:
        start, nodes = self.table.next, header["nodes"]
        if not all(type(header[key]) is list for key in ("nodes", "roots", "updates")):
            raise BadMessage("a message without lists")
        if header["start"] != start:
            raise BadMessage("a message belongs to another call")
        if len(self.table.entries) + len(nodes) > MAX_ENTRIES:
            raise BadMessage("too many objects in one call")
        self.linked = {place for _, place, _ in header.get("graphs", ())}
        self.table.next = start + len(nodes)
        self.table.entries |= {place: Entry(None, "missing") for place in range(start, self.table.next)}
        for place, node in nodes:
            if type(place) is not int or not start <= place < self.table.next or place in self.incoming:
                raise BadMessage("an object is named twice")
            self.incoming[place] = node
            if node[0] in CONTAINERS:  # they may hold each other: filled when all else is made
                self.table.put(place, CONTAINERS[node[0]](), node[0])
        for begin, end in header["inside"] if self.table.side.is_worker else ():
            for place in range(begin, end):
                self.table.entries[place].internal = True
                if self.incoming[place][0] in CONTAINERS:
                    self.table.parts.append(place)
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
                self._fill(self.table.entries[place], node[1])
        for place, kind, *state in header["updates"]:
            if type(place) is not int or place not in self.table.entries or self.table.entries[place].kind != kind:
                raise BadMessage("a change to nothing")
            self._apply(self.table.entries[place], place, kind, state)
        return [self._value(ref) for ref in header["roots"]]

    def _value(self, ref: Any, depth: int = 0) -> Any:
        if ref is None or type(ref) in (bool, int, float):
            return ref
        if type(ref) is str:
            if len(ref) > MAX_TEXT:
                raise BadMessage("a text is too long")
            return ref
        if type(ref) is not list or len(ref) != 1 or type(ref[0]) is not int or ref[0] not in self.table.entries:
            raise BadMessage("a reference to nothing")
        return self._make(ref[0], depth)

    def _make(self, place: int, depth: int = 0) -> Any:
        entry = self.table.entries[place]
        if entry.kind != "missing":
            if entry.kind == "in the making":
                raise BadMessage("an object holds itself")
            return entry.obj
        if depth > MAX_DEPTH + 5:
            raise BadMessage("objects are nested too deep")
        entry.kind = "in the making"
        kind, *rest = self.incoming[place]
        worker_only = ("module", "object", "path", "tokenizer")
        if type(kind) is not str or kind in worker_only and not self.table.side.is_worker:
            raise BadMessage(f"an object of kind {str(kind)[:50]!r}")
        maker = getattr(self, f"_make_{kind}", None)
        if maker is None:
            raise BadMessage(f"an object of kind {kind[:50]!r}")
        return maker(place, depth + 1, *rest)

    def _make_complex(self, place: int, depth: int, real: float, imag: float) -> Any:
        return self.table.put(place, complex(real, imag), "other")

    def _make_bytes(self, place: int, depth: int, blob: int) -> Any:
        return self.table.put(place, bytes(self.blobs[blob]), "other")

    def _make_dtype(self, place: int, depth: int, name: str) -> Any:
        return self.table.put(place, DTYPES[name], "other")

    def _make_device(self, place: int, depth: int, name: str) -> Any:
        return self.table.put(place, torch.device(name), "other")

    def _make_slice(self, place: int, depth: int, *ends: int | None) -> Any:
        return self.table.put(place, slice(*ends), "other")

    def _make_range(self, place: int, depth: int, *ends: int) -> Any:
        return self.table.put(place, range(*ends), "other")

    def _make_ellipsis(self, place: int, depth: int) -> Any:
        return self.table.put(place, ..., "other")

    def _make_opaque(self, place: int, depth: int, name: str) -> Any:
        return self.table.put(place, Opaque(str(name)[:200]), "other")

    def _make_frozenset(self, place: int, depth: int, refs: list) -> Any:
        return self.table.put(place, frozenset(self._value(ref, depth) for ref in refs), "other")

    def _make_function(self, place: int, depth: int, number: int, name: str, parameters: Any) -> Any:
        return self.table.put(
            place, self.table.side.proxy(_whole(number), str(name)[:100], _names(parameters)), "other"
        )

    def _make_tokenizer(self, place: int, depth: int, blob: int, given: dict) -> Any:
        from tokenizers import Tokenizer
        from transformers import PreTrainedTokenizerFast

        backend = Tokenizer.from_str(bytes(self.blobs[blob]).decode())
        value = PreTrainedTokenizerFast(tokenizer_object=backend, **given)
        vars(value).update({key: given[key] for key in given if key.startswith("add_")})
        return self.table.put(place, value, "other")

    def _make_path(self, place: int, depth: int, path: str) -> Any:
        return self.table.put(place, find(path), "other")

    def _make_tuple(self, place: int, depth: int, refs: list, named: str | None) -> Any:
        items = [self._value(ref, depth) for ref in refs]
        if named is None:
            return self.table.put(place, tuple(items), "tuple")
        if not self.table.side.is_worker and not (named.startswith("utils.") and hasattr(find(named), "_fields")):
            return self.table.put(place, tuple(items), "tuple")
        return self.table.put(place, find(named)(*items), "tuple")

    def _make_generator(self, place: int, depth: int, blob: int) -> Any:
        state = torch.frombuffer(bytearray(self.blobs[blob]), dtype=torch.uint8)
        value = torch.Generator()
        value.set_state(state)
        self.table.entries[place].known = state
        return self.table.put(place, value, "generator")

    def _make_array(self, place: int, depth: int, dtype: str, shape: list, blob: int, scalar: bool) -> Any:
        kind = np.dtype(dtype)
        if kind.kind not in "biufcSU":
            raise BadMessage(f"an array of {dtype}")
        value = np.frombuffer(bytes(self.blobs[blob]), dtype=kind).reshape(shape).copy()
        self.table.entries[place].known = value.copy()
        return self.table.put(place, value[()] if scalar and not shape else value, "array")

    def _make_meta(self, place: int, depth: int, name: str, shape: list, stride: list) -> Any:
        return self.table.put(place, torch.empty_strided(shape, stride, dtype=DTYPES[name], device="meta"), "meta")

    def _make_span(self, place: int, depth: int, blob: int) -> Any:
        content = self.blobs[blob]
        flat = torch.frombuffer(bytearray(content), dtype=torch.uint8) if len(content) else torch.empty(0).byte()
        flat = flat.clone()  # aligned as torch likes it
        self.table.know_span(place, flat)
        return self.table.put(place, flat, "span")

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
        if self.table.entries[span].kind != "span" or name not in PLAIN_DTYPES:
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
        entry = self.table.entries[place]
        entry.known = (bool(asks), None)
        entry.span, entry.version = span, version_of(value)
        return self.table.put(place, value, "tensor")

    def _link(self, number: int, place: int, known: list, link: Callable) -> None:
        sources = [self.table.entries[_whole(other)] for other in known]
        fits = place in self.incoming and self.table.entries[place].kind == "tensor" and place in self.linked
        if not fits or any(entry.kind != "tensor" for entry in sources) or self.linked & set(known):
            raise BadMessage("a graph that leads nowhere")
        self.linked.discard(place)
        self.table.put(place, link(number, self.table.entries[place].obj, [entry.obj for entry in sources]), "tensor")

    def _make_module(self, place: int, depth: int, name: str, base: str, methods: dict, attributes: list) -> Any:
        cls = find(base)
        if methods:
            cls = type(name, (cls,), {key: _method(self.table.side.proxy(n, key, None)) for key, n in methods.items()})
        value = cls.__new__(cls)
        value.__dict__ = self._value(attributes)
        return self.table.put(place, value, "module")

    def _make_object(self, place: int, depth: int, path: str, attributes: list) -> Any:
        value = object.__new__(find(path))
        object.__setattr__(value, "__dict__", self._value(attributes))
        return self.table.put(place, value, "object")

    def _make_remote(
        self, place: int, depth: int, number: int, name: str, parts: list, training: bool, parameters: Any
    ) -> Any:
        tensors = [(str(part), self._value(ref)) for part, ref in parts]
        if not all(isinstance(tensor, Tensor) for _, tensor in tensors):
            raise BadMessage("a module with weights that are no tensors")
        value = self.table.side.module_proxy(
            _whole(number), str(name)[:100], tensors, bool(training), _names(parameters)
        )
        for entry in (self.table.entries[ref[0]] for _, ref in parts):  # they stay with it
            entry.internal = self.table.entries[entry.span].internal = True
        self.table.entries[place].internal = True
        return self.table.put(place, value, "proxy")

    def _make_alike(self, place: int, depth: int, like: int, parts: list, training: bool) -> Any:
        if _whole(like) not in self.table.entries or self.table.entries[like].kind != "module":
            raise BadMessage("a copy of no model")
        value = copy.deepcopy(self.table.entries[like].obj)
        mine = dict(tensors_of(value))
        with torch.no_grad():
            for name, ref, asks in parts:
                mine[name].copy_(self._value(ref))
                mine[name].requires_grad_(bool(asks) and mine[name].is_floating_point())
        value.train(bool(training))
        return self.table.put(place, value, "module")

    def _make_yours(self, place: int, depth: int, number: int, parts: list, training: bool | None) -> Any:
        value = self.table.side.offered(_whole(number))
        mine = dict(tensors_of(value)) if parts else {}
        for name, span, entry, asks in parts:
            tensor = mine[name]
            if self.table.entries[span].kind == "missing":
                flat = torch.empty(0, dtype=torch.uint8)
                content = torch.frombuffer(bytearray(self.blobs[self.incoming[span][1]]), dtype=torch.uint8)
                begin = tensor.storage_offset() * tensor.element_size()
                flat.set_(tensor.untyped_storage(), begin - begin % 16, (len(content),), (1,))
                if not torch.equal(flat, content):
                    flat.copy_(content)
                self.table.know_span(span, flat)
                self.table.put(span, flat, "span")
            if tensor.requires_grad != asks:
                tensor.requires_grad_(asks)
            self.table.entries[entry].known = (asks, None)
            self.table.entries[entry].span, self.table.entries[entry].version = span, version_of(tensor)
            self.table.put(entry, tensor, "tensor")
        if parts and value.training != training:
            value.train(training)
        return self.table.put(place, value, "proxy")

    def _fill(self, entry: Entry, refs: list) -> None:
        self._refill(entry.obj, refs)
        entry.known = held(entry.obj)

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
        if place not in self.table.changed:
            self.table.changed.add(place)
            entry.before = self.table.content(entry)
        if kind in CONTAINERS:
            self._fill(entry, state[0])
        elif kind == "span":
            content = torch.frombuffer(bytearray(self.blobs[state[0]]), dtype=torch.uint8)
            if len(content) != len(entry.obj):
                raise BadMessage("a change of another size")
            entry.obj.copy_(content)
            entry.known = content
        elif kind == "array":
            content = np.frombuffer(bytes(self.blobs[state[0]]), dtype=entry.obj.dtype).reshape(entry.obj.shape)
            entry.obj[...] = content
            entry.known = content
        elif kind == "generator":
            entry.known = torch.frombuffer(bytearray(self.blobs[state[0]]), dtype=torch.uint8)
            if not self.table.side.is_worker:
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


def _method(function: Callable) -> Callable:
    """A proxy as a method: Python binds functions alone to the object that they are looked up on."""
    return lambda self, *args, **kwargs: function(self, *args, **kwargs)


def _names(value: Any) -> list[str] | None:
    if value is None:
        return None
    if type(value) is not list or len(value) > 100:
        raise BadMessage("a function with odd parameters")
    fine = all(type(name) is str and name.isidentifier() and not keyword.iskeyword(name) for name in value)
    return value if fine and len(set(value)) == len(value) else None


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise BadMessage("a number that is none")
    return value
