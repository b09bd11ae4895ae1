"""SW098 and SW099: a suppression has a reason, and something to suppress; found where suppressions are applied."""

from collections.abc import Iterator

from pipelines.lint.findings import Severity
from pipelines.lint.package import Package
from pipelines.lint.rule import Found, Rule
from pipelines.project import Project


def _nothing(_package: Package, _project: Project) -> Iterator[Found]:
    return iter(())


REASON = Rule(
    id="SW098",
    name="suppression-reason",
    severity=Severity.ERROR,
    summary="A suppression names a rule that there is and says why.",
    why="""Whoever reads a suppression next year must be able to tell whether it still holds. Write what makes the
finding harmless here, not that it is:

```yaml
        image: registry.example.com/tool:1.4.2  # lint: ignore SW002 - the registry forbids moving tags
```
This finding cannot be suppressed.""",
    check=_nothing,
)

UNUSED = Rule(
    id="SW099",
    name="suppression-unused",
    severity=Severity.ERROR,
    summary="A suppression suppresses something.",
    why="""One that no longer does has outlived what it was for, or never matched: and would hide the next finding of
its rule. Take it out. This finding cannot be suppressed.""",
    check=_nothing,
)
