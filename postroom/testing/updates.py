"""Updates: what an update of MongoDB's makes of a document, for the operators that are known."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from postroom.testing.queries import MISSING, value_at
from postroom.testing.refusal import not_faked

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["require_update", "updated"]


def require_update(update: Any) -> None:
    """Refuse what update_one() does not take, or what is not known here.

    Raises:
        NotFaked: it is a pipeline.
        ValueError: it has no operator, as PyMongo says it.

    """
    if not isinstance(update, Mapping):
        raise not_faked("an update that is a pipeline")
    if not update or not all(str(name).startswith("$") for name in update):
        raise ValueError("update only works with $ operators")


def updated(
    document: Mapping[str, Any], update: Mapping[str, Any], *, inserting: bool = False
) -> dict[str, Any]:
    """Return what an update makes of a document, which may be changed on the way.

    Raises:
        NotFaked: it has an operator that is not known here.

    """
    found = dict(document)
    for name, fields in update.items():
        if name == "$setOnInsert":
            changes = fields if inserting else {}
            change: Callable[[Any, Any], Any] = OPERATORS["$set"]
        elif name in OPERATORS:
            changes, change = fields, OPERATORS[name]
        else:
            raise not_faked(f"the update operator {name}")
        for path, operand in changes.items():
            _put(found, path, change(value_at(found, path), operand))
    return found


def _put(document: dict[str, Any], path: str, value: Any) -> None:
    *way, last = path.split(".")
    found = document
    for part in way:
        if value is MISSING and part not in found:
            return
        inner = found.setdefault(part, {})
        if not isinstance(inner, dict):
            raise not_faked(f"the path {path!r} through a {type(inner).__name__}")
        found = inner
    if value is MISSING:
        found.pop(last, None)
    else:
        found[last] = value


def _incremented(value: Any, operand: Any) -> Any:
    return operand if value is MISSING else value + operand


def _pushed(value: Any, operand: Any) -> list[Any]:
    return [*_array(value), *_each(operand)]


def _added(value: Any, operand: Any) -> list[Any]:
    found = _array(value)
    for each in _each(operand):
        if each not in found:
            found.append(each)
    return found


def _pulled(value: Any, operand: Any) -> Any:
    if isinstance(operand, Mapping):
        raise not_faked("$pull with a condition")
    return MISSING if value is MISSING else [each for each in _array(value) if each != operand]


def _array(value: Any) -> list[Any]:
    if value is MISSING:
        return []
    if not isinstance(value, list):
        raise not_faked(f"an array operator on a {type(value).__name__}")
    return list(value)


def _each(operand: Any) -> list[Any]:
    if not isinstance(operand, Mapping) or "$each" not in operand:
        return [operand]
    if set(operand) != {"$each"}:
        raise not_faked("$push with more than $each")
    return list(operand["$each"])


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "$set": lambda _, operand: operand,
    "$unset": lambda *_: MISSING,
    "$inc": _incremented,
    "$push": _pushed,
    "$addToSet": _added,
    "$pull": _pulled,
    "$min": lambda value, operand: operand if value is MISSING else min(value, operand),
    "$max": lambda value, operand: operand if value is MISSING else max(value, operand),
    "$currentDate": lambda *_: datetime.now(UTC),
}
