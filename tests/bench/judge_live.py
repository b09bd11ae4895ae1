"""The judge on live rollouts on this machine: real servers behind a real Envoy, a real MLflow, real requests."""

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from components.register.mlflow_client import client as mlflow
from components.rollout.deployment import Deployment
from components.rollout.ledger import Ledger, Phase
from components.rollout.place import place_for
from components.rollout.plan import RolloutPlan
from components.rollout.release import Release
from components.rollout.releases import release
from components.rollout.run import Request, Result, roll_out
from components.rollout.traffic import Rows
from serving.bundle import load
from serving.local import client
from tests.serving_bundle import rows, write_bundle

SERVICE, HERE, PLAN = "live", Deployment(), RolloutPlan()
_PER_SECOND = 200
_EQUAL, _HARMED = 20, 10


@dataclass(frozen=True)
class Case:
    """A challenger.

    Attributes:
        bundle: which of the bundles it serves.
        champion: faults of the champion.
        challenger: faults of the challenger.
        harmful: whether it must be rolled back.
    """

    bundle: str
    champion: str
    challenger: str
    harmful: bool = True


CASES = {
    "equal, 1 % errors each": Case("same", "errors=0.01", "errors=0.01", harmful=False),
    "equal, without errors": Case("same", "", "", harmful=False),
    "errors 1 % to 5 %": Case("same", "errors=0.01", "errors=0.05"),
    "100 ms slower": Case("same", "", "delay_ms=100"),
    "predictions drawn to their mean": Case("shrunk", "", ""),
}


@dataclass(frozen=True)
class End:
    """How one rollout ended: the challenger's requests in all steps, and the seconds it took."""

    result: Result
    requests: int
    seconds: float


def measure() -> str:
    """Roll out again and again, and count how it ends."""
    found = {}
    with _home() as bundles:
        for name, case in CASES.items():
            found[name] = [_once(bundles, case, turn) for turn in range(_HARMED if case.harmful else _EQUAL)]
            print(name, [(end.result.outcome, end.requests) for end in found[name]], flush=True)
    lines = [_row(name, found[name]) for name in CASES]
    return (
        f"## The judge, live on one machine\n\n`python -m tests.bench judge_live`: the default plan, {_PER_SECOND} "
        "held-out rows per second as requests, each rollout from its own start.\n\n"
        "| challenger | rollouts | rolled back | promoted | its requests until then, median | seconds, median |"
        " replayed requests without a 200, most |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        + "\n".join(lines)
        + "\n"
    )


def _row(name: str, ends: list[End]) -> str:
    outcomes = [end.result.outcome for end in ends]
    requests, seconds = statistics.median(e.requests for e in ends), statistics.median(e.seconds for e in ends)
    return (
        f"| {name} | {len(ends)} | **{outcomes.count('rolled_back')}** | {outcomes.count('promoted')} | "
        f"{requests:,.0f} | {seconds:.1f} | "
        f"{max(end.result.failed for end in ends)} of {max(end.result.sent for end in ends):,} |"
    )


@contextmanager
def _home() -> Iterator[Path]:
    """Bundles, and a home with a registry in which version 1 is the champion of version 2."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, {"SLUICEWAY_HOME": f"{folder}/home"}):
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        home, bundles = Path(folder) / "home", Path(folder) / "bundles"
        home.mkdir()
        write_bundle(bundles / "champion")
        write_bundle(bundles / "same")
        write_bundle(bundles / "shrunk", seed=20_000)
        mlflow().create_registered_model(SERVICE)
        for _version in (1, 2):
            mlflow().create_model_version(SERVICE, "file:///nowhere")
        try:
            yield bundles
        finally:
            client.stop(home)


def _once(bundles: Path, case: Case, turn: int) -> End:
    mlflow().set_registered_model_alias(SERVICE, "champion", "1")
    place = place_for(HERE, PLAN, SERVICE)
    stable = _release("1", bundles / "champion", case.champion, turn)
    candidate = _release("2", bundles / case.bundle, case.challenger, turn + 1000)
    with place.store.owned(f"run-{turn}"):
        place.target.deploy(stable)
        staged = place.target.stage(candidate)
        place.store.save(
            Ledger(
                service=SERVICE,
                run_id=f"run-{turn}",
                phase=Phase.STAGED,
                stable=stable,
                candidate=candidate,
                revision=staged.revision,
            )
        )
    # The challenger was evaluated as the champion: what it does otherwise live is harm.
    offline = tuple(tuple(map(float, row)) for row in load(bundles / "champion").predict(rows()))
    instances = tuple({k: None if v != v else v for k, v in row.items()} for row in rows().to_dict("records"))
    asked = Request(
        f"run-{turn}", PLAN, Rows(instances, offline, offline), ("No", "Yes"), replay_per_second=_PER_SECOND
    )
    began = time.monotonic()
    result = roll_out(place, asked, lambda _text: None)
    return End(result, _requests(place.store.load()), time.monotonic() - began)


def _release(version: str, bundle: Path, faults: str, seed: int) -> Release:
    env = {"SLUICEWAY_FAULTS": f"{faults},seed={seed}"} if faults else {"TURN": str(seed)}
    return release(SERVICE, version, bundle.as_uri(), HERE, env)


def _requests(ledger: Ledger) -> int:
    """What the challenger answered in all steps, by the last sample of each."""
    samples = [event for event in ledger.events if event.what == "sample"]
    last = {event.weight: (event.model_extra or {})["canary"]["requests"] for event in samples}
    return sum(last.values())
