"""What production refuses, told by topic and field; elsewhere it is a warning, where the brokers are not our own."""

import logging
from typing import Any

import pytest

from schemas.topics import Catalog
from transport import start_check
from transport.admin import Cluster, Copies
from transport.clients import KafkaAccess
from transport.kafka_security import KafkaSecurity, Protocol
from transport.start_check import unencrypted, unsafe, wrongs

CATALOG = Catalog.load()
SAFE, FEW, LOOSE = Copies("a", 3, 3, 2), Copies("b", 2, 2, 2), Copies("c", 3, 3, 1)


def test_each_topic_is_told_with_its_field() -> None:
    assert unsafe([SAFE]) == []
    assert unsafe([SAFE, FEW, LOOSE]) == [
        "the topic b has replication factor 2, less than 3", "the topic c has min.insync.replicas 1, less than 2",
    ]  # fmt: skip
    assert unsafe([FEW] * 9)[-1] == "and so have 6 more topics"


def test_a_login_without_tls_is_told() -> None:
    assert unencrypted(KafkaSecurity("SASL_PLAINTEXT", "PLAIN", "u", "p"), "127.0.0.1:9092")
    assert not unencrypted(KafkaSecurity("SASL_SSL", "PLAIN", "u", "p"), "kafka.example:9092")


@pytest.mark.parametrize(
    ("bootstrap", "protocol", "told"),
    [
        ("kafka.example:9092", "PLAINTEXT", True), ("127.0.0.1:9092,10.0.0.7:9092", "PLAINTEXT", True),
        ("127.0.0.1:9092,[::1]:9093,localhost:9094", "PLAINTEXT", False), ("kafka.example:9092", "SSL", False),
    ],
)  # fmt: skip
def test_plaintext_to_another_machine_is_told(bootstrap: str, protocol: Protocol, told: bool) -> None:
    assert bool(unencrypted(KafkaSecurity(protocol), bootstrap)) == told


@pytest.mark.parametrize(
    ("bootstrap", "production", "refuses", "warns"),
    [
        ("kafka.example:9092", True, True, False), ("kafka.example:9092", False, False, True),
        ("127.0.0.1:9092", True, True, False), ("127.0.0.1:9092", False, False, False),
    ],
)  # fmt: skip
async def test_production_refuses_and_all_else_warns_of_brokers_that_are_not_this_machines_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, bootstrap: str, production: bool,
    refuses: bool, warns: bool,
) -> None:  # fmt: skip
    async def describe(*_: Any) -> Cluster:
        return Cluster(1, 12, [FEW])

    monkeypatch.setattr(start_check, "describe", describe)
    with caplog.at_level(logging.WARNING):
        found = await wrongs(KafkaAccess(bootstrap), CATALOG, ["openai"], ["gate"], production=production)
    few = "PRODUCTION=true refuses this: the topic b has replication factor 2, less than 3"
    plain = [sentence for sentence in found if "PLAINTEXT, and kafka.example is another machine" in sentence]
    assert [sentence for sentence in found if sentence not in plain] == ([few] if refuses else [])
    assert bool(plain) == (production and bootstrap.startswith("kafka.example"))
    assert bool(caplog.records) == warns
