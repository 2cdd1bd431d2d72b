"""Preflight: findings are values, and start-up obeys the list."""

from __future__ import annotations

import logging

import pytest

from postroom import errors, findings, preflight
from postroom.abilities import Abilities
from postroom.findings import Finding, Grade


def test_what_is_well_is_not_a_word_worth(caplog: pytest.LogCaptureFixture) -> None:
    """Warnings are said with their remedy, the rest is for whoever asks."""
    caplog.set_level(logging.INFO)
    findings.obey(
        [
            Finding(what="a", found="Good"),
            Finding(what="b", found="The cellar is damp", grade=Grade.WARN, remedy="Open a window"),
        ]
    )
    assert [record.getMessage() for record in caplog.records] == [
        "The cellar is damp. Open a window"
    ]


def test_what_no_wait_can_mend_is_refused_before_what_may_pass() -> None:
    """A lasting failure ends the start; another one is tried again."""
    passing = Finding(what="a", found="MongoDB is no replica set", grade=Grade.FAIL)
    lasting = Finding(what="b", found="The topic is partitioned", grade=Grade.FAIL, lasting=True)
    with pytest.raises(errors.ServiceUnavailable, match="no replica set"):
        findings.obey([passing])
    with pytest.raises(errors.ConfigurationError, match="partitioned"):
        findings.obey([passing, lasting])


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Abilities(fencing=False, deduplication=True), "lacks fencing"),
        (Abilities(fencing=True, deduplication=False), "lacks deduplication"),
        (
            Abilities(fencing=True, deduplication=True, unknown=("persistent://a/b",)),
            "make persistent://a/b/postroom-probe",
        ),
    ],
)
def test_a_broker_that_lacks_something_is_weaker_or_refused(found: Abilities, words: str) -> None:
    """By what POSTROOM_DELIVERY demands."""
    (weaker,) = preflight.delivery(found, demanded=False, has_shared=True, where="pulsar://p")
    assert weaker.grade is Grade.WARN
    assert words in weaker.sentence
    refused, shared = preflight.delivery(found, demanded=True, has_shared=True, where="pulsar://p")
    assert (refused.grade, refused.lasting) == (Grade.FAIL, True)
    assert (shared.grade, shared.lasting) == (Grade.FAIL, True)
