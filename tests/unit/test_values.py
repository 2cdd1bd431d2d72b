"""Values of the store."""

from __future__ import annotations

from typing import Any

import pytest
from bson import Timestamp

from postroom.store.values import ResumeToken


def test_a_token_tells_its_cluster_time() -> None:
    """As every server so far writes it: a type byte, seconds, and the number within the second."""
    token = ResumeToken({"_data": "8265A1B2C300000007" + "2B0229296E04"})
    assert token.cluster_time == Timestamp(0x65A1B2C3, 7)


@pytest.mark.parametrize("data", [None, 5, "", "82", "8265A1B2C3", "8165A1B2C300000007"])
def test_a_token_of_another_shape_tells_nothing(data: Any) -> None:
    """Tokens are opaque by contract; what is not understood is no error."""
    assert ResumeToken({"_data": data}).cluster_time is None
    assert ResumeToken({}).cluster_time is None


def test_a_mangled_token_tells_nothing() -> None:
    """It is the server's to refuse."""
    assert ResumeToken({"_data": "82zzzzzzzz00000007"}).cluster_time is None
