"""Which revisions there are and what traffic each should get; decisions only, no processes.

KServe's Knative mode: a changed template makes a revision; ``canaryTrafficPercent`` splits between the latest and the
one rolled out last; without it the latest takes all once it is ready. Three things are kinder than Knative. A template
equal to the rolled-out revision's is that revision again, so a rollback starts nothing. A percent below 100 on a
template that is rolled out already changes nothing, where Knative would send traffic back to the model before it. And
at 100 percent the revision before stays up, so that going back is instant there, too; it ends when the field is gone.
"""

from typing import Any

from pydantic import BaseModel


class Revision(BaseModel):
    """One version of the predictor's template."""

    name: str
    template: str
    predictor: dict[str, Any]


class Memory(BaseModel):
    """What outlives the supervisor.

    Attributes:
        port: the ingress port.
        number: of the newest revision ever made.
        revisions: those that may run, by name.
        created: the revision of the desired template.
        ready: the newest revision that became ready.
        rolledout: the revision that last had all traffic.
        previous: the one before it.
    """

    port: int | None = None
    number: int = 0
    revisions: dict[str, Revision] = {}
    created: str = ""
    ready: str = ""
    rolledout: str = ""
    previous: str = ""


def observe(memory: Memory, service: str, template: str, predictor: dict[str, Any]) -> Memory:
    """Make the desired template's revision the latest: the one there is, or a new one."""
    for name in (memory.created, memory.rolledout):
        if name and memory.revisions[name].template == template:
            return memory.model_copy(update={"created": name})
    number = memory.number + 1
    revision = Revision(name=f"{service}-predictor-{number:05d}", template=template, predictor=predictor)
    revisions = {**memory.revisions, revision.name: revision}
    return memory.model_copy(update={"number": number, "revisions": revisions, "created": revision.name})


def wanted(memory: Memory) -> list[str]:
    """The revisions that should have a server."""
    return [name for name in dict.fromkeys((memory.rolledout, memory.created)) if name]


def goal(memory: Memory, percent: int | None) -> dict[str, int]:
    """Percent of traffic per revision that the document asks for, once the latest is ready."""
    if percent is None or not memory.rolledout or memory.created == memory.rolledout:
        return {memory.created: 100}
    return {memory.rolledout: 100 - percent, memory.created: percent}


def weights(memory: Memory, percent: int | None, latest_is_ready: bool) -> dict[str, int]:
    """Percent of traffic per revision for now; empty when there is nothing that could answer."""
    if latest_is_ready or memory.created == memory.rolledout:
        return goal(memory, percent)
    return {memory.rolledout: 100} if memory.rolledout else {}


def rolled_out(memory: Memory, weights: dict[str, int], percent: int | None) -> Memory:
    """Remember the latest as rolled out when it has all traffic for good; forget what cannot run again."""
    for_good = percent is None or not memory.rolledout
    if for_good and weights.get(memory.created) == 100 and memory.created != memory.rolledout:
        memory = memory.model_copy(update={"previous": memory.rolledout, "rolledout": memory.created})
    kept = {name: memory.revisions[name] for name in wanted(memory)}
    return memory.model_copy(update={"revisions": kept})
