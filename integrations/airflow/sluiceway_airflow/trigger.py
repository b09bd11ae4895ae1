"""Waiting in Airflow's triggerer, where one process watches many runs."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.sdk import BaseHook
from airflow.triggers.base import BaseTrigger, TriggerEvent

from sluiceway_airflow.api import ApiError, Kfp, Unreachable
from sluiceway_airflow.connection import connect


class RunEnded(BaseTrigger):
    """Fires when a run has ended, or cannot be watched any more."""

    def __init__(self, conn_id: str, run_id: str, poke_interval: float) -> None:
        """Watch a run through an Airflow connection, looking every so many seconds."""
        super().__init__()
        self.conn_id = conn_id
        self.run_id = run_id
        self.poke_interval = poke_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What a triggerer makes it anew from."""
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        return path, {"conn_id": self.conn_id, "run_id": self.run_id, "poke_interval": self.poke_interval}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until it has ended."""
        kfp = await self._kfp()
        try:
            while not (await asyncio.to_thread(kfp.run, self.run_id)).ended:
                await asyncio.sleep(self.poke_interval)
        except (ApiError, Unreachable) as error:
            yield TriggerEvent({"run_id": self.run_id, "error": str(error)})
            return
        yield TriggerEvent({"run_id": self.run_id})

    async def on_kill(self) -> None:
        """End the run when a person kills the task; not when the triggerer restarts. Airflow 3.3 and newer call it."""
        await asyncio.to_thread((await self._kfp()).terminate, self.run_id)

    async def _kfp(self) -> Kfp:
        return connect(await BaseHook.aget_connection(self.conn_id))
