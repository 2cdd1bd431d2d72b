"""Settings: read once, frozen, documented, and refused in a sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from postroom import ConfigurationError, Settings, settings

TABLE = Path(__file__).parents[2] / "docs" / "settings.md"
ROW = re.compile(r"^\| `(POSTROOM_\w+)` \| (.*?) \| (.*?) \|$", re.MULTILINE)


def documented() -> dict[str, tuple[str, str]]:
    """Return the rows of the table: variable -> default, meaning."""
    return {name: (default, text) for name, default, text in ROW.findall(TABLE.read_text())}


def in_code() -> dict[str, tuple[str, str]]:
    """Return the same from the class."""
    found = {}
    for name, field in Settings.model_fields.items():
        default = str(field.default).lower() if field.default in (True, False) else field.default
        shown = (
            ""
            if default is None
            else f"`{default:g}`"
            if isinstance(default, float)
            else f"`{default}`"
        )
        found[f"POSTROOM_{name.upper()}"] = (shown, field.description or "")
    return found


def test_the_table_is_the_code() -> None:
    """docs/settings.md names every variable with its default and meaning, and no other."""
    assert documented() == in_code()


def test_a_setting_is_read_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """POSTROOM_TOPIC is the setting `topic`."""
    monkeypatch.setenv("POSTROOM_TOPIC", "public/default/other")
    assert settings.load().topic == "public/default/other"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("POSTROOM_MONGODB_URI", "localhost:27017"),
        ("POSTROOM_PULSAR_URL", "http://localhost"),
        ("POSTROOM_REDIS_URL", "localhost"),
        ("POSTROOM_TOPIC", "events"),
        ("POSTROOM_MUTEX_RETRY_SECONDS", "0"),
        ("POSTROOM_DELIVERY", "twice"),
        ("POSTROOM_PARTITION", ""),
        ("POSTROOM_CONCURRENCY", "many"),
    ],
)
def test_a_wrong_value_is_named_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """The error is one line that begins with the variable and its value."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as refused:
        settings.load()
    assert str(refused.value).startswith(f"{variable} is {value!r}: ")
    assert "\n" not in str(refused.value)


def test_credentials_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong address is shown without its password."""
    monkeypatch.setenv("POSTROOM_PULSAR_URL", "https://user:secret@host:6650")
    with pytest.raises(ConfigurationError, match=re.escape("//***@host")) as refused:
        settings.load()
    assert "secret" not in str(refused.value)


def test_settings_are_frozen() -> None:
    """No one changes them after the start."""
    with pytest.raises(ValidationError):
        Settings().topic = "public/default/other"  # type: ignore[misc]  # that is the point
