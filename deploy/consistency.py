"""What schemas cannot see: that the files of this directory agree with each other. `deploy/lint` runs it.

With the path of a token-broker as its argument, that program checks the configurations in them.
"""

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import yaml

# From the top of the repository.
DEPLOY = Path("deploy")
KUBERNETES = DEPLOY / "kubernetes"
# What a broker may need after announce and drain, to close the database.
AFTERMATH_SECONDS = 10
UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
# A tag that names one release, or a local build.
EXACT_TAG = re.compile(r":\d+\.\d+(\.\d+)?(-[\w.]+)?(@sha256:[0-9a-f]{64})?$")

problems: list[str] = []


def expect(condition, message):
    if not condition:
        problems.append(message)


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h)", text).groups()
    return int(number) * UNITS[unit]


def shutdown_seconds(configuration):
    shutdown = configuration["shutdown"]
    return seconds(shutdown["announce"]) + seconds(shutdown["drain"]) + AFTERMATH_SECONDS


def port(configuration, section):
    return int(configuration[section]["listen"].rpartition(":")[2])


def manifests():
    for path in sorted(KUBERNETES.rglob("*.yaml")):
        if path.name != "kustomization.yaml":
            for document in yaml.safe_load_all(path.read_text()):
                yield path, document


def check_kustomizations():
    listed = set()
    for path in KUBERNETES.rglob("kustomization.yaml"):
        for resource in yaml.safe_load(path.read_text())["resources"]:
            listed.add(path.parent / resource)
    # The template of Secrets must never be applied.
    present = {path for path, _ in manifests() if path.name != "secrets.example.yaml"}
    for path in present - listed:
        expect(False, f"{path} is in no kustomization")
    for path in listed - present:
        expect(False, f"{path} is in a kustomization and is not there, or must not be in one")


def selected(selector, labels):
    return selector.items() <= labels.items()


def check_kubernetes(by_kind, configuration):
    deployment, job = by_kind["Deployment"][0], by_kind["Job"][0]
    template = deployment["spec"]["template"]
    labels = template["metadata"]["labels"]
    spread = template["spec"]["topologySpreadConstraints"]
    selectors = [("Deployment", deployment["spec"]["selector"]["matchLabels"])]
    selectors += [("topologySpreadConstraints", rule["labelSelector"]["matchLabels"]) for rule in spread]
    selectors += [(f"Service {s['metadata']['name']}", s["spec"]["selector"]) for s in by_kind["Service"]]
    selectors.append(("PodDisruptionBudget", by_kind["PodDisruptionBudget"][0]["spec"]["selector"]["matchLabels"]))
    job_labels = job["spec"]["template"]["metadata"]["labels"]
    for name, selector in selectors:
        expect(selected(selector, labels), f"{name} does not select the brokers")
        expect(not selected(selector, job_labels), f"{name} selects the migration too")
    policies = [policy["spec"]["podSelector"]["matchLabels"] for policy in by_kind["NetworkPolicy"]]
    for pod in (labels, job_labels):
        expect(sum(selected(policy, pod) for policy in policies) == 1, f"not one NetworkPolicy selects {pod}")
    target = by_kind["HorizontalPodAutoscaler"][0]["spec"]["scaleTargetRef"]["name"]
    expect(target == deployment["metadata"]["name"], "the HorizontalPodAutoscaler scales something else")

    grace = template["spec"]["terminationGracePeriodSeconds"]
    needed = shutdown_seconds(configuration)
    expect(grace >= needed, f"terminationGracePeriodSeconds is {grace}, below the {needed} of [shutdown]")
    container, migration = template["spec"]["containers"][0], job["spec"]["template"]["spec"]["containers"][0]
    for named in container["ports"]:
        listens = port(configuration, named["name"])
        expect(named["containerPort"] == listens, f"port {named['name']} is {listens} in the configuration")
    images = {container["image"], migration["image"]}
    expect(len(images) == 1, f"Deployment and Job have different images: {images}")

    secrets = {s["metadata"]["name"]: set(s["stringData"]) for s in by_kind["Secret"]}
    for secret in by_kind["Secret"]:
        filled = [key for key, value in secret["stringData"].items() if value != "REPLACE"]
        expect(not filled, f"secrets.example.yaml has a value: {secret['metadata']['name']} {filled}")
    for pod in (template["spec"], job["spec"]["template"]["spec"]):
        for volume in pod["volumes"]:
            name = volume.get("secret", {}).get("secretName")
            expect(name is None or name in secrets, f"secrets.example.yaml has no {name}")
        for variable in pod["containers"][0]["env"]:
            if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                known = reference["key"] in secrets.get(reference["name"], set())
                expect(known, f"secrets.example.yaml has no {reference['name']}/{reference['key']}")


def check_compose(configuration):
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    needed = shutdown_seconds(configuration)
    for name, service in compose["services"].items():
        expect(EXACT_TAG.search(service["image"]), f"compose: the image of {name} is not pinned: {service['image']}")
        for published in service.get("ports", []):
            expect(published.startswith("127.0.0.1:"), f"compose: {name} publishes {published} to other machines")
        expect("internal" in service["networks"], f"compose: {name} is not on the internal network")
        if name.startswith("broker-"):
            grace = seconds(service["stop_grace_period"])
            expect(grace >= needed, f"compose: {name} has {grace} s to stop, below the {needed} of [shutdown]")
    expect(compose["networks"]["internal"]["internal"], "compose: the internal network is not internal")
    for name, config in compose["configs"].items():
        expect((DEPLOY / config["file"]).is_file(), f"compose: the file of {name} is not there")


def check_systemd():
    unit = (DEPLOY / "systemd/token-broker.service").read_text()
    limit = seconds(re.search(r"^TimeoutStopSec=(\S+)$", unit, re.MULTILINE)[1])
    defaults = tomllib.loads((DEPLOY.parent / "src/config/default.toml").read_text())
    needed = shutdown_seconds(defaults)
    expect(limit >= needed, f"TimeoutStopSec is {limit}, below the {needed} of [shutdown]'s defaults")


def check_with(binary, name, text):
    """Has the program read a configuration, with files of its own in place of the mounted ones."""
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        (scratch / "token-broker.toml").write_text(text)
        (scratch / "key").write_text("5a" * 32)
        environment = {
            "PATH": os.environ["PATH"],
            "BROKER_STORAGE_PASSWORD": "none",
            "BROKER_REDIS_PASSWORD": "none",
            "TOKEN_BROKER_VAULT__KEYS__PRIMARY__FILE": str(scratch / "key"),
        }
        settings = tomllib.loads(text)
        if "base_url" not in settings["public"]:
            environment["TOKEN_BROKER_PUBLIC__BASE_URL"] = "http://127.0.0.1:8080"
        if "tls_key_file" in settings["grpc"]:
            certificate, key = str(scratch / "tls.crt"), str(scratch / "tls.key")
            make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
            make += ["-subj", "/CN=broker", "-keyout", key, "-out", certificate]
            subprocess.run(make, check=True, capture_output=True)
            environment["TOKEN_BROKER_GRPC__TLS_CERTIFICATE_FILE"] = certificate
            environment["TOKEN_BROKER_GRPC__TLS_KEY_FILE"] = key
        command = [binary, "config", "check", "--config", str(scratch / "token-broker.toml")]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        said = (result.stdout + result.stderr).replace(str(scratch / "token-broker.toml"), name)
        expect(result.returncode == 0, f"{name}: {binary} says\n{said}")


def main():
    by_kind = {}
    for _, document in manifests():
        by_kind.setdefault(document["kind"], []).append(document)
    texts = {
        "deploy/kubernetes/configmap.yaml": by_kind["ConfigMap"][0]["data"]["token-broker.toml"],
        "deploy/compose/token-broker.toml": (DEPLOY / "compose/token-broker.toml").read_text(),
    }
    for_kubernetes, for_compose = (tomllib.loads(text) for text in texts.values())
    check_kustomizations()
    check_kubernetes(by_kind, for_kubernetes)
    check_compose(for_compose)
    check_systemd()
    for binary in sys.argv[1:]:
        for name, text in texts.items():
            check_with(str(Path(binary).resolve()), name, text)
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(1 if problems else 0)


main()
