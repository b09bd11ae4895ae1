"""The rules, by id: one subject per module."""

from pipelines.lint.rule import Rule
from pipelines.lint.rules import (
    caching,
    described,
    gpu,
    images,
    interface,
    loop,
    resources,
    retry,
    run_time_install,
    secrets,
    suppressions,
    timeout,
    unused_parameter,
)

RULES: dict[str, Rule] = {
    rule.id: rule
    for rule in (
        run_time_install.RULE,
        images.RULE,
        resources.RULE,
        retry.POLICY,
        timeout.RULE,
        retry.WINDOW,
        caching.STATED,
        caching.SAFE,
        secrets.RULE,
        gpu.TOLERATIONS,
        gpu.SHARED_MEMORY,
        interface.RULE,
        described.RULE,
        unused_parameter.RULE,
        loop.RULE,
        suppressions.REASON,
        suppressions.UNUSED,
    )
}
