"""scikit-learn's trees as the attributes of ONNX's TreeEnsemble-5 operator."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_ADD = 1  # aggregate_function: sum over trees
_LESS_OR_EQUAL = 0  # nodes_modes: value <= split; a missing value goes where the node's flag says
_MEMBER = 6  # nodes_modes: value is in the node's set; the sets are one list, each ended by NaN


def boosted(model: Any) -> dict[str, Any]:
    """The operator's attributes for a fitted ``HistGradientBoosting`` classifier or regressor: raw predictions."""
    trees = Trees()
    for iteration in model._predictors:
        for target, tree in enumerate(iteration):
            nodes = tree.nodes
            categorical = nodes["is_categorical"].astype(bool)
            trees.add(
                target,
                leaf=nodes["is_leaf"].astype(bool),
                left=nodes["left"],
                right=nodes["right"],
                feature=nodes["feature_idx"],
                split=nodes["num_threshold"],
                missing_left=nodes["missing_go_to_left"],
                value=nodes["value"],
                members={
                    place: _members(tree.raw_left_cat_bitsets[nodes["bitset_idx"][place]])
                    for place in categorical.nonzero()[0].tolist()
                },
            )
    return trees.attributes(len(model._predictors[0]))


def averaged(model: Any, column: int) -> dict[str, Any]:
    """The operator's attributes for the sum over a forest's trees of one column of their leaves' values."""
    trees = Trees()
    for tree in model.estimators_:
        _add(trees, tree, 0, tree.tree_.value[:, 0, column])
    return trees.attributes(1)


def leaves(model: Any) -> "tuple[dict[str, Any], Array]":
    """The operator's attributes for which leaf each of a forest's trees ends in, and the leaves' values.

    The operator's leaves hold one number each. Where a leaf of the forest holds several, one for each class, its number
    is its row in the table ``(leaves, classes)``; repeating the trees for each class would make the graph as many times
    larger.
    """
    import numpy as np

    trees = Trees()
    tables: list[Array] = []
    for target, tree in enumerate(model.estimators_):
        leaf = tree.tree_.children_left == -1
        first = sum(len(table) for table in tables)
        _add(trees, tree, target, first + leaf.cumsum() - 1.0)
        tables.append(tree.tree_.value[leaf, 0, :])
    return trees.attributes(len(model.estimators_)), np.concatenate(tables)


def lookup(edges: "Array") -> dict[str, Any]:
    """The operator's attributes for how many of the ascending edges are at or below a number, found by halving."""
    import numpy as np

    trees = Trees()
    left, right, split, value = [-1], [-1], [0.0], [0.0]
    waiting = [(0, 0, len(edges))]  # a node, and the range of answers below it
    while waiting:
        node, low, high = waiting.pop()
        value[node] = float(low)
        if low == high:
            continue
        middle = (low + high) // 2
        split[node] = float(np.nextafter(edges[middle], -np.inf))  # value <= split is value < edge
        left[node], right[node] = len(split), len(split) + 1
        waiting += [(left[node], low, middle), (right[node], middle + 1, high)]
        left += [-1, -1]
        right += [-1, -1]
        split += [0.0, 0.0]
        value += [0.0, 0.0]
    children = np.array(left)
    none = np.zeros(len(split), "int64")
    trees.add(
        0,
        leaf=children == -1,
        left=children,
        right=np.array(right),
        feature=none,
        split=np.array(split),
        missing_left=none,
        value=np.array(value),
        members={},
    )
    return trees.attributes(1)


def _add(trees: "Trees", tree: Any, target: int, value: "Array") -> None:
    """Add a tree of a forest."""
    nodes = tree.tree_
    trees.add(
        target,
        leaf=nodes.children_left == -1,
        left=nodes.children_left,
        right=nodes.children_right,
        feature=nodes.feature,
        split=nodes.threshold,
        missing_left=nodes.missing_go_to_left,
        value=value,
        members={},
    )


class Trees:
    """Inner nodes and leaves of all trees, numbered apart as the operator wants them."""

    def __init__(self) -> None:
        """Start without a tree."""
        self._inner = self._leaves = 0
        self._roots: list[int] = []
        self._members: list[float] = []
        self._nodes: dict[str, list[Array]] = {}

    def add(
        self,
        target: int,
        *,
        leaf: "Array",
        left: "Array",
        right: "Array",
        feature: "Array",
        split: "Array",
        missing_left: "Array",
        value: "Array",
        members: Mapping[int, list[float]],
    ) -> None:
        """Add one tree, whose values count for one target.

        Args:
            target: the output's column.
            leaf: whether a node is a leaf, ``(nodes,)`` as the other arrays; the first node is the root.
            left: place of the child for a value at or below ``split``; ignored at leaves, as are the next four.
            right: place of the other child.
            feature: which input column is compared.
            split: what it is compared with.
            missing_left: whether a missing value goes to the left.
            value: what a leaf adds to the target; ignored at inner nodes.
            members: the set of a node that asks for membership instead, by the node's place.
        """
        import numpy as np

        if leaf[0]:  # a tree of one leaf: a node both of whose branches end in it
            leaf, value = np.array([False, True]), value[[0, 0]]
            left = right = np.array([1, 1])
            feature = missing_left = np.zeros(2, "int64")
            split, members = np.zeros(2), {}
        inner = ~leaf
        place = np.where(leaf, leaf.cumsum() - 1 + self._leaves, inner.cumsum() - 1 + self._inner)
        modes = np.full(len(leaf), _LESS_OR_EQUAL)
        modes[list(members)] = _MEMBER
        self._roots.append(self._inner)
        self._members += [number for node in sorted(members) for number in (*members[node], float("nan"))]
        for name, values in {
            "modes": modes[inner],
            "features": feature[inner],
            "splits": np.where(modes == _MEMBER, 0.0, split)[inner],
            "missing": missing_left[inner],
            "true": place[left[inner]],
            "true_leaf": leaf[left[inner]],
            "false": place[right[inner]],
            "false_leaf": leaf[right[inner]],
            "values": value[leaf],
            "targets": np.full(int(leaf.sum()), target),
        }.items():
            self._nodes.setdefault(name, []).append(values)
        self._inner += int(inner.sum())
        self._leaves += int(leaf.sum())

    def attributes(self, targets: int) -> dict[str, Any]:
        """The operator's attributes for the trees added so far."""
        import numpy as np
        from onnx import numpy_helper

        nodes = {name: np.concatenate(parts) for name, parts in self._nodes.items()}

        def integers(name: str) -> list[int]:
            listed: list[int] = nodes[name].astype("int64").tolist()
            return listed

        attributes = {
            "aggregate_function": _ADD,
            "n_targets": targets,
            "post_transform": 0,
            "tree_roots": self._roots,
            "nodes_modes": numpy_helper.from_array(nodes["modes"].astype("uint8"), "modes"),
            "nodes_featureids": integers("features"),
            "nodes_splits": numpy_helper.from_array(nodes["splits"].astype("float64"), "splits"),
            "nodes_missing_value_tracks_true": integers("missing"),
            "nodes_truenodeids": integers("true"),
            "nodes_trueleafs": integers("true_leaf"),
            "nodes_falsenodeids": integers("false"),
            "nodes_falseleafs": integers("false_leaf"),
            "leaf_targetids": integers("targets"),
            "leaf_weights": numpy_helper.from_array(nodes["values"].astype("float64"), "values"),
        }
        if self._members:
            values = np.array(self._members, "float64")
            attributes["membership_values"] = numpy_helper.from_array(values, "members")
        return attributes


def _members(bitset: "Array") -> list[float]:
    import numpy as np

    codes: list[float] = np.flatnonzero(np.unpackbits(bitset.view("uint8"), bitorder="little")).astype(float).tolist()
    return codes
