"""Refusals as the KFP API server gives them: a gRPC status in JSON, and a form of its own for uploads."""

import json
from typing import Any

_HTTP = {3: 400, 5: 404, 6: 409, 7: 403, 9: 400, 10: 409, 13: 500, 14: 503, 16: 401}
_PREFIX = {3: "Invalid input error", 5: "ResourceNotFoundError", 6: "Already exist error", 10: "BadRequestError"}

INVALID, NOT_FOUND, EXISTS, FORBIDDEN, PRECONDITION, CONFLICT, INTERNAL, UNAUTHENTICATED = 3, 5, 6, 7, 9, 10, 13, 16


class Refusal(Exception):
    """A request that is refused.

    Attributes:
        code: gRPC's.
        message: for the user.
        chain: what the server says it was doing, outermost first.
    """

    def __init__(self, code: int, message: str, *chain: str) -> None:
        """Refuse."""
        super().__init__(message)
        self.code, self.message, self.chain = code, message, chain

    @property
    def status(self) -> int:
        """HTTP's status."""
        return _HTTP[self.code]

    def body(self) -> bytes:
        """As gRPC's gateway writes it: the inner errors in ``message``, what is for the user in ``details``."""
        inner = f"{_PREFIX.get(self.code, 'InternalServerError')}: {self.message}"
        detail = {"@type": "type.googleapis.com/google.rpc.Status", "code": self.code, "message": self.message}
        return _dump({"code": self.code, "message": ": ".join([*self.chain, inner]), "details": [detail]})


def internal(error: Refusal, doing: str) -> Refusal:
    """A refusal that the server takes for its own failure, whatever it was: status 500."""
    return Refusal(INTERNAL, "Internal Server Error", f"InternalServerError: {doing}: {error.message}")


def upload_body(message: str) -> bytes:
    """A refusal of an upload, which does not go through gRPC."""
    return _dump({"error_message": message, "error_details": message})


def _dump(body: Any) -> bytes:
    return json.dumps(body).encode()
