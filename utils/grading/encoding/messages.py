"""A message as bytes: the length of its JSON, the JSON, and the blobs that it speaks of."""

import json

MAX_BYTES = 256 * 2**20  # of one message,
MAX_HEADER = 32 * 2**20  # and of what it says about itself, which takes many times as much when it is read


class BadMessage(Exception):
    """What the other side sent is no value that this side takes; the message says why."""


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
