"""The manifests against Kubernetes' own schemas, and against what we ask of ourselves."""

from __future__ import annotations

import re
import shutil
import subprocess

import kubernetes_validate
import pytest
import yaml

from lake.merging import LARGEST_BYTES
from store.settings import Settings
from tests.deploy.files import BASE, COMPOSE, DEPLOY, called, containers, manifests, pods

OURS = {each["name"] for each in yaml.safe_load((BASE / "kustomization.yaml").read_text())["images"]}
OWN_KINDS = {"RayCluster", "PrometheusRule"}  # of operators: their pods are checked as pods below


@pytest.mark.parametrize("manifest", manifests(), ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_each_manifest_is_as_kubernetes_describes_it(manifest: dict) -> None:
    if manifest["kind"] not in OWN_KINDS:
        kubernetes_validate.validate(manifest, "1.37", strict=True)


@pytest.mark.parametrize(("name", "template"), pods(), ids=[name for name, _ in pods()])
def test_each_pod_is_as_kubernetes_describes_it(name: str, template: dict) -> None:
    metadata = template["metadata"] | {"name": "x"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    kubernetes_validate.validate(pod, "1.37", strict=True)


def test_every_file_is_named_in_the_kustomization() -> None:
    named = set(yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"])
    assert named == {path.name for path in BASE.glob("*.yaml")} - {"kustomization.yaml"}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kustomize comes with kubectl")
def test_what_kustomize_makes_cuts_on_gpus_with_the_image_for_gpus() -> None:
    made = subprocess.run(["kubectl", "kustomize", BASE], capture_output=True, check=True).stdout
    (cluster,) = (each for each in yaml.safe_load_all(made) if each["kind"] == "RayCluster")
    groups = {each["groupName"]: each["template"]["spec"] for each in cluster["spec"]["workerGroupSpecs"]}
    images = {name: {each["image"] for each in spec["containers"]} for name, spec in groups.items()}
    assert images == {"gpu": {"bgbatch-cuda:0.1.0"}, "cpu": {"bgbatch:0.1.0"}}


def test_every_image_of_ours_gets_its_version_in_the_kustomization() -> None:
    assert {each["image"] for _, each, _ in containers() if "bgbatch" in each["image"]} == OURS


@pytest.mark.parametrize(("name", "container", "is_first"), containers(), ids=[name for name, *_ in containers()])
def test_every_container_has_limits_probes_a_pinned_image_and_few_rights(
    name: str, container: dict, is_first: bool
) -> None:
    image = container["image"]
    assert image in OURS or re.fullmatch(r"[a-z./-]+:\d[\w.-]*", image), "an image without a version"
    assert {"cpu", "memory"} <= set(container["resources"]["limits"])
    assert {"cpu", "memory"} <= set(container["resources"]["requests"])
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    if name != "StatefulSet/postgres/postgres":
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
    has_no_port = name.startswith("Deployment/dispatcher/") and container["name"] in ("work", "nights", "upkeep")
    assert is_first or has_no_port or {"readinessProbe", "livenessProbe"} <= set(container)


@pytest.mark.parametrize(("name", "template"), pods(), ids=[name for name, _ in pods()])
def test_no_pod_runs_as_root_or_holds_a_key_to_kubernetes(name: str, template: dict) -> None:
    spec = template["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not spec.get("hostNetwork")
    assert not spec.get("hostPID")
    if name != "RayCluster/bgbatch/head":  # the operator gives the head an account with which it asks for workers
        assert spec["automountServiceAccountToken"] is False


def test_secrets_come_by_reference_and_each_is_explained() -> None:
    explained = set(re.findall(r"^\| `([a-z-]+)` \|", (BASE / "secrets.md").read_text(), re.M))
    used = set()
    for _, template in pods():
        used |= {each["secret"]["secretName"] for each in template["spec"].get("volumes", []) if "secret" in each}
    for name, container, _ in containers():
        used |= {each["secretRef"]["name"] for each in container.get("envFrom", []) if "secretRef" in each}
        for variable in container.get("env", []):
            if "secretKeyRef" in variable.get("valueFrom", {}):
                used.add(variable["valueFrom"]["secretKeyRef"]["name"])
            else:
                assert not re.search(r"SECRET|PASSWORD|TOKEN|AUTH_STRING|RECORDS_URL", variable["name"]), name
    assert used == explained
    assert not [each for each in manifests() if each["kind"] == "Secret"]


def test_the_lakes_files_are_merged_where_there_is_memory_for_it() -> None:
    """By `upkeep`, whose clock nobody has to set up. A merge holds its rows, these sorted, and the file of them."""
    (upkeep,) = (each for _, each, _ in containers() if each["name"] == "upkeep")
    beside = COMPOSE["services"]["upkeep"]
    assert upkeep["args"] == beside["command"] == ["upkeep"]
    limits = upkeep["resources"]["limits"]["memory"], beside["deploy"]["resources"]["limits"]["memory"]
    assert all(int(each[0]) * 2**30 > 6 * LARGEST_BYTES for each in limits)


def test_who_sweeps_dead_sessions_of_ray_sees_the_processes_of_those_that_live() -> None:
    spec = called("Deployment", "dispatcher")["spec"]["template"]["spec"]
    places = {
        each["name"]: mount["name"]
        for each in spec["containers"]
        for mount in each["volumeMounts"]
        if mount["mountPath"] == "/tmp"  # where ray_folder() is
    }
    assert places["upkeep"] == places["ray-node"]
    assert spec["shareProcessNamespace"] is True
    upkeep = COMPOSE["services"]["upkeep"]
    assert upkeep["pid"] == "service:ray"
    assert set(upkeep["volumes"]) <= set(COMPOSE["services"]["ray"]["volumes"])


def ray_variables(container: dict) -> set[str]:
    """What it knows of Ray's security: by name in `env`, or all of the ConfigMap."""
    if {"configMapRef": {"name": "ray-security"}} in container.get("envFrom", []):
        return set(called("ConfigMap", "ray-security")["data"])
    return {name for name, value in variables(container).items() if "ray-security" in str(value)}


def test_ray_asks_for_a_token_and_speaks_tls_everywhere() -> None:
    security = called("ConfigMap", "ray-security")["data"]
    assert (security["RAY_AUTH_MODE"], security["RAY_USE_TLS"]) == ("token", "1")
    joined = [(name, each) for name, each, _ in containers() if each["name"] in ("ray", "ray-node", "work")]
    assert len(joined) == 5
    for _, container in [*joined, ("autoscaler", called("RayCluster", "bgbatch")["spec"]["autoscalerOptions"])]:
        assert ray_variables(container) == set(security)
        assert "ray-tls" in {mount["name"] for mount in container["volumeMounts"]}


def test_the_operators_own_containers_know_rays_security_from_what_it_copies() -> None:
    """For the one that waits for the head it copies `env` and mounts, no `envFrom`; into the autoscaler nothing."""
    cluster = called("RayCluster", "bgbatch")["spec"]
    (head,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    workers = [group["template"]["spec"]["containers"][0] for group in cluster["workerGroupSpecs"]]
    for container in (cluster["autoscalerOptions"], head, *workers):
        names = set(variables(container))
        assert names == set(called("ConfigMap", "ray-security")["data"]) | {"RAY_AUTH_TOKEN"}
    mounted = {each["name"]: each["mountPath"] for each in cluster["autoscalerOptions"]["volumeMounts"]}
    assert mounted.items() <= {each["name"]: each["mountPath"] for each in head["volumeMounts"]}.items()


def test_each_pod_of_ray_makes_a_certificate_for_its_own_address_before_it_begins() -> None:
    of_ray = [(name, template["spec"]) for name, template in pods() if "ray-tls" in str(template)]
    assert len(of_ray) == 4
    for name, spec in of_ray:
        first = spec["initContainers"][0]
        assert variables(first)["POD_IP"] == {"fieldRef": {"fieldPath": "status.podIP"}}
        assert ("HEAD" in variables(first)) is (name == "RayCluster/bgbatch/head")
        (own,) = (each for each in spec["volumes"] if each["name"] == "ray-tls")
        assert own["emptyDir"]["medium"] == "Memory"
        holders = {each["name"] for each in spec["containers"] if "ray-authority" in str(each["volumeMounts"])}
        assert holders == set(), "one that holds the authority's key can be anybody"


def test_nobody_who_names_the_portal_starts_before_it_is_said_where_people_reach_it() -> None:
    """By itself it is this machine: letters would lead there, cookies be sent without TLS, and forms be refused."""
    settings = called("ConfigMap", "settings")["data"]
    assert "BGBATCH_PORTAL_URL" not in settings
    wanted = {"configMapKeyRef": {"name": "settings", "key": "BGBATCH_PORTAL_URL"}}
    asking = {name for name, each, _ in containers() if "BGBATCH_PORTAL_URL" in variables(each)}
    drivers = {f"Deployment/dispatcher/{each}" for each in ("work", "nights", "upkeep")}
    assert asking == drivers | {"Deployment/portal/portal"}
    assert all(variables(each)["BGBATCH_PORTAL_URL"] == wanted for name, each, _ in containers() if name in asking)


def variables(container: dict) -> dict[str, object]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container.get("env", [])}


def test_the_portal_knows_neither_ray_nor_prefect() -> None:
    (container,) = called("Deployment", "portal")["spec"]["template"]["spec"]["containers"]
    assert "--portal-only" in container["args"]
    assert {"configMapRef": {"name": "ray-security"}} not in container["envFrom"]
    assert {each["name"] for each in container["env"]} == {"BGBATCH_PORTAL_URL", "FORWARDED_ALLOW_IPS"}
    (row,) = (line for line in (BASE / "secrets.md").read_text().splitlines() if line.startswith("| `portal`"))
    assert "RAY" not in row
    assert "PREFECT" not in row


def test_workers_hold_no_password_for_the_records_and_none_for_prefect() -> None:
    for name, container, _ in containers():
        if name.startswith("RayCluster"):
            secrets = [each["secretRef"]["name"] for each in container.get("envFrom", []) if "secretRef" in each]
            assert secrets == ([] if container["name"] == "certificate" else ["worker"])
    (row,) = (line for line in (BASE / "secrets.md").read_text().splitlines() if line.startswith("| `worker`"))
    assert "RECORDS" not in row
    assert "PREFECT" not in row


def test_the_cleanup_comes_before_others_by_a_class_of_our_own() -> None:
    """Pods of `system-cluster-critical` are refused outside kube-system where a quota guards that class, as on GKE."""
    classes = {each["metadata"]["name"]: each["value"] for each in manifests() if each["kind"] == "PriorityClass"}
    asked = {name: template["spec"].get("priorityClassName", "") for name, template in pods()}
    assert {name for name, each in asked.items() if each} == {"Deployment/cleanup"}
    assert classes[asked["Deployment/cleanup"]] > 0


def test_the_cleanup_needs_neither_ray_nor_prefects_server_nor_the_portal() -> None:
    (container,) = called("Deployment", "cleanup")["spec"]["template"]["spec"]["containers"]
    variables = {each["name"] for each in container.get("env", [])} | set(called("ConfigMap", "settings")["data"])
    assert not {"PREFECT_API_URL", "BGBATCH_RAY_ADDRESS"} & variables
    assert [each for each in container["envFrom"] if "secretRef" in each] == [{"secretRef": {"name": "cleanup"}}]
    assert called("PodDisruptionBudget", "cleanup")["spec"]["minAvailable"] >= 1


def test_what_is_not_allowed_is_forbidden_and_every_pod_has_a_policy() -> None:
    policies = [each for each in manifests() if each["kind"] == "NetworkPolicy"]
    (nobody,) = (each["spec"] for each in policies if each["metadata"]["name"] == "nobody")
    assert nobody == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    apps = {template["metadata"]["labels"]["app"] for _, template in pods()}
    assert apps <= {each["spec"]["podSelector"].get("matchLabels", {}).get("app") for each in policies}
    (cleanup,) = (each["spec"] for each in policies if each["metadata"]["name"] == "cleanup")
    assert "ingress" not in cleanup


def test_budgets_select_pods_that_there_are() -> None:
    labels = [template["metadata"]["labels"] for _, template in pods()]
    for budget in (each for each in manifests() if each["kind"] == "PodDisruptionBudget"):
        wanted = budget["spec"]["selector"]["matchLabels"]
        assert any(wanted.items() <= each.items() for each in labels), budget["metadata"]["name"]


def test_a_budget_for_pods_of_a_raycluster_names_a_number_that_stays() -> None:
    """It has no `scale` to tell of how many they are a part; for any other budget Kubernetes then lets none go."""
    rays = [template["metadata"]["labels"] for name, template in pods() if name.startswith("RayCluster")]
    for budget in (each["spec"] for each in manifests() if each["kind"] == "PodDisruptionBudget"):
        if any(budget["selector"]["matchLabels"].items() <= each.items() for each in rays):
            assert isinstance(budget.get("minAvailable"), int)


def test_the_portal_is_out_of_service_before_it_ends() -> None:
    """What the ingress still sends to a portal that takes no more connections would be lost."""
    spec = called("Deployment", "portal")["spec"]["template"]["spec"]
    (portal,) = spec["containers"]
    sleep, seconds = portal["lifecycle"]["preStop"]["exec"]["command"]
    assert sleep == "sleep"
    assert 3 <= int(seconds) < spec["terminationGracePeriodSeconds"] / 2


def test_rays_object_store_fits_into_shared_memory_everywhere() -> None:
    """One that is larger lies in files under /tmp/ray, with a warning."""
    cluster, (ray,) = called("RayCluster", "bgbatch")["spec"], [COMPOSE["services"]["ray"]]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    dispatcher = called("Deployment", "dispatcher")["spec"]["template"]["spec"]
    (node,) = (each for each in dispatcher["containers"] if each["name"] == "ray-node")
    asked = [group["rayStartParams"]["object-store-memory"] for group in groups]
    asked += re.findall(r"--object-store-memory=(\d+)", " ".join([*node["command"], *ray["command"]]))
    assert len(asked) == len(groups) + 2
    shared = [each["template"]["spec"]["volumes"] for each in groups] + [dispatcher["volumes"]]
    sizes = {each["emptyDir"]["sizeLimit"] for volumes in shared for each in volumes if each["name"] == "shm"}
    assert (sizes, ray["shm_size"]) == ({"512Mi"}, "512m")
    assert all(int(each) < 512 * 2**20 for each in asked)


def test_every_variable_of_ours_is_a_setting() -> None:
    files = [*DEPLOY.rglob("*.yaml"), *DEPLOY.rglob("*.md"), DEPLOY / "Dockerfile"]
    known = {f"BGBATCH_{name.upper()}" for name in Settings.model_fields} | {"BGBATCH_IMAGE", "BGBATCH_CUDA_IMAGE"}
    for path in files:
        assert set(re.findall(r"\bBGBATCH_[A-Z_0-9]+[A-Z0-9]\b", path.read_text())) <= known, path.name
