"""The record and the owner of a rollout on a cluster: one at a time, whatever happens to it."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from components.cluster.api import CONFIG_MAP, LEASE, Cluster
from components.errors import Busy, Lost
from components.rollout.ledger import Ledger, Phase
from components.rollout.release import Release
from components.rollout.store import Command
from components.rollout.stores import lease as leases
from components.rollout.stores.kubernetes import KubernetesStore
from tests.cluster.server import ApiServer

pytest_plugins = ["tests.cluster.fixtures"]
pytestmark = pytest.mark.cluster

LEASE_SECONDS = 1
NAME = "sluiceway-rollout-iris"


def store(cluster: Cluster) -> KubernetesStore:
    """A store as another process has it."""
    return KubernetesStore(cluster.inside(cluster.namespace), "iris", lease_seconds=LEASE_SECONDS)


def crashed(cluster: Cluster, rollout: str, **spec: Any) -> None:
    """The lease as a process leaves it that was killed just now."""
    about = {"holderIdentity": f"{rollout}/pod", "leaseDurationSeconds": LEASE_SECONDS, "renewTime": leases.wall()}
    head = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": {"name": NAME}}
    cluster.create(head | {"spec": about | spec})


class TestRecord:
    def test_it_begins_empty_and_is_read_back_whole(self, cluster: Cluster) -> None:
        ledger = store(cluster).load()
        assert ledger == Ledger(service="iris")
        ledger.phase = Phase.SHIFTING
        ledger.stable = Release(version="3", uri="gs://a", document={"spec": {"predictor": {"minReplicas": 0}}})
        ledger.note("weight", 10, requests=7)
        store(cluster).save(ledger)
        assert store(cluster).load() == ledger

    def test_only_one_of_two_who_saw_the_same_record_writes_it(self, cluster: Cluster) -> None:
        first, second = store(cluster), store(cluster)
        first.save(first.load())
        seen = second.load()
        first.save(first.load())
        with pytest.raises(Lost, match="written by somebody else"):
            second.save(seen)

    def test_only_one_of_two_begins_it(self, cluster: Cluster) -> None:
        first, second = store(cluster), store(cluster)
        mine, theirs = first.load(), second.load()
        first.save(mine)
        theirs.run_id = "other"
        with pytest.raises(Lost):
            second.save(theirs)

    def test_a_label_that_somebody_puts_on_it_is_no_loss_and_stays(self, cluster: Cluster) -> None:
        mine = store(cluster)
        ledger = mine.load()
        mine.save(ledger)
        found = cluster.get(CONFIG_MAP, NAME)
        assert found is not None
        found["metadata"]["labels"]["team"] = "fraud"
        cluster.replace(found)
        ledger.weight = 10
        mine.save(ledger)
        assert store(cluster).load().weight == 10
        assert cluster.get(CONFIG_MAP, NAME)["metadata"]["labels"]["team"] == "fraud"  # type: ignore[index]

    def test_a_save_whose_answer_is_lost_has_been_made(self, fake: ApiServer, cluster: Cluster) -> None:
        mine = store(cluster)
        ledger = mine.load()
        mine.save(ledger)
        for how, weight in (("lose", 10), ("drop", 50), ("cut", 100)):
            fake.faults.add(how, method="PUT", path=NAME)
            ledger.weight = weight
            mine.save(ledger)
            assert store(cluster).load().weight == weight

    def test_a_long_rollout_keeps_every_decision_and_its_newest_samples(self, cluster: Cluster) -> None:
        mine = store(cluster)
        ledger = mine.load()
        noise = [os.urandom(40).hex() for _ in range(25_000)]
        for number, text in enumerate(noise):
            ledger.note("sample", 10, seen=text)
            if number % 1000 == 0:
                ledger.note("advance", 10, number=number)
        mine.save(ledger)
        kept = store(cluster).load().events
        assert [e.what for e in kept].count("advance") == 25
        samples = [e for e in kept if e.what == "sample"]
        assert 1000 < len(samples) < 25_000
        assert samples[-1].model_dump()["seen"] == noise[-1]
        assert len(ledger.events) == 25_025, "the run's own record stays whole"

    def test_a_command_is_left_beside_it_and_the_last_one_counts(self, cluster: Cluster) -> None:
        mine, person = store(cluster), store(cluster)
        ledger = mine.load()
        mine.save(ledger)
        person.send(Command(what="pause", by="ada", time=1))
        person.send(Command(what="abort", by="ada", time=2))
        mine.save(ledger)
        command = mine.command()
        assert command is not None
        assert (command.what, command.by) == ("abort", "ada")
        mine.clear()
        mine.clear()
        assert mine.command() is None


class TestOwnership:
    def test_two_at_once_are_one_owner_and_one_who_is_told_of_it(self, cluster: Cluster) -> None:
        with store(cluster).owned("first") as held:
            assert store(cluster).owner().startswith("rollout first in ")
            said: list[str] = []
            with (
                pytest.raises(Busy, match="Rollout first is at work on service iris"),
                store(cluster).owned("second", say=said.append),
            ):
                pass
            assert len(said) == 1
            held.check()
        assert store(cluster).owner() == ""

    def test_of_many_who_start_together_one_at_a_time_owns_it(self, cluster: Cluster) -> None:
        inside, most, done = 0, 0, []
        lock = threading.Lock()

        def run(number: int) -> None:
            nonlocal inside, most
            with store(cluster).owned(f"r{number}", wait_seconds=20):
                with lock:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.05)
                with lock:
                    inside -= 1
            done.append(number)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (most, sorted(done)) == (1, [0, 1, 2, 3])

    def test_it_is_renewed_for_as_long_as_the_owner_lives(self, cluster: Cluster) -> None:
        with store(cluster).owned("first") as held:
            time.sleep(1.5 * LEASE_SECONDS)
            held.check()
            with pytest.raises(Busy), store(cluster).owned("second"):
                pass

    def test_the_next_one_waits_for_the_end(self, cluster: Cluster) -> None:
        leave = threading.Event()

        def hold() -> None:
            with store(cluster).owned("first"):
                leave.wait(5)

        thread = threading.Thread(target=hold)
        thread.start()
        time.sleep(0.3)
        threading.Timer(0.5, leave.set).start()
        with store(cluster).owned("second", wait_seconds=5) as held:
            held.check()
        thread.join()

    def test_a_crashed_owner_is_replaced_once_it_was_silent_for_its_time(self, cluster: Cluster) -> None:
        crashed(cluster, "first")
        began = time.monotonic()
        with store(cluster).owned("second") as held:
            assert LEASE_SECONDS <= time.monotonic() - began < LEASE_SECONDS + 1
            held.check()

    @pytest.mark.parametrize("year", ["1999", "2099"])
    def test_the_other_machine_s_clock_does_not_matter(self, cluster: Cluster, year: str) -> None:
        crashed(cluster, "first", renewTime=f"{year}-01-01T00:00:00.000000Z")
        began = time.monotonic()
        with store(cluster).owned("second"):
            assert LEASE_SECONDS <= time.monotonic() - began < LEASE_SECONDS + 1

    def test_our_own_clock_may_go_back(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        with store(cluster).owned("first") as held:
            real = time.time
            monkeypatch.setattr(time, "time", lambda: real() - 86_400)
            monkeypatch.setattr(leases, "wall", lambda: "2001-01-01T00:00:00.000000Z")
            time.sleep(1.5 * LEASE_SECONDS)
            held.check()

    def test_what_was_handed_over_is_taken_up_at_once_by_the_same_rollout(self, cluster: Cluster) -> None:
        with store(cluster).owned("first") as held:
            held.hand_over(60)
        assert "between two of its steps" in store(cluster).owner()
        began = time.monotonic()
        with store(cluster).owned("first") as held:
            held.check()
        assert time.monotonic() - began < 0.5

    def test_what_was_handed_over_is_not_for_another_rollout_until_it_has_run_out(self, cluster: Cluster) -> None:
        with store(cluster).owned("first") as held:
            held.hand_over(2)
        began = time.monotonic()
        with pytest.raises(Busy, match="between two of its steps"), store(cluster).owned("second"):
            pass
        assert time.monotonic() - began < 1, "nobody is waited for who cannot answer"
        with store(cluster).owned("second", wait_seconds=6):
            assert time.monotonic() - began > 1

    def test_a_retry_of_the_same_rollout_waits_until_the_first_try_is_surely_dead(self, cluster: Cluster) -> None:
        crashed(cluster, "first")
        began = time.monotonic()
        with store(cluster).owned("first"):
            assert time.monotonic() - began >= LEASE_SECONDS


class TestFencing:
    def test_an_owner_who_was_replaced_may_neither_act_nor_write(self, cluster: Cluster) -> None:
        late = store(cluster)
        with late.owned("first") as held:
            ledger = late.load()
            late.save(ledger)
            _steal(cluster, "second")
            deadline = time.monotonic() + 3
            with pytest.raises(Lost, match="rollout second has taken it over"):
                while time.monotonic() < deadline:
                    held.check()
                    time.sleep(0.05)
            with pytest.raises(Lost):
                late.save(ledger)
        assert cluster.get(LEASE, NAME)["spec"]["holderIdentity"].startswith("second/")  # type: ignore[index]

    def test_a_write_under_way_while_the_next_owner_comes_fails(self, cluster: Cluster) -> None:
        late, fresh = store(cluster), store(cluster)
        ledger = late.load()
        late.save(ledger)
        with fresh.owned("second"), pytest.raises(Lost, match="written by somebody else"):
            late.save(ledger)  # it has not noticed anything yet

    def test_a_deleted_lease_is_a_lost_one(self, cluster: Cluster) -> None:
        with store(cluster).owned("first") as held:
            cluster.delete(LEASE, NAME)
            time.sleep(LEASE_SECONDS)
            with pytest.raises(Lost, match="its Lease was deleted"):
                held.check()

    def test_an_api_server_that_is_away_for_a_moment_costs_nothing(self, fake: ApiServer, cluster: Cluster) -> None:
        mine = KubernetesStore(cluster, "iris", lease_seconds=2)
        with mine.owned("first") as held:
            with fake.away():
                time.sleep(0.9)
            time.sleep(1.5)
            held.check()

    def test_an_api_server_that_is_away_for_longer_than_the_lease_ends_it(
        self, fake: ApiServer, cluster: Cluster
    ) -> None:
        with store(cluster).owned("first") as held:
            with fake.away():
                time.sleep(1.3 * LEASE_SECONDS)
                with pytest.raises(Lost, match="could not be renewed for 1 s"):
                    held.check()
            time.sleep(0.5)
            with pytest.raises(Lost):
                held.check()

    @pytest.mark.parametrize("code", [409, 500])
    def test_a_server_that_answers_a_renewal_with_trouble_is_asked_again(
        self, fake: ApiServer, cluster: Cluster, code: int
    ) -> None:
        with store(cluster).owned("first") as held:
            fault = fake.faults.add("answer", code=code, method="PUT", path="leases")
            time.sleep(1.2 * LEASE_SECONDS)
            held.check()
            assert fault.happened == 1

    def test_a_process_that_was_stopped_and_wakes_up_late_has_lost(self, fake: ApiServer, cluster: Cluster) -> None:
        program = f"""
            import sys
            from kubernetes.client import ApiClient, Configuration
            from components.cluster.api import Cluster
            from components.errors import Lost
            from components.rollout.stores.kubernetes import KubernetesStore

            client = ApiClient(Configuration(host="{fake.url}"))
            mine = KubernetesStore(Cluster(client, "{cluster.namespace}"), "iris", lease_seconds={LEASE_SECONDS})
            with mine.owned("first") as held:
                ledger = mine.load()
                mine.save(ledger)
                print("owns", flush=True)
                sys.stdin.readline()
                for act in (held.check, lambda: mine.save(ledger)):
                    try:
                        act()
                        print("acted", flush=True)
                    except Lost as error:
                        print(f"lost: {{error}}", flush=True)
        """
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        with process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == "owns\n"
            process.send_signal(signal.SIGSTOP)
            with store(cluster).owned("second") as held:
                process.stdin.write("\n")
                process.stdin.flush()
                process.send_signal(signal.SIGCONT)
                assert process.stdout.readline().startswith("lost: ")
                assert process.stdout.readline().startswith("lost: ")
                held.check()
        assert process.returncode == 0


def _steal(cluster: Cluster, rollout: str) -> None:
    found = cluster.get(LEASE, NAME)
    assert found is not None
    found["spec"]["holderIdentity"] = f"{rollout}/pod"
    cluster.replace(found)
