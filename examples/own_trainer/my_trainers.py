"""Two trainers of our own: a scikit-learn pipeline, and a PyTorch module as an ONNX graph."""

from typing import Any, Literal

from components.train.contract import Data, Run
from components.train.own import Onnx, behind, trainer


def prepared_columns(data: Data) -> Any:
    """Numbers from 0 to 1, medians for missing ones; a column per category, none lit for one never seen.

    Whatever a request holds, missing values, new categories or 1e30, must come out as something the model can take.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import MinMaxScaler, OneHotEncoder

    numbers = Pipeline(
        [("impute", SimpleImputer(strategy="median", keep_empty_features=True)), ("scale", MinMaxScaler(clip=True))]
    )
    one_hot = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=50, sparse_output=False)
    return ColumnTransformer(
        [("numbers", numbers, data.columns("numeric")), ("text", one_hot, data.columns("categorical"))],
        sparse_threshold=0,
    )


@trainer(
    framework="sklearn",
    space={"min_samples_leaf": {"low": 1, "high": 50, "log": True}, "max_features": {"low": 0.1, "high": 1.0}},
)
def extra_trees(
    data: Data,
    run: Run,
    *,
    n_estimators: int = 200,
    min_samples_leaf: int = 5,
    max_features: float = 0.5,
    class_weight: Literal["balanced"] | None = None,
) -> Any:
    """Extremely randomised trees: raw columns in, probabilities or values out."""
    from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
    from sklearn.pipeline import Pipeline

    chosen = {"n_estimators": n_estimators, "min_samples_leaf": min_samples_leaf, "max_features": max_features}
    if data.schema.task == "regression":
        model = ExtraTreesRegressor(random_state=run.seed, **chosen)
    else:
        model = ExtraTreesClassifier(random_state=run.seed, class_weight=class_weight, **chosen)
    pipeline = Pipeline([("prepare", prepared_columns(data)), ("model", model)])
    return pipeline.fit(data.train.inputs, data.train.target)


@trainer(framework="onnx")
def small_network(
    data: Data, run: Run, *, hidden: int = 32, epochs: int = 20, batch: int = 256, learning_rate: float = 0.01
) -> Onnx:
    """A network of one hidden layer, for classification."""
    import torch

    torch.manual_seed(run.seed)
    prepare = prepared_columns(data)
    inputs = torch.tensor(prepare.fit_transform(data.train.inputs), dtype=torch.float32)
    target = torch.tensor(data.train.target)
    valid = torch.tensor(prepare.transform(data.valid.inputs), dtype=torch.float32)
    network = torch.nn.Sequential(
        torch.nn.Linear(inputs.shape[1], hidden),
        torch.nn.ReLU(),
        torch.nn.Linear(hidden, len(data.schema.classes)),
        torch.nn.Softmax(dim=1),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)

    def loss(rows: Any, wanted: Any) -> Any:
        return torch.nn.functional.nll_loss(network(rows).clamp_min(1e-7).log(), wanted)

    for epoch in range(1, epochs + 1):
        for rows in torch.randperm(len(inputs)).split(batch):
            optimizer.zero_grad()
            loss(inputs[rows], target[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            losses = {"train": loss(inputs, target), "valid": loss(valid, torch.tensor(data.valid.target))}
        run.epoch(epoch, {f"{split}_loss": value.item() for split, value in losses.items()}, learning_rate)

    def predict(frame: Any) -> Any:
        with torch.no_grad():
            return network(torch.tensor(prepare.transform(frame), dtype=torch.float32)).numpy()

    return Onnx(behind(prepare, _exported(network, inputs[:2]), data.schema), predict, {"epochs": epochs})


def _exported(network: Any, example: Any) -> Any:
    """The network as a graph, for any number of rows."""
    import io

    import onnx
    import torch

    file: Any = io.BytesIO()
    any_rows = {"inputs": {0: "N"}}
    # The exporter of old needs no further package.
    torch.onnx.export(
        network, (example,), file, dynamo=False, opset_version=18, input_names=["inputs"], dynamic_axes=any_rows
    )
    return onnx.load_from_string(file.getvalue())
