"""Who may talk to whom in the cluster, by a small reading of its rules: all that is needed, and little else."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from tests.deploy.files import manifests, pods

POLICIES = [each["spec"] for each in manifests() if each["kind"] == "NetworkPolicy"]
LABELS = [template["metadata"]["labels"] for _, template in pods()]
PODS = {"-".join(each[key] for key in ("app", "role") if key in each): each for each in LABELS}
NAMESPACES = {
    "ingress": {"kubernetes.io/metadata.name": "ingress", "bgbatch.dev/ingress": "true"},
    "monitoring": {"kubernetes.io/metadata.name": "monitoring"},
    "kube-system": {"kubernetes.io/metadata.name": "kube-system"},
    "elsewhere": {"kubernetes.io/metadata.name": "elsewhere"},
}
OUTSIDE, METADATA, API = "203.0.113.7", "169.254.169.254", "10.96.0.1"


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    listed = all(labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", []))
    assert {each["operator"] for each in selector.get("matchExpressions", [])} <= {"In"}
    return listed and selector.get("matchLabels", {}).items() <= labels.items()


def is_peer(rule: dict[str, Any], who: str) -> bool:
    """`who` is one of our pods, another namespace, or an address outside."""
    if "ipBlock" in rule:
        if who in PODS or who in NAMESPACES:
            return False
        shut_out = any(ip_address(who) in ip_network(each) for each in rule["ipBlock"].get("except", []))
        return ip_address(who) in ip_network(rule["ipBlock"]["cidr"]) and not shut_out
    if "namespaceSelector" in rule:
        assert "podSelector" not in rule
        return who in NAMESPACES and selects(rule["namespaceSelector"], NAMESPACES[who])
    return who in PODS and selects(rule["podSelector"], PODS[who])


def lets(direction: str, pod: str, who: str, port: int) -> bool:
    """Whether a policy that selects the pod lets it speak to (`Egress`) or be spoken to by (`Ingress`) somebody."""
    key, side = direction.lower(), {"Egress": "to", "Ingress": "from"}[direction]
    rules = [
        rule
        for policy in POLICIES
        if selects(policy["podSelector"], PODS[pod]) and direction in policy["policyTypes"]
        for rule in policy.get(key, [])
    ]
    return any(
        (side not in rule or any(is_peer(each, who) for each in rule[side]))
        and any(
            each["port"] <= port <= each.get("endPort", each["port"]) for each in rule.get("ports", [{"port": port}])
        )
        for rule in rules
    )


def may_call(source: str, target: str, port: int) -> bool:
    sends = source not in PODS or lets("Egress", source, target, port)
    return sends and (target not in PODS or lets("Ingress", target, source, port))


NEEDED = [
    *((app, "postgres", 5432) for app in ("portal", "dispatcher", "cleanup", "prefect")),
    ("dispatcher", "prefect", 4200),
    ("ray-worker", "ray-head", 6379),
    ("ray-head", "ray-head", 6379),  # the autoscaler beside it
    ("ray-head", "ray-worker", 30000),
    ("ray-worker", "ray-worker", 30000),
    ("dispatcher", "ray-head", 6379),
    ("dispatcher", "ray-worker", 30000),
    ("ray-worker", "dispatcher", 30000),  # its node of Ray
    ("ray-head", API, 443),
    ("ray-head", "10.0.0.5", 6443),
    *((app, OUTSIDE, 443) for app in ("portal", "dispatcher", "cleanup", "ray-worker")),
    *((app, OUTSIDE, 80) for app in ("dispatcher", "ray-worker")),
    *((app, mail, port) for app in ("portal", "dispatcher") for mail in (OUTSIDE, "elsewhere") for port in (465, 587)),
    ("ingress", "portal", 8080),
    ("monitoring", "portal", 8080),
    *((app, "kube-system", 53) for app in PODS),
]
FORBIDDEN = [
    *((app, "postgres", 5432) for app in ("ray-head", "ray-worker", "ingress", "elsewhere", "monitoring")),
    *((app, "prefect", 4200) for app in ("portal", "cleanup", "ray-worker", "ingress", "elsewhere")),
    *((app, "ray-head", 6379) for app in ("portal", "cleanup", "prefect", "ingress", "elsewhere")),
    *((app, "cleanup", 8080) for app in ("portal", "ray-worker", "elsewhere")),
    *((app, "portal", 8080) for app in ("ray-worker", "elsewhere")),
    *((app, OUTSIDE, 443) for app in ("postgres", "prefect")),
    *((app, METADATA, 80) for app in PODS),
    *((app, API, 443) for app in PODS if app != "ray-head"),
    ("ray-worker", OUTSIDE, 587),
    ("cleanup", OUTSIDE, 80),
]


@pytest.mark.parametrize(("source", "target", "port"), NEEDED)
def test_who_needs_somebody_reaches_them(source: str, target: str, port: int) -> None:
    assert may_call(source, target, port)


@pytest.mark.parametrize(("source", "target", "port"), FORBIDDEN)
def test_nobody_reaches_whom_they_do_not_need(source: str, target: str, port: int) -> None:
    assert not may_call(source, target, port)
