"""Writes ``kinds.json.gz`` from the operators' own definitions: ``python tests/cluster/crds/vendor.py FILE…``.

Descriptions go, and of External Secrets' many providers all but Vault.
"""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import yaml

WANTED = {
    "cert-manager.io/v1": ("Certificate", "Issuer"),
    "external-secrets.io/v1": ("ExternalSecret", "SecretStore"),
    "monitoring.coreos.com/v1": ("PodMonitor", "PrometheusRule", "ServiceMonitor"),
    "security.istio.io/v1": ("PeerAuthentication",),
    "trainer.kubeflow.org/v1alpha1": ("TrainJob", "TrainingRuntime"),
}
_NOT_NEEDED = {"description", "example", "externalDocs"}


def compact(part: Any, names: bool = False) -> Any:
    """A schema without its descriptions; below ``properties`` the keys are names of fields."""
    if isinstance(part, list):
        return [compact(item) for item in part]
    if not isinstance(part, dict):
        return part
    kept = {key: value for key, value in part.items() if names or key not in _NOT_NEEDED}
    return {key: compact(value, key == "properties" and not names) for key, value in kept.items()}


def main() -> None:
    found: dict[str, Any] = {}
    for file in sys.argv[1:]:
        for crd in yaml.load_all(Path(file).read_text(encoding="utf-8"), yaml.CSafeLoader):
            spec = crd["spec"]
            for version in spec["versions"]:
                api_version, kind = f"{spec['group']}/{version['name']}", spec["names"]["kind"]
                if kind not in WANTED.get(api_version, ()):
                    continue
                schema = compact(version["schema"]["openAPIV3Schema"])
                if kind == "SecretStore":
                    provider = schema["properties"]["spec"]["properties"]["provider"]
                    provider["properties"] = {"vault": provider["properties"]["vault"]}
                found[f"{api_version} {kind}"] = {
                    "plural": spec["names"]["plural"],
                    "status": "status" in version.get("subresources", {}),
                    "schema": schema,
                }
    missing = [f"{group} {kind}" for group, kinds in WANTED.items() for kind in kinds if f"{group} {kind}" not in found]
    if missing:
        raise SystemExit(f"Not in these files: {', '.join(missing)}.")
    text = json.dumps(found, separators=(",", ":"), sort_keys=True).encode()
    Path(__file__).with_name("kinds.json.gz").write_bytes(gzip.compress(text, 9, mtime=0))


if __name__ == "__main__":
    main()
