"""``sluiceway new``: skeletons that pass lint and tests at once."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.clear_errors import clear_errors

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Write the skeleton of a component or pipeline that passes lint and tests at once.

    It goes into the repository that you are in: Sluiceway's own, or one of yours that has Sluiceway installed. In
    yours, components and pipelines lie in one package, and `[tool.sluiceway.pipelines]` of its pyproject.toml names
    the pipelines, so that `sluiceway compile`, `run`, `lint` and `upload` know them.

    Example: sluiceway new component clean --image registry.example.com/churn:0.1.0
    && sluiceway new pipeline weekly --component clean && sluiceway compile && sluiceway lint""",
)

Into = Annotated[Path | None, typer.Option(help="Repository to write to; the one you are in by default.")]
Package = Annotated[
    str, typer.Option(help="Its importable package; by default the project's name.", show_default=False)
]
Image = Annotated[
    str,
    typer.Option(help="Image of your components; asked for once, then images.py says it.", show_default=False),
]


@app.command()
def component(
    name: Annotated[str, typer.Argument(help="Its name, such as clean or word-count.")],
    into: Into = None,
    package: Package = "",
    image: Image = "",
) -> None:
    """Write a component: its KFP face, the step itself in plain Python, a test, and its page.

    What is there already is never written over.
    """
    from pipelines.new.component import new_component
    from pipelines.new.repository import names, repository

    with clear_errors():
        where = repository(into, package)
        made = new_component(where, names(name), image)
    for path in made:
        typer.echo(f"wrote {where.shown(path)}")


@app.command()
def pipeline(
    name: Annotated[str, typer.Argument(help="Its name, such as weekly-report.")],
    first: Annotated[
        str,
        typer.Option("--component", help="The component it begins with; by default a new one.", show_default=False),
    ] = "",
    into: Into = None,
    package: Package = "",
    image: Image = "",
) -> None:
    """Write a pipeline: wiring with resources, retries, timeout and caching, its entry in the catalog, and a test."""
    from pipelines.new.component import new_component
    from pipelines.new.pipeline import new_pipeline
    from pipelines.new.repository import names, repository

    with clear_errors():
        where = repository(into, package)
        made = [] if first else new_component(where, names(name), image)
        where = repository(into, package)
        made += new_pipeline(where, names(name), names(first or name))
    for path in made:
        typer.echo(f"wrote {where.shown(path)}")
    typer.echo(f"next: sluiceway compile {names(name).dashed} && sluiceway lint && sluiceway run {names(name).dashed}")


@app.command()
def page(
    name: Annotated[str, typer.Argument(help="The component.")],
    into: Into = None,
    package: Package = "",
) -> None:
    """Write a component's page, docs/components/NAME.md, anew from its spec."""
    from components.files import write_text
    from pipelines.new.pages import page as text
    from pipelines.new.repository import names, repository

    with clear_errors():
        where = repository(into, package)
        path = where.root / "docs" / "components" / f"{names(name).module}.md"
        write_text(path, text(where.components, names(name).module, where.project))
    typer.echo(f"wrote {where.shown(path)}")
