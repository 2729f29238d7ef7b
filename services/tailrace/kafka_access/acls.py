"""The grants of `kafka_access` as ACLs of a cluster: of a lane that is made, and all of them, brought up to date."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tailrace.contracts.records.lanes import LANE_SUFFIXES
from tailrace.errors import TailraceError
from tailrace.kafka_access.grants import USERS, Grant, grants, lane_grants

if TYPE_CHECKING:
    from confluent_kafka.admin import AclBinding, AclBindingFilter, AdminClient

_TIMEOUT = 15.0


def grant_lanes(kafka: Mapping[str, str], lanes: Iterable[str]) -> bool:
    """Gives every user its rights on the topics of lanes, in one request; doing it again changes nothing.

    Returns:
        False where the cluster lets this user grant nothing; whoever administers it has to.

    Raises:
        Unavailable: the cluster cannot be reached.
        TailraceError: it refuses for another reason.
    """
    from confluent_kafka.admin import AdminClient

    with AdminClient({"log_level": 0, **kafka}) as admin:
        try:
            _finish(admin.create_acls([_binding(grant) for lane in lanes for grant in lane_grants(lane)]))
        except _NotAllowed:
            return False
    return True


def align_acls(kafka: Mapping[str, str]) -> None:
    """Brings the ACLs of Tailrace's users to what `grants` says for the lanes that there are, in at most two changes.

    ACLs of other users are left alone.

    Raises:
        Unavailable: the cluster cannot be reached.
        TailraceError: it refuses.
    """
    from confluent_kafka.admin import AdminClient

    with AdminClient({"log_level": 0, **kafka}) as admin:
        wanted = {_binding(grant) for grant in grants(_lanes(admin))}
        current = _current(admin)
        if stale := current - wanted:
            _finish(admin.delete_acls([_filter(binding) for binding in stale]))
        if missing := wanted - current:
            _finish(admin.create_acls(list(missing)))


class _NotAllowed(TailraceError):
    """This user may not say what users may do."""


def _finish(changes: Mapping[Any, Any]) -> None:
    from confluent_kafka import KafkaError, KafkaException

    from tailrace.streaming.backends.kafka.errors import for_people

    for change in changes.values():
        try:
            change.result(_TIMEOUT)
        except KafkaException as error:
            cause = error.args[0]
            if cause.code() == KafkaError.SECURITY_DISABLED:
                return  # anybody may do anything there
            if cause.code() == KafkaError.CLUSTER_AUTHORIZATION_FAILED:
                raise _NotAllowed(f"Kafka refuses: {cause.str()}") from error
            raise for_people(cause) from error


def _lanes(admin: AdminClient) -> set[str]:
    names = (name.rpartition(".") for name in admin.list_topics(timeout=_TIMEOUT).topics)
    return {lane for lane, _, suffix in names if lane not in ("", "tailrace") and suffix in LANE_SUFFIXES}


def _current(admin: AdminClient) -> set[AclBinding]:
    from confluent_kafka.admin import AclBindingFilter, AclOperation, AclPermissionType, ResourceType
    from confluent_kafka.admin import ResourcePatternType as Pattern

    text: Any = None  # the client takes None for any text, its types do not
    anything = AclBindingFilter(
        ResourceType.ANY, text, Pattern.ANY, text, text, AclOperation.ANY, AclPermissionType.ANY
    )
    ours = {f"User:{user}" for user in USERS}
    bindings = admin.describe_acls(anything).result(_TIMEOUT)
    return {binding for binding in bindings if binding.principal in ours}


def _binding(grant: Grant) -> AclBinding:
    from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourceType
    from confluent_kafka.admin import ResourcePatternType as Pattern

    is_prefix = len(grant.name) > 1 and grant.name.endswith("*")
    return AclBinding(
        ResourceType[grant.resource],
        grant.name.removesuffix("*") if is_prefix else grant.name,
        Pattern.PREFIXED if is_prefix else Pattern.LITERAL,
        f"User:{grant.user}",
        "*",
        AclOperation[grant.operation],
        AclPermissionType.ALLOW if grant.allowed else AclPermissionType.DENY,
    )


def _filter(binding: AclBinding) -> AclBindingFilter:
    from confluent_kafka.admin import AclBindingFilter

    return AclBindingFilter(
        binding.restype,
        binding.name,
        binding.resource_pattern_type,
        binding.principal,
        binding.host,
        binding.operation,
        binding.permission_type,
    )
