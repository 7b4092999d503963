"""The deploy files, read once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BASE = DEPLOY / "kubernetes" / "base"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "docker-compose.yaml").read_text())
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()


@cache
def manifests() -> list[dict[str, Any]]:
    """What the kustomization names, document by document."""
    kustomization = yaml.safe_load((BASE / "kustomization.yaml").read_text())
    documents = [each for name in kustomization["resources"] for each in yaml.safe_load_all((BASE / name).read_text())]
    return [each for each in documents if each]


def called(kind: str, name: str) -> dict[str, Any]:
    (found,) = (each for each in manifests() if each["kind"] == kind and each["metadata"]["name"] == name)
    return found


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod's template, with a name for it."""
    for each in manifests():
        name = f"{each['kind']}/{each['metadata']['name']}"
        if each["kind"] in ("Deployment", "StatefulSet"):
            yield name, each["spec"]["template"]
        if each["kind"] == "RayCluster":
            yield f"{name}/head", each["spec"]["headGroupSpec"]["template"]
            for group in each["spec"]["workerGroupSpecs"]:
                yield f"{name}/{group['groupName']}", group["template"]


def containers() -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Every container of every pod, and whether it only runs first."""
    for name, template in pods():
        for each in template["spec"].get("initContainers", []):
            yield f"{name}/{each['name']}", each, True
        for each in template["spec"]["containers"]:
            yield f"{name}/{each['name']}", each, False
