"""The manifests: valid under `kubernetes-validate --strict`, and keeping our own rules of safety."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from rlsp_async import pulse, service
from rlsp_async.config import load

FOLDER = Path(__file__).parents[1] / "launch/kubernetes"
FILES = sorted(path for path in FOLDER.rglob("*.yaml") if path.name != "kustomization.yaml")
KUSTOMIZATIONS = sorted(FOLDER.rglob("kustomization.yaml"))
WORKERS = {"sampler", "verifier", "learner"}


def documents(folder: str = "") -> list[dict[str, Any]]:
    files = [file for file in FILES if not folder or file.parent.name == folder]
    return [document for file in files for document in yaml.safe_load_all(file.read_text())]


def fleet() -> dict[str, dict[str, Any]]:
    """Workload of each service, by component."""
    return {
        document["metadata"]["labels"]["app.kubernetes.io/component"]: document
        for document in documents("fleet")
        if document["kind"] in ("Job", "StatefulSet")
    }


def pods() -> list[tuple[str, dict[str, Any]]]:
    return [
        (document["metadata"]["name"], document["spec"]["template"]["spec"])
        for document in documents()
        if "template" in document.get("spec", {})
    ]


def containers() -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{name}/{container['name']}", container)
        for name, pod in pods()
        for container in (*pod.get("initContainers", []), *pod["containers"])
    ]


# --- validity ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_valid_and_nothing_misspelt(path):
    for document in yaml.safe_load_all(path.read_text()):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_a_misspelt_field_would_be_found():
    broken = copy.deepcopy(fleet()["sampler"])
    broken["spec"]["parallel"] = broken["spec"].pop("parallelism")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, kubernetes_validate.latest_version(), strict=True)


def test_every_file_belongs_to_a_kustomization():
    named = set()
    for path in KUSTOMIZATIONS:
        for resource in yaml.safe_load(path.read_text())["resources"]:
            target = (path.parent / resource).resolve()
            assert target.exists(), f"{path}: {resource}"
            named.add(target)
    assert {file.resolve() for file in FILES} <= named


def test_gpu_patches_meet_what_they_change():
    (path,) = [path for path in KUSTOMIZATIONS if path.parent.name == "fleet-gpu"]
    workloads = {(document["kind"], document["metadata"]["name"]): document for document in documents("fleet")}
    for patch in yaml.safe_load(path.read_text())["patches"]:
        for change in yaml.safe_load(patch["patch"]):
            at = workloads[patch["target"]["kind"], patch["target"]["name"]]
            *parents, last = change["path"].strip("/").split("/")
            for step in parents:
                at = at[int(step)] if isinstance(at, list) else at[step]
            assert change["op"] == "add" or last in at


def on_gpus() -> dict[tuple[str, str], dict[str, Any]]:
    """The fleet as fleet-gpu patches it, by kind and name."""
    made = {(each["kind"], each["metadata"]["name"]): copy.deepcopy(each) for each in documents("fleet")}
    for patch in yaml.safe_load((FOLDER / "fleet-gpu/kustomization.yaml").read_text())["patches"]:
        for change in yaml.safe_load(patch["patch"]):
            at: Any = made[patch["target"]["kind"], patch["target"]["name"]]
            *parents, last = (step.replace("~1", "/") for step in change["path"].strip("/").split("/"))
            for step in parents:
                at = at[int(step)] if isinstance(at, list) else at[step]
            if last == "-":
                at.append(change["value"])
            else:
                at[last] = change["value"]
    return made


def test_the_patched_fleet_is_valid_and_a_gpu_pod_has_what_a_gpu_needs():
    made = on_gpus()
    for document in made.values():
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    for role in ("sampler", "learner"):
        pod = made["Job", f"rlsp-{role}"]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
        (shm,) = [volume for volume in pod["volumes"] if volume["name"] == "shm"]
        assert shm["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Gi"}
        assert {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]
        assert pod["tolerations"] and pod["nodeSelector"]
    grace = {r: made["Job", f"rlsp-{r}"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] for r in WORKERS}
    assert grace == {"verifier": 120, "sampler": 180, "learner": 600}, "a checkpoint takes its time"


def test_the_run_of_the_gpu_fleet_is_accepted_and_gives_its_samplers_work(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(on_gpus()["ConfigMap", "rlsp-run"]["data"]["run.toml"])
    cfg = load(file)
    assert (cfg.learner.device, cfg.sampler.engine, cfg.model.dtype) == ("cuda", "vllm", "bfloat16")
    parallel = fleet()["sampler"]["spec"]["parallelism"]
    assert parallel * cfg.sampler.groups_in_flight <= cfg.stages["rlsp"].capacity
    assert cfg.sampler.groups_in_flight * cfg.sampling.rollouts <= cfg.sampler.max_sequences


def test_weights_travel_between_learner_and_samplers_only():
    (channel,) = [document["spec"] for document in documents("fleet-gpu") if document["kind"] == "NetworkPolicy"]
    ((who,),) = [peers["from"] for peers in channel["ingress"]]
    assert channel["podSelector"] == who["podSelector"] == channel["egress"][0]["to"][0]["podSelector"]
    (rule,) = who["podSelector"]["matchExpressions"]
    assert rule["values"] == ["learner", "sampler"]


def test_the_configured_run_is_accepted(tmp_path):
    (config,) = [document for document in documents("fleet") if document["kind"] == "ConfigMap"]
    file = tmp_path / "run.toml"
    file.write_text(config["data"]["run.toml"])
    cfg = load(file)
    assert str(cfg.directory) == "/runs/fleet"
    assert cfg.replay.address == "tcp://rlsp-replay:5555"
    assert cfg.learner.weights_dir == "/weights"
    assert cfg.replay.keys == "/keys"


def test_every_pod_has_the_keys_of_its_own_service_and_no_other():
    for role, workload in fleet().items():
        pod = workload["spec"]["template"]["spec"]
        secrets = [volume for volume in pod["volumes"] if "secret" in volume]
        assert secrets == [{"name": "keys", "secret": {"secretName": f"rlsp-keys-{role}", "defaultMode": 0o440}}]
        (container,) = pod["containers"]
        assert {"name": "keys", "mountPath": "/keys", "readOnly": True} in container["volumeMounts"]
        for other in pod.get("initContainers", []):
            assert "keys" not in {mount["name"] for mount in other["volumeMounts"]}


def test_the_readme_makes_the_secrets_that_the_pods_mount():
    """Each with exactly the files that its service needs (tests/wire/test_keyring.py)."""
    words = (FOLDER / "README.md").read_text()
    assert "rlsp-keys-replay --from-file=keys/hub.secret --from-file=keys/allowed.json" in words
    assert "for role in sampler verifier learner; do" in words
    assert "rlsp-keys-$role --from-file=keys/hub.public --from-file=keys/$role.secret" in words


# --- who runs and where --------------------------------------------------------------------------------------------


def test_one_workload_a_service_and_state_only_where_it_belongs():
    kinds = {role: workload["kind"] for role, workload in fleet().items()}
    assert kinds == {"replay": "StatefulSet", "learner": "Job", "sampler": "Job", "verifier": "Job"}
    (claim,) = fleet()["replay"]["spec"]["volumeClaimTemplates"]
    assert (fleet()["replay"]["spec"]["replicas"], claim["spec"]["accessModes"]) == (1, ["ReadWriteOnce"])
    assert fleet()["learner"]["spec"]["parallelism"] == 1
    modes = {
        document["metadata"]["name"]: document["spec"]["accessModes"]
        for document in documents("fleet")
        if document["kind"] == "PersistentVolumeClaim"
    }
    assert modes["rlsp-learner"] == ["ReadWriteOnce"]
    claims = {volume["persistentVolumeClaim"]["claimName"] for volume in volumes_of("learner") if claims_one(volume)}
    assert "rlsp-learner" in claims


def volumes_of(role: str) -> list[dict[str, Any]]:
    return list(fleet()[role]["spec"]["template"]["spec"]["volumes"])


def claims_one(volume: dict[str, Any]) -> bool:
    return "persistentVolumeClaim" in volume


# --- after the end -------------------------------------------------------------------------------------------------


def test_nothing_is_started_again_after_the_end():
    """A worker ends with 0 when the run is complete, which ends its Job; the hub, which is always started again, stays."""
    for role in WORKERS:
        spec = fleet()[role]["spec"]
        assert "completions" not in spec, "one pod that is done ends the Job: the run is complete for all of them"
        assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert fleet()["replay"]["spec"]["template"]["spec"].get("restartPolicy", "Always") == "Always"
    assert "--stay" in fleet()["replay"]["spec"]["template"]["spec"]["containers"][0]["args"]


def test_a_worker_that_is_sent_away_from_its_node_is_not_done():
    for role in WORKERS:
        spec = fleet()[role]["spec"]
        environment = {entry["name"]: entry.get("value") for entry in container_of(role)["env"]}
        assert environment[service.STOPPED_CODE] == "143"
        rules = [
            (rule["action"], rule["onExitCodes"]["containerName"], rule["onExitCodes"]["values"])
            for rule in spec["podFailurePolicy"]["rules"]
            if "onExitCodes" in rule
        ]
        assert rules == [("FailJob", role, [3]), ("Ignore", role, [143])]


def container_of(role: str) -> dict[str, Any]:
    (container,) = fleet()[role]["spec"]["template"]["spec"]["containers"]
    return dict(container)


def test_the_container_command_is_the_services_name():
    for role, workload in fleet().items():
        container = workload["spec"]["template"]["spec"]["containers"][0]
        assert "command" not in container, "the image's entry point is rlsp"
        assert container["args"][:2] == [role, "/config/run.toml"]
        assert ("$(POD_NAME)" in container["args"]) == (role in WORKERS), "a worker's name is unique in the run"


def test_selectors_find_their_pods():
    for role, workload in fleet().items():
        labels = workload["spec"]["template"]["metadata"]["labels"]
        if workload["kind"] != "Job":  # a Job makes its selector itself
            assert workload["spec"]["selector"]["matchLabels"].items() <= labels.items()
        assert labels.get("rlsp/worker") == ("true" if role in WORKERS else None)


def test_every_mount_has_its_volume():
    claims = {
        name: [claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])]
        for name, workload in ((document["metadata"]["name"], document) for document in fleet().values())
    }
    for name, pod in pods():
        volumes = {volume["name"] for volume in pod["volumes"]} | set(claims.get(name, []))
        for container in (*pod.get("initContainers", []), *pod["containers"]):
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_the_verifier_sees_no_weights_models_or_journal():
    pod = fleet()["verifier"]["spec"]["template"]["spec"]
    assert not [volume for volume in pod["volumes"] if "persistentVolumeClaim" in volume]


# --- safety --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "pod"), pods(), ids=[name for name, _ in pods()])
def test_pod_is_nobody_special(name, pod):
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["terminationGracePeriodSeconds"] >= 60, "a drain takes its time"
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert not [volume for volume in pod["volumes"] if "hostPath" in volume]


@pytest.mark.parametrize(("name", "container"), containers(), ids=[name for name, _ in containers()])
def test_container_may_do_nothing_special(name, container):
    context = container["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert {"cpu", "memory"} <= set(container["resources"]["requests"])
    assert "memory" in container["resources"]["limits"]
    tag = container["image"].partition(":")[2]
    assert tag
    assert "latest" not in tag


def test_services_are_probed():
    for role, workload in fleet().items():
        container = workload["spec"]["template"]["spec"]["containers"][0]
        assert {"readinessProbe", "livenessProbe"} <= set(container), role
    assert "startupProbe" in fleet()["replay"]["spec"]["template"]["spec"]["containers"][0]


def test_liveness_asks_the_loop_and_not_the_connection():
    """The probe judges the file that the service itself writes, on a volume that belongs to the pod."""
    single = [pod["containers"][0] for name, pod in pods() if name == "rlsp-run"]
    for container in (*(container_of(role) for role in fleet()), *single):
        probe = container["livenessProbe"]
        assert probe["exec"]["command"] == ["python", "-m", "rlsp_async.pulse"]
        environment = {entry["name"]: entry.get("value") for entry in container["env"]}
        assert environment[pulse.PULSE] == "/tmp/pulse"
        assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]
        assert probe["timeoutSeconds"] >= 10, "Python starts slowly on a busy node"
        assert probe["terminationGracePeriodSeconds"] <= 30, "what stands still does not drain"


def test_probe_of_workers_looks_for_the_hubs_port():
    """/proc/net/tcp writes ports in hexadecimal, and 01 for an established connection."""
    for role in WORKERS:
        command = fleet()[role]["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["exec"]["command"]
        assert f":{5555:04X} 01 " in command


def policies() -> Iterator[dict[str, Any]]:
    return (document["spec"] for document in documents("fleet") if document["kind"] == "NetworkPolicy")


def test_nobody_talks_to_anybody_by_default():
    for folder in ("fleet", "single"):
        deny = [document["spec"] for document in documents(folder) if document["metadata"]["name"] == "default-deny"]
        assert deny == [{"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}]


def test_workers_reach_the_hub_and_names_only():
    (egress,) = [policy["egress"] for policy in policies() if "egress" in policy]
    hub, names = egress
    assert hub["to"] == [
        {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "rlsp", "app.kubernetes.io/component": "replay"}}}
    ]
    assert hub["ports"] == [{"protocol": "TCP", "port": 5555}]
    assert {port["port"] for port in names["ports"]} == {53}
    assert not [rule for rule in egress for peer in rule["to"] if "ipBlock" in peer]


def test_budgets_leave_single_pods_alone():
    """With one replica, a disruption budget would block every drain of its node."""
    budgets = [
        document["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"]
        for document in documents("fleet")
        if document["kind"] == "PodDisruptionBudget"
    ]
    assert budgets == ["sampler"]
