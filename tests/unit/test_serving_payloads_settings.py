import pytest

from components.errors import BadInput
from serving.payloads.settings import from_environment
from tests.serving_bundle import schema

URL = {"SLUICEWAY_PAYLOADS_URL": "http://sink"}


def test_without_a_sink_or_a_sample_nothing_is_logged(tmp_path):
    assert from_environment({}) is None
    assert from_environment({"SLUICEWAY_PAYLOADS_SAMPLE": "1"}) is None
    assert from_environment({**URL, "SLUICEWAY_PAYLOADS_SAMPLE": "0"}) is None
    settings = from_environment({"SLUICEWAY_PAYLOADS_STORE": str(tmp_path), "SLUICEWAY_PAYLOADS_SAMPLE": "0.25"})
    assert settings.store == f"file://{tmp_path}"
    assert settings.sample == 0.25


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("SAMPLE", "10", "a share from 0 to 1"),
        ("SAMPLE", "nan", "a share from 0 to 1"),
        ("URL", "sink:80", "http:// or https://"),
        ("STORE", "relative/folder", "an absolute folder"),
        ("STORE", "file://relative", "an absolute folder"),
        ("STORE", "abfs://container/x", "adlfs, which is not installed"),
        ("QUEUE_MB", "none", "megabytes"),
        ("MODE", "everything", "all, request, response"),
        ("RAW", "yes", "0 or 1"),
        ("ENDPOINT", "a\r\nb", "one line"),
    ],
)
def test_what_cannot_be_read_is_named_with_what_it_may_be(name, value, says):
    with pytest.raises(BadInput, match=f"SLUICEWAY_PAYLOADS_{name} is .*{says}"):
        from_environment({**URL, f"SLUICEWAY_PAYLOADS_{name}": value})


def test_a_column_to_redact_that_the_model_has_not_is_refused():
    settings = from_environment({**URL, "SLUICEWAY_PAYLOADS_REDACT": "size, mean_radius"})
    settings.check("ours", schema())
    settings = from_environment({**URL, "SLUICEWAY_PAYLOADS_REDACT": "size,Rough"})
    with pytest.raises(BadInput, match="'Rough', but the inputs of model 'ours' are mean_radius"):
        settings.check("ours", schema())
