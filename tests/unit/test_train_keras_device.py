"""Which device and arithmetic TensorFlow gets, by what the machine offers."""

import re
import subprocess
import sys

import pytest

from components.errors import BadInput
from components.train.keras.device import Found, Gpu, decide
from components.train.keras.settings import Settings
from components.train.keras.trainer import TRAINER

A100 = Gpu("NVIDIA A100-SXM4-40GB", (8, 0), 40_000_000_000)
T4 = Gpu("Tesla T4", (7, 5), 15_000_000_000)
P4 = Gpu("Tesla P4", (6, 1), 8_000_000_000)


def machine(*gpus: Gpu, build="12.5.1", driver="12.8") -> Found:
    return Found(gpus, build, driver, "8 cores", 32_000_000_000)


@pytest.mark.parametrize(("gpu", "precision"), [(A100, "bf16"), (T4, "fp16"), (P4, "fp32")])
def test_a_gpu_is_taken_in_the_fastest_arithmetic_it_has_and_said_with_its_memory(gpu, precision):
    device = decide("auto", "auto", machine(gpu))
    assert (device.names, device.precision) == (("GPU:0",), precision)
    assert f"{gpu.name} with {gpu.memory / 1e9:.1f} GB of memory in {precision}" in device.sentence
    assert device.room == gpu.memory // 2


def test_all_gpus_train_together_in_what_the_weakest_can():
    device = decide("gpu", "auto", machine(A100, T4))
    assert (device.names, device.precision) == (("GPU:0", "GPU:1"), "fp16")
    assert device.sentence.startswith("Training on 2 GPUs, ")
    assert device.room == T4.memory // 2


def test_the_precision_that_is_asked_for_is_taken():
    assert decide("auto", "fp32", machine(A100)).policy == "float32"
    assert decide("cpu", "bf16", machine()).policy == "mixed_bfloat16"


def test_a_cpu_is_taken_where_it_is_asked_for_without_excuses():
    device = decide("cpu", "auto", machine(A100))
    assert (device.names, device.precision) == (("CPU:0",), "fp32")
    assert device.sentence == "Training on the CPU (8 cores, 32.0 GB of memory free) in fp32;"


NONE = [
    (machine(build=""), "built without GPU support"),
    (machine(driver=""), "no NVIDIA driver answers"),
    (machine(driver="11.4"), r"driver is too old: it supports CUDA 11\.4, TensorFlow needs 12\.5"),
    (machine(), "TensorFlow finds no GPU although the driver supports CUDA"),
]


@pytest.mark.parametrize(("found", "why"), NONE)
def test_no_gpu_where_one_is_required_says_why(found, why):
    with pytest.raises(BadInput, match=f"A GPU is required and .*{why}"):
        decide("gpu", "auto", found)


@pytest.mark.parametrize(("found", "why"), NONE)
def test_no_gpu_where_one_is_preferred_falls_back_and_says_why(found, why):
    device = decide("auto", "auto", found)
    assert device.names == ("CPU:0",)
    assert re.search(why, device.sentence)


def test_the_trainer_is_known_without_importing_tensorflow():
    code = (
        "import sys; from components.train.trainers import find; t = find('keras'); "
        "[(t.parameters(task), t.space(task)) for task in ('binary', 'multiclass', 'regression')]; "
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_a_search_tries_is_a_parameter_and_allowed():
    for task in ("binary", "multiclass", "regression"):
        defaults = TRAINER.parameters(task)
        for name, values in TRAINER.space(task).items():
            for value in values.get("choices", [values.get("low"), values.get("high")]):
                Settings.checked(defaults | {name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0),
        ("learning_rate", float("nan")),
        ("width", 0),
        ("width", 1.5),
        ("dropout", 1.0),
        ("epochs", 0),
        ("precision", "fp64"),
        ("class_weight", "even"),
        ("batch_size", -1),
    ],
)
def test_a_value_that_cannot_be_used_is_named(name, value):
    with pytest.raises(BadInput, match=f"hyperparameter '{name}' of the trainer 'keras' is"):
        Settings.checked({name: value})


@pytest.mark.parametrize(
    ("rows", "chosen", "batch"),
    [(1, 0, 1), (20, 0, 20), (300, 0, 32), (5_000, 0, 128), (10**7, 0, 8192), (300, 7, 7), (300, 1000, 300)],
)
def test_the_batch_goes_by_the_rows(rows, chosen, batch):
    assert Settings(batch_size=chosen).batch(rows) == batch
