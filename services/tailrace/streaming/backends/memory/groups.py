"""Consumer groups of the broker in memory: members, generations, and who is assigned what."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from tailrace.streaming.backends.memory.state import GroupMember, GroupState, PartitionLog
from tailrace.streaming.records import TopicPartition


class GroupCoordinator:
    """The groups of one broker.

    Args:
        topics: their partitions, as the broker has them at any time.
        shuffled: gives partitions in the order in which they are assigned.
        next_number: a number that no member has had.
    """

    def __init__(
        self,
        topics: Mapping[str, Sequence[PartitionLog]],
        shuffled: Callable[[Collection[TopicPartition]], list[TopicPartition]],
        next_number: Callable[[], int],
    ) -> None:
        self._topics = topics
        self._shuffled = shuffled
        self._next_number = next_number
        self._groups: dict[str, GroupState] = {}

    def group(self, name: str) -> GroupState:
        return self._groups.setdefault(name, GroupState())

    def expire(self, oldest_ms: int) -> None:
        """Takes members for dead that were last seen before."""
        for group in self._groups.values():
            for member in list(group.members.values()):
                if member.seen_ms < oldest_ms:
                    self.remove(group, member)

    def join(self, group: GroupState, topics: frozenset[str], eager: bool, now_ms: int) -> GroupMember:
        member = GroupMember(f"member-{self._next_number()}", topics, eager, now_ms)
        group.members[member.id] = member
        self.rebalance(group)
        return member

    def remove(self, group: GroupState, member: GroupMember) -> None:
        member.expired = True
        if group.members.pop(member.id, None) is not None:
            self.rebalance(group)

    def rebalance(self, group: GroupState) -> None:
        """Cooperative members rejoin at once, holding on to what they have; eager ones let go of everything first."""
        if any(m.eager for m in group.members.values()):
            group.rebalancing = True
            self.complete(group)
        else:
            group.generation += 1
            self._assign(group)

    def complete(self, group: GroupState) -> None:
        """Ends an eager rebalance once every member has joined."""
        if group.rebalancing and all(m.joined for m in group.members.values()):
            group.generation += 1
            group.rebalancing = False
            for member in group.members.values():
                member.joined = False
            self._assign(group)

    def _assign(self, group: GroupState) -> None:
        members = [group.members[name] for name in sorted(group.members)]
        before = {tp: m for m in members for tp in m.target}
        for member in members:
            member.target = set()
        eager = any(m.eager for m in members)
        for topic in sorted({topic for m in members for topic in m.topics if topic in self._topics}):
            takers = [m for m in members if topic in m.topics]
            count = len(self._topics[topic])
            if eager:
                for index, member in enumerate(takers):
                    first = -(-count * index // len(takers))
                    last = -(-count * (index + 1) // len(takers))
                    member.target |= {TopicPartition(topic, p) for p in range(first, last)}
                continue
            quota = -(-count // len(takers))
            has = {m.id: 0 for m in takers}
            homeless = []
            for tp in self._shuffled([TopicPartition(topic, p) for p in range(count)]):
                owner = before.get(tp)
                if owner in takers and has[owner.id] < quota:
                    owner.target.add(tp)
                    has[owner.id] += 1
                else:
                    homeless.append(tp)
            for tp in homeless:
                taker = min(takers, key=lambda m: (has[m.id], m.id))
                taker.target.add(tp)
                has[taker.id] += 1

    def free(self, group: GroupState, tp: TopicPartition) -> bool:
        return all(tp not in m.owned for m in group.members.values())
