"""What a rule finds."""

from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """How bad a finding is: errors fail the lint, warnings only with ``--strict``."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Finding:
    """One thing to mend.

    Attributes:
        file: the file as it was named on the command line.
        line: where in it.
        rule: the rule's id, such as ``SW003``.
        name: the rule's name.
        severity: how bad it is.
        subject: the task, parameter or component that it is about, as a suppression names it.
        message: what is wrong and what to do.
    """

    file: str
    line: int
    rule: str
    name: str
    severity: Severity
    subject: str
    message: str


@dataclass(frozen=True)
class Suppressed:
    """A finding that somebody has decided to live with.

    Attributes:
        finding: what was found.
        reason: why it may stay.
    """

    finding: Finding
    reason: str
