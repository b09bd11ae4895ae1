"""The load generator's process: a JSON document of what to send on standard input, what was counted on standard output.

It shares the machine with the server that it loads, so it keeps to a core that is named (``core``) and the server is
kept off it.
"""

import base64
import gc
import json
import os
import sys
from typing import Any

from tests.bench.load.closed import closed_loop
from tests.bench.load.opened import open_loop
from tests.bench.load.replies import Sameness


def main() -> None:
    """Do what standard input says."""
    wish = json.load(sys.stdin)
    if wish.get("core") is not None:
        os.sched_setaffinity(0, {wish["core"]})
    gc.disable()  # nothing here makes cycles
    json.dump(_run(wish), sys.stdout)


def _run(wish: dict[str, Any]) -> dict[str, Any]:
    address = (wish["host"], wish["port"])
    requests = [base64.b64decode(one) for one in wish["requests"]]
    if wish.get("phases"):
        phases = [(rate, seconds) for rate, seconds in wish["phases"]]
        return open_loop(address, requests, wish["connections"], phases, seed=wish["seed"])
    same = Sameness(len(requests)).wrong if wish.get("same") else None
    return closed_loop(
        address,
        requests,
        wish["connections"],
        warm=wish["warm"],
        seconds=wish["seconds"],
        count=wish.get("count", 0),
        seed=wish["seed"],
        same=same,
    ).document()


if __name__ == "__main__":
    main()
