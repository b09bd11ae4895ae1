"""How the API server says no."""

from typing import Any

_REASONS = {
    400: "BadRequest",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Expired",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class Refused(Exception):
    """A request that ends in a Status."""

    def __init__(
        self, code: int, message: str, reason: str = "", *, causes: list[dict[str, Any]] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status(code, message, reason, causes)


def status(code: int, message: str, reason: str = "", causes: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """A Status object."""
    answer = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message}
    answer |= {"reason": reason or _REASONS.get(code, "Unknown"), "code": code}
    return answer | ({"details": {"causes": causes}} if causes else {})
