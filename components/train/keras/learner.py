"""The network with its optimiser as TensorFlow functions: steps of training, and the loss of a table."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.errors import BadInput
from components.features.schema import Task
from components.train.keras.device import Device
from components.train.keras.encoding import Encoding, Table
from components.train.keras.network import Shape, network, used
from components.train.keras.settings import Settings

Arrays = dict[str, NDArray[Any]]
HeldSteps = Callable[[NDArray[np.int64], int, NDArray[np.float64]], NDArray[np.float64]]
"""Takes a step per batch of the rows; the last may be smaller."""


class Learner:
    """A network that learns.

    Losses are summed in doubles, carried from step to step in one order: how many steps run in one call changes
    nothing. Every function takes and gives the totals ``[sum of weighted losses, sum of weights]``.
    """

    def __init__(
        self,
        encoding: Encoding,
        shape: Shape,
        task: Task,
        settings: Settings,
        device: Device,
        seed: int,
        class_weights: NDArray[np.float32] | None = None,
    ) -> None:
        """Make the variables on the device; the functions are traced when they are first called.

        Args:
            encoding: of the columns.
            shape: of the network.
            task: decides the loss: cross-entropy, or the squared error of the standardised target.
            settings: of the optimiser.
            device: to train on.
            seed: of the weights it starts from, and of what is dropped.
            class_weights: float32 ``(classes,)``; None where all count the same.
        """
        self._encoding, self._task, self._device, self._class_weights = encoding, task, device, class_weights
        with device.placed() as self._strategy, self._strategy.scope():
            self.core = network(encoding, shape, seed, device.policy)
            self._inner = keras.optimizers.AdamW(settings.learning_rate, weight_decay=settings.weight_decay)
            self._inner.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
            scaled = device.precision == "fp16"
            self._optimizer = keras.optimizers.LossScaleOptimizer(self._inner) if scaled else self._inner
            self._optimizer.build(self.core.trainable_variables)
        kind = tf.float32 if task == "regression" else tf.int32
        self.columns = (
            tf.TensorSpec((None, len(encoding.vocabularies)), tf.int32),
            tf.TensorSpec((None, len(encoding.numbers.names)), tf.float32),
            tf.TensorSpec((None,), kind),
        )
        self._measure = tf.function(self._measure_part, input_signature=self.columns)
        self._follow = tf.function(self._learn_stream, reduce_retracing=True)

    @contextmanager
    def placed(self) -> Iterator[None]:
        """Within the block tensors are made on the device."""
        if self._strategy.num_replicas_in_sync > 1:
            yield
            return
        with tf.device(f"/{self._device.names[0]}"):
            yield

    def hold(self, table: Table) -> HeldSteps:
        """Put the table on every device; gives what takes steps on rows of it."""
        with self.placed():
            held = self._strategy.experimental_distribute_values_from_function(
                lambda _context: tuple(map(tf.constant, table.arrays()))
            )
        signature = [tf.TensorSpec((None,), tf.int64), tf.TensorSpec((), tf.int64), tf.TensorSpec((2,), tf.float64)]
        function = tf.function(lambda *given: self._learn_rows(held, *given), input_signature=signature)

        def steps(rows: NDArray[np.int64], batch: int, totals: NDArray[np.float64]) -> NDArray[np.float64]:
            with self.placed():
                return np.asarray(function(tf.constant(rows), tf.constant(batch, tf.int64), tf.constant(totals)))

        return steps

    def follow(self, stream: Any, steps: int, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Take so many steps on the batches of an iterator over a ``tf.data`` data set."""
        with self.placed():
            return np.asarray(self._follow(stream, tf.constant(steps), tf.constant(totals)))

    def measure(self, table: Table, at_once: int) -> float:
        """The loss of a table, so many rows at once; nothing is learnt."""
        totals = np.zeros(2)
        with self.placed():
            for start in range(0, len(table), at_once):
                totals += np.asarray(self._measure(*table.part(slice(start, start + at_once)).arrays()))
        return float(totals[0] / totals[1])

    def weights(self) -> list[NDArray[Any]]:
        """The weights of the network, copied."""
        return [np.array(keras.ops.convert_to_numpy(variable)) for variable in self.core.weights]

    def state(self) -> Arrays:
        """Everything that decides the next step, copied: weights, random states, optimiser."""
        return {
            f"{kind}/{index:04}": np.array(keras.ops.convert_to_numpy(variable))
            for kind, variables in self._variables().items()
            for index, variable in enumerate(variables)
        }

    def restore(self, arrays: Arrays) -> None:
        """Go back to a state; a loss scale is left as it is where the state has none.

        Raises:
            BadInput: the state is of another network.
        """
        for kind, variables in self._variables().items():
            found = [arrays[name] for name in sorted(arrays) if name.startswith(f"{kind}/")]
            if kind == "scale" and not found:
                continue
            if [value.shape for value in found] != [tuple(variable.shape) for variable in variables]:
                raise BadInput(
                    "The checkpoint is of another network: name another checkpoint_uri, or remove it to train from "
                    "the start."
                )
            for variable, value in zip(variables, found, strict=True):
                variable.assign(value)

    def _variables(self) -> dict[str, list[Any]]:
        kinds = {"network": list(self.core.variables), "optimizer": list(self._inner.variables)}
        if self._optimizer is not self._inner:
            kinds["scale"] = list(self._optimizer.variables[: -len(kinds["optimizer"])])
        return kinds

    def _learn_rows(self, held: Any, rows: tf.Tensor, batch: tf.Tensor, totals: tf.Tensor) -> tf.Tensor:
        for start in tf.range(0, tf.size(rows, tf.int64), batch):
            part = rows[start : start + batch]
            size = tf.size(part)

            def step(held: Any, part: tf.Tensor = part, size: tf.Tensor = size) -> tf.Tensor:
                mine = self._share(size)
                taken = part[mine[0] : mine[1]]
                return self._step(tuple(tf.gather(column, taken) for column in held), size)

            totals += self._strategy.reduce("SUM", self._strategy.run(step, (held,)), axis=None)
        return totals

    def _learn_stream(self, stream: Any, steps: tf.Tensor, totals: tf.Tensor) -> tf.Tensor:
        for _ in tf.range(steps):
            columns = next(stream)
            size = tf.size(columns[-1])

            def step(columns: Any, size: tf.Tensor = size) -> tf.Tensor:
                mine = self._share(size)
                return self._step(tuple(column[mine[0] : mine[1]] for column in columns), size)

            totals += self._strategy.reduce("SUM", self._strategy.run(step, (columns,)), axis=None)
        return totals

    def _share(self, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Which part of a batch this replica takes; none of it where there are fewer rows than replicas."""
        context = tf.distribute.get_replica_context()
        index, count = context.replica_id_in_sync_group, context.num_replicas_in_sync
        return size * index // count, size * (index + 1) // count

    def _step(self, columns: tuple[tf.Tensor, ...], size: tf.Tensor) -> tf.Tensor:
        codes, numbers, target = columns
        with tf.GradientTape() as tape:
            logits = self.core(used(self._encoding, codes, numbers), training=True)
            losses, weights = self._losses(logits, target)
            loss = tf.reduce_sum(losses * weights) / tf.cast(size, tf.float32)
            scaled = self._optimizer.scale_loss(loss)
        gradients = [tf.convert_to_tensor(one) for one in tape.gradient(scaled, self._trained())]
        if self._optimizer is not self._inner and self._strategy.num_replicas_in_sync > 1:
            gradients = self._agreed(gradients)
        self._optimizer.apply(gradients, self.core.trainable_variables)
        return _totals(losses, weights)

    def _agreed(self, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        """Each replica's part of the sum: the loss scale is lowered by all replicas or by none.

        Keras asks one replica only whether its gradients are finite, and adds them up after that.
        """
        context = tf.distribute.get_replica_context()
        summed = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        return [one / context.num_replicas_in_sync for one in summed]

    def _trained(self) -> list[Any]:
        return [variable.value for variable in self.core.trainable_variables]

    def _measure_part(self, codes: tf.Tensor, numbers: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        logits = self.core(used(self._encoding, codes, numbers), training=False)
        return _totals(*self._losses(logits, target))

    def _losses(self, logits: tf.Tensor, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The loss and the weight of each row, float32 ``(n,)``."""
        if self._task == "regression":
            return tf.square(logits[:, 0] - target), tf.ones_like(target)
        if self._task == "binary":
            truth = tf.cast(target, tf.float32)
            losses = tf.nn.sigmoid_cross_entropy_with_logits(truth, logits[:, 0])
        else:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(target, logits)
        if self._class_weights is None:
            return losses, tf.ones_like(losses)
        return losses, tf.gather(tf.constant(self._class_weights), target)


def _totals(losses: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    doubles = tf.cast(weights, tf.float64)
    return tf.stack([tf.reduce_sum(tf.cast(losses, tf.float64) * doubles), tf.reduce_sum(doubles)])
