"""``sluiceway rollout``: look at a rollout, and have a say in it."""

import contextlib
import json
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from components.errors import SluicewayError
from components.settings import settings
from pipelines.clear_errors import clear_errors

if TYPE_CHECKING:
    from components.rollout.deployment import Deployment
    from components.rollout.ledger import Ledger
    from components.rollout.store import Store
    from pipelines.rollout_ask import What

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Look at a rollout that is under way, and have a say in it.

    A rollout needs nobody: it shifts traffic to the challenger in steps, judges it, and promotes it or rolls it back.
    `status` shows where it is. `pause` keeps the traffic as it is, and the judge watching, until `resume`. `abort`
    gives the traffic back to the champion. `promote` skips the steps that are left. `history` and `report` say
    afterwards what happened and why.

    The service is looked for on this machine; with --namespace or --kubeconfig, or where SLUICEWAY_WHERE is kserve,
    on the cluster.""",
)

Service = Annotated[str, typer.Argument(help="Name of the service: the model's name.", show_default=False)]
Namespace = Annotated[str, typer.Option(help="The service runs on a cluster, in this namespace.", show_default=False)]
Kubeconfig = Annotated[
    str, typer.Option(help="Kubeconfig of the cluster; by default the one that kubectl takes.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="End with one JSON object on standard output.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the command is carried out.")]
Seconds = Annotated[float, typer.Option(min=0, help="How long to wait at most.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command()
def status(
    service: Annotated[
        str, typer.Argument(help="Name of the service; all of this machine when none is named.", show_default=False)
    ] = "",
    namespace: Namespace = "",
    kubeconfig: Kubeconfig = "",
    as_json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow it until it has ended or Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks with --watch.")] = 1.0,
) -> None:
    """Show where a rollout is: traffic, counts of both versions, how sure the judge is, the last decisions.

    "Proof of harm" is how far the evidence has come towards rolling back: at 100 % it does.

    Exits with 1 when a service that is named has had no rollout, or when one was left behind by a run that has ended.

    Example: sluiceway rollout status churn --watch
    """
    from pipelines import rollout_view

    with clear_errors():
        stores = _stores(service, namespace, kubeconfig)
        if watch:
            _watch(stores, every)
        found = [(store.load(), store.owner()) for store in stores]
    if as_json:
        sys.stdout.write(json.dumps({"rollouts": [rollout_view.as_json(*one) for one in found]}) + "\n")
    elif not watch or not Console().is_terminal:
        console = Console()
        if not found:
            console.print("There has been no rollout on this machine yet: sluiceway run train-and-deploy makes one.")
        for index, (ledger, owner) in enumerate(found):
            console.print(*([""] if index else []), rollout_view.shown(ledger, owner), sep="\n")
    raise typer.Exit(1 if any(_left_behind(*one) for one in found) else 0)


@app.command()
def pause(
    service: Service, namespace: Namespace = "", kubeconfig: Kubeconfig = "", wait: Wait = True, seconds: Seconds = 60
) -> None:
    """Take no further step until `resume`: the traffic stays as it is.

    The judge watches on, and rolls back when it finds harm. A pause counts towards the plan's max_total_seconds, not
    towards the time of its step.

    Example: sluiceway rollout pause churn
    """
    with clear_errors():
        _ask("pause", _store(service, namespace, kubeconfig), wait, seconds)


@app.command()
def resume(
    service: Service, namespace: Namespace = "", kubeconfig: Kubeconfig = "", wait: Wait = True, seconds: Seconds = 60
) -> None:
    """Go on after `pause`, with the evidence that was gathered meanwhile."""
    with clear_errors():
        _ask("resume", _store(service, namespace, kubeconfig), wait, seconds)


@app.command()
def abort(
    service: Service,
    namespace: Namespace = "",
    kubeconfig: Kubeconfig = "",
    wait: Wait = True,
    seconds: Seconds = 300,
    yes: Yes = False,
) -> None:
    """Roll back: the champion gets all traffic again, and the challenger is taken away.

    Also ends a rollout that was halted, or one whose run has died. Of those, nobody else would do it, so it is asked
    first; what is under way is aborted at once.

    Example: sluiceway rollout abort churn
    """
    with clear_errors():
        _end("abort", service, namespace, kubeconfig, wait, seconds, yes)


@app.command()
def promote(
    service: Service,
    namespace: Namespace = "",
    kubeconfig: Kubeconfig = "",
    wait: Wait = True,
    seconds: Seconds = 300,
    yes: Yes = False,
) -> None:
    """Make the challenger the champion now, without the steps that are left and whatever the judge has seen so far.

    Also ends a rollout that was halted. The judge's evidence of harm still comes first: where there is proof, the
    rollout rolls back.

    Example: sluiceway rollout promote churn --yes
    """
    with clear_errors():
        _end("promote", service, namespace, kubeconfig, wait, seconds, yes)


@app.command()
def history(service: Service, namespace: Namespace = "", kubeconfig: Kubeconfig = "", as_json: Json = False) -> None:
    """List every decision of a service's newest rollout: when, what, at which share of the traffic, why and by whom."""
    from components.rollout.timeline import decisions
    from pipelines.rollout_view import show_history

    with clear_errors():
        ledger = _record(_store(service, namespace, kubeconfig))
    if as_json:
        events = [event.model_dump() for event in decisions(ledger.events)]
        sys.stdout.write(json.dumps({"service": service, "run_id": ledger.run_id, "decisions": events}) + "\n")
    else:
        show_history(ledger, Console())


@app.command()
def report(
    service: Service,
    namespace: Namespace = "",
    kubeconfig: Kubeconfig = "",
    out: Annotated[Path | None, typer.Option(help="File to write; SERVICE-rollout.html by default.")] = None,
    open_: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
) -> None:
    """Write the timeline of a service's newest rollout as one HTML file: charts, decisions, evidence.

    It is the page that the pipeline's rollout step shows in the KFP UI, as of now.
    """
    from components.files import write_text
    from components.rollout.report import timeline_page

    with clear_errors():
        path = out or Path(f"{service}-rollout.html")
        write_text(path, timeline_page(_record(_store(service, namespace, kubeconfig))))
    typer.echo(f"wrote {path}")
    if open_:
        typer.launch(path.absolute().as_uri())


def _deployment(namespace: str, kubeconfig: str) -> "Deployment":
    """Where to look: the cluster when one is named; else as the settings say."""
    from components.rollout.deployment import Deployment

    in_pod = "KUBERNETES_SERVICE_HOST" in os.environ and not settings().where
    return Deployment(where="standard" if namespace or kubeconfig or in_pod else "auto", namespace=namespace)


def _store(service: str, namespace: str, kubeconfig: str) -> "Store":
    from components.rollout.place import store_for

    return store_for(_deployment(namespace, kubeconfig), service, kubeconfig)


def _stores(service: str, namespace: str, kubeconfig: str) -> "list[Store]":
    """The named service, or all of this machine."""
    from components.rollout.place import on_this_machine

    if service:
        store = _store(service, namespace, kubeconfig)
        _record(store)
        return [store]
    if not on_this_machine(_deployment(namespace, kubeconfig)):
        raise SluicewayError("On a cluster name the service: sluiceway rollout status SERVICE --namespace NAMESPACE.")
    names = sorted(path.name.removesuffix(".json") for path in (settings().home / "rollouts").glob("*.json"))
    return [_store(name, namespace, kubeconfig) for name in names if not name.endswith(".command")]


def _record(store: "Store") -> "Ledger":
    ledger = store.load()
    if not ledger.events and not ledger.run_id:
        raise SluicewayError(
            f"There has been no rollout of {ledger.service} here: `sluiceway rollout status` lists those of this "
            "machine; name the cluster's namespace with --namespace."
        )
    return ledger


def _left_behind(ledger: "Ledger", owner: str) -> bool:
    from components.rollout.timeline import AT_WORK

    return ledger.phase in AT_WORK and not owner


def _watch(stores: "list[Store]", every: float) -> None:
    """Show the rollouts again and again until all have ended."""
    from rich.console import Group
    from rich.live import Live

    from components.rollout.timeline import AT_WORK, one_line
    from pipelines.rollout_view import shown

    console, said = Console(), dict[str, str]()
    live = Live(console=console, auto_refresh=False, vertical_overflow="visible")
    with live if console.is_terminal else contextlib.nullcontext(), contextlib.suppress(KeyboardInterrupt):
        while True:
            found = [(store.load(), store.owner()) for store in stores]
            if console.is_terminal:
                live.update(Group(*(shown(*one) for one in found)), refresh=True)
            for ledger, _ in found if not console.is_terminal else ():
                if said.get(ledger.service) != one_line(ledger):
                    said[ledger.service] = one_line(ledger)
                    console.print(said[ledger.service], highlight=False, soft_wrap=True, markup=False)
            if not any(ledger.phase in AT_WORK and owner for ledger, owner in found):
                return
            time.sleep(every)


def _ask(what: "What", store: "Store", wait: bool, seconds: float) -> None:
    """Send a command to whoever is at work, and wait for the answer."""
    from pipelines.rollout_ask import answer, me, send

    before = len(_record(store).events)
    command = send(store, what, me())
    if not wait:
        typer.echo(f"left the command to {what} for {store.owner() or 'the owner'}")
        return
    typer.echo(answer(store, command, before, seconds, lambda text: typer.echo(text, err=True)))


def _end(what: "What", service: str, namespace: str, kubeconfig: str, wait: bool, seconds: float, yes: bool) -> None:
    """Abort or promote: by whoever is at work, or here where nobody is any more."""
    from components.rollout.settle import decided_by
    from components.rollout.timeline import AT_WORK
    from pipelines.rollout_ask import me, nobody

    store = _store(service, namespace, kubeconfig)
    ledger, owner = _record(store), store.owner()
    if ledger.candidate is None:
        raise nobody(ledger, what)
    typer.echo(_consequence(what, ledger), err=True)
    at_work = bool(owner) and ledger.phase in AT_WORK
    if (what == "promote" or not at_work) and not yes:
        typer.confirm("Go on?", abort=True, err=True)
    if at_work:
        _ask(what, store, wait, seconds)
        return
    from components.rollout.place import place_for

    there = _deployment(namespace, kubeconfig)
    deployment = (ledger.deployment or there).model_copy(update={"namespace": there.namespace} if namespace else {})
    place = partial(place_for, deployment, None, service, kubeconfig)
    typer.echo(decided_by(place, store, what, me()))


def _consequence(what: str, ledger: "Ledger") -> str:
    """What will happen."""
    assert ledger.candidate is not None
    candidate, share = f"version {ledger.candidate.version}", f"it has {ledger.weight} % of the traffic now"
    if what == "promote":
        before = f"version {ledger.stable.version} is taken away" if ledger.stable else "there is none before it"
        return f"{candidate} of {ledger.service} becomes the champion and gets all traffic ({share}); {before}."
    if ledger.stable is None:
        return f"{candidate} of {ledger.service} is taken away ({share}), and nothing serves any more."
    return f"version {ledger.stable.version} of {ledger.service} gets all traffic; {candidate} is taken away ({share})."
