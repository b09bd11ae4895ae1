"""Calibrated probabilities: of the rows that get 0.3, three in ten are of the class.

The map from scores to probabilities is fitted on the valid split, on which boosting has already decided when to stop;
one score per row leaves little room to profit from that. ``sigmoid`` (Platt) has two parameters per class and suits
few rows; ``isotonic`` takes any rising shape and wants a thousand rows or more.
"""

from typing import TYPE_CHECKING, Any

from components.errors import BadInput
from components.train.contract import Data, Run
from components.train.sklearn.fitted import FittedPipeline

if TYPE_CHECKING:
    import numpy as np

METHODS = ("sigmoid", "isotonic")
FEW_ROWS = 1000
DIGITS = 5
"""Isotonic maps see scores rounded so: two scores that differ by a rounding error could otherwise lie at both ends of a
step, and the order in which trees are summed would decide the probability."""
FLOOR = 1e-6
"""The lowest probability of an isotonic map, whose zeros would otherwise say that what never was never will be."""


def calibrated(fitted: FittedPipeline, data: Data, method: str, run: Run) -> FittedPipeline:
    """The pipeline with its classifier calibrated on the valid split.

    Args:
        fitted: a fitted classifier behind its preparation.
        data: the feature set.
        method: ``sigmoid`` or ``isotonic``.
        run: whom to tell.

    Raises:
        BadInput: a class has no row in the valid split.
    """
    import numpy as np
    from sklearn.base import clone
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator
    from sklearn.pipeline import Pipeline

    valid, classes = data.valid, data.schema.classes
    counts = np.bincount(valid.target, minlength=len(classes))
    if not counts.all():
        absent = ", ".join(repr(classes[index]) for index in np.flatnonzero(counts == 0))
        raise BadInput(
            f"No row of the valid split has {data.schema.target!r} = {absent}: probabilities cannot be calibrated for "
            "it. Give the valid split a larger share, or leave out calibration."
        )
    if method == "isotonic" and len(valid.target) < FEW_ROWS:
        run.say(
            f"Isotonic calibration on {len(valid.target):,} rows follows their chance: sigmoid suits fewer than 1,000."
        )
    *steps, (name, model) = fitted.pipeline.steps
    inputs = Pipeline(steps).transform(valid.inputs)
    everything = np.arange(len(valid.target))
    outer = CalibratedClassifierCV(FrozenEstimator(model), method=method, cv=[(everything, everything)], ensemble=False)
    outer.fit(inputs, valid.target)
    outer.set_params(cv=None, estimator=clone(model))  # skops would write a fitted one a second time
    if method == "isotonic":
        _steady(outer, model, inputs, valid.target)
    return FittedPipeline(Pipeline([*steps, (name, outer)]), fitted.facts)


def _steady(outer: Any, model: Any, inputs: Any, target: "np.ndarray[Any, Any]") -> None:
    """Fit the isotonic maps again, to rounded scores and above zero."""
    import numpy as np

    score = model.decision_function if hasattr(model, "decision_function") else model.predict_proba
    scores = np.round(score(inputs), DIGITS)
    if len(outer.classes_) == 2:
        scores = scores.reshape(len(target), -1)[:, -1:]
    for index, calibrator in enumerate(outer.calibrated_classifiers_[0].calibrators):
        of_class = 1 if len(outer.classes_) == 2 else index
        calibrator.set_params(y_min=FLOOR, y_max=1.0 - FLOOR)
        calibrator.fit(scores[:, index], (target == of_class).astype("float64"))
