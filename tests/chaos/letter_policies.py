"""Policies that dead-letter topics get for a while: what they refuse waits, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.chaos.disturbances import pause
from tests.chaos.torment import Disturbance

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from tests.chaos.services import Services

__all__ = ["of_letters"]

# A name, what the admin interface calls it, a value, how often it is drawn.
POLICIES: Sequence[tuple[str, str, object, int]] = (
    ("small letters only", "maxMessageSize", 15_000, 3),
    (
        "few letters a second",
        "publishRate",
        {"publishThrottlingRateInMsg": 20, "publishThrottlingRateInByte": -1},
        2,
    ),
    ("one sender of letters", "maxProducers", 1, 1),
)
# A letter that was refused is tried again after a minute at the latest.
SECONDS = 75.0


def of_letters(
    services: Services, dice: random.Random, topics: Sequence[str]
) -> Sequence[Disturbance]:
    """Have a dead-letter topic refuse what is large, or much, or from many, for a while."""

    def with_policy(name: str, value: object) -> Callable[[], None]:
        def act() -> None:
            topic = dice.choice(topics)
            services.admin("POST", topic, name, value)
            pause(dice.uniform(1.0, 10.0))
            services.admin("DELETE", topic, name)

        return act

    return [
        Disturbance(name=title, act=with_policy(name, value), seconds=SECONDS, weight=weight)
        for title, name, value, weight in POLICIES
    ]
