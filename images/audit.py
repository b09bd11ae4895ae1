"""Look up known vulnerabilities of every pinned version; run by images/audit.sh in the environment of pip-audit.

pip-audit ends well when the service knows none of the packages, as an index without that service does not: here that is
a failure. What is accepted, with a reason and a day to look again, is in ``accepted-vulnerabilities.yaml``.
"""

import datetime
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ACCEPTED = Path(__file__).with_name("accepted-vulnerabilities.yaml")
_ENTRY = re.compile(
    r"^- id: (?P<id>\S+)\n  package: (?P<package>\S+)\n  reason: (?P<reason>\S.*)\n"
    r"  expires: (?P<expires>\d{4}-\d\d-\d\d)$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Accepted:
    """A finding that we live with until a day."""

    id: str
    package: str
    reason: str
    expires: datetime.date


def accepted(text: str) -> list[Accepted]:
    """The accepted findings; the file is YAML of one form, so that nothing is needed to read it.

    Raises:
        ValueError: an entry lacks a field, or they are in another order.
    """
    body = "\n".join(line for line in text.splitlines() if not line.startswith("#")).strip()
    found = [
        Accepted(m["id"], m["package"], m["reason"], datetime.date.fromisoformat(m["expires"]))
        for m in _ENTRY.finditer(body)
    ]
    if len(found) != len(re.findall(r"^- ", body, re.MULTILINE)) or (not found and body != "[]"):
        raise ValueError(f"{ACCEPTED.name}: each entry is id, package, reason, expires, in this order")
    return found


def complaints(report: dict[str, Any], known: list[Accepted], today: datetime.date) -> list[str]:
    """What stands against these versions: findings, what could not be looked up, and acceptances that ran out."""
    said = []
    skipped = [one["name"] for one in report["dependencies"] if "skip_reason" in one]
    if skipped:
        said.append(
            f"{len(skipped)} of {len(report['dependencies'])} packages could not be looked up "
            f"({', '.join(skipped[:3])}…): the index in use does not answer as pypi.org does, so nothing is known "
            "about them; run the audit where pypi.org can be reached."
        )
    good = {(one.package, one.id) for one in known if one.expires >= today}
    for one in report["dependencies"]:
        for finding in one.get("vulns", []):
            names = {finding["id"], *finding.get("aliases", [])}
            if not any((one["name"], name) in good for name in names):
                fixed = ", ".join(finding.get("fix_versions", [])) or "none yet"
                said.append(f"{one['name']} {one['version']}: {' '.join(sorted(names))} (fixed in: {fixed})")
    said += [
        f"{one.id} of {one.package} was accepted until {one.expires}: {one.reason}"
        for one in known
        if one.expires < today
    ]
    return said


def main() -> int:
    """The command."""
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--no-deps",
        "--disable-pip",
        "--format=json",
        "--progress-spinner=off",
    ]
    ran = subprocess.run([*command, "--requirement", sys.argv[1]], capture_output=True, text=True, check=False)
    try:
        report = json.loads(ran.stdout)
    except json.JSONDecodeError:
        last = (ran.stderr.strip().splitlines() or ["it said nothing"])[-1]
        sys.stderr.write(f"pip-audit could not look anything up: {last}\n")
        return 1
    said = complaints(report, accepted(ACCEPTED.read_text("utf-8")), datetime.datetime.now(datetime.UTC).date())
    for line in said:
        sys.stderr.write(f"{line}\n")
    if not said:
        sys.stdout.write(f"{len(report['dependencies'])} packages, nothing known against them\n")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
