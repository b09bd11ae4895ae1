"""The search: what it proposes, prunes and survives, without MLflow."""

import os
import signal
import time

import numpy as np
import pytest

from components.errors import BadInput
from components.train.contract import Data, Run
from components.train.interrupt import Interrupted
from components.train.search import Sought, best, search, search_worker
from components.train.space import plan
from components.train.study import Watch, propose
from components.train.trainers import find
from components.train.trials import Trial
from tests.feature_sets import feature_set, mixed_frame


class Bowl:
    """A trainer whose model is best at x = 0.3, and which reports epochs that say so."""

    framework = "sklearn"

    def __init__(self, fails=lambda parameters: False, epochs=6, pause=0.0):
        self.fails, self.epochs, self.pause = fails, epochs, pause
        self.fitted = []

    def parameters(self, task):
        return {"x": 0.5, "width": 64, "flavour": None}

    def space(self, task):
        return {"x": {"low": 0.0, "high": 1.0}, "width": {"low": 16, "high": 256, "log": True}}

    def fit(self, data, parameters, run):
        self.fitted.append(dict(parameters))
        if self.fails(parameters):
            run.epoch(1, {"train_loss": float("nan")}, learning_rate=9.0)
        for number in range(1, self.epochs + 1):
            time.sleep(self.pause)
            run.epoch(number, {"train_loss": 1.0, "valid_loss": abs(parameters["x"] - 0.3) + 1 / number})
        return _Model(data, parameters["x"])


class _Model:
    def __init__(self, data, x):
        self.data, self.x, self.facts = data, x, {}

    def predict(self, frame):
        """The truth, blurred the more the further x is from 0.3."""
        target = self.data.valid.target
        noise = np.random.default_rng(0).normal(size=len(target)) * (0.5 + 5 * abs(self.x - 0.3))
        right = 1 / (1 + np.exp(-(target - 0.5 + noise)))
        return np.column_stack([1 - right, right])


class Memory:
    """Keeps trials in a list, as MLflow does for several workers."""

    def __init__(self):
        self.trials = {}

    def parent(self):
        return "parent"

    def close(self):
        pass

    def read(self):
        return list(self.trials.values())

    def begin(self, trial):
        self.trials[trial.number] = trial

    def end(self, run, trial):
        self.trials[trial.number] = trial


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return Data.read(feature_set(tmp_path_factory.mktemp("search") / "f", mixed_frame(300), "binary"))


def sought(data, trainer=None, chosen=None, name="bowl", **given):
    trainer, chosen = trainer or Bowl(), chosen or {}
    return Sought(data, name, trainer, chosen, plan(given, name, trainer, "binary", chosen))


def proposals(found):
    return [(trial.state, dict(trial.parameters), trial.value) for trial in found.trials]


def test_a_search_finds_the_bottom_of_the_bowl_and_says_every_trial(data):
    said = []
    found = search(sought(data, trials=25), Run(0, say=said.append), Memory())
    assert abs(found.parameters["x"] - 0.3) < 0.08
    assert found.parameters == {"x": found.parameters["x"], "width": found.parameters["width"], "flavour": None}
    assert len(said) == 25
    assert said[0].startswith("trial 1 of 25: roc_auc 0.")
    assert f"(best {found.value:.4g})" in said[-1]
    assert found.fact().startswith(f"trial {found.number + 1} of 25 is the best: roc_auc")
    assert max(found.values()) == found.value


def test_one_seed_and_one_budget_make_the_same_trials_and_another_seed_makes_others(data):
    first, second, other = (search(sought(data, trials=8), Run(seed), Memory()) for seed in (3, 3, 4))
    assert proposals(first) == proposals(second)
    assert proposals(first) != proposals(other)


def test_a_retry_uses_what_was_finished_and_ends_as_if_it_had_never_been_killed(data):
    whole = search(sought(data, trials=8), Run(3), Memory())
    memory, trainer = Memory(), Bowl()
    search(sought(data, trials=5), Run(3), memory)
    memory.trials[5] = Trial(5, {"x": 0.9, "width": 20})  # what a kill leaves
    retried = search(sought(data, trainer, trials=8), Run(3), memory)
    assert len(trainer.fitted) == 3
    assert proposals(retried) == proposals(whole)


def test_a_trial_that_falls_behind_is_pruned_before_its_last_epoch(data):
    found = search(sought(data, trials=25), Run(0), Memory())
    pruned = [trial for trial in found.trials if trial.state == "pruned"]
    assert pruned
    assert all(3 <= max(trial.epochs) < 6 and "behind the others at epoch" in trial.reason for trial in pruned)
    assert all(trial.watched == "valid_loss" and trial.value is None for trial in pruned)
    assert found.facts()["pruned"] == len(pruned)
    finished = [trial for trial in found.trials if trial.state == "finished"]
    assert np.mean([abs(t.parameters["x"] - 0.3) for t in pruned]) > np.mean(
        [abs(t.parameters["x"] - 0.3) for t in finished]
    )


@pytest.mark.parametrize(("name", "good", "bad"), [("valid_roc_auc", 0.9, 0.7), ("valid_loss", 0.7, 0.9)])
def test_a_low_score_is_pruned_and_so_is_a_high_loss(name, good, bad):
    import optuna

    before = [Trial(n, {"x": 0.1 * n}, "finished", 0.8, name, {4: 0.8}) for n in range(6)]
    space = {"x": optuna.distributions.FloatDistribution(0, 1)}
    Watch("roc_auc", propose("roc_auc", space, before, 0, 9), float("inf"))(4, {name: good})
    with pytest.raises(optuna.TrialPruned):
        Watch("roc_auc", propose("roc_auc", space, before, 0, 9), float("inf"))(4, {name: bad})


def test_trials_that_diverge_are_failed_and_the_search_goes_on(data):
    found = search(sought(data, Bowl(lambda p: p["x"] > 0.5), trials=10), Run(0), Memory())
    failed = [trial for trial in found.trials if trial.state == "failed"]
    assert failed
    assert all("diverged: train_loss is nan in epoch 1 at learning rate 9" in trial.reason for trial in failed)
    assert found.parameters["x"] <= 0.5


def test_where_every_trial_fails_the_search_fails_with_the_first_reason(data):
    with pytest.raises(BadInput, match="None of the 3 trials reached a result; the first says: Training diverged"):
        search(sought(data, Bowl(lambda p: True), trials=3), Run(0), Memory())


def test_time_that_is_over_cuts_the_running_trial_short_and_proposes_no_other(data):
    said = []
    began = time.monotonic()
    found = search(sought(data, Bowl(pause=0.02), minutes=0.5 / 60), Run(0, say=said.append), Memory())
    assert time.monotonic() - began < 3
    assert found.trials[-1].reason.startswith("the time was over at epoch")
    assert "minutes are over" in said[-1]


def test_the_first_trial_is_done_however_short_the_time(data):
    assert len(search(sought(data, minutes=1e-6), Run(0), Memory()).trials) == 1


def test_time_spent_by_a_killed_attempt_counts(data):
    memory = Memory()
    memory.trials[0] = Trial(0, {"x": 0.4, "width": 20}, "finished", 0.7, seconds=90.0)
    trainer = Bowl()
    assert search(sought(data, trainer, minutes=1), Run(0), memory).number == 0
    assert not trainer.fitted


@pytest.mark.parametrize("asks", [False, True], ids=["a library's fit", "a fit that asks after each batch"])
def test_sigterm_within_a_trial_ends_the_search_and_leaves_the_trial_to_the_retry(data, asks):
    class Stopped(Bowl):
        def fit(self, data, parameters, run):
            if len(self.fitted) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
                assert asks, "the fit went on"
            if asks and run.interrupt:
                raise Interrupted("SIGTERM came.")
            return super().fit(data, parameters, run)

    memory = Memory()
    with pytest.raises(Interrupted):
        search(sought(data, Stopped(), trials=5), Run(0), memory)
    assert [trial.state for trial in memory.read()] == ["finished", "finished", "running"]
    trainer = Bowl()
    assert len(search(sought(data, trainer, trials=5), Run(0), memory).trials) == 5
    assert len(trainer.fitted) == 3


def test_workers_share_the_numbers_and_learn_from_each_other(data):
    memory, first, second = Memory(), Bowl(), Bowl()
    for index, trainer in ((0, first), (1, second)):
        search_worker(sought(data, trainer, trials=7), Run(0), memory, index, 2)
    assert (len(first.fitted), len(second.fitted)) == (4, 3)
    assert sorted(memory.trials) == list(range(7))
    found = best(sought(data, trials=7), memory)
    assert found.value == max(trial.value for trial in memory.read() if trial.value is not None)
    alone = Memory()
    search_worker(sought(data, trials=7), Run(0), alone, 1, 2)
    known, unknown = memory.trials[5].parameters, alone.trials[5].parameters
    assert known == unknown  # while all are random, numbers alone decide
    assert proposed_after(data, memory) != proposed_after(data, alone)


def proposed_after(data, memory):
    wanted = sought(data, trials=7)
    before = [*memory.read(), *(Trial(n, {"x": 0.01 * n, "width": 99}, "finished", 0.1) for n in range(10, 18))]
    return propose("roc_auc", wanted.distributions, before, 0, 30).params


def test_a_worker_that_cannot_be_is_refused(data):
    with pytest.raises(BadInput, match="no search worker 2 of 2"):
        search_worker(sought(data, trials=2), Run(0), Memory(), 2, 2)


def test_the_key_is_of_everything_but_the_budget(data):
    key = sought(data, trials=5).key(0)
    assert key == sought(data, trials=50, minutes=3).key(0)
    narrower = {"x": {"low": 0.0, "high": 0.5}}
    others = [sought(data, trials=5).key(1), sought(data, trials=5, chosen={"flavour": "sweet"}).key(0)]
    assert key not in [*others, sought(data, trials=5, space=narrower).key(0)]


def test_what_the_user_has_set_stays_and_is_not_searched(data):
    trainer = Bowl()
    search(sought(data, trainer, chosen={"width": 32.0}, trials=3), Run(0), Memory())
    assert {parameters["width"] for parameters in trainer.fitted} == {32}
    assert len({parameters["x"] for parameters in trainer.fitted}) == 3


def test_numbers_that_kfp_made_doubles_are_whole_where_the_hyperparameter_counts(data):
    trainer = Bowl()
    space = {"width": {"low": 4.0, "high": 64.0}, "flavour": {"choices": ["sweet", 3.0, None]}}
    search(sought(data, trainer, trials=6.0, space=space), Run(0), Memory())
    assert all(type(parameters["width"]) is int for parameters in trainer.fitted)
    assert {parameters["flavour"] for parameters in trainer.fitted} <= {"sweet", 3, None}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "give trials, minutes or both"),
        ({"trials": 0}, "trials: Input should be greater than or equal to 1"),
        ({"minutes": -1}, "minutes: Input should be greater than 0"),
        ({"trails": 5}, r"trails: there is no such field: did you mean 'trials'\?"),
        ({"trials": 5, "space": {"widht": {"choices": [1]}}}, r"'widht', .* has none: did you mean 'width'\?"),
        ({"trials": 5, "space": {"x": {"low": 1.0}}}, r"space\.x: give low and high, or choices"),
        ({"trials": 5, "space": {"x": {"low": 1.0, "high": 0.5}}}, r"space\.x: low 1 is not below high 0\.5"),
        ({"trials": 5, "space": {"x": {"low": 0, "high": 1, "log": True}}}, r"space\.x: low 0 must be above 0"),
        ({"trials": 5, "space": {"x": {"low": 0, "high": 1, "choices": [1]}}}, "not both"),
        ({"trials": 5, "space": {"x": {"lo": 0, "high": 1}}}, r"space\.x\.lo: there is no such field.*'low'"),
        ({"trials": 5, "space": {"width": {"low": 0.5, "high": 8}}}, r"space\.width must have whole numbers"),
    ],
)
def test_a_plan_that_cannot_be_used_is_refused_by_its_field(given, said):
    with pytest.raises(BadInput, match=said):
        plan(given, "bowl", Bowl(), "binary", {})


def test_a_hyperparameter_is_not_both_set_and_searched():
    with pytest.raises(BadInput, match="'x' is both set by hyperparameters and searched"):
        plan({"trials": 5, "space": {"x": {"low": 0, "high": 1}}}, "bowl", Bowl(), "binary", {"x": 0.2})
    with pytest.raises(BadInput, match="nothing to search"):
        plan({"trials": 5}, "bowl", Bowl(), "binary", {"x": 0.2, "width": 4})


@pytest.mark.parametrize("name", ["linear", "hist_gradient_boosting"])
@pytest.mark.parametrize("task", ["binary", "regression"])
def test_every_trainer_has_a_space_of_its_own_hyperparameters(name, task):
    read = plan({"trials": 5}, name, find(name), task, {})
    assert set(read.space) <= set(find(name).parameters(task))
    assert all(dimension.distribution() for dimension in read.space.values())


def test_a_real_trainer_is_searched(data):
    found = search(
        sought(data, find("linear"), name="linear", trials=3, space={"C": {"low": 0.01, "high": 10, "log": True}}),
        Run(0),
        Memory(),
    )
    assert found.value > 0.7
    assert set(found.parameters) == set(find("linear").parameters("binary"))
