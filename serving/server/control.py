"""The model repository extension: what clients may ask of the models beside predictions."""

from typing import Any

from components.errors import BadBundle
from serving.server.failures import Forbidden, NotServing
from serving.server.repository import Repository


class Control:
    """Lists, loads and unloads the models of this process."""

    def __init__(self, repository: Repository, *, is_explicit: bool = False) -> None:
        """Take charge of a repository.

        Args:
            repository: the models.
            is_explicit: whether clients may load and unload them.
        """
        self._repository = repository
        self._is_explicit = is_explicit

    def index(self, *, ready_only: bool = False) -> list[dict[str, Any]]:
        """Name, version, state (``READY`` or ``UNAVAILABLE``, Triton's words) and the reason for it, of each model."""
        models = []
        for name in self._repository.names():
            entry = self._repository.entry(name)
            ready = self._repository.is_ready(name)
            if ready or not ready_only:
                state = "READY" if ready else "UNAVAILABLE"
                models.append({"name": name, "version": entry.version, "state": state, "reason": entry.failure})
        return models

    async def load(self, name: str) -> None:
        """Load a model, or load it anew; the one that answers goes on until the new one has warmed up.

        Raises:
            Forbidden: clients may not.
            NotFound: there is none of that name.
            NotServing: the bundle does not verify, load or predict; what answered before still does.
        """
        self._check(name)
        try:
            await self._repository.load(name)
        except BadBundle as error:
            raise NotServing(f"Model with name {name} was not loaded: {error}") from error

    async def unload(self, name: str) -> None:
        """Let a model go, after the requests that wait for it; the server is not ready until it is loaded again.

        Raises:
            Forbidden: clients may not.
            NotFound: there is none of that name.
        """
        self._check(name)
        await self._repository.unload(name)

    def _check(self, name: str) -> None:
        if not self._is_explicit:
            raise Forbidden(
                "This server's models are not the clients' to load; start it with --model-control explicit."
            )
        self._repository.entry(name)
