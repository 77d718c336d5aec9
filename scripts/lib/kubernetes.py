"""What no schema says of the manifests: do names, ports, probes and selectors fit each other, and does Rillway accept
the configurations in them?

    kubernetes.py FOLDER [BINARY]
"""

import pathlib
import subprocess
import sys
import tempfile

import yaml

folder, binary = pathlib.Path(sys.argv[1]), (sys.argv[2:] or [None])[0]
problems = []


def expect(condition, problem):
    if not condition:
        problems.append(problem)


def check(name, documents):
    kinds = {}
    for document in documents:
        kinds.setdefault(document["kind"], []).append(document)
    names = {kind: {d["metadata"]["name"] for d in all_} for kind, all_ in kinds.items()}
    for workload in kinds.get("Deployment", []) + kinds.get("StatefulSet", []):
        spec = workload["spec"]
        pod, labels = spec["template"]["spec"], spec["template"]["metadata"]["labels"]
        (container,) = pod["containers"]
        selectors = [spec["selector"]["matchLabels"]]
        selectors += [s["spec"]["selector"] for s in kinds["Service"]]
        selectors += [b["spec"]["selector"]["matchLabels"] for b in kinds.get("PodDisruptionBudget", [])]
        for selector in selectors:
            expect(selector.items() <= labels.items(), f"{name}: {selector} selects no pod with {labels}")
        ports = {port["name"] for port in container["ports"]}
        for service in kinds["Service"]:
            expect(service["spec"].get("publishNotReadyAddresses"), f"{name}: a pod that is not ready is not scraped")
            for port in service["spec"]["ports"]:
                expect(port["targetPort"] in ports, f"{name}: no port {port['targetPort']}")
        paths = {}
        for probe in ("livenessProbe", "startupProbe", "readinessProbe"):
            get = container[probe]["httpGet"]
            paths[probe] = get["path"]
            expect(get["port"] in ports, f"{name}: {probe} asks no port of the container")
        expect(paths["livenessProbe"] == "/livez", f"{name}: a restart does not help if a consumer is not ready")
        expect("exclude=halted" in paths["readinessProbe"], f"{name}: a halted consumer stops every update")
        volumes = {v["name"]: v for v in pod["volumes"]}
        volumes |= {v["metadata"]["name"]: v for v in spec.get("volumeClaimTemplates", [])}
        for mount in container["volumeMounts"]:
            expect(mount["name"] in volumes, f"{name}: no volume {mount['name']}")
        expect(volumes["config"]["configMap"]["name"] in names["ConfigMap"], f"{name}: no such ConfigMap")
        expect(volumes["secrets"]["secret"]["secretName"] in names["Secret"], f"{name}: no such Secret")
        security = {**pod["securityContext"], **container["securityContext"]}
        for key, value in {
            "runAsNonRoot": True,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
        }.items():
            expect(security.get(key) is value, f"{name}: {key} is not {value}")
        expect(pod["terminationGracePeriodSeconds"] > 10, f"{name}: killed before shutdown_grace is over")
    secrets = {key for secret in kinds.get("Secret", []) for key in secret["stringData"]}
    for config in kinds.get("ConfigMap", []):
        text = config["data"]["rillway.toml"]
        if binary:
            accept(name, text, secrets)


def accept(name, text, secrets):
    """`rillway check` on the configuration, with the secrets where the pod has them."""
    with tempfile.TemporaryDirectory() as home:
        home = pathlib.Path(home)
        for key in secrets:
            value = "postgres://rillway@postgres/shop" if key.endswith("_url") else "secret"
            (home / key).write_text(value)
        (home / "rillway.toml").write_text(text.replace("/etc/rillway-secrets", str(home)))
        checked = subprocess.run(
            [binary, "check", "-c", home / "rillway.toml"], capture_output=True, text=True, check=False
        )
        expect(checked.returncode == 0, f"{name}: {checked.stderr}")


checked = 0
for path in sorted(folder.glob("*.yaml")):
    documents = [d for d in yaml.safe_load_all(path.read_text()) if d]
    if any(d["kind"] in ("Deployment", "StatefulSet") for d in documents):
        check(path.name, documents)
        checked += 1
expect(checked >= 2, f"{checked} manifests in {folder}")
sys.exit("\n".join(problems) or 0)
