"""Manifests go to a folder or a Git branch, where Argo CD or Flux takes them from."""

import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

from components import files
from components.cluster.api import Kind
from components.errors import BadInput, Changed, Unreachable
from components.rollout.deployment import GitOps
from components.rollout.targets.kserve_applier import Guard

Plain = dict[str, Any]

SYNC_SECONDS = 300.0
"""Argo CD looks for changes every three minutes, Flux every few unless told otherwise."""
_OURS = "sluiceway: "
_TRIES = 5
_GIT_SECONDS = 120


class GitOpsApplier:
    """Writes one file per object; a write to a branch is a commit that is pushed.

    What lies in the repository is not overwritten where a person changed it last: then the rollout stops.
    """

    direct = False

    def __init__(self, gitops: GitOps, guard: Guard, seconds: float = SYNC_SECONDS) -> None:
        """Nothing is cloned yet.

        Args:
            gitops: where to.
            guard: asked before every write whether this rollout still owns the service.
            seconds: how long the other tool may take to apply what was written.
        """
        self.seconds = seconds
        self._gitops, self._guard = gitops, guard
        self._checkout: tempfile.TemporaryDirectory[str] | None = None

    def current(self, kind: Kind, name: str) -> Plain | None:
        """The manifest as it lies there."""
        path = self._folder() / _file(kind, name)
        if not path.exists():
            return None
        found: Plain = yaml.safe_load(path.read_text())
        return found

    def apply(self, manifest: Plain) -> None:
        """Write a manifest; the same as before is not written again."""
        kind = Kind(manifest["apiVersion"], manifest["kind"])
        name = manifest["metadata"]["name"]
        text = yaml.safe_dump(manifest, sort_keys=False)
        self._change(_file(kind, name), text, f"{kind.kind} {name}")

    def delete(self, kind: Kind, name: str) -> None:
        """Remove a manifest; the other tool must be told to prune what it no longer finds."""
        self._change(_file(kind, name), None, f"{kind.kind} {name} ends")

    def _folder(self) -> Path:
        """The folder of the manifests, as new as the repository."""
        if not self._gitops.repository:
            return Path(self._gitops.folder)
        if self._checkout is None:
            self._checkout = tempfile.TemporaryDirectory(prefix="sluiceway-gitops-")
            self._clone(self._checkout.name)
        elif self._branch_there():
            self._git("fetch", "--quiet", "origin", self._gitops.branch)
            self._git("reset", "--quiet", "--hard", "FETCH_HEAD")
        return Path(self._checkout.name) / self._gitops.folder

    def _clone(self, folder: str) -> None:
        self._run(["git", "clone", "--quiet", self._gitops.repository, folder])
        branch = self._gitops.branch
        if self._branch_there():
            self._git("checkout", "--quiet", "-B", branch, f"origin/{branch}")
        else:
            self._git("checkout", "--quiet", "--orphan" if self._empty() else "-B", branch)

    def _empty(self) -> bool:
        return not self._git("for-each-ref", "--count=1").strip()

    def _branch_there(self) -> bool:
        return bool(self._git("ls-remote", "--heads", "origin", self._gitops.branch).strip())

    def _change(self, name: str, text: str | None, what: str) -> None:
        """Bring one file to a state, by commit and push where there is a repository."""
        for _ in range(_TRIES):
            self._guard()
            path = self._folder() / name
            if (path.read_text() if path.exists() else None) == text:
                return
            if self._gitops.repository and path.exists():
                self._refuse_foreign(path)
            _put(path, text)
            if not self._gitops.repository or self._pushed(path, what):
                return
        raise Unreachable(
            f"The branch {self._gitops.branch} of {self._gitops.repository} was pushed to by somebody else {_TRIES} "
            "times in a row: try again."
        )

    def _pushed(self, path: Path, what: str) -> bool:
        """Commit and push; False when somebody was faster with another file: their commits come first then."""
        self._git("add", "--all", "--", str(path))
        self._git(*self._identity(), "commit", "--quiet", "--message", f"{_OURS}{what}", "--", str(path))
        try:
            self._git("push", "--quiet", "origin", f"HEAD:refs/heads/{self._gitops.branch}")
        except _Rejected:
            return False
        return True

    def _refuse_foreign(self, path: Path) -> None:
        who, subject = self._git("log", "-1", "--format=%an (%h, %aI)%x00%s", "--", str(path)).strip().split("\0")
        if not subject.startswith(_OURS):
            raise Changed(
                f"{self._gitops.folder}/{path.name} was changed by {who}: {subject}; it is left as it is. To hand it "
                f'over again, commit it with a message that begins with "{_OURS.strip()}".'
            )

    def _identity(self) -> list[str]:
        """Git's own settings, else a name that says what did it."""
        try:
            known = self._git("config", "user.email").strip()
        except _Failed:
            known = ""
        return [] if known else ["-c", "user.name=sluiceway", "-c", "user.email=sluiceway@localhost"]

    def _git(self, *arguments: str) -> str:
        assert self._checkout is not None
        return self._run(["git", "-C", self._checkout.name, *arguments])

    def _run(self, command: list[str]) -> str:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_SECONDS)
        except FileNotFoundError as error:
            raise BadInput("GitOps needs the program git, and it is not installed here.") from error
        except subprocess.TimeoutExpired as error:
            raise Unreachable(f"{self._gitops.repository} did not answer git within {_GIT_SECONDS} s.") from error
        if done.returncode == 0:
            return done.stdout
        said = done.stderr.strip()
        if "[rejected]" in said or ("[remote rejected]" in said and "cannot lock ref" in said):
            raise _Rejected(said)
        last = said.splitlines()[-1] if said else f"exit code {done.returncode}"
        raise _Failed(f"git cannot work with {self._gitops.repository}: {last}")


class _Failed(Unreachable):
    """Git refused."""


class _Rejected(_Failed):
    """A push that does not follow what is there."""


def _file(kind: Kind, name: str) -> str:
    return f"{kind.kind.lower()}-{name}.yaml"


def _put(path: Path, text: str | None) -> None:
    if text is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, text)
