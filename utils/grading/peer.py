"""Two processes that call each other's functions: one of them runs a learner's code, the other decides the grade.

One speaks at a time. Whoever waits for a result answers the other's calls meanwhile, so a metric of the check can be
called from the learner's function. Gradients cross as vector-Jacobian products: a result that has a graph over there
gets a node here that asks for them.
"""

import builtins
import contextlib
import functools
import inspect
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from utils.grading.encoding import MAX_BYTES, BadMessage, Opaque, Side, Table, decode, dump, encode, parse

MAX_CALLS_BACK = 200_000  # within one call of an answer
MAX_NESTED = 40
MAX_MESSAGE = 2000  # characters of an exception's message
MAX_TRACE = 8000


class Gone(Exception):
    """The other side has hung up."""


class RemoteError(Exception):
    """An exception that was raised on the other side: its kind's name, its message and where it was raised."""

    trace = ""
    thrown: int | None = None  # its number, if it came from this side


class Peer:
    """One end of the connection.

    Args:
        connection: The socket.
        is_worker: Whether this is the end that runs the learner's code.
    """

    def __init__(self, connection: socket.socket, is_worker: bool):
        self.connection = connection
        self.side = Side(
            is_worker, self.offer, self.offered.__get__(self), self._proxy, self._module_proxy, self._number
        )
        self.depth, self.calls_back = 0, 0
        self.forget()

    def forget(self) -> None:
        """Drop what earlier calls have brought, here and, with the next request, over there."""
        self.table, self.afresh, self.torn = Table(self.side), True, False
        self.thrown: list[BaseException] = []  # by functions of this side that the other side called
        self.offers: list[Any] = []
        self.graphs: list[tuple[Tensor, list[Tensor]]] = []

    # ------------------------------------------------------------ messages

    def send(self, header: dict, blobs: list[bytes] = ()) -> None:
        data = dump(header, list(blobs))
        if len(data) > MAX_BYTES:
            raise BadMessage(f"more than {MAX_BYTES >> 20} MB in one call")
        try:
            self.connection.sendall(struct.pack("<Q", len(data)))
            self.connection.sendall(data)
        except OSError as error:
            raise Gone from error

    def receive(self) -> tuple[dict, list[memoryview]]:
        (size,) = struct.unpack("<Q", self._read(8))
        if size > MAX_BYTES:
            raise BadMessage(f"a message of more than {MAX_BYTES >> 20} MB")
        return parse(self._read(size))

    def _read(self, size: int) -> bytearray:
        data, done = bytearray(size), 0
        with memoryview(data) as view:
            while done < size:
                try:
                    n = self.connection.recv_into(view[done:])
                except OSError as error:
                    raise Gone from error
                if not n:
                    raise Gone
                done += n
        return data

    # ------------------------------------------------------------ asking

    def ask(self, kind: str, *values: Any, **fields: Any) -> tuple[Any, dict]:
        """Send a request, serve the other side's until the result is there: the result, and the reply's header.

        Raises:
            RemoteError: If the other side raised; of the same kind, as far as Python has it.
        """
        nested, start = self.depth > 0, self.table.next
        if not nested:
            self.calls_back = 0
            fields["drop"] = self._drop()
        header, blobs = encode(self.table, *values, graph=self._keep_graph)
        self.send({**header, **fields, "kind": kind}, blobs)
        self.depth += 1
        try:
            while True:
                header, blobs = self.receive()
                reply = header.get("kind")
                if reply == "result":
                    (value,) = decode(self.table, header, blobs, self._link)
                    return value, header
                if reply == "raised":
                    if "nodes" in header:
                        decode(self.table, header, blobs, self._link)
                    else:  # it could not say what has changed: the next call begins with nothing
                        self.torn = True
                    raise as_exception(header.get("error"), self.thrown)
                self.serve(header, blobs)
        finally:
            self.depth -= 1
            if nested:
                self.table.drop_passing(start)

    def _drop(self) -> list[int] | str | None:
        """What the other side is to forget before an outermost call: some values, all of them, or functions, too."""
        afresh, torn, self.afresh, self.torn = self.afresh, self.torn, False, False
        if not afresh and not torn:
            return self.table.drop_values()
        self.table = Table(self.side)
        return None if afresh else "values"

    def call(self, number: int, args: tuple, kwargs: dict) -> Any:
        """Call the other side's function."""
        value, header = self.ask("call", number, list(args), kwargs, **_modes())
        self.replied(header)
        return value

    def replied(self, header: dict) -> None:
        """What else the reply to a call says."""

    # ------------------------------------------------------------ serving

    def serve(self, header: dict, blobs: list[memoryview]) -> None:
        """Answer one request of the other side."""
        if self.side.is_worker and "drop" in header:
            if header["drop"] is None:
                self.forget()
            elif header["drop"] == "values":
                self.table = Table(self.side)
            else:
                self.table.drop(header["drop"])
        self.calls_back += 1
        nested, start = "drop" not in header, self.table.next
        if self.depth > MAX_NESTED or self.calls_back > MAX_CALLS_BACK and not self.side.is_worker:
            raise BadMessage("too many calls within one call")
        values = decode(self.table, header, blobs, self._link)
        self.depth += 1
        try:
            mine = {"call": self._serve_call, "vjp": self._serve_vjp, "accumulate": self._serve_accumulate}
            handler = mine.get(header.get("kind")) or self.more(header)
            result, more = handler(header, *values)
            header, blobs = encode(self.table, result, graph=self._keep_graph)
            self.send({**header, **more, "kind": "result"}, blobs)
        except (Gone, BadMessage) as error:
            if isinstance(error, Gone) or not self.side.is_worker:
                raise
            self.send({"kind": "raised", "error": as_data(error)})
        except BaseException as error:  # a learner's code may raise anything
            self.raised(error)
            self.thrown.append(error)
            header, blobs = encode(self.table, graph=self._keep_graph)
            data = as_data(error)
            if not self.side.is_worker:
                data |= {"trace": "", "thrown": len(self.thrown) - 1}
            self.send({**header, **self.told(), "kind": "raised", "error": data}, blobs)
        finally:
            self.depth -= 1
        if nested:
            self.table.drop_passing(start)

    def more(self, header: dict) -> Callable:
        raise BadMessage("a request of no known kind")

    def told(self) -> dict:
        """What else a reply says."""
        return {}

    def raised(self, error: BaseException) -> None:
        """A function of this side has raised while the other side called it."""

    def _serve_call(self, header: dict, number: int, args: list, kwargs: dict) -> tuple[Any, dict]:
        if not isinstance(args, list) or not isinstance(kwargs, dict) or not all(type(k) is str for k in kwargs):
            raise BadMessage("a call without arguments")
        with modes_of(header):
            result = self.offered(number)(*args, **kwargs)
        return result, self.told()

    def _serve_vjp(self, header: dict, number: int, gradient: Tensor) -> tuple[Any, dict]:
        tensor, sources = self._graph(number, gradient)
        return partial_derivatives(tensor, sources, gradient), {}

    def _serve_accumulate(self, header: dict, number: int, gradient: Tensor) -> tuple[Any, dict]:
        tensor, sources = self._graph(number, gradient)
        accumulate(tensor, sources, gradient)
        return None, {}

    def _graph(self, number: int, gradient: Tensor) -> tuple[Tensor, list[Tensor]]:
        if type(number) is not int or not 0 <= number < len(self.graphs):
            raise BadMessage("a graph that is not there")
        tensor, sources = self.graphs[number]
        if not isinstance(gradient, Tensor) or gradient.shape != tensor.shape or gradient.dtype != tensor.dtype:
            raise BadMessage("a gradient of another shape")
        return tensor, sources

    # ------------------------------------------------------------ functions and graphs

    def offer(self, value: Any) -> int:
        for number, offered in enumerate(self.offers):
            if offered is value:
                return number
        self.offers.append(value)
        return len(self.offers) - 1

    def offered(self, number: int) -> Any:
        if type(number) is not int or not 0 <= number < len(self.offers):
            raise BadMessage("a function that was never offered")
        return self.offers[number]

    def _proxy(self, number: int, name: str, parameters: list[str] | None) -> "RemoteFunction":
        return RemoteFunction(self, number, name, parameters)

    def _module_proxy(
        self, number: int, name: str, parts: list, training: bool, parameters: list[str] | None
    ) -> "RemoteModule":
        cls = type(name if name.isidentifier() else "Module", (RemoteModule,), {})
        return cls(self, number, parts, training, parameters)

    def _number(self, value: Any) -> int | None:
        """The other side's number for what lives there."""
        if isinstance(value, RemoteFunction | RemoteModule):
            peer, number = value._remote
            return number if peer is self else None
        return None

    def _keep_graph(self, tensor: Tensor, sources: list[Tensor]) -> int:
        self.graphs.append((tensor, sources))
        return len(self.graphs) - 1

    def _link(self, number: int, tensor: Tensor, sources: list[Tensor]) -> Tensor:
        # A graph there is one here, even if nothing here is part of it; and a leaf that `backward()` alone gets to.
        anchor, arrived = torch.zeros((), requires_grad=True), []

        def got_to(leaf: Tensor) -> None:
            self.ask("accumulate", number, arrived[-1])

        anchor.register_post_accumulate_grad_hook(got_to)
        with torch.enable_grad():
            return _Over.apply(self, number, arrived, tensor, anchor, *sources)


class _Over(torch.autograd.Function):
    """A tensor whose graph is on the other side."""

    @staticmethod
    def forward(
        ctx: Any, peer: Peer, number: int, arrived: list[Tensor], tensor: Tensor, anchor: Tensor, *sources: Tensor
    ) -> Tensor:
        ctx.peer, ctx.number, ctx.arrived = peer, number, arrived
        ctx.like = [(t.shape, t.dtype) for t in sources]
        return tensor

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        ctx.arrived[:] = [gradient]
        if not ctx.like:
            return None, None, None, None, torch.zeros(())
        found, _ = ctx.peer.ask("vjp", ctx.number, gradient)
        if not isinstance(found, list) or len(found) != len(ctx.like):
            raise BadMessage("gradients of another number")
        for part, (shape, dtype) in zip(found, ctx.like, strict=True):
            if part is not None and not (isinstance(part, Tensor) and part.shape == shape and part.dtype == dtype):
                raise BadMessage("a gradient of another shape")
        return None, None, None, None, torch.zeros(()), *found


def _modes() -> dict[str, bool]:
    return {"grad": torch.is_grad_enabled(), "inference": torch.is_inference_mode_enabled()}


@contextlib.contextmanager
def modes_of(header: dict) -> Iterator[None]:
    """Whether gradients are tracked is as it was where a call was made."""
    with torch.inference_mode(header.get("inference") is True), torch.set_grad_enabled(header.get("grad") is True):
        yield


def partial_derivatives(tensor: Tensor, sources: list[Tensor], gradient: Tensor) -> list[Tensor | None]:
    """The vector-Jacobian product with respect to each source, the others held fixed.

    A source may have been computed from another one. What reaches it is taken there and goes no further: the other
    side knows the way from it to the rest.
    """
    alive = [place for place, source in enumerate(sources) if source.requires_grad]
    with _stopped_at(sources) as reached, torch.enable_grad():
        wanted = [sources[place] for place in alive]
        parts = torch.autograd.grad(tensor, wanted, gradient, retain_graph=True, allow_unused=True)
    found: list[Tensor | None] = [None] * len(sources)
    for place, part in zip(alive, parts, strict=True):
        found[place] = part if sources[place].is_leaf else reached.get(place)
    return found


def accumulate(tensor: Tensor, sources: list[Tensor], gradient: Tensor) -> None:
    """Leave gradients on the leaves that only this side has, as ``backward()`` does on all there are."""
    known = {id(source) for source in sources}
    own, seen, stack = {}, set(), [tensor.grad_fn]
    while stack:
        for node, _ in stack.pop().next_functions:
            if node is not None and node not in seen:
                seen.add(node)
                stack.append(node)
                if hasattr(node, "variable") and id(node.variable) not in known:
                    own[id(node.variable)] = node.variable
    if own:
        with _stopped_at(sources), torch.enable_grad():
            torch.autograd.backward(tensor, gradient, inputs=list(own.values()), retain_graph=True)


@contextlib.contextmanager
def _stopped_at(sources: list[Tensor]) -> Iterator[dict[int, Tensor]]:
    """For the duration, gradients go no further than to these tensors; what has reached those that are no leaves."""
    reached: dict[int, Tensor] = {}

    def stop_at(place: int) -> Callable[[Tensor], Tensor]:
        def stop(arriving: Tensor) -> Tensor:
            reached[place] = arriving.clone()
            return torch.zeros_like(arriving)

        return stop

    inner = [place for place, source in enumerate(sources) if source.requires_grad and not source.is_leaf]
    hooks = [sources[place].register_hook(stop_at(place)) for place in inner]
    try:
        yield reached
    finally:
        for hook in hooks:
            hook.remove()


class RemoteFunction:
    """A function that lives on the other side."""

    def __init__(self, peer: Peer, number: int, name: str, parameters: list[str] | None):
        self._remote = (peer, number)
        self.__name__ = self.__qualname__ = name
        if parameters is not None:
            kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
            self.__signature__ = inspect.Signature([inspect.Parameter(p, kind) for p in parameters])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        peer, number = self._remote
        return peer.call(number, args, kwargs)

    def __deepcopy__(self, memo: dict) -> "RemoteFunction":
        return self  # as Python does with functions

    def settings(self) -> dict[str, Any]:
        """What held for the process on the other side when it last said so."""
        return self._remote[0].settings


class RemoteModule(nn.Module):
    """A module that lives on the other side, with its weights at hand here."""

    def __init__(self, peer: Peer, number: int, parts: list, training: bool, parameters: list[str] | None):
        super().__init__()
        self.__dict__["_remote"] = (peer, number)
        self.__dict__["_forward_names"] = parameters
        for name, tensor in parts:
            *folders, last = name.split(".")
            module = self
            for folder in folders:
                if folder not in module._modules:
                    module.add_module(folder, nn.Module())
                module = module._modules[folder]
            if isinstance(tensor, nn.Parameter):
                module.register_parameter(last, tensor)
            else:
                module.register_buffer(last, tensor)
        self.train(training)

    def __deepcopy__(self, memo: dict) -> "RemoteModule":
        return self._remote[0].ask("copy", self)[0]

    def settings(self) -> dict[str, Any]:
        return self._remote[0].settings

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._ask("", args, kwargs)

    def _ask(self, method: str, args: tuple, kwargs: dict) -> Any:
        peer, _ = self._remote
        value, header = peer.ask("call module", self, list(args), kwargs, method=method, **_modes())
        peer.replied(header)
        return value

    def remote_method(self, name: str) -> Callable:
        """Another method than the call, as a function that runs on the other side."""

        def method(*args: Any, **kwargs: Any) -> Any:
            return self._ask(name, args, kwargs)

        method.settings = self.settings
        return method


# ------------------------------------------------------------ exceptions


def as_data(error: BaseException) -> dict:
    """An exception as plain data."""
    from utils.course.runner import _learner_trace
    from utils.course.values import text_of

    text = text_of(error.args[0] if isinstance(error, KeyError) and error.args else error, str, MAX_MESSAGE)
    if isinstance(error, KeyError):
        text = text_of(error, str, MAX_MESSAGE)
    try:
        trace = _learner_trace(error)[-MAX_TRACE:]
    except Exception:
        trace = ""
    return {
        "kinds": [cls.__name__[:100] for cls in type(error).__mro__[:20]],
        "text": text,
        "trace": trace,
        "untouched": isinstance(error, NotImplementedError) and not error.args,
        "thrown": getattr(error, "thrown", None),
    }


def as_exception(data: Any, thrown: list[BaseException]) -> BaseException:
    """An exception of the kind that was raised on the other side, as far as Python has it.

    Args:
        data: From ``as_data``.
        thrown: What this side's own functions have raised, called from there: it comes back as what it was.

    Raises:
        BadMessage: If the data describe none.
    """
    if not isinstance(data, dict):
        raise BadMessage("an exception that is none")
    kinds, text, trace, number = (data.get(key) for key in ("kinds", "text", "trace", "thrown"))
    if type(number) is int and 0 <= number < len(thrown):
        return thrown[number]
    if not isinstance(kinds, list) or not kinds or not all(type(k) is str for k in kinds):
        raise BadMessage("an exception without a kind")
    if type(text) is not str or type(trace) is not str:
        raise BadMessage("an exception without a text")
    base = next((b for k in kinds if (b := _builtin(k)) is not None), Exception)
    error = _remote_kind(kinds[0][:100], base)(*(() if data.get("untouched") is True else (text[:MAX_MESSAGE],)))
    error.trace, error.thrown = trace[:MAX_TRACE], number
    return error


def _builtin(name: str) -> type[Exception] | None:
    found = getattr(builtins, name, None)
    return found if inspect.isclass(found) and issubclass(found, Exception) else None


@functools.cache
def _remote_kind(name: str, base: type[Exception]) -> type[RemoteError]:
    def to_text(self: BaseException) -> str:
        return str(self.args[0]) if self.args else ""

    return type(name, (RemoteError, base), {"__str__": to_text, "__module__": "remote"})


__all__ = ["Gone", "Opaque", "Peer", "RemoteError", "RemoteFunction", "RemoteModule", "as_data", "as_exception"]
