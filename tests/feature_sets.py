"""Feature sets of real data for the tests of the model steps."""

from pathlib import Path

import numpy as np
import pandas as pd

from components.features.schema import FILE, FeatureColumn, FeatureSchema, InputColumn, Task

TELCO = Path(__file__).parents[2] / "shared" / "data" / "telco_churn.csv"


def feature_set(
    folder: Path, frame: pd.DataFrame, task: Task, *, target: str = "target", seed: int = 0, version: str = "v1"
) -> Path:
    """Split a frame 70/15/15 at random and write it as the features step would."""
    classes = () if task == "regression" else tuple(sorted(frame[target].astype(str).unique()))
    inputs = frame.drop(columns=target)
    numbers = [name for name in inputs if pd.api.types.is_numeric_dtype(inputs[name])]
    values = frame[target].astype("float64") if not classes else frame[target].astype(str).map(classes.index)
    table = inputs.assign(**{target: values})
    part = np.random.default_rng(seed).random(len(table))
    splits = {"train": part < 0.7, "valid": (part >= 0.7) & (part < 0.85), "test": part >= 0.85}
    schema = FeatureSchema(
        task=task,
        target=target,
        classes=classes,
        inputs=tuple(InputColumn(name=n, type="number" if n in numbers else "string") for n in inputs),
        features=tuple(FeatureColumn(name=n, kind="numeric" if n in numbers else "categorical") for n in inputs),
        data_version=version,
        split={"key": [], "seed": seed},
        rows={name: int(rows.sum()) for name, rows in splits.items()},
    )
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in splits.items():
        table[rows].reset_index(drop=True).to_parquet(folder / f"{name}.parquet")
    (folder / FILE).write_text(schema.model_dump_json(), encoding="utf-8")
    return folder


def sklearn_frame(name: str) -> pd.DataFrame:
    """One of scikit-learn's built-in real data sets, with its target as ``target``."""
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")(as_frame=True)
    frame = bunch.frame.rename(columns={bunch.frame.columns[-1]: "target"})
    if hasattr(bunch, "target_names"):
        frame["target"] = [str(bunch.target_names[index]) for index in frame["target"]]
    return frame


def telco_frame() -> pd.DataFrame:
    """The telco set with its identifier dropped and blank numbers as missing values."""
    frame = pd.read_csv(TELCO).drop(columns="customerID").rename(columns={"Churn": "target"})
    return frame.assign(TotalCharges=pd.to_numeric(frame["TotalCharges"], errors="coerce"))


def mixed_frame(rows: int = 600, seed: int = 0) -> pd.DataFrame:
    """Small made-up customers: numbers with gaps, text with gaps, many cities, a yes/no target that depends on them."""
    random = np.random.default_rng(seed)
    age = random.normal(40, 12, rows).round(1)
    city = random.choice([f"city {n}" for n in range(30)], rows)
    plan = random.choice(["basic", "plus", "pro"], rows, p=[0.6, 0.3, 0.1])
    logit = (age - 40) / 8 + np.where(plan == "pro", 2.0, -0.5) + (np.char.str_len(city) == 6)
    target = np.where(random.random(rows) < 1 / (1 + np.exp(-logit)), "yes", "no")
    frame = pd.DataFrame({"age": age, "city": city, "plan": plan, "spend": random.gamma(2, 30, rows)})
    frame.loc[random.random(rows) < 0.1, "age"] = np.nan
    frame.loc[random.random(rows) < 0.1, "plan"] = None
    return frame.assign(target=target)
