"""Counts of a service on a cluster, from a Prometheus that sees its servers or the proxies before them."""

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from statistics import median

from components.errors import BadInput, SignalsLost
from components.rollout.evidence import Arm, Observation, Worse
from components.rollout.plan import Business
from components.rollout.signals.api import Api
from components.rollout.signals.arms import Found, arm_of
from components.rollout.signals.business import Windows
from components.rollout.signals.increases import Increases, Series
from components.rollout.signals.queries import ENVOY, KINDS, OURS, Kind, one_of

_BACK_SECONDS = 3600.0
_OVERLAP_SECONDS = 120.0  # samples can arrive late: after a slow scrape, or by remote write
_MISSED_SCRAPES = 4
_LEAST_STALE_SECONDS = 5.0
_DEFAULT_INTERVAL_SECONDS = 15.0


class PrometheusSource:
    """What the judge reads of one service on a cluster.

    Only Prometheus' own clock is used. Counts are exact whole numbers since :meth:`begin`, up to the newest scrape,
    over restarts and new pods.

    Attributes:
        interval_seconds: as given, else how often the metrics are scraped, once that has been seen.
        sees_direct: whether the metrics that were found count requests past the split too.
    """

    def __init__(
        self,
        url: str,
        namespace: str,
        service: str,
        business: Business | None = None,
        interval_seconds: float = 0,
        clusters: Mapping[str, str] | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        """Name what is to be read; nothing is asked yet.

        Args:
            url: of Prometheus, with the path that its API lies under, if any.
            namespace: of the service.
            service: the InferenceService's name.
            business: a measure of the product that is watched too.
            interval_seconds: time between two looks; 0 goes by the scrapes.
            clusters: Envoy's name of the cluster of each revision, for gateways that do not name it after the service.
            timeout_s: longest wait for one answer.

        Raises:
            BadInput: the address, or the certificate authority's file, is wrong.
        """
        self.interval_seconds = interval_seconds or _DEFAULT_INTERVAL_SECONDS
        self.sees_direct = OURS.sees_direct
        self._given_interval = interval_seconds
        self._scrape_seconds = _DEFAULT_INTERVAL_SECONDS
        self._api = Api(url, timeout_s)
        self._namespace, self._service = namespace, service
        self._business = business
        self._clusters = dict(clusters or {})
        self._revisions = ("", "")
        self._found: Found | None = None
        self._since = self._looked = math.nan
        self._counts: dict[tuple[Kind, str], Increases] = {}
        self._windows: Windows | None = None

    def probe(self, *revisions: str) -> Found:
        """Find which kinds of metrics Prometheus has now, and choose the best for each signal.

        Args:
            revisions: those that are to be told apart; none takes any of the service.

        Raises:
            BadInput: nothing carries status codes; says what was looked for.
            SignalsLost: Prometheus does not answer.
        """
        there = self._metrics_of([revision for revision in revisions if revision], self._api.now())

        def best(metric: str) -> Kind | None:
            kinds = [kind for kind in KINDS if getattr(kind, metric) and there[kind, getattr(kind, metric)]]
            # A kind that sees both versions is better than one that sees only one of them.
            return max(kinds, key=lambda kind: there[kind, getattr(kind, metric)], default=None)

        codes = best("requests")
        if codes is None:
            raise BadInput(self._missing([kind for (kind, _), arms in there.items() if arms]))
        latency = codes if there[codes, codes.latency] else best("latency")
        return Found(codes, latency, best("bins") or best("labels"), best("restarts"))

    def baseline(self, stable: str) -> Arm:
        """The champion's counts in the hour before now; empty where nothing was counted.

        Raises:
            SignalsLost: Prometheus does not answer.
        """
        try:
            found = self.probe(stable)
        except BadInput:
            return Arm()
        now = self._api.now()
        counts: dict[tuple[Kind, str], Increases] = {}
        for kind in found.kinds:
            counts[kind, stable] = Increases(-math.inf, kind.one_process, from_zero=False)
            counts[kind, stable].feed(self._samples(kind, stable, _BACK_SECONDS, now))
        return arm_of(found, counts, stable)

    def begin(self, stable: str, canary: str) -> None:
        """Count from now on; the first is empty in a first deployment.

        A service that nobody has asked anything yet may have no metrics: they are looked for again at each look.

        Raises:
            SignalsLost: Prometheus does not answer.
        """
        now = self._api.now()
        self._revisions = (stable, canary)
        self._since, self._looked = now, now - _BACK_SECONDS
        self._found, self._counts = None, {}
        self._windows = None
        if self._business is not None:
            self._windows = Windows(self._api, self._business, self._service, self._namespace, now)
        if self._find():
            self._count(now)

    def seen(self) -> Observation:
        """What was counted since :meth:`begin`, up to the newest scrape.

        Raises:
            SignalsLost: Prometheus does not answer, has no status codes of this service, or has not scraped the
                challenger for some time: never taken for health.
        """
        if math.isnan(self._since):
            raise SignalsLost("Nothing is counted before it has begun.")
        self._find(must=True)
        now = self._api.now()
        self._count(now)
        assert self._found is not None
        stable, canary = self._revisions
        self._refuse_stale(now, canary)
        worse = Worse()
        if self._windows is not None:
            worse = self._windows.until(now - 2 * self._scrape_seconds, stable, canary)
        arms = [arm_of(self._found, self._counts, revision) if revision else Arm() for revision in self._revisions]
        return Observation(arms[0], arms[1], worse)

    def _find(self, must: bool = False) -> bool:
        """Look for the metrics, unless they were found already."""
        if self._found is None:
            try:
                self._found = self.probe(*self._revisions)
            except BadInput as error:
                if must:
                    raise SignalsLost(str(error)) from error
                return False
            self.sees_direct = self._found.codes.sees_direct
        return True

    def _count(self, now: float) -> None:
        """Add what was scraped since the last look."""
        assert self._found is not None
        seconds = max(0.0, now - self._looked) + _OVERLAP_SECONDS
        if self._counts:  # what a counter showed last is known: a gap loses no count, only resets within it
            seconds = min(seconds, _BACK_SECONDS)
        fetched = {
            (kind, revision): self._samples(kind, revision, seconds, now)
            for kind in self._found.kinds
            for revision in filter(None, self._revisions)
        }
        # Only when every query was answered, so that no signal runs ahead of another.
        for (kind, revision), series in fetched.items():
            counts = self._counts.setdefault((kind, revision), Increases(self._since, kind.one_process))
            counts.feed(series)
        self._looked = now
        self._note_interval([one for series in fetched.values() for one in series])

    def _note_interval(self, found: list[Series]) -> None:
        gaps = [
            later[0] - earlier[0] for one in found for earlier, later in zip(one.samples, one.samples[1:], strict=False)
        ]
        if gaps:
            self._scrape_seconds = median(gaps)
            self.interval_seconds = self._given_interval or self._scrape_seconds

    def _refuse_stale(self, now: float, canary: str) -> None:
        assert self._found is not None
        newest = self._counts[self._found.codes, canary].newest
        age = now - newest
        if math.isfinite(newest) and age > max(_LEAST_STALE_SECONDS, _MISSED_SCRAPES * self._scrape_seconds):
            raise SignalsLost(
                f"{self._api.name} has not scraped {canary} for {age:.0f} s ({self._found.codes.name}); look at its "
                "targets page."
            )

    def _samples(self, kind: Kind, revision: str, seconds: float, now: float) -> list[Series]:
        """Raw samples of one revision, of the last seconds."""
        matchers = self._matchers(kind, revision)
        targets: set[tuple[str, ...]] | None = None
        if kind.info:
            # A join in PromQL gives no raw samples: the targets of the revision are looked up first.
            targets = {_target(info) for info in self._api.samples(kind.info_selector(matchers), seconds, now)}
            matchers = [one_of("instance", sorted({instance for instance, *_ in targets}))]
        if targets == set():
            return []
        found = self._api.samples(kind.selector(matchers), seconds, now)
        return [
            series
            for series in found
            if kind.is_in(self._namespace, series.labels) and (targets is None or _target(series) in targets)
        ]

    def _matchers(self, kind: Kind, revision: str) -> list[str]:
        """Label matchers of one revision, or of every one of the service where it is empty."""
        if kind is ENVOY and revision in self._clusters:
            return [one_of(kind.by, [self._clusters[revision]])]
        pattern = re.escape(revision) if revision else f"{re.escape(self._service)}(-.*)?"
        return kind.revision_matchers(self._namespace, pattern)

    def _metrics_of(self, revisions: list[str], now: float) -> dict[tuple[Kind, str], int]:
        """How many of the revisions each metric of each kind has now."""
        there: dict[tuple[Kind, str], int] = defaultdict(int)
        for kind in KINDS:
            for revision in revisions or [""]:
                found = self._samples(kind, revision, _OVERLAP_SECONDS, now)
                for metric in {series.labels["__name__"] for series in found}:
                    there[kind, metric] += 1
        return there

    def _missing(self, others: list[Kind]) -> str:
        wanted = "; ".join(f"{kind.requests} ({kind.name})" for kind in KINDS if kind.requests)
        names = ", ".join(dict.fromkeys(kind.name for kind in others))
        but = f" It has only those of {names}, which carry none." if names else ""
        return (
            f"{self._api.name} has no status codes of {self._service} in namespace {self._namespace}.{but} "
            f"Have it scrape one of: {wanted}."
        )


def _target(series: Series) -> tuple[str, str]:
    return series.labels.get("instance", ""), series.labels.get("pod", "")
