"""`python -m devstack`: the services alone, the whole demonstration, or Pulsar's jars."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

import click

from devstack.service import DevstackError
from devstack.stack import Stack

FOLDER = Path(__file__).parents[1] / ".devstack"


@click.group()
def main() -> None:
    """Start the services of development."""


real = click.option("--real-pulsar", is_flag=True, help="Apache Pulsar itself.")


@main.command()
@real
@click.option("--pause", default=1.0, show_default=True, help="Seconds between two tasks.")
@click.option(
    "--partitions",
    default=1,
    type=click.IntRange(1, 64),
    show_default=True,
    help="Outbox partitions; more than one need Apache Pulsar itself, and have data of their own.",
)
@click.option("--relays", default=1, type=click.IntRange(1, 8), show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Data and logs.")
def run(
    *, real_pulsar: bool, pause: float, partitions: int, relays: int, folder: Path | None
) -> None:
    """Run the services, the workers, Flower and a publisher until Ctrl-C."""
    from devstack.demo import Demo

    divided = partitions > 1
    if folder is None:
        folder = FOLDER / f"{partitions}-partitions" if divided else FOLDER
    size = {"partitions": partitions, "relays": relays}
    try:
        code = Demo(folder, real_pulsar=real_pulsar or divided, pause_seconds=pause, **size).run()
    except DevstackError as error:
        raise SystemExit(str(error)) from None
    sys.exit(code)


@main.command()
@real
@click.option("--folder", default=FOLDER, type=click.Path(path_type=Path), help="Data and logs.")
def up(*, real_pulsar: bool, folder: Path) -> None:
    """Run the services alone, and say which variables lead to them, until Ctrl-C."""
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    try:
        stack = Stack(folder, real_pulsar=real_pulsar)
        stack.start()
    except DevstackError as error:
        raise SystemExit(str(error)) from None
    for name, value in stack.environment.items():
        click.echo(f"export {name}='{value}'")
    while not stopping.wait(0.5):
        if ended := [service.name for service in stack.services if not service.running]:
            click.echo(f"{', '.join(ended)} ended by itself; see {folder / 'logs'}", err=True)
            break
    stack.stop()


@main.command("pulsar-jars")
def pulsar_jars() -> None:
    """Fetch the jars of Apache Pulsar."""
    from devstack.jars import NEEDED, fetch_jars, has_java

    if not has_java():
        raise SystemExit(f"{NEEDED}; the tests on it are left")
    try:
        click.echo(fetch_jars())
    except DevstackError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
