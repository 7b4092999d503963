"""Alerts and dashboard name things that there are."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import yaml

from store.purging.health import OLDEST, SILENCE, Health, metrics_text
from tests.deploy.files import BASE, DEPLOY, ROOT, called

MONITORING = DEPLOY / "kubernetes" / "monitoring"
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
RULES = [
    rule
    for group in yaml.safe_load((MONITORING / "rules.yaml").read_text())["spec"]["groups"]
    for rule in group["rules"]
]


def metrics() -> set[str]:
    nothing = Health(None, 0, None, 0, timedelta(), 0)
    return set(re.findall(r"^# TYPE (\S+)", metrics_text(nothing, NOON), re.M))


def test_rules_and_dashboard_ask_for_metrics_that_we_tell() -> None:
    asked = set(re.findall(r"\bbgbatch_\w+", " ".join(rule["expr"] for rule in RULES)))
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    shown = {target["expr"] for panel in dashboard["panels"] for target in panel["targets"]}
    assert asked == metrics()
    assert set(re.findall(r"\bbgbatch_\w+", " ".join(shown))) == metrics()


def test_the_operator_and_any_other_prometheus_ask_where_the_numbers_are(routes: set[str]) -> None:
    asked = yaml.safe_load((MONITORING / "scrape.yaml").read_text())["spec"]
    template = called("Deployment", "portal")["spec"]["template"]
    (portal,), (endpoint,) = template["spec"]["containers"], asked["podMetricsEndpoints"]
    assert asked["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert asked["namespaceSelector"]["matchNames"] == [
        yaml.safe_load((BASE / "kustomization.yaml").read_text())["namespace"]
    ]
    (port,) = (each["containerPort"] for each in portal["ports"] if each["name"] == endpoint["port"])
    told = template["metadata"]["annotations"]
    assert (told["prometheus.io/path"], told["prometheus.io/port"]) == (endpoint["path"], str(port))
    assert endpoint["path"] in routes


def test_without_the_operator_the_same_alerts_ring() -> None:
    plain = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())
    assert plain["groups"] == yaml.safe_load((MONITORING / "rules.yaml").read_text())["spec"]["groups"]


def test_somebody_is_called_when_no_numbers_arrive_at_all() -> None:
    """With the records down there are none: an expression over nothing is never true."""
    (silent,) = (rule for rule in RULES if rule["expr"].startswith("absent("))
    assert silent["labels"]["severity"] == "critical"


def test_every_alert_has_a_section_in_the_runbook() -> None:
    headings = set(re.findall(r"^## (\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.M))
    for rule in RULES:
        assert rule["alert"] in headings
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"


def test_alerts_ring_before_the_intake_stops() -> None:
    expressions = {rule["alert"]: rule["expr"] for rule in RULES}
    (late,) = re.findall(r"> (\d+)$", expressions["CleanupIsLate"])
    assert timedelta(seconds=int(late)) < SILENCE
    (hours,) = re.findall(r"> ([\d.]+) \* 3600$", expressions["DeadlineAtRisk"])
    assert timedelta(hours=float(hours)) < OLDEST
