import pytest

from components.errors import BadInput
from components.naming import model_name


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("../shared/data/telco_churn.csv", "telco-churn"),
        ("gs://bucket/path/Sales Data.parquet", "sales-data"),
        ("gs://bucket/logs/*.csv", "logs"),
        ("sklearn://breast_cancer", "breast-cancer"),
        ("file:///data/2024.csv", "model-2024"),
        ("/data/folder/", "folder"),
    ],
)
def test_a_model_is_named_after_its_data(source, name):
    assert model_name("", source) == name


def test_a_given_name_must_be_a_dns_label():
    assert model_name("churn-eu", "x.csv") == "churn-eu"
    with pytest.raises(BadInput, match="Churn_EU"):
        model_name("Churn_EU", "x.csv")
