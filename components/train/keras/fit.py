"""One fit, from a feature set to the model that takes raw columns."""

from collections.abc import Mapping
from typing import Any

from components.train.contract import Data, Run
from components.train.keras.device import Device
from components.train.keras.encoding import Encoding
from components.train.keras.fitted import FittedNetwork
from components.train.keras.learner import Goal, Learner
from components.train.keras.loop import Loop, Plan
from components.train.keras.network import Shape, network, whole
from components.train.keras.sources import source
from components.train.keras.trainer import batch_size, class_weights
from serving.keras_model import KerasModel


def fit(data: Data, parameters: Mapping[str, Any], run: Run, device: Device) -> FittedNetwork:
    """Fit on a device that is chosen and set up; see :meth:`components.train.contract.Trainer.fit`."""
    schema, sample = data.schema, data.sample("train")
    encoding = Encoding.fit(sample, schema)
    shape = Shape.of(parameters, schema)
    weights = class_weights(parameters.get("class_weight"), sample.target, len(schema.classes))
    goal = Goal(schema.task, parameters["learning_rate"], parameters["weight_decay"], weights)
    learner = Learner(encoding, shape, goal, device, run.seed)
    rows = source(data, encoding, run.seed, device.room)
    batch = batch_size(rows.rows, parameters["batch_size"])
    run.say(f"{device.sentence[:-1]}, {batch:,} rows at a time.")
    plan = Plan(parameters["learning_rate"], parameters["epochs"], parameters["patience"])
    loop = Loop(learner, rows, encoding.encode(data.sample("valid")), plan, run, batch)
    best = loop.train()
    core = network(encoding, shape, run.seed)
    core.set_weights(best)
    ended = loop.progress
    facts = {"epochs": float(ended.epoch), "best_epoch": float(ended.best_epoch), "batch_size": float(ended.batch)}
    return FittedNetwork(KerasModel(whole(core, encoding, schema)), core, encoding, shape, schema, facts)
