"""Print a CycloneDX list of all that is installed beside bgbatch: names, versions, licences, where each came from.

It reads the metadata that pip leaves, and nothing else: `python scripts/sbom.py > sbom.cdx.json` needs no network.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from importlib.metadata import version as version_of


def bill_of_materials(installed: Iterable[Distribution]) -> dict[str, object]:
    """The list as CycloneDX 1.6 describes it, sorted, so that two of the same environment are the same."""
    components = {component["bom-ref"]: component for component in map(_component, installed)}
    ours = components.pop(f"pkg:pypi/bgbatch@{version_of('bgbatch')}")
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": ours | {"type": "application"}},
        "components": [components[ref] for ref in sorted(components)],
    }


def _component(installed: Distribution) -> dict[str, object]:
    name, version = installed.metadata["Name"], installed.version
    reference = f"pkg:pypi/{name.lower().replace('_', '-')}@{version.replace('+', '%2B')}"
    component: dict[str, object] = {
        "type": "library",
        "bom-ref": reference,
        "name": name,
        "version": version,
        "purl": reference,
    }
    said = installed.metadata
    licence = said.get("License-Expression") or _classified(installed) or said.get("License")
    if licence and len(licence) < 120 and "\n" not in licence:  # some packages put the whole text there
        component["licenses"] = [{"license": {"name": licence}}]
    return component


def _classified(installed: Distribution) -> str:
    found = [each for each in installed.metadata.get_all("Classifier", []) if each.startswith("License ::")]
    return "; ".join(each.rpartition(":: ")[2] for each in found)


if __name__ == "__main__":
    print(json.dumps(bill_of_materials(distributions()), indent=2))
