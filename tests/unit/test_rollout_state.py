"""Plan, evidence and the next action."""

import math

import pytest

from components.errors import BadInput
from components.rollout.evidence import Arm
from components.rollout.judge import Finding, Verdict
from components.rollout.plan import RolloutPlan, parse_plan
from components.rollout.state import Do, decide

PLAN = RolloutPlan(steps=(10, 50, 100), min_seconds=2, max_seconds=60)


def verdict(finding):
    return Verdict(finding, (), "because")


@pytest.mark.parametrize(
    ("weight", "elapsed", "finding", "do", "to"),
    [
        (10, 5, Finding.OK, Do.ADVANCE, 50),
        (50, 5, Finding.OK, Do.ADVANCE, 100),
        (100, 5, Finding.OK, Do.PROMOTE, 0),
        (10, 1, Finding.OK, Do.HOLD, 0),
        (10, 5, Finding.UNCLEAR, Do.HOLD, 0),
        (10, 60, Finding.UNCLEAR, Do.ROLL_BACK, 0),
        (100, 0, Finding.HARM, Do.ROLL_BACK, 0),
    ],
)
def test_the_next_action_follows_from_weight_time_and_verdict(weight, elapsed, finding, do, to):
    action = decide(weight, elapsed, verdict(finding), PLAN)
    assert (action.do, action.weight) == (do, to)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"steps": [50, 10, 100]}, "rise"),
        ({"steps": [10, 50]}, "100"),
        ({"steps": []}, "rise"),
        ({"step": [100]}, "step"),
        ({"slo": {"latency_ratio": 0.5}}, "latency_ratio"),
    ],
)
def test_a_wrong_plan_is_refused_with_the_field_named(plan, words):
    with pytest.raises(BadInput, match=words):
        parse_plan(plan)


def test_a_counter_that_fell_was_reset_by_a_restart():
    before = Arm(requests=500, errors=3, latency={10.0: 400, math.inf: 500}, predictions={"a": 500})
    after = Arm(requests=40, errors=1, latency={10.0: 30, math.inf: 40}, predictions={"a": 40})
    assert after.since(before) == after
    assert before.since(Arm(requests=100, errors=1)).requests == 400


def test_a_quantile_is_linear_within_its_bucket():
    arm = Arm(latency={10.0: 50, 20.0: 100, math.inf: 100})
    assert arm.latency_quantile(0.75) == 15.0
    assert math.isnan(Arm().latency_quantile(0.5))
