"""Breaking: what differs between the schemas of two releases that a consumer would stumble over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from postroom import errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["changes"]

# What says nothing about which data fit.
WORDS = {"title", "description", "default", "examples", "deprecated"}


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each change that breaks a consumer, or events that are stored.

    Both are what postroom.operations.schemas.exported() returns. A change is none that breaks where
    the event's version was raised and each version in between has an upcaster.

    Raises:
        ConfigurationError: `before` is no such document.

    """
    try:
        return [
            sentence
            for name, old in before["events"].items()
            for sentence in _of_event(name, old, before, after)
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise errors.ConfigurationError(
            f"The schemas to compare with cannot be read ({type(error).__name__}): take the output "
            "of `outbox schema`"
        ) from None


def _of_event(
    name: str, old: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[str]:
    new = after["events"].get(name)
    if new is None:
        yield f"{name} is gone: whoever waits for it waits in vain"
        return
    if new["key"] != old["key"]:
        yield f"{name} is keyed by {new['key']}, and was by {old['key']}: order is not kept across"
    if new["version"] < old["version"]:
        yield f"{name} has version {new['version']}, and had {old['version']}"
    elif new["version"] > old["version"]:
        missing = set(range(old["version"], new["version"])) - set(new["upcasts"])
        for step in sorted(missing):
            yield (
                f"{name} went from version {old['version']} to {new['version']}, and nothing "
                f"upcasts version {step}: add @upcasts({name}, from_version={step})"
            )
    else:
        yield from _of_fields(name, old, new, before, after)


def _of_fields(
    name: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    before: Mapping[str, Any],
    after: Mapping[str, Any],
) -> Iterator[str]:
    had, has = old["schema"].get("properties", {}), new["schema"].get("properties", {})
    for field in had:
        if field not in has:
            yield f"{name}.{field} is gone"
        elif _plain(had[field], before) != _plain(has[field], after):
            yield f"{name}.{field} takes other values than before"
    for field in sorted(set(new["required"]) - set(old["required"])):
        yield (
            f"{name}.{field} is required now, and events that are stored may lack it: give it a "
            "default, or raise the version and upcast"
        )


def _plain(schema: Any, of: Mapping[str, Any], seen: tuple[str, ...] = ()) -> Any:
    """Return a schema without words, and with what it refers to in place."""
    if isinstance(schema, list):
        return [_plain(each, of, seen) for each in schema]
    if not isinstance(schema, dict):
        return schema
    reference = str(schema.get("$ref", "")).rpartition("/")[2]
    if reference and reference not in seen:
        return _plain(of["definitions"].get(reference, {}), of, (*seen, reference))
    inner = {n: _plain(each, of, seen) for n, each in schema.items() if n != "properties"}
    found = {name: each for name, each in inner.items() if name not in WORDS}
    if "properties" in schema:
        found["properties"] = {n: _plain(p, of, seen) for n, p in schema["properties"].items()}
    return found
