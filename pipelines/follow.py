"""Turns the lines that a local run prints into a record of it."""

import json
import re
import time
from dataclasses import dataclass, field

from components.step import MARK
from pipelines.record import RunRecord, State, component

_CACHE_HIT = re.compile(r"Task (\S+) cache hit \(key=([0-9a-f]+)\)")
_STARTING = re.compile(r"Executing task .*?'([a-z0-9-]+)'")
_RETRYING = re.compile(r"Task (\S+) failed \(attempt \d+/\d+\)\. Retrying")
_MENDABLE = {"Unreachable", "Interrupted"}
"""Failures that may be gone at the next attempt; a step that says no word was killed, which is one too."""
_LONG = {"train", "search", "rollout"}
"""Steps that go on where they were. Any other is quickly started anew by whoever sits here, and gives up at once."""


@dataclass
class Follower:
    """Reads a run's output line by line.

    Attributes:
        record: what is known so far, updated with each line.
        cache_keys: start of the cache key of each step that was not run again.
        in_vain: whether a step is about to be tried again that would fail again.
    """

    record: RunRecord
    cache_keys: dict[str, str] = field(default_factory=dict)
    in_vain: bool = False

    def line(self, text: str) -> bool:
        """Take one line; says whether it changed the record."""
        stripped = text.strip()
        if stripped.startswith(f'{{"{MARK}"'):
            # Something else that writes to the same pipe may have come in between, behind or within the event.
            try:
                event, _ = json.JSONDecoder().raw_decode(stripped)
            except json.JSONDecodeError:
                return False
            return self._event(event)
        if hit := _CACHE_HIT.search(stripped):
            step = self.record.step(component(hit[1]))
            step.state, step.fact = State.CACHED, "same inputs as before: kept"
            self.cache_keys[step.name] = hit[2]
            return True
        if retrying := _RETRYING.search(stripped):
            step = self.record.step(component(retrying[1]))
            self.in_vain = step.name not in _LONG or (step.state is State.FAILED and step.error_kind not in _MENDABLE)
            return True
        if starting := _STARTING.search(stripped):
            step = self.record.step(component(starting[1]))
            step.state, step.began = State.RUNNING, time.time()
            return True
        return False

    def _event(self, event: dict[str, object]) -> bool:
        step = self.record.step(str(event["step"]))
        match event[MARK]:
            case "progress":
                step.progress.append(str(event["message"]))
            case "finished":
                step.state, step.fact, step.error = State.DONE, str(event["fact"]), ""
                step.work_seconds = float(str(event["seconds"]))
                step.seconds = float(str(event["time"])) - step.began
            case "failed":
                step.state = State.FAILED
                step.error, step.error_kind = str(event["message"]), str(event["kind"])
                step.exit_code = int(str(event["exit_code"]))
                step.seconds = float(str(event["time"])) - step.began
        return True
