"""Names derived in one place, so that a step, the exit handler and the CLI agree on them."""

import re
from urllib.parse import urlparse

from components.errors import BadInput

_LONGEST = 40  # leaves room for `-predictor-00001` within a DNS label of 63


def model_name(given: str, source_uri: str) -> str:
    """The registered model's and the service's name: the given one, else the data source's.

    ``../data/telco_churn.csv`` gives ``telco-churn``.

    Raises:
        BadInput: the given name is no DNS label, as Kubernetes asks.
    """
    if given:
        if not re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", given):
            raise BadInput(
                f"model_name {given!r} cannot name a service: use up to {_LONGEST} lower-case letters, digits and "
                "dashes, starting with a letter."
            )
        return given
    parsed = urlparse(source_uri)
    parts = [part for part in (parsed.netloc, *parsed.path.split("/")) if part and not set(part) & set("*?[")]
    stem = (parts[-1] if parts else "model").split(".")[0]
    name = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:_LONGEST].strip("-")
    return name if name[:1].isalpha() else f"model-{name}".strip("-")[:_LONGEST]
