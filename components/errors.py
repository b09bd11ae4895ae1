"""The kinds of failure a step can end in; one exception type each.

Every message is one sentence for the person reading the KFP UI: what was wrong, where, and what to do.
"""


class SluicewayError(Exception):
    """Base of every failure that Sluiceway foresees. ``exit_code`` is what the CLI ends with."""

    exit_code = 1


class BadInput(SluicewayError):
    """The data, a file or a parameter is wrong, and the user can mend it."""


class Unreachable(SluicewayError):
    """A service or store that the step needs (MLflow, a bucket) does not exist, refuses access or is down."""


class Unanswered(Unreachable):
    """A request that changes something got no clear answer: it may have been carried out or not, so look first."""


class Refused(SluicewayError):
    """A server understood a request and refuses it; ``status`` is HTTP's, such as 404 or 409."""

    def __init__(self, message: str, status: int) -> None:
        """Say why, and with which status."""
        super().__init__(message)
        self.status = status


class StorageFull(SluicewayError):
    """The disk or quota ran out while an output was being written; nothing half-written was left."""


class BadBundle(SluicewayError):
    """A model bundle is incomplete, altered or holds something that is not allowed in it."""


class NotReady(SluicewayError):
    """A model server or the proxy did not become ready in time."""


class SkewFound(SluicewayError):
    """Predictions over HTTP differ from the offline predictions of the same rows."""


class TooSlow(SluicewayError):
    """A staged server answers slower, or fails more often, at the expected load than it may."""


class Inconclusive(SluicewayError):
    """A measurement says nothing, because what measured could not keep up: never taken for a pass."""


class Busy(SluicewayError):
    """Another run owns the service; two rollouts of one service never overlap."""

    exit_code = 5


class Lost(SluicewayError):
    """This rollout no longer owns the service: another owner has taken it over, or the lock could not be renewed."""

    exit_code = 5


class Changed(SluicewayError):
    """A person or another tool has changed the service in the middle of a rollout; their change is left as it is."""

    exit_code = 6


class SignalsLost(SluicewayError):
    """The metrics that the judge needs cannot be read: never taken for health."""
