"""Queries: whether a document fits a filter of MongoDB's, for the operators that are known here."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from bson import Regex

from postroom.testing.refusal import not_faked

__all__ = ["MISSING", "equalities", "fits", "require_known", "value_at"]

MISSING: Any = object()


def fits(document: Mapping[str, Any], query: Mapping[str, Any]) -> bool:
    """Say whether a document fits a filter.

    Raises:
        NotFaked: the filter has an operator that is not known here.

    """
    return all(_fits_clause(document, name, wanted) for name, wanted in query.items())


def require_known(query: Mapping[str, Any]) -> None:
    """Refuse a filter that is not known here, whatever is stored: no document may ever come to it.

    Raises:
        NotFaked: it has such an operator, or a regular expression.

    """
    for name, wanted in query.items():
        if name in JOINED:
            for each in wanted:
                require_known(each)
        elif name.startswith("$"):
            raise not_faked(f"the filter {name}")
        else:
            _require_known(wanted)


def _require_known(wanted: Any) -> None:
    if isinstance(wanted, Regex):
        raise not_faked("a regular expression in a filter")
    for name, operand in wanted.items() if _is_condition(wanted) else ():
        if name not in KNOWN or (name == "$not" and not _is_condition(operand)):
            raise not_faked(f"the filter operator {name}")
        for each in operand if name in {"$in", "$nin"} else (operand,):
            _require_known(each)


def equalities(query: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that an upsert takes from its filter."""
    found: dict[str, Any] = {}
    for name, wanted in query.items():
        if name == "$and":
            for each in wanted:
                found.update(equalities(each))
        elif not name.startswith("$"):
            if not _is_condition(wanted):
                found[name] = wanted
            elif "$eq" in wanted:
                found[name] = wanted["$eq"]
    return found


def value_at(document: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path through documents, or MISSING.

    Raises:
        NotFaked: the path leads into an array of documents.

    """
    found: Any = document
    for part in path.split("."):
        if isinstance(found, list):
            raise not_faked(f"the path {path!r} into an array")
        if not isinstance(found, Mapping) or part not in found:
            return MISSING
        found = found[part]
    return found


def _fits_clause(document: Mapping[str, Any], name: str, wanted: Any) -> bool:
    match name:
        case "$and":
            return all(fits(document, each) for each in wanted)
        case "$or":
            return any(fits(document, each) for each in wanted)
        case "$nor":
            return not any(fits(document, each) for each in wanted)
    if name.startswith("$"):
        raise not_faked(f"the filter {name}")
    value = value_at(document, name)
    if not _is_condition(wanted):
        return _equal(value, wanted)
    return all(_fits_operator(value, each, operand) for each, operand in wanted.items())


def _is_condition(wanted: Any) -> bool:
    return isinstance(wanted, Mapping) and any(str(name).startswith("$") for name in wanted)


def _fits_operator(value: Any, name: str, operand: Any) -> bool:
    if name in NEGATED:
        return not _fits_operator(value, NEGATED[name], operand)
    match name:
        case "$eq":
            return _equal(value, operand)
        case "$in":
            return any(_equal(value, each) for each in operand)
        case "$exists":
            return (value is not MISSING) is bool(operand)
        case "$not" if _is_condition(operand):
            return not all(_fits_operator(value, each, of) for each, of in operand.items())
    if name not in ORDERED:
        raise not_faked(f"the filter operator {name}")
    return any(_ordered(each, ORDERED[name], operand) for each in _elements(value))


NEGATED = {"$ne": "$eq", "$nin": "$in"}
ORDERED: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


JOINED = frozenset({"$and", "$or", "$nor"})
KNOWN = frozenset({"$eq", "$in", "$exists", "$not", *NEGATED, *ORDERED})


def _elements(value: Any) -> list[Any]:
    return [value, *value] if isinstance(value, list) else [value]


def _equal(value: Any, wanted: Any) -> bool:
    if wanted is None:
        return value is MISSING or None in _elements(value)
    return any(_same(each, wanted) for each in _elements(value))


def _same(value: Any, wanted: Any) -> bool:
    # To BSON a boolean is no number, and the order of an object's fields counts.
    if isinstance(value, bool) is not isinstance(wanted, bool):
        return False
    if isinstance(value, Mapping) and isinstance(wanted, Mapping):
        return list(value.items()) == list(wanted.items())
    return bool(value == wanted)


def _ordered(value: Any, compare: Callable[[Any, Any], bool], operand: Any) -> bool:
    if value is MISSING or isinstance(value, bool) is not isinstance(operand, bool):
        return False
    try:
        return compare(value, operand)
    except TypeError:  # of another kind, which MongoDB does not compare either
        return False
