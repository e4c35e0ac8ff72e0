"""The worker process: makes items of reasoning-gym and scores answers, each in a confined child of its own.

    python -P -m rlpt.tasks.reasoning_gym.worker

`client.Client` runs it. Each request and each reply is JSON in UTF-8 with its length, 4 bytes big-endian, before it:

    {"ask": "item", "name": "gcd", "level": 0, "seed": 7}                   {"question": ..., "answer": ...}
                                                                         or {"refused": why}
    {"ask": "score", "name": ..., "level": ..., "seed": ..., "answer": ...} {"fate": "returned", "score": 1.0}

The first reply, before any request, is {"ready": true} or {"refusals": [why, ...]} where children can't be confined. A
request that fails is answered {"error": traceback}; an item that takes over `ITEM_SECONDS` of processor time (tens of
times what the slowest takes, so in practice one whose search never ends) is refused. The worker ends with its input, or
after `REQUEST_SECONDS` of one request.
"""

from __future__ import annotations

import gc
import os
import signal
import struct
import traceback
from collections.abc import Mapping
from typing import Any

from rlpt.tasks.confinement import Limits, refusals, run_confined
from rlpt.tasks.reasoning_gym import items
from rlpt.tasks.reasoning_gym.messages import read_message, write_message

ITEM_SECONDS = 5.0
REQUEST_SECONDS = 120  # then SIGALRM ends the worker
LIMITS = Limits()


def item(request: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """(data set, entry) that a request names. Raises Refused."""
    signal.setitimer(signal.ITIMER_PROF, ITEM_SECONDS, 1.0)
    try:
        return items.item(request["name"], request["level"], request["seed"])
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def make(request: Mapping[str, Any]) -> dict[str, Any]:
    """The reply to "item"."""
    try:
        entry = item(request)[1]
    except items.Refused as error:
        return {"refused": str(error)}
    return {"question": entry["question"], "answer": entry["answer"]}


def score(request: Mapping[str, Any]) -> dict[str, Any]:
    """The reply to "score": 0 unless the verifier returned a number."""
    data_set, entry = item(request)

    def verdict() -> bytes:
        return struct.pack("d", data_set.score_answer(request["answer"], entry))

    fate, result = run_confined(verdict, LIMITS)
    return {"fate": fate, "score": struct.unpack("d", result)[0] if len(result) == 8 else 0.0}


def main() -> None:
    """Answers requests until the input ends."""

    def refuse(*_: object) -> None:
        raise items.Refused(f"not made within {ITEM_SECONDS} s")

    signal.signal(signal.SIGPROF, refuse)
    requests, replies = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)  # what data sets print
    if reasons := refusals():
        write_message(replies, {"refusals": reasons})
        return
    gc.freeze()
    write_message(replies, {"ready": True})
    while True:
        signal.alarm(0)
        try:
            request = read_message(requests)
        except EOFError:
            return
        signal.alarm(REQUEST_SECONDS)
        try:
            reply = {"item": make, "score": score}[request["ask"]](request)
        except Exception:
            reply = {"error": traceback.format_exc()}
        try:
            write_message(replies, reply)
        except BrokenPipeError:
            return


if __name__ == "__main__":
    main()
