"""A YAML document as values that know their lines."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from components.errors import BadInput

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # several times as fast, where PyYAML was built with it


@dataclass(frozen=True)
class Spot:
    """A value in a document, and where it is written.

    Attributes:
        value: a scalar; a mapping of spots by key; a tuple of spots; None for what the document does not have.
        line: the line of its key, or of the list's item; for what is missing, the line of what should hold it.
    """

    value: Any
    line: int

    def __getitem__(self, key: str) -> "Spot":
        """The spot under a key; one without value where there is none, so that a path can be followed to its end."""
        if isinstance(self.value, dict) and key in self.value:
            return self.value[key]  # type: ignore[no-any-return]
        return Spot(None, self.line)

    def __bool__(self) -> bool:
        """Whether the document has it."""
        return self.value is not None

    def items(self) -> Iterator[tuple[str, "Spot"]]:
        """The entries of a mapping; none of anything else."""
        return iter(self.value.items() if isinstance(self.value, dict) else ())

    def each(self) -> Iterator["Spot"]:
        """The items of a list; none of anything else."""
        return iter(self.value if isinstance(self.value, tuple) else ())

    def plain(self) -> Any:
        """The value as plain data."""
        if isinstance(self.value, dict):
            return {key: spot.plain() for key, spot in self.value.items()}
        if isinstance(self.value, tuple):
            return [spot.plain() for spot in self.value]
        return self.value

    def text(self) -> str:
        """The value as text; empty for what is missing and for what is no scalar."""
        return "" if self.value is None or isinstance(self.value, dict | tuple) else str(self.value)


@dataclass(frozen=True)
class Comment:
    """A comment of the file.

    Attributes:
        line: where it is.
        text: what follows the ``#``.
        alone: whether nothing else is in its line.
    """

    line: int
    text: str
    alone: bool


def documents(text: str) -> list[Spot]:
    """The documents of a YAML file.

    Raises:
        BadInput: it is not YAML, or refers to itself.
    """
    try:
        return [_Builder().spot(node, node.start_mark.line + 1) for node in yaml.compose_all(text, Loader=_LOADER)]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise BadInput(f"is not YAML{where}: {problem}") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"is not YAML that can be read: {error}") from error


def comments(text: str, word: str) -> list[Comment]:
    """The comments in which a word occurs; what only looks like one, inside a text, is none."""
    if word not in text:
        return []
    inside = [span for node in yaml.compose_all(text, Loader=_LOADER) for span in _scalars(node, word)]
    found, start = [], 0
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        at = _hash(line, word)
        if at is not None and not any(begin <= start + at < end for begin, end in inside):
            found.append(Comment(number, line[at + 1 :].strip(), not line[:at].strip()))
        start += len(line)
    return found


def _hash(line: str, word: str) -> int | None:
    at = line.rfind("#", 0, line.find(word)) if word in line else -1
    return at if at == 0 or (at > 0 and line[at - 1].isspace()) else None


def _scalars(node: yaml.Node, word: str) -> Iterator[tuple[int, int]]:
    if isinstance(node, yaml.ScalarNode):
        if word in node.value:
            yield node.start_mark.index, node.end_mark.index
    elif isinstance(node, yaml.MappingNode):
        for pair in node.value:
            for part in pair:
                yield from _scalars(part, word)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _scalars(item, word)


class _Builder:
    def __init__(self) -> None:
        self._scalar = yaml.constructor.SafeConstructor()
        self._above: set[int] = set()

    def spot(self, node: yaml.Node, line: int) -> Spot:
        if isinstance(node, yaml.ScalarNode):
            return Spot(self._scalar.construct_object(node), line)
        if id(node) in self._above:
            raise ValueError(f"line {line} refers to what it is a part of")
        self._above.add(id(node))
        if isinstance(node, yaml.MappingNode):
            value: Any = {
                str(key.value): self.spot(item, key.start_mark.line + 1) for key, item in node.value if key.value != ""
            }
        else:
            value = tuple(self.spot(item, item.start_mark.line + 1) for item in node.value)
        self._above.discard(id(node))
        return Spot(value, line)
