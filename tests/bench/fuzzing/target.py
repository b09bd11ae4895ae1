"""What is attacked: a model's inputs, requests that are right, and the replies that are due to them."""

import json
from dataclasses import dataclass
from typing import Any, Literal

from tests.bench.fuzzing.attack import Attack, request
from tests.bench.fuzzing.wire import Client

Kind = Literal["number", "boolean", "string", "timestamp"]
ROW = {
    "mean_radius": 14.2,
    "mean_texture": None,
    "mean_smoothness": 0.1,
    "mean_concavity": 0.08,
    "size": "large",
    "rough": True,
}
"""A row of the model of :mod:`tests.serving_bundle`."""


@dataclass(frozen=True)
class Target:
    """A model behind a port."""

    name: str
    columns: tuple[tuple[str, Kind], ...]
    row: dict[str, Any]

    @property
    def v1_path(self) -> str:
        """Of predictions."""
        return f"/v1/models/{self.name}:predict"

    @property
    def v2_path(self) -> str:
        """Of inference."""
        return f"/v2/models/{self.name}/infer"

    def good(self) -> tuple[Attack, ...]:
        """Proper requests for the same row in both protocols."""
        v1 = json.dumps({"instances": [self.row, list(self.row.values())]}).encode()
        tensors = [
            {"name": name, "shape": [1], "datatype": DATATYPES[kind], "data": [self.row[name]]}
            for name, kind in self.columns
        ]
        v2 = json.dumps({"id": "good", "inputs": tensors}).encode()
        return Attack("good", request(self.v1_path, v1)), Attack("good", request(self.v2_path, v2))

    def predictions(self, port: int) -> list[Any]:
        """What the server answers to the proper requests.

        Raises:
            AssertionError: it does not answer them.
        """
        client = Client(port)
        found = []
        for attack in self.good():
            exchange = client.send(attack)
            assert [one.status for one in exchange.replies] == [200], f"a proper request: {exchange}"
            found.append(json.loads(exchange.replies[0].body))
        client.close()
        return found


DATATYPES = {"number": "FP64", "boolean": "BOOL", "string": "BYTES", "timestamp": "BYTES"}
BUNDLE = Target(
    "ours",
    tuple((name, "string" if name == "size" else "boolean" if name == "rough" else "number") for name in ROW),
    ROW,
)
