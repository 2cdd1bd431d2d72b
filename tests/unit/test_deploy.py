"""What is deployed beside the code names metrics that the code exports, and is documented."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import promql_parser
import pytest
import yaml
from prometheus_client import Counter, Histogram

from postroom import Settings
from postroom.celery.commands.dead_letters import dead_letters
from postroom.celery.commands.outbox import outbox
from postroom.telemetry.catalogue import CONSUMER, DATABASE, RELAY, SCRAPED, TOPICS
from postroom.telemetry.exposition import registry_of_all

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
DEPLOY, DOCS = ROOT / "deploy", ROOT / "docs"
CATALOGUE = {**RELAY, **CONSUMER, **SCRAPED, **DATABASE, **TOPICS}
# What Grafana puts in before Prometheus sees it.
VARIABLES = {"$__rate_interval": "5m", "$partition": ".*", "$subscription": ".*"}


def rules() -> list[dict[str, Any]]:
    """Return the alert rules."""
    groups = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def board() -> dict[str, Any]:
    """Return the dashboard."""
    found: dict[str, Any] = json.loads((DEPLOY / "dashboard.json").read_text())
    return found


def expressions() -> Iterator[tuple[str, str]]:
    """Yield every expression with where it stands."""
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for panel in board()["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            yield f"{panel['title']} {target['refId']}", expression


def exported() -> dict[str, set[str]]:
    """Return the samples that the code exports, each with its labels."""
    found: dict[str, set[str]] = {}
    for name, each in CATALOGUE.items():
        labels = set(each.labels)
        if each.kind is Histogram:
            found |= {f"{name}_bucket": {*labels, "le"}}
            found |= {f"{name}_sum": labels, f"{name}_count": labels}
        else:
            found[name] = labels
    return found


def selectors(expression: str) -> list[tuple[str, set[str]]]:
    """Return the metrics that an expression reads, each with the labels that it is chosen by."""
    found: list[tuple[str, set[str]]] = []

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            matchers = node.matchers.matchers if node.matchers else []
            found.append((node.name or "", {each.name for each in matchers}))

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


def grouped(expression: str) -> set[str]:
    """Return the labels that an expression groups or matches by."""
    written = re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)", expression)
    return {label.strip() for each in written for label in each.split(",")} - {""}


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_every_expression_reads_what_is_exported(where: str, expression: str) -> None:
    """It parses, and each metric and label in it is one that the code exports."""
    known, read = exported(), selectors(expression)
    assert read, where
    labels: set[str] = set()
    for name, chosen_by in read:
        assert name in known, name
        assert chosen_by <= known[name], (name, chosen_by)
        labels |= known[name]
    assert grouped(expression) <= labels


def test_the_catalogue_is_what_the_registry_exports() -> None:
    """So that a name which is only described, or only made, is found here."""
    registry = registry_of_all(Settings(mongodb_uri="mongodb://127.0.0.1:1/"))
    made = set(registry._names_to_collectors)
    for name, each in CATALOGUE.items():
        assert name in made, name
        assert name.endswith("_total") is (each.kind is Counter)


def test_every_alert_has_its_section_in_the_runbook() -> None:
    """By its name, with what it means and what to do; and no section speaks of none."""
    text = (DOCS / "runbook.md").read_text()
    section = re.compile(r"^## (Postroom\w+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    sections = dict(section.findall(text))
    assert set(sections) == {rule["alert"] for rule in rules()}
    for name, said in sections.items():
        assert "**Means:**" in said, name
        assert "**Do:**" in said, name
    for rule in rules():
        assert rule["annotations"]["runbook_url"].endswith(f"#{rule['alert'].lower()}")
        assert rule["labels"]["severity"] in {"critical", "warning"}


def test_every_metric_is_documented() -> None:
    """docs/metrics.md names it."""
    text = (DOCS / "metrics.md").read_text()
    short = {f"…_{name}" for name in ("held_bytes", "waiting_jobs")}
    missing = [name for name in CATALOGUE if name not in text]
    assert [name for name in missing if not any(name.endswith(s[1:]) for s in short)] == []


def test_the_dashboard_is_one() -> None:
    """Panels have ids of their own and do not overlap; its variables read what is exported."""
    panels = board()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    for variable in board()["templating"]["list"][1:]:
        match = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"])
        assert match is not None
        assert match[2] in exported()[match[1]]


def test_prometheus_asks_the_services_of_the_compose_file() -> None:
    """Names and ports are those of docker-compose.yml."""
    asked = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    by_name = asked[0]["dns_sd_configs"][0]
    for name in by_name["names"]:
        assert services[name]["environment"]["POSTROOM_METRICS_PORT"] == str(by_name["port"])
        assert services[name]["environment"]["POSTROOM_METRICS_HOST"] == "0.0.0.0"  # noqa: S104 - the container's own
    assert asked[1]["static_configs"][0]["targets"] == ["flower:5555"]


def test_the_runbooks_commands_exist() -> None:
    """Each `celery -A tasks outbox …` and `dead-letters …` that the pages name; no old name."""
    groups: dict[str, click.Command] = {"outbox": outbox, "dead-letters": dead_letters}
    text = "".join(page.read_text() for page in sorted(DOCS.rglob("*.md")))
    named = re.findall(r"celery -A tasks (outbox|dead-letters)((?: [a-z-]+)+)", text)
    assert named
    for group, rest in named:
        command = groups[group]
        for word in rest.split():
            if not isinstance(command, click.Group):
                break
            found = command.get_command(click.Context(command), word)
            assert found is not None, f"{group} {rest}"
            command = found
            assert not command.hidden, f"{group} {rest}: it has another name now"
