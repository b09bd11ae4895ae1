"""What looks like a secret: by a name, or by the text itself."""

import itertools
import math
import re
from collections import Counter

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SECRETS = {
    "password",
    "passwd",
    "pwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "credential",
    "credentials",
    "accesskey",
}
_KEYS = {"api", "access", "private", "secret", "signing", "encryption", "account", "shared", "auth"}
_REFERENCES = {
    "name",
    "names",
    "ref",
    "path",
    "file",
    "uri",
    "url",
    "id",
    "env",
    "variable",
    "key",
    "namespace",
    "mount",
}
_COUNTS = {"max", "min", "num", "count", "length", "size", "limit", "per", "pad", "eos", "bos", "special", "n"}

_KNOWN = {
    "an AWS access key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,})",
    "a GitLab token": r"\bglpat-[\w-]{20,}",
    "a Slack token": r"\bxox[abeprs]-[A-Za-z0-9-]{10,}",
    "a Slack webhook": r"hooks\.slack\.com/services/T\w+/B\w+/\w+",
    "a Google API key": r"\bAIza[0-9A-Za-z_-]{35}",
    "a Google access token": r"\bya29\.[0-9A-Za-z_-]{20,}",
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}",
    "an npm token": r"\bnpm_[A-Za-z0-9]{36}",
    "a PyPI token": r"\bpypi-AgEI[\w-]{20,}",
    "a Docker token": r"\bdckr_pat_[\w-]{20,}",
    "an API key": r"\bsk-(?:[a-z]+-)*[A-Za-z0-9_]{20,}",
    "a JSON web token": r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}",
    "a private key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----",
    "a password in an address": r"\b[a-z][a-z0-9+.-]*://[^/\s:@{}$<]+:[^/\s:@{}$<]+@[\w.-]+",
    "a password": r"^password=.",
}
_PATTERNS = {kind: re.compile(pattern) for kind, pattern in _KNOWN.items()}
_RANDOM = re.compile(r"(?<![\w/+.:@=-])[A-Za-z0-9_+=-]{24,}(?![\w/.])")
_LEAST_ENTROPY = 4.0  # bits for each character; English words have about 3, random letters and digits nearly 6


def secret_name(name: str) -> bool:
    """Whether what is called so is a secret, rather than where one is, or a count."""
    words = [word.lower() for word in _WORDS.findall(name)]
    if not words or set(words) & _COUNTS:
        return False
    keyed = any(first in _KEYS and second == "key" for first, second in itertools.pairwise(words))
    if keyed and words[-1] == "key":
        return True
    return (keyed or bool(set(words) & _SECRETS)) and words[-1] not in _REFERENCES


def secret_in(text: str, *, known: bool) -> str | None:
    """What secret a text holds, in words; None for none.

    Args:
        text: any text.
        known: look for the forms of well-known tokens; otherwise for what looks random.
    """
    if known:
        return next((kind for kind, pattern in _PATTERNS.items() if pattern.search(text)), None)
    for match in _RANDOM.finditer(text):
        if _looks_random(match[0]):
            return f"text that looks random ({match[0][:4]}…)"
    return None


def _looks_random(text: str) -> bool:
    kinds = (str.isdigit, str.isupper, str.islower)
    if not all(any(kind(letter) for letter in text) for kind in kinds):
        return False  # digests are lower case, constants upper, names have no digits
    return entropy(text) >= _LEAST_ENTROPY


def entropy(text: str) -> float:
    """Shannon entropy, in bits for each character."""
    counts = Counter(text)
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values())
