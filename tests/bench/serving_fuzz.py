"""At least 50,000 hostile requests at a live server, which has to answer every one of them properly.

``python -m tests.bench serving_fuzz`` runs it all; ``python -m tests.bench.serving_fuzz --share 0.1 --seed 5`` less of
it without recording, and ``--replay FILE`` what was saved of a request whose reply was wrong.
"""

import argparse
import contextlib
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.bench.fuzzing.attack import Attack
from tests.bench.fuzzing.campaign import Campaign
from tests.bench.fuzzing.check import problems
from tests.bench.fuzzing.slow import Slow, never_reads
from tests.bench.fuzzing.target import BUNDLE
from tests.bench.fuzzing.wire import Client
from tests.bench.load.client import ROOT
from tests.serving_bundle import write_bundle
from tests.serving_process import Server

SEED = 1
PLAN = (("raw", 4_000), ("json", 11_000), ("documented", 2_000), ("binary", 12_000), ("raw", 4_000))
"""Of each kind; every JSON body is sent twice more with bytes changed. The largest bodies are among the first."""
KEPT = ROOT / ".bench" / "fuzz"
SLOW_CONNECTIONS = 200
REQUEST_SECONDS = 5
GROWTH_MB = 20.0
"""How much larger the server may be at the end than after the first tenth; allocators keep some slack."""
MUCH_UNREAD_MB = 200.0


@dataclass
class Outcome:
    """What came of it."""

    campaign: Campaign
    seed: int
    seconds: float = 0.0
    slow_ended: list[float] = field(default_factory=list)
    slow_statuses: Counter[int] = field(default_factory=Counter)
    slow_opened: int = 0
    looks: int = 0
    unread_mb: float = 0.0
    tracebacks: Counter[str] = field(default_factory=Counter)

    def failures(self) -> list[str]:
        """Everything that is not as it has to be."""
        said = [f"{count} times: {what}" for what, count in self.campaign.failures.most_common()]
        grown = self.grown_mb()
        if grown > GROWTH_MB:
            said.append(f"the server grew by {grown:.0f} MB")
        if self.unread_mb > MUCH_UNREAD_MB:
            said.append(f"clients that never read made the server grow by {self.unread_mb:.0f} MB")
        said += [f"{count} times in the server's log: {what}" for what, count in self.tracebacks.most_common()]
        return said

    def grown_mb(self) -> float:
        """RSS after the last thousand against that after a tenth of them, MB; before clients read nothing."""
        memory = self.campaign.memory[: self.looks]
        return memory[-1][1] - memory[len(memory) // 10][1] if memory else 0.0


def measure() -> str:
    """Run it all; gives the section of RESULTS.md."""
    return _report(attack_server(PLAN, SEED))


def attack_server(plan: Sequence[tuple[str, int]], seed: int) -> Outcome:
    """Attack a server of its own with so many requests of each kind."""
    with tempfile.TemporaryDirectory() as scratch, _server(Path(scratch)) as server:
        campaign = Campaign(server.port, BUNDLE, server.process(), KEPT / str(seed))
        outcome = Outcome(campaign, seed)
        began = time.monotonic()
        with Slow(server.port, BUNDLE, SLOW_CONNECTIONS) as slow:
            for number, (kind, count) in enumerate(plan):
                started = time.monotonic()
                getattr(campaign, kind)(count, 100 * seed + number)
                took = time.monotonic() - started
                print(f"{kind}: {took:.0f} s, {campaign.fired:,} sent, {campaign.rss():.0f} MB", file=sys.stderr)
            left = REQUEST_SECONDS + 5 - (time.monotonic() - began)
            time.sleep(max(0.0, left))  # so that some were told that they were too slow
        outcome.looks = len(campaign.memory)
        outcome.slow_opened, outcome.slow_ended = slow.opened, slow.ended
        outcome.slow_statuses = Counter(slow.statuses)
        outcome.unread_mb = _unread(campaign)
        campaign.look(Attack("at the end", b""))
        outcome.seconds = time.monotonic() - began
        outcome.tracebacks = _tracebacks(Path(scratch) / "log")
        return outcome


class _Server(Server):
    def process(self) -> psutil.Process:
        return psutil.Process(self._process.pid)


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[_Server]:
    write_bundle(folder / "bundle")
    server = _Server(folder / "bundle", "fuzzed", folder / "log", options=("--request-seconds", str(REQUEST_SECONDS)))
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.kill()


def _unread(campaign: Campaign) -> float:
    """MB that the server grew by at most while clients asked for much and read nothing."""
    before = campaign.rss()
    most = before
    made: list[object] = []
    asking = threading.Thread(
        target=lambda: made.extend(never_reads(campaign.port, campaign.target, connections=8, requests=400, rows=1_000))
    )
    asking.start()
    while asking.is_alive():
        most = max(most, campaign.rss())
        time.sleep(0.05)
    campaign.look(Attack("never reads", b""))
    for connection in made:
        connection.close()  # type: ignore[attr-defined]
    return most - before


def _tracebacks(log: Path) -> Counter[str]:
    """The last lines of tracebacks in the server's log: of no harm to clients, but mistakes all the same."""
    found: Counter[str] = Counter()
    within = False
    for line in log.read_text(errors="replace").splitlines():
        if line.startswith("Traceback"):
            within = True
        elif within and line and not line.startswith((" ", "During", "The above")):
            found[re.sub(r"0x[0-9a-f]+", "#", line)[:160]] += 1
            within = False
    return found


def _report(outcome: Outcome) -> str:
    campaign = outcome.campaign
    kinds: dict[str, Counter[int]] = {}
    for (kind, status), count in sorted(campaign.statuses.items()):
        kinds.setdefault(kind, Counter())[status] += count
    failures = outcome.failures()
    worst = max((status for _, status in campaign.statuses), default=0)
    lines = [
        "## Hostile requests",
        "",
        f"`python -m tests.bench serving_fuzz`, seed {outcome.seed}: **{campaign.fired:,}** attacks in",
        f"{outcome.seconds:.0f} s with {SLOW_CONNECTIONS} connections beside them that send a byte now and then.",
        "Bodies near proper ones by Hypothesis and copies of them with bytes changed, Schemathesis on the server's own",
        "OpenAPI document, binary tensors with lying sizes, and raw bytes. After every thousand the server has to",
        "predict as before, in the same process.",
        "",
        f"- Replies of 500 and above: **{sum(n for (_, status), n in campaign.statuses.items() if status >= 500)}**; "
        f"the highest status is {worst}.",
        "- Rules broken (a status, a trace or path in a reply, a 400 that names no field, a smuggled request answered,",
        f"  a reply that is missing, a process that ended, another prediction): **{sum(campaign.failures.values())}**.",
        f"- Tracebacks in the server's log: {sum(outcome.tracebacks.values())}.",
        f"- Memory: {campaign.memory[0][1]:.0f} MB after the first thousand, "
        f"{campaign.memory[outcome.looks - 1][1]:.0f} MB after the last.",
        f"- Slow connections: {outcome.slow_opened:,} opened, {len(outcome.slow_ended):,} ended by the server, after",
        f"  {_median(outcome.slow_ended):.1f} s in the median at a limit of {REQUEST_SECONDS} s; told "
        f"{', '.join(f'{status} {n:,} times' for status, n in outcome.slow_statuses.most_common()) or 'nothing'}.",
        f"- Eight clients that asked for 3.2 million rows and read nothing made it grow by {outcome.unread_mb:.0f} MB.",
        "",
        "| attack | replies by status (0: no reply, the connection was closed) |",
        "| --- | --- |",
        *(
            f"| {kind} | {', '.join(f'{status}: {count:,}' for status, count in sorted(found.items()))} |"
            for kind, found in kinds.items()
        ),
    ]
    if failures:
        lines += ["", "What was wrong:", "", *(f"- {one}" for one in failures[:30])]
    return "\n".join(lines)


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2] if values else float("nan")


def _replay(path: Path) -> int:
    attack = Attack.load(path)
    with tempfile.TemporaryDirectory() as scratch, _server(Path(scratch)) as server:
        exchange = Client(server.port).send(attack)
        said = problems(attack, exchange, BUNDLE)
        print(attack.wire[:2_000], exchange, *said, _tracebacks(Path(scratch) / "log"), sep="\n")
    return 1 if said else 0


def main() -> int:
    """By hand, without recording."""
    parser = argparse.ArgumentParser(prog="tests.bench.serving_fuzz")
    parser.add_argument("--share", type=float, default=1.0, help="of the requests")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--replay", type=Path, help="a request that was saved")
    given = parser.parse_args()
    if given.replay:
        return _replay(given.replay)
    outcome = attack_server([(kind, int(count * given.share)) for kind, count in PLAN], given.seed)
    print(_report(outcome))
    return 1 if outcome.failures() else 0


if __name__ == "__main__":
    sys.exit(main())
