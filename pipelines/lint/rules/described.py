"""SW013: a pipeline and its parameters say what they are."""

from collections.abc import Iterator

from pipelines.lint.findings import Severity
from pipelines.lint.package import Package
from pipelines.lint.rule import Found, Rule
from pipelines.project import Project


def _check(package: Package, _: Project) -> Iterator[Found]:
    if not package.spec["pipelineInfo"]["description"].text().strip():
        where = package.spec["pipelineInfo"].line
        yield Found(where, package.name, f"Pipeline {package.name} has no description: give @dsl.pipeline one.")
    for name, spec in package.parameters.items():
        if not spec["description"].text().strip():
            yield Found(
                spec.line, name, f"Parameter {name} has no description: add it under Args in the pipeline's docstring."
            )


RULE = Rule(
    id="SW013",
    name="described",
    severity=Severity.WARNING,
    summary="The pipeline and each of its parameters has a description.",
    why="""Whoever starts a run in the KFP UI has a form of names and empty fields. The description under each is
what kfp finds in the pipeline's docstring, in Google's style:

```python
@dsl.pipeline(name="churn", description="Train the churn model and deploy it if it is better.")
def churn(source_uri: str, seed: int = 0) -> None:
    \"\"\"Train the churn model.

    Args:
        source_uri: Data to train on: gs://bucket/path or a file.
        seed: Every random choice follows from it.
    \"\"\"
```""",
    check=_check,
)
