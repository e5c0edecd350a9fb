"""The rights in docs/how-to/secure-kafka.md, and a broker that grants them, or all but one, to a user."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from kafka.admin import KafkaAdminClient
from kafka.admin._acls import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)

from tests.infra.secure_kafka import SecureKafka, make_user, secure_kafka
from tests.process import ROOT
from tests.wait import until

PAGE = ROOT / "docs" / "how-to" / "secure-kafka.md"
AUTHORIZER = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    # The port without TLS and SASL, for administration by the test.
    "super.users": "User:ANONYMOUS",
}
# A row of the page's table: process, resource, name, operation.
_ROW = re.compile(r"\| (\w+) \| (topic|group|transactional id|cluster) \| (?:`([^`]+)`)? ?\| ([A-Z_, ]+) \|")
_CLUSTER = "kafka-cluster"


@dataclass(frozen=True)
class Right:
    """`name` ends with `*` if it is a prefix."""

    resource: str
    name: str
    operation: str

    def __str__(self) -> str:
        return f"{self.operation} on {self.resource} {self.name}"

    @property
    def pattern(self) -> ResourcePattern:
        kind = ResourceType[self.resource.upper().replace(" ", "_")]
        if self.name.endswith("*") and self.name != "*":  # a single * is Kafka's own wildcard
            return ResourcePattern(kind, self.name[:-1], ACLResourcePatternType.PREFIXED)
        return ResourcePattern(kind, self.name or _CLUSTER)


def listed_rights() -> Mapping[str, frozenset[Right]]:
    """The rights of each process, by its name."""
    found: dict[str, set[Right]] = {}
    for process, resource, name, operations in _ROW.findall(PAGE.read_text(encoding="utf-8")):
        found.setdefault(process, set()).update(Right(resource, name, one) for one in operations.split(", "))
    return {process: frozenset(rights) for process, rights in found.items()}


def grant(kafka: SecureKafka, user: str, rights: Collection[Right]) -> None:
    """Create `user` with exactly these rights."""
    make_user(kafka, user)
    principal = f"User:{user}"
    everything = ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY)
    theirs = ACLFilter(principal, "*", ACLOperation.ANY, ACLPermissionType.ANY, everything)
    acls = [
        ACL(principal, "*", ACLOperation[right.operation], ACLPermissionType.ALLOW, right.pattern) for right in rights
    ]
    with closing(KafkaAdminClient(bootstrap_servers=kafka.open.bootstrap)) as admin:
        admin.delete_acls([theirs])
        assert admin.create_acls(acls)["failed"] == []
        # A broker reads the controller's log, so new rights take effect a moment later.
        until(lambda: len(admin.describe_acls(theirs)[0]) == len(acls))


@contextmanager
def kafka_with_rights(directory: Path) -> Iterator[SecureKafka]:
    """A broker with TLS and SASL that denies everything that is not granted."""
    with secure_kafka(directory, AUTHORIZER) as made:
        yield made
