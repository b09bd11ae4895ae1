"""Keeps training from crawling where other processes want the same cores.

scikit-learn's trees split each small piece of work over OpenMP threads, which wait for each other by spinning. Beside
two busy processes on two cores, 100 trees on 5,000 rows took 9 to 17 s with the defaults and 0.6 s with what is here.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

_FEW_VALUES = 1_000_000  # below it, handing work to threads costs about what it saves


def wait_without_spinning() -> None:
    """Let OpenMP threads sleep while they wait; takes effect only before scikit-learn is imported."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@contextmanager
def suited_to(values: int) -> Iterator[None]:
    """Use one thread for a small table, all cores for a large one.

    Args:
        values: rows times columns.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships no type hints

    with threadpool_limits(1 if values < _FEW_VALUES else None):
        yield
