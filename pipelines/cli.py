"""The ``sluiceway`` command."""

import json
import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from components.errors import SluicewayError
from components.settings import settings
from pipelines import (
    catalog,
    data_cli,
    export_cli,
    lint_cli,
    new_cli,
    rollout_cli,
    runs_cli,
    schedule_cli,
    serve_cli,
    upload_cli,
)
from pipelines.catalog import CATALOG
from pipelines.clear_errors import clear_errors

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Take a model from raw data to canary traffic.

    First time here? `sluiceway run train-and-deploy` trains on real data that ships with scikit-learn, deploys the
    model on this machine and prints a curl line that works. `sluiceway status` shows the live service and
    `sluiceway stop` ends it.""",
)

app.add_typer(data_cli.app, name="data")
app.add_typer(rollout_cli.app, name="rollout")
app.command()(lint_cli.lint)
app.add_typer(new_cli.app, name="new")
app.command()(export_cli.export)
app.command()(upload_cli.upload)
for _command in (runs_cli.submit, runs_cli.runs, runs_cli.logs, runs_cli.retry, runs_cli.terminate):
    app.command()(_command)
app.add_typer(schedule_cli.app, name="schedule")
app.command(context_settings=serve_cli.CONTEXT)(serve_cli.serve)


class PackageFormat(StrEnum):
    """What a pipeline is compiled to."""

    KFP = "kfp"
    KUBERNETES = "kubernetes"
    BOTH = "both"


JsonOption = Annotated[bool, typer.Option("--json", help="End with one JSON object on standard output.")]


@app.command("compile")
def compile_(
    names: Annotated[list[str] | None, typer.Argument(help="Pipelines to compile; all when none is named.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to write the packages to.")] = Path("build"),
    format_: Annotated[
        PackageFormat,
        typer.Option("--format", help="KFP's own YAML, or its Kubernetes resources for GitOps (in OUT/kubernetes)."),
    ] = PackageFormat.KFP,
    lock: Annotated[
        Path | None, typer.Option(help="The images' digests; by default images/lock.json, where there is one.")
    ] = None,
    registry: Annotated[str, typer.Option(help="Take the images from here instead, as in ghcr.io/acme.")] = "",
    namespace: Annotated[str, typer.Option(help="Namespace of the Kubernetes resources.")] = "",
    code_url: Annotated[
        str, typer.Option(envvar="SLUICEWAY_CODE_URL", help="Where the source is, for the Kubernetes resources.")
    ] = "",
) -> None:
    """Compile pipelines to KFP packages, the same byte for byte on every machine.

    The package that `run` executes here is the one that CI uploads to a cluster. Images are pinned by digest where
    there is a lock. A pipeline in which a task does not say whether it is cached is refused.

    Example: sluiceway compile --format both --namespace kubeflow
    """
    from pipelines.manifests_out import write_manifests
    from pipelines.packages import check_caching_is_decided, compile_package, digest
    from pipelines.pinning import pins

    with clear_errors(), tempfile.TemporaryDirectory() as aside:
        pinned = pins(lock, registry)
        for name in names or catalog.names():
            path = (Path(aside) if format_ is PackageFormat.KUBERNETES else out) / f"{name}.yaml"
            check_caching_is_decided(name)
            compile_package(name, path, pinned)
            if format_ is not PackageFormat.KUBERNETES:
                typer.echo(f"{path}  sha256:{digest(path)}")
            if format_ is not PackageFormat.KFP:
                resources = out / "kubernetes" / path.name
                typer.echo(f"{resources}  {write_manifests(path, resources, namespace, code_url)}")


@app.command()
def run(
    pipeline: Annotated[str, typer.Argument(help=f"Which pipeline: {', '.join(CATALOG)}.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Set a pipeline parameter; lists and objects as JSON."),
    ] = None,
    package: Annotated[
        Path | None, typer.Option(help="Run this compiled package; by default the pipeline is compiled anew.")
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Run steps whose inputs have not changed too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a pipeline on this machine: the compiled package, with KFP's local runner.

    The run's folder under .sluiceway/runs keeps the package, KFP's log, every artifact and the HTML report. The live
    service stays up after the run.

    Exit codes: 0 promoted (or champion already), 1 failed, 2 wrong usage, 3 blocked at the gate, 4 rolled back,
    5 another run is at work on the same service, 6 halted for a person to decide. Whatever the code, the last good
    model keeps serving.

    Example: sluiceway run train-and-deploy --set source_uri=data/churn.csv --set target=Churn
    """
    from pipelines.packages import entry
    from pipelines.runner import Request
    from pipelines.session import run_and_report

    with clear_errors():
        entry(pipeline)
        if package is not None and not package.is_file():
            raise SluicewayError(f"There is no package {package}: write one with `sluiceway compile`.")
        request = Request(pipeline, runs_cli.pairs(set_ or []), package, cache=not no_cache)
        result = run_and_report(request, Console(stderr=as_json))
    if as_json:
        sys.stdout.write(result.model_dump_json() + "\n")
    raise typer.Exit(result.exit_code)


@app.command()
def parameters(
    pipeline: Annotated[str, typer.Argument(help=f"Which pipeline: {', '.join(CATALOG)}.")] = "train-and-deploy",
) -> None:
    """List a pipeline's parameters with their types, defaults and meaning."""
    from pipelines import packages

    with clear_errors(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "package.yaml"
        packages.compile_package(pipeline, path)
        table = Table("parameter", "type", "default", "meaning", box=None, pad_edge=False)
        for parameter in packages.parameters(path).values():
            kind = parameter.type.lower().removeprefix("number_")
            default = "" if parameter.required else json.dumps(parameter.default)
            table.add_row(parameter.name, kind, default, parameter.description)
    Console().print(table)


@app.command()
def status(
    as_json: JsonOption = False,
    repair: Annotated[bool, typer.Option("--repair", help="Start services again whose supervisor has died.")] = False,
) -> None:
    """Show the live services of this machine: model version, traffic, address.

    Exits with 1 when a service is not ready or its supervisor has died; one that was stopped is in order.
    """
    from pipelines.services import services, show

    with clear_errors():
        found = services(settings().home, repair)
    if as_json:
        sys.stdout.write(json.dumps({"services": found}) + "\n")
    else:
        show(found, Console())
    raise typer.Exit(0 if all(one["state"] in ("ready", "stopped") for one in found) else 1)


@app.command()
def stop() -> None:
    """End every service of this machine and everything they started."""
    from serving.local import client

    home = settings().home
    with clear_errors():
        names = [name for name in client.names(home) if client.alive(home, name)]
        client.stop(home)
    typer.echo(f"stopped {', '.join(names)}" if names else "nothing was running")


@app.command()
def sign(
    bundle: Annotated[Path, typer.Argument(help="A model bundle: the folder that holds bundle.json.")],
    key: Annotated[
        Path | None, typer.Option(envvar="SLUICEWAY_SIGNING_KEY", help="Private elliptic-curve key, a PEM file.")
    ] = None,
    token: Annotated[
        str, typer.Option(envvar="SIGSTORE_ID_TOKEN", help="Sign with a CI job's identity at sigstore instead.")
    ] = "",
) -> None:
    """Sign a model bundle, so that whoever loads it can tell who made it."""
    from serving import signing

    with clear_errors():
        if key is None and not token:
            raise SluicewayError("Nothing to sign with: give --key, or name a key file with SLUICEWAY_SIGNING_KEY.")
        path = signing.sign(bundle, key) if key is not None else signing.sign_keyless(bundle, token)
    typer.echo(f"wrote {path}")


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(help="A model bundle: the folder that holds bundle.json.")],
    key: Annotated[
        Path | None, typer.Option(envvar="SLUICEWAY_VERIFY_KEY", help="Public elliptic-curve key, a PEM file.")
    ] = None,
    identity: Annotated[str, typer.Option(help="Who signed at sigstore, such as a workflow's address.")] = "",
    issuer: Annotated[str, typer.Option(help="Who vouches for that identity.")] = "",
) -> None:
    """Check a model bundle: every file is there as it was written, nothing more, and the signature where one is asked.

    Exits with 1 when something is wrong.
    """
    from serving import bundle as bundles
    from serving import signing

    with clear_errors():
        manifest = bundles.verify(bundle)
        if key is not None:
            signing.check(bundle, key)
        elif identity:
            signing.check_keyless(bundle, identity, issuer)
    signed = f"signed by {key or identity}" if key or identity else "signature not checked: no key named"
    typer.echo(
        f"{bundle}: {manifest.framework} model {manifest.recipe_digest[:12]}, {len(manifest.files)} files, {signed}"
    )


@app.command()
def demo(
    requests: Annotated[int, typer.Option(min=100, help="Least number of client requests during act 2.")] = 2000,
) -> None:
    """Play the story in four acts: first champion, better challenger, blocked challenger, rolled-back challengers.

    It has a home of its own, .sluiceway/demo, and ends its service when it is over.
    """
    from pipelines.demo import play

    with clear_errors():
        ok = play(Console(), requests)
    raise typer.Exit(0 if ok else 1)


if __name__ == "__main__":
    app()
