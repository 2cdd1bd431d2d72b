"""A writer makes the plan's indexes, and never fails for it where others will."""

from __future__ import annotations

import pytest
from pymongo import errors as mongo

from postroom import wire
from postroom.server_codes import TIME_EXPIRED, UNAUTHORIZED
from postroom.store import plan_indexes


@pytest.mark.parametrize("code", [UNAUTHORIZED, TIME_EXPIRED])
def test_a_writer_that_cannot_make_them_goes_on(code: int) -> None:
    """It may not, or there is so much in the plan already that it takes too long."""
    commands = plan_indexes.commands()
    first = next(commands)
    second = commands.throw(mongo.OperationFailure("refused", code))
    assert [command["createIndexes"] for command in (first, second)] == [
        wire.SCHEDULED,
        wire.SCHEDULE_NAMES,
    ]
    with pytest.raises(StopIteration):
        commands.throw(mongo.OperationFailure("refused", code))


def test_all_else_is_raised() -> None:
    """As where an index of the same name is another one."""
    commands = plan_indexes.commands()
    next(commands)
    with pytest.raises(mongo.OperationFailure):
        commands.throw(mongo.OperationFailure("conflict", 86))
