#!/bin/sh
# Runs the operator's tests with a real Airflow, in an environment of its own.
set -eu
cd "$(dirname "$0")/../.."
environment=.venv-airflow
if [ ! -f "$environment/stamp" ]; then
    echo "Setting up $environment (once; a few minutes)…"
    "${PYTHON:-python3}" -m venv "$environment"
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check apache-airflow==3.3.2
    touch "$environment/stamp"
fi
SLUICEWAY_TEST_AIRFLOW="$PWD/$environment/bin/python" .venv/bin/python -m pytest tests/integration/test_airflow.py
