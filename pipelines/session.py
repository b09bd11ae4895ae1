"""One run as a person sees it: progress, the report, and what to do next."""

from rich.console import Console

from components.settings import settings
from pipelines import runner, services
from pipelines.display import Progress
from pipelines.report import write_report
from pipelines.result import RunResult, result_of

_WORDS = {
    "promoted": "[bold green]Promoted.[/]",
    "done": "[bold green]Done.[/]",
    "blocked": "[bold yellow]Blocked at the gate.[/]",
    "rolled_back": "[bold red]Rolled back.[/]",
    "halted": "[bold yellow]Halted: a person must decide.[/]",
    "failed": "[bold red]Failed.[/]",
}


def run_and_report(request: runner.Request, console: Console) -> RunResult:
    """Run, write the report, say how it ended.

    Raises:
        BadInput: an unknown pipeline or parameter.
        Busy: another run works on the same service.
    """
    console.print(f"[bold]{request.pipeline}[/] on this machine; state and reports are in {settings().home}")
    with Progress(console) as progress:
        record = runner.run(request, progress)
    report = record.folder / "report.html"
    result = result_of(record, report)
    write_report(report, record, result)
    _say(result, console)
    return result


def _say(result: RunResult, console: Console) -> None:
    def line(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    line(f"{_WORDS[result.state]} {result.seconds:.0f} s")
    if result.error:
        line(result.error)
    if result.state == "blocked":
        for check in result.decision.get("checks", []):
            if not check["passed"]:
                line(f"  [yellow]✗[/] {check['name']}: {check['reason']}")
    live = services.live(settings().home, result.service)
    if live:
        shares = ", ".join(f"{e['revisionName']} {e['percent']} %" for e in live["traffic"])
        line(f"  serving   version {live['model_version']} at {live['url']} ({shares})")
    line(f"  report    {result.report}")
    if live:
        line("  try it    the report ends with a curl line; `sluiceway status` shows the service, `make stop` ends it")
