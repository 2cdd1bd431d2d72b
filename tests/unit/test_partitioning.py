"""Which outbox partition a key goes to, and what outbox partitions are called."""

from __future__ import annotations

import pytest

from postroom.partitioning import Partitioning, murmur3_32

# Computed by org.apache.pulsar.common.util.Murmur3_32Hash of Pulsar 4.2.4; those from "k1" to
# "key02" are in the tests of the clients for C++ and Go, too.
VECTORS = {
    "": 0,
    "a": 1009084850,
    "ab": 465557343,
    "abc": 870159354,
    "abcd": 1139631978,
    "k1": 2110152746,
    "k2": 1479966664,
    "key1": 462881061,
    "key2": 1936800180,
    "key01": 39696932,
    "key02": 751761803,
    "patient-4711": 20034943,
    "Müller": 1461628130,
    "日本語": 631534231,
    "😀": 1051995898,
    "e\u0301": 523412072,
}


@pytest.mark.parametrize(("key", "number"), VECTORS.items())
def test_keys_are_hashed_as_pulsars_own_clients_hash_them(key: str, number: int) -> None:
    """The same number as Java's, of the key's UTF-8 and without its sign."""
    assert murmur3_32(key) == number
    assert Partitioning(count=8).of_key(key) == number % 8


def test_one_outbox_partition_is_as_it_always_was() -> None:
    """It has the name that was chosen, goes to whole topics, and gets every key."""
    one = Partitioning(base="orders")
    assert one.names == ("orders",)
    assert one.index_of("orders") is None
    assert {one.of_key(key) for key in VECTORS} == {0}


@pytest.mark.parametrize(
    ("count", "generation", "names"),
    [
        (2, 1, ("default-0", "default-1")),
        (2, 2, ("default.2-0", "default.2-1")),
        (1, 0, ("default",)),
        (1, 3, ("default.3-0",)),
    ],
)
def test_outbox_partitions_of_each_generation_have_names_of_their_own(
    count: int, generation: int, names: tuple[str, ...]
) -> None:
    """So that no number or checkpoint of one is taken for another's."""
    assert Partitioning(count=count, generation=generation).names == names


def test_an_outbox_partition_goes_to_the_topic_partition_of_its_index() -> None:
    """Whatever its generation is; a name of another one has no index."""
    eight = Partitioning(count=8, generation=2)
    assert [eight.index_of(name) for name in eight.names] == list(range(8))
    with pytest.raises(ValueError, match="not in tuple"):
        eight.index_of("default-1")
