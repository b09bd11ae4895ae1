import pytest

from tests.e2e.road import Road


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """A home of its own, whose services end with the tests of the module."""
    road = Road(tmp_path_factory.mktemp("home"))
    yield road
    road.command("stop")
    left = [p.cmdline() for p in road.processes()]
    assert not left, f"still running after stop: {left}"
