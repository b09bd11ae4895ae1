"""A further process of a group, started by :mod:`components.train.torch.distributed`: ``python -m`` this module.

Its input is one line of JSON that says what to train on; when the input closes, the process that started it is gone.
"""

import json
import os
import sys
import threading
from pathlib import Path

from components.train.contract import Data, Run
from components.train.torch.settings import Settings


def main() -> None:
    """Train along, and leave the result to rank 0."""
    work = json.loads(sys.stdin.readline())
    threading.Thread(target=_leave_with_the_first, daemon=True).start()
    from components.train.torch.distributed import Group, join
    from components.train.torch.fit import device_of, fitted_in

    settings = Settings.checked(work["settings"])
    run = Run(work["seed"], work["device"])
    device = device_of(settings, run, work["rank"])
    Path(work["ready"], str(work["rank"])).touch()
    join("nccl" if device.torch.type == "cuda" else "gloo", work["store"], work["rank"], work["size"])
    fitted_in(Group(work["rank"], work["size"]), Data.read(Path(work["features"])), settings, run, device)


def _leave_with_the_first() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
