"""The Dockerfile's stages and instructions, as far as this one goes: no heredocs, no other escape character."""

import re
from dataclasses import dataclass, field
from pathlib import Path

DOCKERFILE = Path(__file__).with_name("Dockerfile")


@dataclass(frozen=True)
class Instruction:
    """One instruction, its continued lines joined."""

    name: str
    text: str


@dataclass(frozen=True)
class Stage:
    """What one FROM begins; ``base`` is what it stands on."""

    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)

    def of(self, name: str) -> list[str]:
        """The texts of its instructions of a name."""
        return [instruction.text for instruction in self.instructions if instruction.name == name]


def read(text: str) -> tuple[dict[str, str], dict[str, Stage]]:
    """The arguments before the first stage, with their defaults, and the stages by name."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for line in filter(None, joined.splitlines()):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            base, _, alias = rest.partition(" AS ")
            stage = stages[alias] = Stage(alias, base)
        elif stage is not None:
            stage.instructions.append(Instruction(name, rest.strip()))
        else:
            key, _, value = rest.partition("=")
            arguments[key] = value
    return arguments, stages
