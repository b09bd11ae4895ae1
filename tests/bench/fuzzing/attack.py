"""One hostile request, and what a server may do with it."""

import base64
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

End = Literal["reply", "probe", "reset"]


@dataclass(frozen=True)
class Attack:
    """Bytes for the server.

    Attributes:
        kind: what it tries, in a word or two.
        wire: what is sent.
        end: ``reply``: a whole request, so that a reply is due; ``probe``: the server may wait for more, and the client
            then closes its side; ``reset``: the client goes away at once.
        replies: most replies that may come.
        pieces: into how many parts it is cut on its way.
        has_body: whether replies carry one (not those to HEAD).
        names_field: whether a 400 has to say which field is wrong.
    """

    kind: str
    wire: bytes
    end: End = "reply"
    replies: int = 1
    pieces: int = 1
    has_body: bool = True
    names_field: bool = False

    def save(self, folder: Path, number: int, problems: list[str]) -> Path:
        """Keep it for a replay."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{number:04d}-{self.kind.replace(' ', '-').replace('/', '-')}.json"
        document: dict[str, Any] = {**asdict(self), "wire": base64.b64encode(self.wire).decode(), "problems": problems}
        path.write_text(json.dumps(document, indent=1))
        return path

    @classmethod
    def load(cls, path: Path) -> "Attack":
        """Read a saved one."""
        document = json.loads(path.read_text())
        document.pop("problems")
        return cls(**{**document, "wire": base64.b64decode(document["wire"])})


def request(
    path: str | bytes, body: bytes, headers: list[tuple[str, str | bytes]] | None = None, method: str = "POST"
) -> bytes:
    """A proper request around anything; given headers replace the usual ones of the same name."""
    given = [(name, value.encode("latin-1") if isinstance(value, str) else value) for name, value in headers or []]
    there = {name.lower() for name, _ in given}
    usual = [("Host", b"x"), ("Content-Type", b"application/json"), ("Content-Length", b"%d" % len(body))]
    lines = [one for one in usual if one[0].lower() not in there] + given
    head = b"".join(name.encode() + b": " + value + b"\r\n" for name, value in lines)
    path = path.encode() if isinstance(path, str) else path
    return method.encode() + b" " + path + b" HTTP/1.1\r\n" + head + b"\r\n" + body
