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
        ("POSTROOM_MUTEX_TOPIC", "public/default/"),
        ("POSTROOM_SUBSCRIPTION", "a,b"),
        ("POSTROOM_RETENTION_DAYS", "nan"),
        ("POSTROOM_STRICT", "perhaps"),
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


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("POSTROOM_MONGODB_URI", "localhost:27017"),
        ("POSTROOM_MONGODB_URI", "mongodb://usr:pa/topsecret@h/"),
        ("POSTROOM_MONGODB_URI", "mongodb://usr:p@topsecret@h/"),
        ("POSTROOM_PULSAR_URL", "http://localhost"),
        ("POSTROOM_PULSAR_URL", "pulsar://usr:topsecret@h"),
        ("POSTROOM_PULSAR_ADMIN_URL", "http://usr:topsecret@h:8080"),
        ("POSTROOM_REDIS_URL", "localhost"),
        ("POSTROOM_REDIS_URL", "redis:/:topsecret@h"),
    ],
)
def test_a_wrong_address_is_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """Where its password ends is what is unclear, so that nothing of it is in the sentence."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as refused:
        settings.load()
    assert str(refused.value).startswith(f"{variable} is no address of the form ")
    assert "\n" not in str(refused.value)
    assert "topsecret" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_variables_that_were_mixed_up_show_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address in the place of something else is not shown either."""
    monkeypatch.setenv("POSTROOM_TOPIC", "mongodb://usr:topsecret@h/")
    with pytest.raises(ConfigurationError, match=r"^POSTROOM_TOPIC is not shown: ") as refused:
        settings.load()
    assert "topsecret" not in str(refused.value)


def test_a_wrong_address_from_code_is_not_shown_either() -> None:
    """Pydantic's own error hides the value, and the settings' repr the whole address."""
    with pytest.raises(ValidationError) as refused:
        Settings(mongodb_uri="mongodb://usr:p@topsecret@h/")
    assert "topsecret" not in str(refused.value)
    assert "topsecret" not in repr(Settings(redis_url="redis://:topsecret@h/0"))


def test_settings_as_json_show_no_secret() -> None:
    """Of an address its hosts, whoever writes them down."""
    given = {
        "mongodb_uri": "mongodb://usr:topsecret@h/",
        "redis_url": "redis://:topsecret@h/0",
        "pulsar_token": "topsecret",
    }
    found = Settings.model_validate(given)
    for text in (found.model_dump_json(), str(found.model_dump(mode="json"))):
        assert "topsecret" not in text
        assert "h:27017" in text


def test_blanks_around_a_value_mean_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value from a file often ends in a line break."""
    for variable, value in {
        "POSTROOM_MONGODB_URI": " mongodb://h/ \n",
        "POSTROOM_CONCURRENCY": " 3\n",
        "POSTROOM_RETENTION_DAYS": "1.5 ",
        "POSTROOM_STRICT": "true ",
        "POSTROOM_DELIVERY": "\texactly_once",
        "POSTROOM_TOPIC": "public/default/events\r\n",
    }.items():
        monkeypatch.setenv(variable, value)
    found = settings.load()
    assert found.mongodb_uri == "mongodb://h/"
    assert (found.concurrency, found.retention_days, found.strict) == (3, 1.5, True)
    assert (found.delivery, found.topic) == ("exactly_once", "public/default/events")


@pytest.mark.parametrize("value", ["", " ", "\n"])
def test_an_empty_optional_variable_is_as_if_unset(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """POSTROOM_DEAD_LETTER_TOPIC= is its default, as the table says."""
    monkeypatch.setenv("POSTROOM_DEAD_LETTER_TOPIC", value)
    assert settings.load().dead_letters_of("t", "s") == "t-s-DLQ"


def test_settings_are_frozen() -> None:
    """No one changes them after the start."""
    with pytest.raises(ValidationError):
        Settings().topic = "public/default/other"  # type: ignore[misc]  # that is the point


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("POSTROOM_DELIVRY", "POSTROOM_DELIVERY"),
        ("POSTROOM_CONCURENCY", "POSTROOM_CONCURRENCY"),
        ("POSTROOM_MONGO_URI", "POSTROOM_MONGODB_URI"),
        ("POSTROOM_PULSAR_TOKEN_FILES", "POSTROOM_PULSAR_TOKEN_FILE"),
        ("postroom_max_attempt", "POSTROOM_MAX_ATTEMPTS"),
        ("POSTROOM_REQUIRE_ALL", None),
        ("POSTROOM_SERVICE_HOST", None),
        ("POSTROOM_RELAY_SERVICE_PORT", None),
        ("POSTROOM_METRICS_PORT_9000_TCP", None),
        ("postroom_topic", None),
        ("MYPOSTROOM_TOPIC", None),
    ],
)
def test_a_misspelt_variable_is_told(
    monkeypatch: pytest.MonkeyPatch, variable: str, meant: str | None
) -> None:
    """It means nothing, and whoever set it believes otherwise; other programs' are left alone."""
    monkeypatch.setenv(variable, "secret-value")
    told = [each for each in settings.misspelt() if variable.upper() in each]
    assert told == (
        [] if meant is None else [f"{variable.upper()} is set and is no setting; {meant} is one"]
    )
