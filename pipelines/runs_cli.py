"""``sluiceway submit``, ``runs``, ``logs``, ``retry`` and ``terminate``: runs on a KFP server."""

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.clear_errors import clear_errors
from pipelines.server.flags import takes_server
from pipelines.server.options import Options

if TYPE_CHECKING:
    from pipelines.server.connection import Connection
    from pipelines.server.logs import Pods
    from pipelines.server.runs import Run
    from pipelines.server.watching import End

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, the first digits of it, or its name.")]
JsonOption = Annotated[bool, typer.Option("--json", help="End with one JSON object on standard output.")]
WaitOption = Annotated[bool, typer.Option("--wait", help="Follow the run to its end, and end with its exit code.")]

_COLOURS = {"SUCCEEDED": "green", "FAILED": "red", "CANCELED": "yellow", "CANCELING": "yellow", "RUNNING": "cyan"}
_INTERRUPTED = 130


@takes_server
def submit(
    server: Options,
    what: Annotated[str, typer.Argument(metavar="PIPELINE|PACKAGE", help="A pipeline that is uploaded, or a package.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Set a pipeline parameter; lists and objects as JSON."),
    ] = None,
    version: Annotated[
        str, typer.Option(help="The pipeline's version; the newest that Sluiceway uploaded.")
    ] = "newest",
    experiment: Annotated[str, typer.Option(help="Which the run is filed under; made when it is missing.")] = "Default",
    service_account: Annotated[str, typer.Option(help="That the steps have in the cluster; else KFP's default.")] = "",
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Run steps whose inputs have not changed too.")] = False,
    key: Annotated[
        str, typer.Option(help="What the run is known by, such as a CI job's id: asked again, it is the same run.")
    ] = "",
    wait: WaitOption = False,
    as_json: JsonOption = False,
) -> None:
    """Start a run on a KFP server, once: an answer that gets lost starts no second one.

    Parameters are checked as `sluiceway run` does, before anything is sent. With --key, submitting again takes up the
    run that was started, whatever its state.

    Exit codes with --wait, as of `sluiceway run`: 0 promoted, or succeeded, 1 failed or terminated, 2 wrong usage,
    3 blocked at the gate, 4 rolled back, 5 another run is at work on the same service, 6 halted for a person to decide,
    7 rolled out, and whether it was promoted could not be seen: that is read from the rollout's log, which takes the
    cluster's API and the right to read logs of pods. Ctrl-C leaves the run going.

    Example: sluiceway submit train-and-deploy --set source_uri=gs://bucket/churn.parquet --set target=Churn --wait
    """
    from pipelines.server.connection import connect
    from pipelines.server.submit import Request
    from pipelines.server.submit import submit as start

    request = Request(what, pairs(set_ or []), version, experiment, service_account, not no_cache, key)
    console = Console(stderr=as_json)
    with clear_errors(), connect(server) as connection:
        run, new = start(connection, request)
        link = connection.link("runs", "details", run.run_id)
        started = "[bold]Started[/]" if new else f"[bold]There already[/] ({run.state.lower()}):"
        _line(console, f"{started} {escape(run.name)}, run {run.run_id}\n  {link}")
        _finish(connection, server, run, console, wait, as_json, {"new": new})


@takes_server
def runs(
    server: Options,
    named: Annotated[str, typer.Argument(metavar="[RUN]", help="One run, with its steps.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many at most, newest first.")] = 20,
    state: Annotated[list[str] | None, typer.Option(help="Only those that are, such as, failed or running.")] = None,
    pipeline: Annotated[str, typer.Option(help="Only those of this pipeline's versions.")] = "",
    experiment: Annotated[str, typer.Option(help="Only those of this experiment.")] = "",
    schedule: Annotated[str, typer.Option(help="Only those that this schedule started.")] = "",
    wait: WaitOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the runs of a KFP server, or show one with its steps and follow it.

    Examples: sluiceway runs --state failed --limit 5
    sluiceway runs 4f2a --wait
    """
    from pipelines.server import runs as on_server
    from pipelines.server.connection import connect

    console = Console(stderr=as_json)
    with clear_errors(), connect(server) as connection:
        if named:
            run = on_server.find(connection, named)
            _line(console, f"{escape(run.name)}, run {run.run_id}\n  {connection.link('runs', 'details', run.run_id)}")
            _finish(connection, server, run, console, wait, as_json, {}, steps=True)
            return
        if wait:
            raise typer.BadParameter("say which run to follow", param_hint="--wait")
        found = on_server.listed(connection, limit, state, pipeline, experiment, schedule)
        if as_json:
            sys.stdout.write(json.dumps({"runs": [_as_json(connection, one) for one in found]}) + "\n")
            return
        table = Table("run", "name", "state", "began", "took", box=None, pad_edge=False)
        for one in found:
            colour = _COLOURS.get(one.state, "default")
            shown = f"[{colour}]{one.state.lower()}[/]"
            began = f"{one.created.astimezone():%Y-%m-%d %H:%M}"
            table.add_row(one.run_id[:8], escape(one.name), shown, began, _span(one.seconds))
        console.print(table if found else "There are no such runs.")


@takes_server
def logs(
    server: Options,
    named: RunArgument,
    step: Annotated[str, typer.Argument(help="Only this step, such as train.")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Every line as it is.")] = False,
) -> None:
    """Show what the steps of a run say, step after step.

    The logs are read from the steps' pods, with the kubeconfig's rights (or those of the pod that this runs in): list
    on pods and get on pods/log in the run's namespace. A step that was cached has no pod. KFP removes the pods a day
    after the run's end.

    Example: sluiceway logs 4f2a train --follow
    """
    from pipelines.server import logs as on_cluster
    from pipelines.server import runs as on_server
    from pipelines.server.connection import connect

    with clear_errors(), connect(server) as connection:
        run = on_server.find(connection, named)
        ended = (lambda: on_server.get(connection, run.run_id).ended) if follow else None
        try:
            for pod, line in on_cluster.told(_pods(connection, server, run), step, ended):
                if text := line if raw else on_cluster.readable(pod, line):
                    sys.stdout.write(text + "\n")
                    sys.stdout.flush()
        except KeyboardInterrupt:
            raise typer.Exit(_INTERRUPTED) from None


@takes_server
def retry(server: Options, named: RunArgument, wait: WaitOption = False, as_json: JsonOption = False) -> None:
    """Run the steps of a run that failed, or was terminated, again; those that succeeded stay as they are.

    Under the same id, and once: a run that is going on is left alone, and an answer that gets lost does no harm.
    """
    from pipelines.server import runs as on_server
    from pipelines.server.connection import connect

    console = Console(stderr=as_json)
    with clear_errors(), connect(server) as connection:
        run = on_server.find(connection, named)
        again = on_server.retry(connection, run)
        _line(console, f"{escape(run.name)}: {'retried' if again else f'{run.state.lower()}, nothing to retry'}")
        run = on_server.get(connection, run.run_id)
        _finish(connection, server, run, console, wait, as_json, {"retried": again})


@takes_server
def terminate(server: Options, named: RunArgument, as_json: JsonOption = False) -> None:
    """End a run. One that has ended is left as it is.

    The pipeline's exit handler, the step `settle`, is to run then too: what was half-way is completed or rolled back,
    so that the last good model serves. Should it not get to run, the next run of the same service does that first.
    """
    from pipelines.server import runs as on_server
    from pipelines.server.connection import connect

    console = Console(stderr=as_json)
    with clear_errors(), connect(server) as connection:
        run = on_server.find(connection, named)
        done = on_server.terminate(connection, run)
        if done:
            _line(console, f"{escape(run.name)}: told to end; its exit handler settles what was half-way.")
            _line(console, f"  sluiceway runs {run.run_id} --wait   follows it to its end")
        else:
            _line(console, f"{escape(run.name)}: {run.state.lower()} already")
        if as_json:
            sys.stdout.write(json.dumps(_as_json(connection, run) | {"terminated": done}) + "\n")


def _finish(
    connection: "Connection",
    server: Options,
    run: "Run",
    console: Console,
    wait: bool,
    as_json: bool,
    more: dict[str, Any],
    steps: bool = False,
) -> None:
    """Follow a run where that is asked for, say how it stands or ended, and end with the exit code."""
    from pipelines.display import Progress
    from pipelines.server import watching

    end: End | None = None
    about: dict[str, Any] = {}
    if wait or steps:
        names = watching.step_names(connection, run)
        with Progress(console) as progress:
            try:
                if wait and not run.ended:
                    run = watching.follow(connection, run.run_id, progress)
                else:
                    progress(watching.record(run, names))
            except KeyboardInterrupt:
                _line(console, f"The run goes on: `sluiceway runs {run.run_id} --wait` follows it again.")
                raise typer.Exit(_INTERRUPTED) from None
        if run.ended:
            end = watching.ended(run, names, lambda: _pods(connection, server, run))
            _line(
                console,
                f"[bold]{end.state.replace('_', ' ').capitalize()}.[/] {_span(run.seconds)}  {escape(end.said)}",
            )
            about = {"outcome": end.state, "exit_code": end.exit_code, "said": end.said}
        shown = watching.record(run, names).steps.values()
        about["steps"] = {one.name: {"state": str(one.state), "seconds": round(one.seconds, 1)} for one in shown}
    if as_json:
        sys.stdout.write(json.dumps(_as_json(connection, run) | about | more) + "\n")
    if wait and end:
        raise typer.Exit(end.exit_code)


def _pods(connection: "Connection", server: Options, run: "Run") -> "Pods":
    from pipelines.server.logs import pods_of

    return pods_of(run.run_id, connection.namespace or server.kube_namespace, server.kube_context)


def _as_json(connection: "Connection", run: "Run") -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "name": run.name,
        "state": run.state,
        "created": run.created.isoformat(),
        "finished": run.finished.isoformat() if run.finished else None,
        "seconds": round(run.seconds),
        "error": run.error,
        "version_id": run.version_id,
        "recurring_run_id": run.recurring_run_id,
        "link": connection.link("runs", "details", run.run_id),
    }


def pairs(given: list[str]) -> dict[str, str]:
    """What ``--set NAME=VALUE`` gave."""
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--set")
        found[name.strip()] = value
    return found


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _line(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)
