"""`make chaos` and `make chaos-consumer`: real Pulsar, MongoDB and Valkey, killed at random."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import click

from devstack.stack import Stack
from tests.chaos.consumer_chaos import ConsumerChaos
from tests.chaos.relay_chaos import RelayChaos

KINDS = {"relay": RelayChaos, "consumer": ConsumerChaos}
# So that neither Redis' outages nor a slow start of a worker take much of the time.
QUICK = {"POSTROOM_MUTEX_RETRY_SECONDS": "0.3"}


@click.command()
@click.argument("kind", type=click.Choice(list(KINDS)))
@click.option("--seconds", default=300.0, show_default=True)
@click.option("--seed", type=int, help="Repeats the choices of an earlier run.")
@click.option("--keep-services", is_flag=True, help="Leave the broker and MongoDB alone.")
def main(kind: str, *, seconds: float, seed: int | None, keep_services: bool) -> None:
    """Run one chaos run, and end with 1 unless nothing was lost, doubled or out of order."""
    seed = int(time.time()) if seed is None else seed
    folder = Path(tempfile.mkdtemp(prefix="postroom-chaos-"))
    click.echo(f"seed {seed}, logs in {folder}")
    stack = Stack(folder, real_pulsar=True, given={}, usual_ports=False)
    stack.start()
    name = f"chaos{seed}"
    environment = {
        **stack.environment,
        **QUICK,
        "POSTROOM_MONGODB_DATABASE": name,
        "POSTROOM_TOPIC": f"public/default/{name}",
        "POSTROOM_MUTEX_TOPIC": f"public/default/{name}-mutex",
    }
    services = {} if keep_services else {s.name: s for s in stack.services}
    try:
        verdict = KINDS[kind](
            environment=environment, seconds=seconds, seed=seed, logs=folder, services=services
        ).run()
    finally:
        stack.stop()
    click.echo(str(verdict))
    sys.exit(not verdict.clean)


if __name__ == "__main__":
    main()
