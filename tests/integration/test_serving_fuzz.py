"""A slice of the hostile requests of ``tests/bench/serving_fuzz.py``; ``make bench`` sends over 50,000."""

import collections
import random

import psutil
import pytest

from tests.bench.fuzzing.attack import Attack
from tests.bench.fuzzing.campaign import Campaign
from tests.bench.fuzzing.raw import CHEAP
from tests.bench.fuzzing.target import BUNDLE
from tests.serving_bundle import write_bundle
from tests.serving_process import Server


class _Server(Server):
    def process(self):
        return psutil.Process(self._process.pid)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    write_bundle(folder / "bundle")
    made = _Server(folder / "bundle", "r1", folder / "log")
    made.start()
    made.wait()
    yield made
    made.kill()


@pytest.fixture
def campaign(server, tmp_path):
    made = Campaign(server.port, BUNDLE, server.process(), tmp_path)
    yield made
    made.look(Attack("at the end", b""))
    assert made.failures == collections.Counter()


def test_bodies_near_proper_ones_are_answered_or_refused_with_the_field(campaign):
    campaign.json(120, number=0)

    assert campaign.fired >= 300
    assert {400, 200} <= {status for _, status in campaign.statuses}


def test_binary_tensors_with_lying_sizes_are_refused(campaign):
    campaign.binary(250, number=0)

    assert campaign.statuses["v2 binary", 400] > 50
    assert campaign.statuses["v2 binary", 200] > 10


def test_broken_http_is_refused_and_nothing_smuggled_is_answered(campaign):
    draw = random.Random(0)
    for make in CHEAP:
        for _ in range(6):
            campaign.fire(make(draw, BUNDLE))

    assert campaign.statuses["length and chunks", 400] == 6
