"""The plan for schedules, on a model of the server."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.server.schedules import Schedule
from pipelines.server.schedules_plan import Existing, Wanted, plan, start_of

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NAMES = ("a", "b", "c")


def wanted(name="a", seed=1, **about):
    about = {"cron": "0 3 * * *"} | about
    return Wanted(Schedule(name=name, pipeline="p", parameters={"seed": seed}, **about), "p-id", "", "e-id")


class Server:
    """Recurring runs, as far as the plan knows them."""

    def __init__(self, held=()):
        self.held = {one.id: one for one in held}
        self.ids = itertools.count(len(self.held))
        self.now = NOW
        self.calls = 0

    def carry_out(self, change):
        """The change's next call; what is gone is no failure, as in :mod:`pipelines.server.schedules_apply`."""
        self.calls += 1
        self.now += timedelta(seconds=1)
        step, made = change.step, f"id-{next(self.ids)}"
        if step.deed == "create":
            about = change.wanted
            self.held[made] = Existing(made, about.schedule.name, about.digest, False, self.now, start=step.start)
        elif step.id in self.held:
            if step.deed == "delete":
                assert not self.held[step.id].active, "a run that is going on would end"
                del self.held[step.id]
            else:
                self.held[step.id] = replace(self.held[step.id], enabled=step.deed == "enable")
        assert not [name for name in NAMES if self.on(name) > 1], "two of a name are switched on"

    def on(self, name):
        return sum(one.enabled for one in self.held.values() if one.name == name)

    def state(self):
        return sorted((one.name, one.digest, one.enabled) for one in self.held.values())


def as_declared(declared):
    return sorted((one.schedule.name, one.digest, not one.schedule.paused) for one in declared)


def settle(server, declared, steps=None):
    """Reconcile until nothing is left to do, or for a number of calls."""
    while steps is None or server.calls < steps:
        changes = [one for one in plan(declared, server.held.values(), server.now) if one.step]
        if not changes:
            return
        server.carry_out(changes[0])
        assert server.calls < 200


KINDS = {
    (name, seed, on): wanted(name, seed, paused=not on) for name in NAMES for seed in (1, 2) for on in (True, False)
}
declarations = st.lists(st.sampled_from([*KINDS.values()]), unique_by=lambda one: one.schedule.name)


there = st.tuples(
    st.sampled_from(NAMES),
    st.sampled_from([KINDS["a", 1, True].digest, KINDS["a", 2, True].digest, "of another time"]),
    st.booleans(),  # whether it is switched on, if no other of its name is
    st.sampled_from([NOW - timedelta(days=days) for days in (1, 2, 3)]),
    st.sampled_from([None, *(NOW - timedelta(hours=hours) for hours in (1, 30, 60, 90))]),
    st.booleans(),
)


def server_with(given):
    """A server that holds what earlier reconcilers may have left: old ones, duplicates, half-done changes."""
    found: list[Existing] = []
    for name, digest, enabled, created, last, active in given:
        on = enabled and not any(one.enabled and one.name == name for one in found)
        found.append(Existing(f"id-{len(found)}", name, digest, on, created, last=last, active=active))
    return Server(found)


def idle(server):
    """All runs have ended."""
    server.held = {key: replace(one, active=False) for key, one in server.held.items()}


@given(declarations, declarations, st.lists(there, max_size=5), st.integers(0, 8))
@settings(max_examples=50, deadline=None)
def test_what_was_cut_off_anywhere_ends_at_what_is_declared_and_then_nothing_changes(first, then, left, steps):
    server = server_with(left)
    idle(server)
    settle(server, first, steps)
    settle(server, then)
    assert server.state() == as_declared(then)
    assert plan(then, server.held.values(), server.now) == []


@given(declarations, st.lists(there, max_size=5), st.lists(st.booleans(), max_size=16))
@settings(max_examples=50, deadline=None)
def test_two_reconcilers_at_once_end_at_what_is_declared(declared, left, turns):
    """Each acts on what it saw before the other's last call."""
    server, seen = server_with(left), {}
    idle(server)
    for who in turns:
        if steps := [one for one in seen.pop(who, []) if one.step]:
            server.carry_out(steps[-1] if who else steps[0])
        else:
            seen[who] = plan(declared, list(server.held.values()), server.now)
    settle(server, declared)
    assert server.state() == as_declared(declared)


@given(declarations, st.lists(there, max_size=5))
@settings(max_examples=50, deadline=None)
def test_what_has_a_run_going_on_is_switched_off_and_stays_until_that_ends(declared, left):
    server = server_with(left)
    settle(server, declared)  # deleting one whose run is going on fails in the model
    on = [one.name for one in server.held.values() if one.enabled]
    assert sorted(on) == sorted(one.schedule.name for one in declared if not one.schedule.paused)
    idle(server)
    settle(server, declared)
    assert server.state() == as_declared(declared)


def test_a_replacement_starts_where_the_old_one_has_come_to():
    old = Existing("id-0", "a", "0" * 16, True, NOW - timedelta(days=9), last=NOW - timedelta(hours=9))
    (change,) = plan([wanted()], [old], NOW)
    assert (change.what, change.step.deed, change.step.start) == ("replace", "create", NOW - timedelta(hours=9))


def test_a_run_that_the_old_one_starts_during_the_change_is_not_started_again_by_the_new_one():
    one = wanted()
    old = Existing("id-0", "a", "0" * 16, True, NOW - timedelta(days=9), last=NOW - timedelta(hours=9))
    server = Server([old])
    settle(server, [one], steps=1)
    server.held["id-0"] = replace(old, last=server.now)  # it fires before it is switched off
    settle(server, [one])
    (new,) = server.held.values()
    assert new.enabled
    assert new.start == NOW + timedelta(seconds=1)


def test_a_start_that_has_passed_starts_no_run_at_once():
    """KFP would take it for a time since when runs are missing."""
    passed = NOW - timedelta(days=3, hours=1)
    assert start_of(wanted(start=passed).schedule, [], NOW) is None
    assert start_of(wanted(start=passed, catch_up=True).schedule, [], NOW) == passed
    assert start_of(wanted(start=NOW + timedelta(days=1)).schedule, [], NOW) == NOW + timedelta(days=1)
    assert start_of(wanted(cron="", every="1d", start=passed).schedule, [], NOW) == passed + timedelta(days=3)


def test_names_of_fields_that_come_later_do_not_replace_every_schedule():
    """The digest leaves out what has its default."""
    assert wanted().digest == wanted(catch_up=False, max_concurrency=1).digest == wanted(paused=True).digest
    assert (
        len({wanted().digest, wanted(seed=2).digest, wanted(max_concurrency=2).digest, wanted(cron="@hourly").digest})
        == 4
    )
