"""The objects that both sides know, and what has become of them since they last spoke."""

import importlib
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from utils.grading.encoding.messages import BadMessage

MAX_ENTRIES = 300_000  # of the table
MAX_DEPTH = 100
LARGE = 2**15  # bytes of memory, above which a model's weights are not compared after each call

DTYPES = {str(t).removeprefix("torch."): t for t in vars(torch).values() if isinstance(t, torch.dtype)}
PLAIN_DTYPES = {name for name, t in DTYPES.items() if not any(w in name for w in ("bits", "quint", "qint", "float4"))}
CONTAINERS = {"list": list, "dict": dict, "odict": OrderedDict, "ddict": lambda: defaultdict(dict), "set": set}
KINDS = {list: "list", dict: "dict", OrderedDict: "odict", defaultdict: "ddict", set: "set"}


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

    def add(self, value: Any, kind: str, internal: bool = False) -> int:
        if internal and kind in CONTAINERS:
            self.parts.append(self.next)
        if len(self.entries) >= MAX_ENTRIES:
            raise BadMessage("too many objects in one call")
        place, self.next = self.next, self.next + 1
        self.entries[place] = Entry(value, kind, internal=internal)
        self.by_id[id(value)] = place
        return place

    def put(self, place: int, obj: Any, kind: str) -> Any:
        entry = self.entries[place]
        if self.by_id.get(id(entry.obj)) == place:  # its id may soon be another's
            del self.by_id[id(entry.obj)]
        entry.obj, entry.kind = obj, kind
        self.by_id[id(obj)] = place
        return obj

    def know_span(self, place: int, flat: Tensor) -> None:
        self.entries[place].known = flat.clone()
        self.spans.setdefault(flat.untyped_storage().data_ptr(), []).append(place)

    def written(self) -> set[int]:
        """The stretches of memory that may have been written into.

        A large one inside a model is looked at only if torch has counted a write, or at the end of a check: comparing
        the weights of a network with each of a thousand calls would take longer than the calls.
        """
        found = set()
        for place, entry in self.entries.items():
            if entry.kind == "span" and (self.thorough or not entry.internal or len(entry.obj) < LARGE):
                found.add(place)
            elif entry.kind == "tensor" and entry.version != version_of(entry.obj):
                entry.version = version_of(entry.obj)
                found.add(entry.span)
        return found

    def models_hold_the_same(self) -> bool:
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

    @staticmethod
    def content(entry: Entry) -> Any:
        if entry.kind == "span":
            return entry.obj.clone()
        if entry.kind in CONTAINERS:
            return copied(entry.obj)
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
                found += [partial(_put_back, entry.obj, copied(entry.obj), entry.before)] if is_part else []
        return found

    def _alike_inside(self, now: Any, before: Any) -> bool:
        if not isinstance(now, dict):
            return len(now) == len(before) and all(map(self._same_or_alike, now, before))
        now, before = ({k: v for k, v in d.items() if k != "_is_full_backward_hook"} for d in (now, before))
        return now.keys() == before.keys() and all(self._same_or_alike(now[key], before[key]) for key in now)

    def _same_or_alike(self, now: Any, before: Any) -> bool:
        if is_same(now, before) or type(now) is not type(before) or type(now) not in KINDS:
            return is_same(now, before)
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


def version_of(tensor: Tensor) -> int:
    """How often torch has seen a tensor being written into."""
    return 0 if tensor.is_inference() else tensor._version


def tensors_of(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers by name."""
    return [*module.named_parameters(), *module.named_buffers()]


def held(value: Any) -> tuple[list[int], list[Any]]:
    """What a container holds: which objects, and these themselves, so that none of their ids is given away."""
    items = [*value.keys(), *value.values()] if isinstance(value, dict) else list(value)
    return [id(item) for item in items], items


def copied(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else type(value)(value)


def is_same(a: Any, b: Any) -> bool:
    plain = (bool, int, float, str, type(None))
    return a is b or (type(a) is type(b) and isinstance(a, plain) and (a == b or a != a))
