"""What the driver of a Spark job runs: ``python -m components.features.spark.job URI``, or by spark-submit."""

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from components.errors import SluicewayError
from components.exchange import Exchange
from components.features.spark.launch import FAILURE, RESULT
from components.features.spark.step import CONTRACT, OUT, QUARANTINE, SNAPSHOT, WORK
from components.ingest.snapshot import FILE
from components.step import step


def main() -> None:
    """Compute what the URI asks for."""
    (uri,) = sys.argv[1:]
    with step("features") as current:
        current.fact = work(uri)


def work(uri: str) -> str:
    """Compute the feature set that a step has asked for, and bring it where the step reads.

    Args:
        uri: of the folder that step and driver share.

    Returns:
        What to say of it.
    """
    exchange = Exchange(uri)
    try:
        return _computed(exchange)
    except Exception as error:
        message = str(error) if isinstance(error, SluicewayError) else f"{type(error).__name__}: {error}"
        exchange.write(FAILURE, {"kind": type(error).__name__, "message": message})
        raise


def _computed(exchange: Exchange) -> str:
    from components.features.engines.spark import open_spark
    from components.features.run import run
    from components.features.spark.places import Store

    asked: dict[str, Any] = exchange.read(WORK)
    with tempfile.TemporaryDirectory(prefix="sluiceway-") as temporary:
        here = Path(temporary)
        for name in (QUARANTINE, CONTRACT):
            exchange.get(name, here / name)
        (here / SNAPSHOT).mkdir()
        exchange.get_file(f"{SNAPSHOT}.json", here / SNAPSHOT / FILE)
        places = Store(f"{exchange.uri}/work", {here / SNAPSHOT: asked[SNAPSHOT]})
        engine = partial(open_spark, "spark", asked["spark"], places=places)
        given: dict[str, Any] = asked["given"] | {name: here / name for name in (SNAPSHOT, QUARANTINE, CONTRACT)}
        made = run(**given, out=here / OUT, engine=engine)
        exchange.put(here / OUT, OUT)
    said = {"quarantined": made.quarantined, "unlabelled": made.unlabelled, "classes": made.classes}
    exchange.write(RESULT, said)  # last: it says that the rest is there
    return f"{made.rows:,} rows"


if __name__ == "__main__":
    main()
