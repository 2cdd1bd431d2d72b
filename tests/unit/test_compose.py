"""docker-compose.yml says what the settings, the README and the image understand."""

from __future__ import annotations

import os
import shutil
import subprocess
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


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """Return the services of the file."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return found


def test_the_commands_are_the_readmes(services: dict[str, Any]) -> None:
    """Each of the application's services runs its literal command."""
    assert {name: " ".join(services[name]["command"]) for name in COMMANDS} == COMMANDS
    assert services["relay"]["deploy"]["replicas"] == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_the_variables_are_settings(
    services: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every POSTROOM_ variable exists, has a valid value, and leads to a service of the file."""
    given = {k: v for k, v in services[name]["environment"].items() if k.startswith("POSTROOM_")}
    known = {f"POSTROOM_{field.upper()}" for field in Settings.model_fields}
    assert given.keys() <= known
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    found = Settings()
    assert "//mongodb:" in found.mongodb_uri
    assert "//pulsar:" in found.pulsar_url
    assert "//redis:" in found.redis_url


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
    assert "\nUSER postroom\n" in (ROOT / "Dockerfile").read_text()


def test_no_probe_goes_through_redis(services: dict[str, Any]) -> None:
    """Workers are asked at their own port, since a Redis that is away must not have them killed."""
    port = services["relay"]["environment"]["POSTROOM_METRICS_PORT"]
    for name in ("relay", "consumer", "worker"):
        probe = " ".join(services[name]["healthcheck"]["test"])
        assert f":{port}/livez" in probe
        assert "inspect" not in probe


def test_flower_has_a_password_and_no_open_port(services: dict[str, Any]) -> None:
    """The password has no default, and the port is published on the loopback address alone."""
    assert ":?" in services["flower"]["environment"]["POSTROOM_FLOWER_PASSWORD"]
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
    kept = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert copied == kept


def test_docker_compose_understands_it() -> None:
    """`docker compose config` accepts the file, where the plugin is."""
    docker = shutil.which("docker")
    plugin = docker and subprocess.run(
        [docker, "compose", "version"], capture_output=True, check=False
    )
    if not docker or not plugin or plugin.returncode:
        pytest.skip("the docker compose plugin is not here")
    checked = subprocess.run(
        [docker, "compose", "config", "--quiet"],
        cwd=ROOT,
        env={**os.environ, "FLOWER_PASSWORD": "x"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
