"""SVG plots for RESULTS.md; the same figures give the same bytes."""

from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def figure(rows: int = 1, columns: int = 1, width: float = 9.0, height: float = 4.0) -> tuple[Any, Any]:
    """A figure and its axes, drawn without a screen."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "sluiceway", "svg.fonttype": "none", "font.size": 9, "axes.grid": True})
    mpl.rcParams.update({"grid.alpha": 0.3, "axes.spines.top": False, "axes.spines.right": False})
    from matplotlib import pyplot

    return pyplot.subplots(rows, columns, figsize=(width, height), layout="constrained", squeeze=False)


def save(drawn: Any, name: str) -> str:
    """Write ``NAME.svg`` beside RESULTS.md; gives the Markdown that shows it."""
    from matplotlib import pyplot

    drawn.savefig(HERE / f"{name}.svg", metadata={"Date": None})
    pyplot.close(drawn)
    return f"![{name}]({name}.svg)"
