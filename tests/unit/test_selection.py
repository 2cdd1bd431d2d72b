"""Which topics a subscription reads, and which it is never given."""

from __future__ import annotations

import pytest

from postroom import errors
from postroom.inbox.receiving.selection import Selection, dead_letter_topic, redrive_topic
from postroom.settings import Settings

BASE = "persistent://shop/prod"


def selection(*written: str, subscription: str = "billing", **settings: str) -> Selection:
    """Read what a user has written."""
    return Selection.of(Settings.model_validate(settings), subscription, written)


def test_names_and_what_comes_back_of_them() -> None:
    """Each once, in full; one partition's dead letters come back by the topic's name."""
    found = selection("shop/prod/orders", f"{BASE}/orders", "shop/prod/orders-partition-3")
    assert found.names == (f"{BASE}/orders", f"{BASE}/orders-partition-3")
    assert found.redrives == [f"{BASE}/orders-billing-REDRIVE"]
    assert found.namespaces == []


@pytest.mark.parametrize(
    ("topic", "selected"),
    [
        ("orders", True),
        ("orders-partition-0", True),
        ("returns", False),
        ("orders-billing-DLQ", False),
        ("orders-audit-DLQ", False),
        ("orders-billing-DLQ-partition-1", False),
        ("orders-billing-REDRIVE", True),
        ("orders-billing-REDRIVE-partition-2", True),
        ("orders-audit-REDRIVE", False),
        ("returns-billing-REDRIVE", False),
        ("orders-given-up", False),
        ("orders-given-up-partition-1", False),
        ("postroom-probe", False),
        ("postroom-probe-partition-0", False),
    ],
)
def test_a_pattern_selects_by_the_topics_own_name(topic: str, *, selected: bool) -> None:
    """Never its own dead letters nor a relay's probe; what comes back to it, and to it alone."""
    found = selection(
        "re:shop/prod/(orders|postroom).*", dead_letter_topic="shop/prod/orders-given-up"
    )
    assert found.namespaces == ["shop/prod"]
    assert found.among([f"{BASE}/{topic}"]) == ([f"{BASE}/{topic}"] if selected else [])
    assert found.among([f"persistent://shop/other/{topic}"]) == []


def test_a_pattern_of_topic_partitions_selects_those_alone() -> None:
    """Where it fits a partition's name and not the topic's."""
    found = selection("re:shop/prod/orders-partition-[01]")
    names = [f"{BASE}/orders-partition-{n}" for n in range(3)]
    assert found.among(names) == names[:2]


@pytest.mark.parametrize(
    "written",
    [
        ["shop/prod/orders-billing-DLQ"],
        ["shop/prod/orders-billing-DLQ-partition-0"],
        ["shop/prod/orders-audit-REDRIVE"],
        ["shop/prod/given-up"],
        ["orders"],
        ["re:orders"],
        ["re:shop/prod/("],
        ["re:shop/prod/"],
        [7],
        [],
        "shop/prod/orders",
    ],
)
def test_what_cannot_be_consumed_is_refused(written: list[str]) -> None:
    """With a sentence that names the subscription or the pattern."""
    settings = Settings.model_validate({"dead_letter_topic": "shop/prod/given-up"})
    with pytest.raises(errors.ConfigurationError, match=r"billing|pattern"):
        Selection.of(settings, "billing", written)


def test_the_names_of_our_own_topics_do_not_pile_up() -> None:
    """Partitions, and what comes back, have the dead letters of the topic itself."""
    settings = Settings.model_validate({})
    for topic in ("orders", "orders-partition-7", "orders-billing-REDRIVE"):
        dead = dead_letter_topic(settings, f"shop/prod/{topic}", "billing")
        assert dead == f"{BASE}/orders-billing-DLQ"
    assert redrive_topic("shop/prod/orders-partition-7", "billing") == (
        f"{BASE}/orders-billing-REDRIVE"
    )


@pytest.mark.parametrize(
    "dead",
    [
        "shop/prod/orders-partition-0",
        f"{BASE}/given-up-partition-12",
        "shop/prod/orders-billing-REDRIVE",
        f"{BASE}/orders-audit-REDRIVE",
        "shop/prod/postroom-probe",
    ],
)
def test_dead_letters_do_not_go_where_they_would_come_round(dead: str) -> None:
    """To a topic partition, to what consumers read as put back, or to a relay's probe."""
    for written in ("shop/prod/orders", "re:shop/prod/.*"):
        with pytest.raises(errors.ConfigurationError, match="could come round for ever"):
            selection(written, dead_letter_topic=dead)


@pytest.mark.parametrize("dead", ["shop/prod/orders", f"{BASE}/orders"])
@pytest.mark.parametrize(
    "topic", ["shop/prod/orders", f"{BASE}/orders", f"{BASE}/orders-partition-1"]
)
def test_a_topic_is_not_its_own_dead_letter_topic(dead: str, topic: str) -> None:
    """However both are written."""
    with pytest.raises(errors.ConfigurationError, match="cannot consume"):
        selection(topic, dead_letter_topic=dead)
