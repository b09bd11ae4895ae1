"""One fit, from a feature set to the model that takes raw columns."""

from components.train.contract import Data, Run
from components.train.devices import Sampler, first
from components.train.keras.device import Device
from components.train.keras.encoding import Encoding
from components.train.keras.fitted import FittedNetwork
from components.train.keras.learner import Learner
from components.train.keras.loop import Loop
from components.train.keras.network import Shape, network, settle_unseen, whole
from components.train.keras.settings import Settings
from components.train.keras.sources import source
from serving.keras_model import KerasModel


def fit(data: Data, settings: Settings, run: Run, device: Device) -> FittedNetwork:
    """Fit on a device that is chosen and set up; see :meth:`components.train.contract.Trainer.fit`."""
    schema, sample = data.schema, data.sample("train")
    encoding = Encoding.fit(sample, schema)
    shape = Shape.of(settings, schema)
    weights = settings.weights(sample.target, len(schema.classes))
    learner = Learner(encoding, shape, schema.task, settings, device, run.seed, weights)
    rows = source(data, encoding, run.seed, device.room)
    loop = Loop(learner, rows, encoding.encode(data.sample("valid")), settings, run)
    run.say(f"{device.sentence} {loop.progress.batch:,} rows at a time, {rows.how}.")
    with Sampler(first(run.gpus)) as sampler:
        best = loop.train(sampler.metrics)
    core = network(encoding, shape, run.seed)
    core.set_weights(best)
    settle_unseen(core, encoding)
    ended = loop.progress
    facts = {"epochs": float(ended.epoch), "best_epoch": float(ended.best_epoch), "batch_size": float(ended.batch)}
    return FittedNetwork(KerasModel(whole(core, encoding, schema)), core, encoding, shape, schema, facts)
