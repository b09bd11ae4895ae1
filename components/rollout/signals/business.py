"""The product's own measure: one value per version and stretch of time, the stretches side by side."""

import math

from components.errors import SignalsLost
from components.rollout.evidence import Worse
from components.rollout.plan import Business
from components.rollout.signals.api import Api, duration

_MOST_AT_ONCE = 20


class Windows:
    """Values of both versions in windows that do not overlap."""

    def __init__(self, api: Api, business: Business, service: str, namespace: str, since: float) -> None:
        """Begin with the first window at a moment of Prometheus' clock, in Unix seconds."""
        self._api = api
        self._business = business
        self._filled = {"service": service, "namespace": namespace, "window": duration(business.window_seconds)}
        self._end = since + business.window_seconds
        self._worse = Worse()

    def until(self, now: float, stable: str, canary: str) -> Worse:
        """How much worse the challenger did in all windows that are over.

        A window in which a version has no value, or one that is not a number, says nothing.

        Raises:
            SignalsLost: Prometheus does not answer, or the query gives more than one value.
        """
        business = self._business
        for _ in range(_MOST_AT_ONCE):
            if self._end > now or not stable:
                break
            values = [self._value(revision) for revision in (stable, canary)]
            if not any(map(math.isnan, values)):
                lost = (values[0] - values[1]) / (business.highest - business.lowest)
                self._worse += Worse(1, lost if business.better == "higher" else -lost)
            self._end += business.window_seconds
        return self._worse

    def _value(self, revision: str) -> float:
        query = self._business.query
        for name, value in {**self._filled, "revision": revision}.items():
            query = query.replace("{" + name + "}", value)  # not format(): PromQL has braces of its own
        found = self._api.values(query, self._end)
        if len(found) > 1:
            raise SignalsLost(
                f"The business metric gives {len(found)} values where it must give one; sum them in the query: {query}"
            )
        if not found:
            return math.nan
        ((_, given),) = found[0].samples
        return min(max(given, self._business.lowest), self._business.highest) if math.isfinite(given) else math.nan
