from random import Random

from aiokafka import partitioner as theirs

from transport.partitioner import murmur2, partition_of


def test_keys_go_where_every_other_client_sends_them() -> None:
    random = Random(1)
    for size in range(70):
        key = random.randbytes(size)
        assert murmur2(key) == theirs.murmur2(key)
        assert partition_of(key, range(12), range(12)) == theirs.DefaultPartitioner()(key, range(12), range(12))


def test_what_has_no_key_goes_to_a_partition_that_is_available() -> None:
    assert partition_of(None, range(12), [7]) == 7
    assert partition_of(None, [3], []) == 3
