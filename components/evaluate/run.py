"""Scores the challenger and the champion on the test split, decides, and writes what people and later steps read."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from components.errors import BadInput
from components.evaluate import gate
from components.evaluate.bootstrap import CONFIDENCE, Distribution, bootstrap, draws_for
from components.evaluate.champion import NotScored, champion_scores
from components.evaluate.curves import Confusion, Roc, confusion, roc
from components.evaluate.decision import Check, Decision, Measured
from components.evaluate.metrics import HIGHER_IS_BETTER, Floats
from components.features.schema import FeatureSchema
from serving.schema import FILE as MANIFEST_FILE

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        decision: the gate's.
        schema: the challenger's features.
        rows: the test rows' raw input columns.
        target: class index or value, ``(rows,)``.
        scores: the challenger's probabilities ``(rows, classes)`` or values ``(rows,)``.
        champion: the champion's, on the same rows; None without one that could be scored.
    """

    decision: Decision
    schema: FeatureSchema
    rows: "pa.Table"
    target: NDArray[Any]
    scores: Floats
    champion: Floats | None

    def roc(self) -> Roc | None:
        """The challenger's ROC curve, for two classes and finite scores."""
        if self.schema.task != "binary" or not np.isfinite(self.scores).all():
            return None
        return roc(self.target == 1, self.scores[:, 1])

    def confusion(self) -> Confusion | None:
        """Counts of true against predicted classes, for classification and finite scores."""
        if self.schema.task == "regression" or not np.isfinite(self.scores).all():
            return None
        return confusion(self.target, self.scores, self.schema.classes)

    def decision_metadata(self) -> dict[str, Any]:
        """What the KFP UI shows of the decision artifact."""
        decision = self.decision
        return {
            "passed": decision.passed,
            "recipe_digest": decision.recipe_digest,
            "champion_version": decision.champion_version,
            "rows": decision.rows,
            "checks": {
                check.name: f"{'passed' if check.passed else 'failed'}: {check.reason}" for check in decision.checks
            },
        }

    def predictions_metadata(self) -> dict[str, Any]:
        """What the KFP UI, staging and rollout need to know of the predictions artifact."""
        return {"rows": self.decision.rows, "classes": list(self.schema.classes), "task": self.schema.task}

    def fact(self) -> str:
        """The one thing worth knowing."""
        decision = self.decision
        measured = decision.metrics[decision.primary_metric]
        value = "undefined" if measured.value is None else f"{measured.value:.4g}"
        against = "" if measured.champion is None else f" against the champion's {measured.champion:.4g}"
        failed = ", ".join(check.name for check in decision.failures())
        return f"{decision.primary_metric} {value}{against}, " + (f"blocked: {failed}" if failed else "passed")


def evaluate(
    features: Path,
    bundle: Path,
    *,
    champion_uri: str = "",
    champion_version: str = "",
    primary_metric: str = "auto",
    minimum: str = "auto",
    margin: float = 0.02,
    minimum_rows: int = 20,
    draws: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Measure a bundle on the test split, against the champion on the same rows, and decide.

    Args:
        features: the feature set that the bundle was trained on.
        bundle: the challenger.
        champion_uri: where the champion's bundle lies; empty without one.
        champion_version: its registered version.
        primary_metric: what the gate goes by; ``auto`` is ``roc_auc``, or ``rmse`` for regression.
        minimum: its worst value that may pass, or ``auto``: better than a constant prediction beyond chance.
        margin: how much worse than the champion it may be; see ``gate.Policy``.
        minimum_rows: fewest test rows.
        draws: bootstrap resamples.
        seed: of the resamples.

    Raises:
        BadInput: the feature set or a parameter cannot be used, or the bundle is of other data.
        BadBundle: the challenger does not verify or load.
    """
    from serving.bundle import load

    model = load(bundle)
    schema, manifest = model.schema, model.manifest
    policy = gate.policy(schema.task, primary_metric, minimum, margin, minimum_rows)
    if not 1 <= draws <= 100_000:
        raise BadInput(f"bootstrap is {draws}; it must be from 1 to 100,000.")
    rows, target = _test_rows(features, schema)
    scores = model.predict(rows)
    rival, complaint = _champion(champion_uri, champion_version, rows, schema)
    draws = draws_for(len(target), draws)
    models = [scores, constant_scores(target, schema)] + ([] if rival is None else [rival])
    challenger, constant, *others = bootstrap(schema.task, target, models, draws, seed)
    champion = others[0] if others else None
    checks = [
        gate.enough_rows(schema.task, target, schema.classes, policy.rows),
        gate.sane_predictions(schema.task, scores),
        gate.floor(policy, challenger[policy.metric], constant[policy.metric]),
    ]
    if champion is not None:
        checks.append(gate.not_worse(policy, challenger[policy.metric], champion[policy.metric], champion_version))
    elif complaint is not None:
        checks.append(complaint)
    decision = Decision(
        passed=all(check.passed for check in checks),
        recipe_digest=manifest.recipe_digest,
        bundle_digest=bundle_digest(bundle),
        data_version=schema.data_version,
        champion_version=champion_version,
        primary_metric=policy.metric,
        confidence=CONFIDENCE,
        bootstrap=draws,
        seed=seed,
        rows=len(target),
        metrics={name: _measured(name, challenger, champion) for name in challenger},
        checks=tuple(checks),
    )
    return Evaluation(decision, schema, rows, target, scores, rival)


def bundle_digest(bundle: Path) -> str:
    """sha256 of the bundle's manifest, and through it of every file."""
    return hashlib.sha256((bundle / MANIFEST_FILE).read_bytes()).hexdigest()


def constant_scores(target: NDArray[Any], schema: FeatureSchema) -> Floats:
    """The best constant prediction of these rows: class shares, or the mean."""
    if schema.task == "regression":
        return np.full(len(target), float(np.mean(target)))
    shares = np.bincount(target, minlength=len(schema.classes)) / len(target)
    return np.tile(shares, (len(target), 1))


def _test_rows(features: Path, schema: FeatureSchema) -> "tuple[pa.Table, NDArray[Any]]":
    import pyarrow.parquet as pq

    from components.train.feature_set import check_target, read_schema

    found = read_schema(features)
    if (found.data_version, found.features) != (schema.data_version, schema.features):
        raise BadInput(
            f"The bundle was trained on data version {schema.data_version} and the feature set {features} is of "
            f"{found.data_version}, or has other columns: evaluate a model on the feature set it was trained on."
        )
    path = features / "test.parquet"
    if not path.is_file():
        raise BadInput(f"The feature set {features} has no {path.name}: run the features step again.")
    names = [column.name for column in schema.inputs]
    present = pq.read_schema(path).names
    absent = [name for name in [*names, schema.target] if name not in present]
    if absent:
        raise BadInput(f"{path} has no column {', '.join(map(repr, absent))}: run the features step again.")
    table = pq.read_table(path)
    if not table.num_rows:
        raise BadInput(f"The test split of {features} has no rows: give more data, or a larger share to that split.")
    values = table.column(schema.target).to_numpy().astype("float64")
    return table.drop_columns([name for name in present if name not in names or name == schema.target]), check_target(
        values, schema, "test"
    )


def _champion(uri: str, version: str, rows: "pa.Table", schema: FeatureSchema) -> tuple[Floats | None, Check | None]:
    """The champion's scores, or the check that stands for there being none."""
    if not uri and not version:
        return None, gate.no_champion()
    try:
        if not uri:
            raise NotScored("its location was not given")
        return champion_scores(uri, rows, schema), None
    except NotScored as error:
        return None, gate.champion_not_scored(version, str(error))


def _measured(name: str, challenger: dict[str, Distribution], champion: dict[str, Distribution] | None) -> Measured:
    mine = challenger[name]
    return Measured(
        value=mine.value,
        interval=mine.interval(),
        champion=champion[name].value if champion else None,
        difference=mine.minus(champion[name]).interval() if champion else None,
        higher_is_better=HIGHER_IS_BETTER[name],
    )
