"""Who may do what at Kafka follows from the table of services, and nobody may more."""

from __future__ import annotations

import pytest

from tailrace.access.credentials import APPLICATION, OPS, OWNER
from tailrace.contracts.records.lanes import CONTROL_TOPICS, Lane
from tailrace.kafka_access.grants import (
    ADMIN,
    CLUSTER,
    GROUP,
    TOPIC,
    TRANSACTIONAL_ID,
    USERS,
    Grant,
    grants,
    lane_grants,
)
from tailrace.services import SERVICES, TABLE

SHOP = Lane("shop")


def _names(user: str, operation: str, resource: str = TOPIC) -> set[str]:
    everything = grants(["shop"])
    return {g.name for g in everything if g[:3] == (user, operation, resource) and g.allowed}


@pytest.mark.parametrize("service", TABLE)
def test_a_service_reads_and_writes_what_its_entry_says(service: str) -> None:
    entry = TABLE[service]
    assert _names(service, "READ") == {name.replace("LANE", "shop") for name in entry.reads}
    assert _names(service, "WRITE") == {name.replace("LANE", "shop") for name in entry.writes}
    assert _names(service, "READ", GROUP) == set(entry.groups)
    assert _names(service, "WRITE", TRANSACTIONAL_ID) == set(entry.transactional_ids)
    assert not [g for g in grants(["shop"]) if g.user == service and g.resource == CLUSTER]


def test_only_the_rollout_service_writes_rollouts_and_only_it_and_the_owner_contracts() -> None:
    """It releases what the owner holds: a record of its own that counts for nothing but that (ADR 0215)."""
    writers = {name: {u for u in USERS if name in _names(u, "WRITE")} for name in CONTROL_TOPICS}
    assert writers["tailrace.rollouts"] == {"rollout"}
    assert writers["tailrace.commands"] == {OWNER}
    assert writers["tailrace.contracts"] == {"rollout", OWNER}
    assert writers["tailrace.model-manifests"] == {"trainer", OWNER}


def test_ops_changes_nothing() -> None:
    assert _names(OPS, "READ") == {*CONTROL_TOPICS, *SHOP.topics}
    changing = {"WRITE", "CREATE", "DELETE", "ALTER", "ALTER_CONFIGS", "ALL"}
    assert not [g for g in grants(["shop"]) if g.user == OPS and g.operation in changing]


def test_an_application_asks_and_reads_what_comes_of_it() -> None:
    assert _names(APPLICATION, "WRITE") == {SHOP.requests, SHOP.labels, SHOP.actions}
    assert _names(APPLICATION, "READ") == {
        *(SHOP.predictions, SHOP.outcomes, SHOP.dead_letters),
        *("tailrace.alerts", "tailrace.contracts"),
    }
    assert Grant(APPLICATION, "ALL", GROUP, "tailrace.*", allowed=False) in grants([])


def test_no_two_services_share_a_group_or_a_transactional_id_but_for_publishing() -> None:
    groups = [group for entry in TABLE.values() for group in entry.groups]
    assert len(groups) == len(set(groups))
    ids = [name for entry in TABLE.values() for name in entry.transactional_ids]
    for name in ids:
        prefix = name.removesuffix("*")
        assert [other for other in ids if other.startswith(prefix)] == [name]


def test_the_rights_on_a_lane_are_those_on_its_topics() -> None:
    assert {g.resource for g in lane_grants("shop")} == {TOPIC}
    assert {g.name for g in lane_grants("shop")} == set(SHOP.topics)
    assert grants(["shop", "till"]) == grants([]) | lane_grants("shop") | lane_grants("till")


def test_everybody_has_a_user_of_their_own() -> None:
    assert {*SERVICES, "registry", OWNER, APPLICATION, OPS} == set(USERS)
    assert ADMIN not in USERS
