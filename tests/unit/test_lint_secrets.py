"""What the lint takes for a secret, and what not."""

import pytest

from pipelines.lint.secret_text import secret_in, secret_name


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "db_password",
        "token",
        "hf_token",
        "apiKey",
        "API_KEY",
        "aws_secret_access_key",
        "signing_key",
        "credentials",
        "clientSecret",
        "GITHUB_TOKEN",
        "private-key",
    ],
)
def test_names_of_secrets(name):
    assert secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "max_tokens",
        "tokenizer",
        "secret_name",
        "password_file",
        "SIGNING_KEY_PATH",
        "token_uri",
        "split_key",
        "key",
        "n_tokens",
        "primary_key",
        "credentials_secret_name",
        "pad_token",
        "api_version",
        "api_key_env",
    ],
)
def test_names_that_only_sound_like_secrets(name):
    assert not secret_name(name)


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        (("AKIA", "IOSFODNN7EXAMPLE"), "an AWS access key"),
        (("ghp", "_", "a1B2" * 9), "a GitHub token"),
        (("glpat", "-", "x" * 20), "a GitLab token"),
        (("xoxb", "-", "1234567890-abc"), "a Slack token"),
        (("https://hooks.slack", ".com/services/T0/B0/abc"), "a Slack webhook"),
        (("AIza", "b" * 35), "a Google API key"),
        (("hf", "_", "Ab1" * 11), "a Hugging Face token"),
        (("-----BEGIN EC PRIVATE", " KEY-----\nMHc"), "a private key"),
        (("eyJhbGciOiJI", ".eyJzdWIiOiIx", ".SflKxwRJSM"), "a JSON web token"),
        (("postgresql://sluice:", "hunter2@db/prod"), "a password in an address"),
    ],
)
def test_well_known_forms_of_secrets(parts, kind):
    assert secret_in(f"before {''.join(parts)} after", known=True) == kind


@pytest.mark.parametrize(
    "text",
    [
        "gs://bucket/path/of/2026-01-01/data.parquet",
        f"registry.example.com/train@sha256:{'0123456789abcdef' * 4}",
        "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c",
        "HistGradientBoostingClassifier",
        "postgresql://{user}:{password}@db/prod",
        "https://example.com:8443/a@b",
        "package.module:callable",
        "2026-01-01T00:00:00Z/2026-02-01T00:00:00Z",
    ],
)
def test_ordinary_texts_are_no_secrets(text):
    assert secret_in(text, known=True) is None
    assert secret_in(text, known=False) is None


def test_text_that_looks_random_is_told_of_without_being_repeated():
    kind = secret_in("use q7Zx91LmPw04RtYb8KdVn2Hs please", known=False)
    assert kind == "text that looks random (q7Zx…)"
