#!/bin/sh
# `make sbom` and `make audit`: what is pinned, as a list for other tools, and what is known to be wrong with it. The
# tools are no part of the suite and have an environment of their own.
set -eu
cd "$(dirname "$0")/.."
tools=.venv-audit/bin/python

[ -x "$tools" ] && [ -e .venv-audit/audit-tools-1 ] || {
    rm -rf .venv-audit
    "${PYTHON:-python3}" -m venv .venv-audit
    "$tools" -m pip install --quiet --disable-pip-version-check cyclonedx-bom==7.5.0 pip-audit==2.10.1
    touch .venv-audit/audit-tools-1
}
case "$1" in
    sbom)
        mkdir -p build/sbom
        "$tools" -m cyclonedx_py environment --pyproject pyproject.toml --output-reproducible \
            --output-file build/sbom/sluiceway.cdx.json .venv/bin/python
        echo "build/sbom/sluiceway.cdx.json"
        ;;
    audit)
        "$tools" images/audit.py constraints.txt
        ;;
    *)
        echo "usage: images/audit.sh sbom|audit" >&2
        exit 2
        ;;
esac
