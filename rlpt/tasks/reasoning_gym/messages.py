"""JSON messages over a pipe, each with its length (4 bytes, big-endian) before it."""

from __future__ import annotations

import json
import os
import struct
from typing import Any


def read_message(descriptor: int) -> Any:
    """The next message. Raises EOFError where there is none."""

    def exactly(count: int) -> bytes:
        parts = []
        while count > 0:
            part = os.read(descriptor, count)
            if not part:
                raise EOFError("the other side has closed its end")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    return json.loads(exactly(struct.unpack(">I", exactly(4))[0]))


def write_message(descriptor: int, message: Any) -> None:
    """Writes the whole message."""
    body = json.dumps(message).encode()
    rest = memoryview(struct.pack(">I", len(body)) + body)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
