"""`make chaos` and `make chaos-consumer`: real Pulsar, MongoDB and Valkey, disturbed at random."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

import click

from tests.chaos.consumer_chaos import ConsumerChaos
from tests.chaos.relay_chaos import RelayChaos
from tests.chaos.scenario import Scenario, chosen
from tests.chaos.services import Services

KINDS: dict[str, type[RelayChaos | ConsumerChaos]] = {
    "relay": RelayChaos,
    "consumer": ConsumerChaos,
}


@click.command()
@click.argument("kind", type=click.Choice(list(KINDS)))
@click.option("--seconds", default=300.0, show_default=True)
@click.option("--seed", type=int, help="Repeats the choices of an earlier run.")
@click.option("--only", multiple=True, help="Leave out all disturbances but these.")
@click.argument("choices", nargs=-1, metavar="[members=3 send_timeout_seconds=3 …]")
def main(
    kind: str, *, seconds: float, seed: int | None, only: tuple[str, ...], choices: tuple[str, ...]
) -> None:
    """Run one chaos run, and end with 1 unless nothing was lost, doubled, reordered or stuck.

    The cluster is drawn from the seed, but for what is chosen by name; see Scenario.
    """
    seed = int(time.time()) if seed is None else seed
    folder = Path(tempfile.mkdtemp(prefix="postroom-chaos-"))
    try:
        fields = chosen(dict(choice.split("=", 1) for choice in choices))
    except (ValueError, KeyError) as error:
        raise SystemExit(str(error)) from None
    scenario = Scenario.drawn(seed, **fields)
    click.echo(f"seed {seed}: {scenario}\nlogs in {folder}")
    services = Services(scenario, folder)
    try:
        services.start()
        outcome = KINDS[kind](
            scenario=scenario,
            services=services,
            name=f"chaos{seed}",
            seconds=seconds,
            logs=folder,
            only=only,
        ).run()
    finally:
        services.stop()
    click.echo(f"seed {seed}: {outcome}")
    if outcome.clean:
        shutil.rmtree(folder)  # a gigabyte; what was found wrong keeps it
    sys.exit(not outcome.clean)


if __name__ == "__main__":
    main()
