"""scikit-learn's histogram boosted trees as the attributes of ONNX's TreeEnsemble-5 operator."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

_ADD = 1  # aggregate_function: sum over trees
_LESS_OR_EQUAL = 0  # nodes_modes: value <= split; a missing value goes where the node's flag says
_MEMBER = 6  # nodes_modes: value is in the node's set; the sets are one list, each ended by NaN


def ensemble(model: Any) -> dict[str, Any]:
    """The operator's attributes for a fitted ``HistGradientBoosting`` classifier or regressor."""
    rows = _Rows()
    for iteration in model._predictors:
        for target, tree in enumerate(iteration):
            rows.add(tree, target)
    return rows.attributes(len(model._predictors[0]))


class _Rows:
    """Inner nodes and leaves of all trees, numbered apart as the operator wants them."""

    def __init__(self) -> None:
        self._roots: list[int] = []
        self._modes: list[int] = []
        self._features: list[int] = []
        self._splits: list[float] = []
        self._missing: list[int] = []
        self._true: list[tuple[int, bool]] = []
        self._false: list[tuple[int, bool]] = []
        self._members: list[float] = []
        self._leaf_values: list[float] = []
        self._leaf_targets: list[int] = []

    def add(self, tree: Any, target: int) -> None:
        """Add one tree, whose values count for one target."""
        nodes = tree.nodes
        is_leaf = nodes["is_leaf"].astype(bool)
        inner, leaves = len(self._modes), len(self._leaf_values)
        if is_leaf[0]:
            self._stump(float(nodes["value"][0]), target)
            return
        # Where each node lands: inner nodes and leaves keep their order.
        place = (is_leaf * (is_leaf.cumsum() - 1 + leaves) + ~is_leaf * ((~is_leaf).cumsum() - 1 + inner)).tolist()
        self._roots.append(inner)
        for node in nodes[~is_leaf]:
            categorical = bool(node["is_categorical"])
            self._modes.append(_MEMBER if categorical else _LESS_OR_EQUAL)
            self._features.append(int(node["feature_idx"]))
            self._splits.append(0.0 if categorical else float(node["num_threshold"]))
            self._missing.append(int(node["missing_go_to_left"]))
            self._true.append((place[node["left"]], bool(is_leaf[node["left"]])))
            self._false.append((place[node["right"]], bool(is_leaf[node["right"]])))
            if categorical:
                self._members += [*_members(tree.raw_left_cat_bitsets[node["bitset_idx"]]), float("nan")]
        self._leaf_values += nodes["value"][is_leaf].tolist()
        self._leaf_targets += [target] * int(is_leaf.sum())

    def _stump(self, value: float, target: int) -> None:
        """A tree of one leaf: a node both of whose branches end in it."""
        self._roots.append(len(self._modes))
        self._modes.append(_LESS_OR_EQUAL)
        self._features.append(0)
        self._splits.append(0.0)
        self._missing.append(0)
        self._true.append((len(self._leaf_values), True))
        self._false.append((len(self._leaf_values), True))
        self._leaf_values.append(value)
        self._leaf_targets.append(target)

    def attributes(self, targets: int) -> dict[str, Any]:
        """The operator's attributes for the trees added so far."""
        import numpy as np
        from onnx import numpy_helper

        attributes = {
            "aggregate_function": _ADD,
            "n_targets": targets,
            "post_transform": 0,
            "tree_roots": self._roots,
            "nodes_modes": numpy_helper.from_array(np.array(self._modes, "uint8"), "modes"),
            "nodes_featureids": self._features,
            "nodes_splits": numpy_helper.from_array(np.array(self._splits, "float64"), "splits"),
            "nodes_missing_value_tracks_true": self._missing,
            "nodes_truenodeids": [place for place, _ in self._true],
            "nodes_trueleafs": [int(leaf) for _, leaf in self._true],
            "nodes_falsenodeids": [place for place, _ in self._false],
            "nodes_falseleafs": [int(leaf) for _, leaf in self._false],
            "leaf_targetids": self._leaf_targets,
            "leaf_weights": numpy_helper.from_array(np.array(self._leaf_values, "float64"), "values"),
        }
        if self._members:
            values = np.array(self._members, "float64")
            attributes["membership_values"] = numpy_helper.from_array(values, "members")
        return attributes


def _members(bitset: "np.ndarray[Any, Any]") -> list[float]:
    return [float(code) for code in range(256) if (int(bitset[code // 32]) >> (code % 32)) & 1]
