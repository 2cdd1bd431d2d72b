"""The compose files say what the settings, the README and the image understand."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from postroom import Settings

ROOT = Path(__file__).parents[2]
COMMANDS = {
    "relay": "celery -A tasks worker -Q relay --loglevel=INFO",
    "consumer": "celery -A tasks worker -Q consumer --loglevel=INFO",
    "worker": "celery -A tasks worker --loglevel=INFO",
    "flower": "celery -A tasks flower",
}


PLAIN, SECURE = "docker-compose.yml", "docker-compose.secure.yml"
ENCRYPTED = {"POSTROOM_PULSAR_URL": "pulsar+ssl://", "POSTROOM_PULSAR_ADMIN_URL": "https://"}


def services_of(file: str) -> dict[str, Any]:
    """Return the services of a file."""
    text = (ROOT / file).read_text()
    found: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{\w+:-(.*?)\}", r"\1", text))["services"]
    return found


@pytest.fixture(scope="module", params=[PLAIN, SECURE])
def services(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the services of each file."""
    return services_of(request.param)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that deploy/compose/make_secrets.py has filled."""
    folder = tmp_path_factory.mktemp("compose") / "secrets"
    script = ROOT / "deploy" / "compose" / "make_secrets.py"
    subprocess.run([sys.executable, str(script), str(folder)], check=True, capture_output=True)
    return folder


def test_the_commands_are_the_readmes(services: dict[str, Any]) -> None:
    """Each of the application's services runs its literal command."""
    assert {name: " ".join(services[name]["command"]) for name in COMMANDS} == COMMANDS
    assert int(services["relay"]["deploy"]["replicas"]) == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_the_variables_are_settings(
    services: dict[str, Any],
    name: str,
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every POSTROOM_ variable exists, has a valid value, and leads to a service of the file."""
    given = {k: v for k, v in services[name]["environment"].items() if k.startswith("POSTROOM_")}
    known = {f"POSTROOM_{field.upper()}" for field in Settings.model_fields}
    for file in made.iterdir():
        (tmp_path / file.name).write_text(file.read_text().replace("/run/secrets", str(tmp_path)))
    for variable, value in given.items():
        assert {variable, variable.removesuffix("_FILE")} & known
        monkeypatch.setenv(variable, value.replace("/run/secrets", str(tmp_path)))
    found = Settings()
    assert re.search("[/@]mongodb:", found.mongodb_uri)
    assert "//pulsar:" in found.pulsar_url
    assert re.search("[/@]redis:", found.redis_url)


def test_every_service_is_healthy_bounded_and_not_root(services: dict[str, Any]) -> None:
    """Health checks everywhere; the application waits for its services; nobody is root."""
    for name, service in services.items():
        assert service["healthcheck"]["test"], name
        assert service["restart"] == "unless-stopped"
        if name in COMMANDS:
            conditions = {d["condition"] for d in service["depends_on"].values()}
            assert conditions == {"service_healthy"}
        else:
            assert service["user"] not in {"root", "0"}
    assert "\nUSER 10001:10001\n" in (ROOT / "Dockerfile").read_text()


def test_no_probe_goes_through_redis(services: dict[str, Any]) -> None:
    """Workers are asked at their own port, since a Redis that is away must not have them killed."""
    port = services["relay"]["environment"]["POSTROOM_METRICS_PORT"]
    for name in ("relay", "consumer", "worker"):
        probe = " ".join(services[name]["healthcheck"]["test"])
        assert f":{port}/livez" in probe
        assert "inspect" not in probe


def test_flower_has_a_password_and_no_open_port(services: dict[str, Any]) -> None:
    """The password has no default, and the port is published on the loopback address alone."""
    environment = services["flower"]["environment"]
    assert ":?" in environment.get("POSTROOM_FLOWER_PASSWORD", "") or environment.get(
        "POSTROOM_FLOWER_PASSWORD_FILE"
    )
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:5555:5555"]


def test_pulsar_can_do_what_exactly_once_needs(services: dict[str, Any]) -> None:
    """Real Pulsar 4.2 with deduplication and retention on."""
    assert services["pulsar"]["image"].startswith("apachepulsar/pulsar:4.2")
    assert services["pulsar"]["environment"]["brokerDeduplicationEnabled"] == "true"
    assert int(services["pulsar"]["environment"]["defaultRetentionTimeInMinutes"]) >= 60


def test_the_image_has_what_the_commands_need() -> None:
    """What is copied is what is not ignored."""
    copied = {
        line.split()[1].rstrip("/")
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
    }
    assert not [line for line in (ROOT / "Dockerfile").read_text().splitlines() if "apt" in line]
    kept = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert copied == kept


def test_nothing_is_in_clear() -> None:
    """The secured services are reached encrypted alone, and secrets are files."""
    services = services_of(SECURE)
    for name, service in services.items():
        assert "services" in service["networks"]
        assert "no-new-privileges:true" in service["security_opt"]
        for variable, value in service["environment"].items() if name in COMMANDS else ():
            assert str(value).startswith(ENCRYPTED.get(variable, ""))
            assert not variable.endswith(("_PASSWORD", "_TOKEN", "_URI"))
        if name in COMMANDS:
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]
    pulsar = services["pulsar"]["environment"]
    assert pulsar["brokerServicePort"] == pulsar["webServicePort"] == ""
    assert pulsar["authenticationEnabled"] == pulsar["authorizationEnabled"] == "true"
    assert "--tlsMode requireTLS" in services["mongodb"]["command"][-1]
    redis = services["redis"]["command"]
    assert redis[redis.index("--port") + 1] == "0"
    assert services["flower"]["environment"]["FLOWER_CERTFILE"]


def test_every_secret_is_made(made: Path) -> None:
    """What a service mounts is declared, what is declared is made, and what is made is kept."""
    file = yaml.safe_load((ROOT / SECURE).read_text())
    mounted = {name for service in file["services"].values() for name in service["secrets"]}
    assert mounted == file["secrets"].keys()
    for name, secret in file["secrets"].items():
        assert secret == {"file": f"deploy/compose/secrets/{name}"}
        assert (made / name).read_text()
    named = {
        word
        for service in file["services"].values()
        for word in re.findall(r"/run/secrets/([\w.-]+)", yaml.safe_dump(service, width=9999))
    }
    assert named <= mounted
    before = {path: path.read_text() for path in made.iterdir() if path.suffix != ".srl"}
    script = ROOT / "deploy" / "compose" / "make_secrets.py"
    subprocess.run([sys.executable, str(script), str(made)], check=True, capture_output=True)
    assert before == {path: path.read_text() for path in before}


@pytest.mark.parametrize("name", ["mongodb", "pulsar", "redis", "flower"])
def test_every_certificate_is_for_its_host(made: Path, name: str) -> None:
    """Signed by the one authority, for the host's name, as strictly as Python 3.13 looks."""
    command = ["openssl", "verify", "-x509_strict", "-CAfile", str(made / "ca.pem")]
    command += ["-verify_hostname", name, str(made / f"{name}-cert.pem")]
    subprocess.run(command, check=True, capture_output=True)


def test_the_token_is_the_brokers(made: Path) -> None:
    """Signed by the key that the broker is given, for the role that it lets in."""
    head, body, signature = (made / "pulsar-token").read_text().split(".")
    key = (made / "pulsar-token-key").read_bytes()
    expected = hmac.new(key, f"{head}.{body}".encode(), hashlib.sha256).digest()
    assert base64.urlsafe_b64decode(signature + "==") == expected
    role = json.loads(base64.urlsafe_b64decode(body + "=="))["sub"]
    assert services_of(SECURE)["pulsar"]["environment"]["superUserRoles"] == role


@pytest.mark.parametrize("file", [PLAIN, SECURE])
def test_docker_compose_understands_it(file: str) -> None:
    """`docker compose config` accepts the file, where the plugin is."""
    docker = shutil.which("docker")
    plugin = docker and subprocess.run(
        [docker, "compose", "version"], capture_output=True, check=False
    )
    if not docker or not plugin or plugin.returncode:
        pytest.skip("the docker compose plugin is not here")
    checked = subprocess.run(
        [docker, "compose", "-f", file, "config", "--quiet"],
        cwd=ROOT,
        env={**os.environ, "FLOWER_PASSWORD": "x"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
