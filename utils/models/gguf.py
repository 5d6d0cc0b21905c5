"""Reading GGUF files: a language model's sizes, vocabulary and weights in one file, as llama.cpp keeps them.

A file has a header, a list of named values (the metadata), a list of tensors (name, shape, kind, place), and then the
tensors' bytes. Weights may be quantised: a block of 32 of them shares a scale, and each is a few bits. Only numpy is
needed. Source: the format's description in the repository ggml-org/ggml, ``docs/gguf.md``.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from utils.models.bundled import ModelFileError

VERSIONS = (2, 3)  # which lay out what is read here in the same way
# What a value of the metadata is, by its number: little-endian, as numpy writes it.
NUMBERS = {0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8"}
STRING, ARRAY = 8, 9
BLOCK = 32  # weights that share a scale
# How the weights of a kind lie in the file: numbers, or blocks of them.
LAYOUTS = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "Q4_0": np.dtype([("scale", "<f2"), ("pairs", "u1", BLOCK // 2)]),
    "Q4_1": np.dtype([("scale", "<f2"), ("lowest", "<f2"), ("pairs", "u1", BLOCK // 2)]),
    "Q8_0": np.dtype([("scale", "<f2"), ("steps", "i1", BLOCK)]),
}
# Kinds by their number; those without a layout are known by name only, to be refused by it.
KINDS = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 20: "IQ4_NL", 23: "IQ4_XS", 28: "F64", 30: "BF16",
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where a tensor's weights are: their kind, their shape (rows first), and the byte at which they begin."""

    kind: str
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class GGUF:
    """An opened file.

    Attributes:
        path: Where it is.
        metadata: Its named values: numbers, strings, lists of them.
        places: Its tensors, by name.
    """

    path: Path
    metadata: dict[str, Any]
    places: dict[str, Place]

    def tensor(self, name: str) -> Float[np.ndarray, "..."]:
        """The weights of a tensor in float32, whatever they are kept as.

        Raises:
            ModelFileError: If the file ends before them, or they are of a kind that isn't read here; it is named.
        """
        place = self.places[name]
        if place.kind not in LAYOUTS:
            raise ModelFileError(
                f"{self.path} keeps {name} as {place.kind}, and only {', '.join(LAYOUTS)} are read here."
            )
        layout, rows = LAYOUTS[place.kind], place.shape[-1:]
        per_item = 1 if layout.names is None else BLOCK
        if rows and rows[0] % per_item:
            raise ModelFileError(f"{self.path} keeps {name} in blocks of {BLOCK}, with rows of {rows[0]} weights.")
        n_items = math.prod(place.shape) // per_item
        if place.offset + n_items * layout.itemsize > self.path.stat().st_size:
            raise ModelFileError(f"{self.path} ends within {name}: it was cut short.")
        items = np.fromfile(self.path, layout, n_items, offset=place.offset)
        return _weights(items, place.kind).reshape(place.shape)


def open_gguf(path: Path) -> GGUF:
    """Read a file's metadata and the list of its tensors; the weights stay where they are until they are asked for.

    Raises:
        ModelFileError: If it is no GGUF file, of another version, or cut short.
    """
    with open(path, "rb") as file:
        data = memoryview(np.memmap(file, np.uint8, mode="r")) if path.stat().st_size else memoryview(b"")
    if bytes(data[:4]) != b"GGUF":
        raise ModelFileError(f"{path} is not a GGUF file.")
    reader = _Reader(data)
    try:
        version = reader.number("<u4")
        if version not in VERSIONS:
            raise ModelFileError(f"{path} is a GGUF file of version {version}, and only 2 and 3 are read here.")
        n_tensors, n_values = reader.number("<u8"), reader.number("<u8")
        metadata = {reader.string(): reader.value(reader.number("<u4")) for _ in range(n_values)}
        found = [reader.place() for _ in range(n_tensors)]
        alignment = metadata.get("general.alignment", 32)
        start = -(-reader.at // alignment) * alignment  # tensors begin at the next multiple
    except (IndexError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise ModelFileError(f"{path} cannot be read: it was cut short or is damaged.") from error
    return GGUF(path, metadata, {name: Place(kind, shape, start + at) for name, kind, shape, at in found})


class _Reader:
    """Takes one thing after the other from the bytes; past their end it raises IndexError."""

    def __init__(self, data: memoryview):
        self.data, self.at = data, 4  # behind the four letters

    def take(self, n_bytes: int) -> memoryview:
        if n_bytes > len(self.data) - self.at:
            raise IndexError("past the end")
        self.at += n_bytes
        return self.data[self.at - n_bytes : self.at]

    def number(self, kind: str) -> Any:
        dtype = np.dtype(kind)
        return np.frombuffer(self.take(dtype.itemsize), dtype)[0].item()

    def string(self) -> str:
        (n_bytes,) = struct.unpack("<Q", self.take(8))
        return str(self.take(n_bytes), "utf-8")

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            return self.number(NUMBERS[kind])
        inner, n = self.number("<u4"), self.number("<u8")
        if inner in NUMBERS:
            dtype = np.dtype(NUMBERS[inner])
            return np.frombuffer(self.take(n * dtype.itemsize), dtype).tolist()
        return [self.value(inner) for _ in range(n)]

    def place(self) -> tuple[str, str, tuple[int, ...], int]:
        """A tensor's name, kind, shape and offset; the file gives the length of a row first."""
        name, n_dims = self.string(), self.number("<u4")
        shape = tuple(self.number("<u8") for _ in range(n_dims))[::-1]
        number, offset = self.number("<u4"), self.number("<u8")
        return name, KINDS.get(number, f"kind {number}"), shape, offset


def _weights(items: np.ndarray, kind: str) -> Float[np.ndarray, "..."]:
    """Weights in float32 from what lies in the file; of a block, in a row."""
    if kind in ("F32", "F16"):
        return items.astype(np.float32)
    scale = items["scale"].astype(np.float32)[:, None]
    if kind == "Q8_0":
        return scale * items["steps"]
    if kind == "Q4_0":
        return scale * (_nibbles(items["pairs"]) - np.float32(8))
    return scale * _nibbles(items["pairs"]) + items["lowest"].astype(np.float32)[:, None]


def _nibbles(pairs: UInt8[np.ndarray, "block 16"]) -> Float[np.ndarray, "block 32"]:
    """The half-bytes as numbers from 0 to 15: the low ones are a block's first half."""
    return np.concatenate([pairs & 15, pairs >> 4], axis=1).astype(np.float32)
