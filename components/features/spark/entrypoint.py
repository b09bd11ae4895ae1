"""What a pod of Spark on Kubernetes starts with: Spark gives its image the words ``driver …`` or ``executor``.

This is what ``kubernetes/dockerfiles/spark/entrypoint.sh`` of Apache Spark does, as far as our image needs it. Anything
else is run as it is.
"""

import os
import sys
from collections.abc import Mapping, Sequence

_BACKEND = "org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend"
_OPTION = "SPARK_JAVA_OPT_"


def command(arguments: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """What to run.

    Args:
        arguments: the container's.
        environment: of it; Spark says there what an executor is to know.
    """
    home = environment["SPARK_HOME"]
    if arguments and arguments[0] == "driver":
        address = environment["SPARK_DRIVER_BIND_ADDRESS"]
        own = ["--conf", f"spark.driver.bindAddress={address}"]
        own += ["--conf", f"spark.executorEnv.SPARK_DRIVER_POD_IP={address}"]
        return [f"{home}/bin/spark-submit", *own, "--deploy-mode", "client", *arguments[1:]]
    if arguments and arguments[0] == "executor":
        return _executor(home, environment)
    return list(arguments)


def _executor(home: str, environment: Mapping[str, str]) -> list[str]:
    java = f"{environment['JAVA_HOME']}/bin/java"
    numbered = sorted((int(name.removeprefix(_OPTION)), name) for name in environment if name.startswith(_OPTION))
    options = [environment[name] for _, name in numbered]
    memory = environment["SPARK_EXECUTOR_MEMORY"]
    places = [environment.get("SPARK_CLASSPATH", ""), f"{home}/jars/*", environment.get("SPARK_CONF_DIR", "")]
    told = {
        "--driver-url": "SPARK_DRIVER_URL",
        "--executor-id": "SPARK_EXECUTOR_ID",
        "--cores": "SPARK_EXECUTOR_CORES",
        "--app-id": "SPARK_APPLICATION_ID",
        "--hostname": "SPARK_EXECUTOR_POD_IP",
        "--resourceProfileId": "SPARK_RESOURCE_PROFILE_ID",
        "--podName": "SPARK_EXECUTOR_POD_NAME",
    }
    flags = [part for flag, name in told.items() for part in (flag, environment[name])]
    return [java, *options, f"-Xms{memory}", f"-Xmx{memory}", "-cp", ":".join(filter(None, places)), _BACKEND, *flags]


def main() -> None:
    """Become it: the pod's signals are then Spark's."""
    wanted = command(sys.argv[1:], os.environ)
    os.execvp(wanted[0], wanted)  # noqa: S606 - the arguments are Spark's own


if __name__ == "__main__":
    main()
