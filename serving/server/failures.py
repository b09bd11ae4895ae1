"""What a request is refused with: an HTTP status and one sentence for the client."""

from components.errors import SluicewayError

RETRY_AFTER = {"retry-after": "1"}


class Failure(SluicewayError):
    """A request that is not answered as asked.

    Attributes:
        status: HTTP's.
        headers: sent with the reply.
    """

    status = 500
    headers: dict[str, str] = {}  # noqa: RUF012 - never written to


class BadRequest(Failure):
    """What was sent cannot be read or predicted from; the message names the field."""

    status = 400


class Unauthorized(Failure):
    """The request carries no token, or one that the server does not know."""

    status = 401
    headers = {"www-authenticate": "Bearer"}  # noqa: RUF012


class NotAllowed(Failure):
    """The server was not started for what is asked."""

    status = 403


class NotLoaded(Failure):
    """The bundle that a client wants loaded does not verify, load or predict."""

    status = 400


class NotFound(Failure):
    """There is no such model, version or path."""

    status = 404


class TooLarge(Failure):
    """The body is longer than the server reads."""

    status = 413


class NotServing(Failure):
    """The model is there, but does not answer yet, or no longer."""

    status = 503
    headers = RETRY_AFTER


class Overloaded(Failure):
    """More requests wait than the server keeps; the client may try again."""

    status = 503
    headers = RETRY_AFTER


class NotImplementedHere(Failure):
    """This model cannot do what is asked."""

    status = 501
