"""What a rollout does next, for every situation that it can be in."""

from dataclasses import replace

import pytest

from components.rollout.judge import Finding, Verdict
from components.rollout.plan import RolloutPlan
from components.rollout.state import Do, Situation, decide
from components.rollout.targets.target import Copies, Sight

PLAN = RolloutPlan(min_seconds=10, max_seconds=60, max_total_seconds=600, max_down_seconds=30)
HALTING = PLAN.model_copy(update={"on_unclear": "halt"})
HEALTHY = Copies("new", ready=2, wanted=2)
SIGHT = Sight(10, stable=Copies("old", ready=2, wanted=2), canary=HEALTHY)


def verdict(finding, reason="because"):
    return Verdict(finding, (), reason)


def situation(finding=Finding.UNCLEAR, **more):
    given = {"weight": 10, "step_seconds": 20.0, "total_seconds": 20.0, "verdict": verdict(finding), "sight": SIGHT}
    return Situation(**given | more)


def with_stable(**copies):
    return replace(SIGHT, stable=Copies("old", **copies))


def with_canary(**copies):
    return replace(SIGHT, canary=Copies("new", **copies))


def test_a_step_without_harm_advances_to_the_next_weight():
    action = decide(situation(Finding.OK), PLAN)
    assert (action.do, action.weight) == (Do.ADVANCE, 50)


def test_the_last_step_without_harm_promotes():
    assert decide(situation(Finding.OK, weight=100), PLAN).do is Do.PROMOTE


def test_a_step_never_ends_before_its_shortest_time():
    assert decide(situation(Finding.OK, step_seconds=9.9), PLAN).do is Do.HOLD


def test_harm_rolls_back_at_once():
    action = decide(situation(Finding.HARM, step_seconds=0.1), PLAN)
    assert (action.do, action.reason) == (Do.ROLL_BACK, "because")


def test_no_traffic_holds_and_ends_by_policy_and_never_advances():
    assert decide(situation(step_seconds=59.9), PLAN).do is Do.HOLD
    assert decide(situation(step_seconds=60.0), PLAN).do is Do.ROLL_BACK
    assert decide(situation(step_seconds=60.0), HALTING).do is Do.HALT


def test_the_whole_rollout_has_a_longest_time():
    assert decide(situation(Finding.OK, total_seconds=600.0), PLAN).do is Do.ROLL_BACK
    assert decide(situation(Finding.OK, total_seconds=600.0), HALTING).do is Do.HALT


@pytest.mark.parametrize("held", [{"paused_by": "ann"}, {"frozen_until": "Monday"}])
def test_a_pause_or_freeze_holds_a_step_that_would_advance_but_never_protects_harm(held):
    assert decide(situation(Finding.OK, **held), PLAN).do is Do.HOLD
    assert decide(situation(Finding.HARM, **held), PLAN).do is Do.ROLL_BACK


def test_a_pause_does_not_outlast_the_whole_rollouts_longest_time():
    assert decide(situation(Finding.OK, paused_by="ann", total_seconds=600.0), PLAN).do is Do.ROLL_BACK


def test_a_persons_change_halts_before_anything_else():
    changed = replace(SIGHT, changed="canaryTrafficPercent is 30 instead of 10")
    for finding in Finding:
        action = decide(situation(finding, sight=changed, abort_by="ann", promote_by="ben"), PLAN)
        assert action.do is Do.HALT
        assert "30 instead of 10" in action.reason


def test_abort_rolls_back_and_says_by_whom():
    action = decide(situation(Finding.OK, abort_by="ann@host"), PLAN)
    assert action.do is Do.ROLL_BACK
    assert "ann@host" in action.reason


def test_promote_by_hand_skips_the_steps_unless_servers_are_missing_or_harm_is_proved():
    assert decide(situation(promote_by="ann", paused_by="ann"), PLAN).do is Do.PROMOTE
    assert decide(situation(promote_by="ann", sight=with_canary(ready=1, wanted=2)), PLAN).do is Do.HOLD
    assert decide(situation(promote_by="ann", sight=None), PLAN).do is Do.HOLD
    assert decide(situation(Finding.HARM, promote_by="ann"), PLAN).do is Do.ROLL_BACK


def test_a_promotion_that_waits_for_servers_does_not_outlast_the_whole_rollouts_longest_time():
    waiting = situation(promote_by="ann", sight=with_canary(ready=1, wanted=2), total_seconds=600.0)
    assert decide(waiting, PLAN).do is Do.ROLL_BACK


@pytest.mark.parametrize("cause", [{"verdict": verdict(Finding.HARM)}, {"abort_by": "ann"}, {"step_seconds": 60.0}])
def test_never_back_onto_a_champion_that_is_sick_while_the_challenger_answers(cause):
    sick = with_stable(ready=0, wanted=2, trouble="CrashLoopBackOff")
    action = decide(situation(sight=sick, weight=100, **cause), PLAN)
    assert action.do is Do.HALT
    assert "CrashLoopBackOff" in action.reason


def test_a_champion_scaled_to_zero_is_not_sick():
    assert decide(situation(Finding.HARM, sight=with_stable(ready=0, wanted=0)), PLAN).do is Do.ROLL_BACK


def test_back_onto_a_sick_champion_where_the_challenger_does_not_answer_either():
    both = replace(with_stable(ready=0, wanted=2), canary=Copies("new", ready=0, wanted=2))
    assert decide(situation(Finding.HARM, sight=both), PLAN).do is Do.ROLL_BACK


def test_a_first_deployment_has_nothing_to_be_sick():
    nothing = with_stable(ready=0, wanted=1)
    assert decide(situation(Finding.HARM, sight=nothing, first=True), PLAN).do is Do.ROLL_BACK


def test_a_challenger_without_a_ready_server_is_waited_for_then_rolled_back_with_its_trouble():
    down = with_canary(ready=0, wanted=1, trouble="OOMKilled")
    assert decide(situation(Finding.OK, sight=down, down_seconds=29.0), PLAN).do is Do.HOLD
    action = decide(situation(Finding.OK, sight=down, down_seconds=30.0), PLAN)
    assert action.do is Do.ROLL_BACK
    assert "OOMKilled" in action.reason


def test_no_step_is_taken_while_the_challenger_has_fewer_servers_than_it_should():
    assert decide(situation(Finding.OK, sight=with_canary(ready=1, wanted=2)), PLAN).do is Do.HOLD


def test_no_step_is_taken_while_the_place_cannot_be_seen():
    assert decide(situation(Finding.OK, sight=None), PLAN).do is Do.HOLD
