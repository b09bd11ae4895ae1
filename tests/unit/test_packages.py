"""Compiled packages and the parameters that a person gives."""

import pytest

from components.errors import BadInput
from pipelines.packages import Parameter, compile_package, parameters, read_values

KNOWN = {
    "source_uri": Parameter("source_uri", "STRING", "", "sklearn://wine", False),
    "seed": Parameter("seed", "NUMBER_INTEGER", "", 0, False),
    "margin": Parameter("margin", "NUMBER_DOUBLE", "", 0.02, False),
    "plan": Parameter("plan", "STRUCT", "", {}, False),
    "wanted": Parameter("wanted", "BOOLEAN", "", None, True),
}


def test_values_are_read_by_their_declared_type():
    given = {"source_uri": "3.csv", "seed": "7", "margin": "1", "plan": '{"steps": [100]}', "wanted": "True"}
    values = read_values(given, KNOWN)
    assert values == {"source_uri": "3.csv", "seed": 7, "margin": 1.0, "plan": {"steps": [100]}, "wanted": True}
    assert isinstance(values["margin"], float)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sead": "1", "wanted": "true"}, "did you mean seed"),
        ({"seed": "1.5", "wanted": "true"}, "seed takes a number integer"),
        ({"seed": "true", "wanted": "true"}, "seed takes a number integer"),
        ({"plan": "[1]", "wanted": "true"}, "plan takes a struct"),
        ({}, "wanted has no default"),
    ],
)
def test_a_wrong_parameter_is_named_with_what_to_do(given, words):
    with pytest.raises(BadInput, match=words):
        read_values(given, KNOWN)


def test_every_parameter_of_every_pipeline_is_described_and_has_a_default(package):
    for parameter in parameters(package).values():
        assert len(parameter.description) > 15, parameter.name
        assert not parameter.required, parameter.name


def test_compiling_twice_gives_the_same_bytes(package, tmp_path):
    compile_package("train-and-deploy", tmp_path / "again.yaml")
    assert (tmp_path / "again.yaml").read_bytes() == package.read_bytes()


def test_an_unknown_pipeline_is_refused(tmp_path):
    with pytest.raises(BadInput, match="train-and-deploy"):
        compile_package("train", tmp_path / "x.yaml")
    assert not list(tmp_path.iterdir())
