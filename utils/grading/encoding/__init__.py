"""How values cross between grader and worker: as typed data, never as anything that could run.

A message is JSON with blobs of bytes behind it (``messages``). Values that have an identity (tensors, containers,
models, functions) are entries of a ``table`` that both sides keep in step for the time of one call: an entry is made
when it first crosses, and every later message says what has changed in the old ones. So two arguments that share memory
still do on the other side, a result can *be* an argument, and what the other side writes into a list or a tensor is
seen on this one. ``outgoing`` turns values into a message, ``incoming`` a message into values.

The grader believes nothing that it reads: whatever does not decode into a plain value of an allowed type, dtype and
size is a ``BadMessage``.
"""

from utils.grading.encoding.generators import expect_reachable
from utils.grading.encoding.incoming import decode
from utils.grading.encoding.messages import MAX_BYTES, BadMessage, dump, parse
from utils.grading.encoding.outgoing import encode
from utils.grading.encoding.table import Opaque, Side, Table

__all__ = [
    "MAX_BYTES",
    "BadMessage",
    "Opaque",
    "Side",
    "Table",
    "decode",
    "dump",
    "encode",
    "expect_reachable",
    "parse",
]
