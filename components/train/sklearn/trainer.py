"""What the scikit-learn trainers share: parameters from the estimator, seed, calibration, clear refusals."""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from components.errors import BadInput
from components.features.schema import Task
from components.train.contract import Data, Run
from components.train.sklearn.calibration import METHODS, calibrated
from components.train.sklearn.fitted import FittedPipeline
from components.train.threads import suited_to
from serving.schema import Framework

OURS = frozenset({"random_state", "categorical_features", "verbose", "warm_start", "n_jobs", "copy_X", "oob_score"})
"""Parameters that a trainer sets itself, or that make no sense in a pipeline step."""


@dataclass(frozen=True)
class SklearnTrainer:
    """An estimator with its defaults and the way it is fitted; see :class:`components.train.contract.Trainer`.

    Every classifier also has the hyperparameter ``calibration``: see :mod:`components.train.sklearn.calibration`.

    Attributes:
        estimator: the estimator's class for a task; imports scikit-learn.
        defaults: parameters that differ from the estimator's own defaults, for a task.
        fitting: fits an estimator whose parameters are set.
        tried: what a search tries, for a task.
    """

    estimator: Callable[[Task], type]
    defaults: Callable[[Task], dict[str, Any]]
    fitting: Callable[[Any, Data, Run], FittedPipeline]
    tried: Callable[[Task], dict[str, dict[str, Any]]]
    framework: Framework = "sklearn"

    def parameters(self, task: Task) -> dict[str, Any]:
        """scikit-learn's own parameters with its defaults, then ours."""
        signature = inspect.signature(self.estimator(task))
        own = {
            name: parameter.default
            for name, parameter in signature.parameters.items()
            if name not in OURS and parameter.default != "deprecated"
        }
        calibration = {} if task == "regression" else {"calibration": ""}
        return own | {name: value for name, value in self.defaults(task).items() if name in own} | calibration

    def space(self, task: Task) -> dict[str, dict[str, Any]]:
        """What a search tries."""
        return self.tried(task)

    def fit(self, data: Data, parameters: Mapping[str, Any], run: Run) -> FittedPipeline:
        """Fit the pipeline, and calibrate it where asked.

        Raises:
            BadInput: scikit-learn refuses a value or the data.
        """
        chosen = dict(parameters)
        method = chosen.pop("calibration", "") or ""
        if method not in ("", *METHODS):
            raise BadInput(f"The calibration is {method!r}; it must be empty or one of {', '.join(METHODS)}.")
        estimator = self.estimator(data.schema.task)(**chosen)
        if "random_state" in estimator.get_params():
            estimator.set_params(random_state=run.seed)
        try:
            with suited_to(data.train.inputs.size), _told(run):
                fitted = self.fitting(estimator, data, run)
                return calibrated(fitted, data, method, run) if method else fitted
        except (ValueError, TypeError) as error:
            run.interrupt.check()
            reason = " ".join(str(error).split())
            raise BadInput(f"scikit-learn could not fit {type(estimator).__name__}: {reason}") from error


@contextmanager
def _told(run: Run) -> Iterator[None]:
    """Whoever watches hears that a solver stopped too soon, once."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        yield
    for warning in caught:
        if issubclass(warning.category, ConvergenceWarning):
            run.say(f"The fit has not converged: {str(warning.message).splitlines()[0]}")
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
