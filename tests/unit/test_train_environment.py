"""What a training says about where it was made and what it took."""

import subprocess
import sys
from importlib.metadata import version

import pytest

from components.errors import BadInput
from components.train.environment import PRICE, Meter, _cpus, machine, packages


@pytest.fixture
def counters(tmp_path):
    """Two processor packages, one with a part of its own."""
    for name, microjoules in (("intel-rapl:0", 5_000_000), ("intel-rapl:0:0", 4_000_000), ("intel-rapl:1", 7_000_000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{microjoules}\n")
    return tmp_path


def test_every_installed_package_is_named_with_its_version():
    lines = packages().splitlines()
    assert f"scikit-learn=={version('scikit-learn')}" in lines
    assert len(lines) == len(set(lines)) > 100


def test_the_machine_is_named():
    named = machine("sklearn", "")
    assert named["framework"] == f"scikit-learn {version('scikit-learn')}"
    assert (named["device"], machine("torch", "cuda:0 NVIDIA L4")["device"]) == ("cpu", "cuda:0 NVIDIA L4")
    assert named["cpus"] >= 1
    assert named["cpu"]


@pytest.mark.parametrize(("text", "wanted"), [("50000 100000", 0.5), ("max 100000", None), ("", None)])
def test_a_pod_has_the_processors_of_its_limit(tmp_path, text, wanted):
    (tmp_path / "cpu.max").write_text(text)
    assert _cpus(tmp_path / "cpu.max") == (wanted or _cpus(tmp_path / "none"))


def test_energy_is_what_the_packages_counted_meanwhile(counters):
    meter = Meter(rapl=counters)
    (counters / "intel-rapl:0" / "energy_uj").write_text("25000000")
    (counters / "intel-rapl:0:0" / "energy_uj").write_text("23000000")
    (counters / "intel-rapl:1" / "energy_uj").write_text("8000000")
    assert meter.spent()["energy_joules"] == 21.0


def test_a_counter_that_wrapped_round_or_is_not_there_says_nothing(counters, tmp_path):
    meter = Meter(rapl=counters)
    (counters / "intel-rapl:0" / "energy_uj").write_text("1")
    assert "energy_joules" not in meter.spent()
    assert "energy_joules" not in Meter(rapl=tmp_path / "none").spent()


def test_gpus_without_a_driver_count_no_energy(tmp_path):
    assert "energy_joules" not in Meter(gpus=1, rapl=tmp_path).spent()


def test_time_and_memory_are_measured_in_a_process_of_its_own():
    code = """
from components.train.environment import Meter
meter = Meter(); block = bytearray(300_000_000); sum(range(3_000_000)); print(meter.spent())
"""
    spent = eval(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert 300 < spent["peak_memory_mb"] < 450
    assert 0 < spent["cpu_seconds"] <= spent["seconds"] * 4


def test_a_cost_is_given_only_where_a_price_is(tmp_path, monkeypatch):
    monkeypatch.delenv(PRICE, raising=False)
    assert "cost" not in Meter(rapl=tmp_path).spent()
    monkeypatch.setenv(PRICE, "3600000")
    meter = Meter(rapl=tmp_path)
    spent = meter.spent()
    assert spent["cost"] == pytest.approx(spent["seconds"] * 1000, abs=1.0)


@pytest.mark.parametrize("price", ["much", "-1", "inf", "nan"])
def test_a_price_that_is_none_is_refused_before_training(price, monkeypatch):
    monkeypatch.setenv(PRICE, price)
    with pytest.raises(BadInput, match="SLUICEWAY_PRICE_PER_HOUR is"):
        Meter()
