"""Consumers that outlive a header whose name is not UTF-8.

Anybody may write such a header, and aiokafka 0.14 raises UnicodeDecodeError over it in the middle of a fetch: the
records before it in that fetch are then lost to whoever catches the error, and the partition stands still for whoever
does not. Here the name is read with `\\xff` in place of each byte that does not fit; key, value and the other headers
are as they came. Costs nothing until it happens: only the fetch in question is read again, in Python.
"""

from collections.abc import Iterator
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import _MemoryRecordsPy

_Records, _PartitionRecords = fetcher.MemoryRecords, fetcher.PartitionRecords


class _Bytes(bytearray):
    """What is cut out of it is text whatever it holds."""

    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        return _Bytes(found) if isinstance(at, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:  # noqa: ARG002 its signature
        return super().decode(encoding, "backslashreplace")


class _TolerantBatch(_DefaultRecordBatchPy):  # type: ignore[misc]  # marked final, yet the only way to read a batch twice
    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer: Any = _Bytes(self._buffer)


class _TolerantRecords(_MemoryRecordsPy):  # type: ignore[misc]  # as above
    def next_batch(self, *limits: Any) -> Any:
        kept = self._next_slice
        batch = super().next_batch(*limits)
        return _TolerantBatch(kept) if kept is not None and batch.magic >= 2 else batch  # older ones have no headers


class _KeptRecords(_Records):  # type: ignore[misc, valid-type]  # chosen by aiokafka when it is imported
    """Remembers the bytes that it was made from."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.data = data


class _TolerantPartitionRecords(_PartitionRecords):  # type: ignore[misc, valid-type]  # as above
    """The records of one fetch."""

    def _unpack_records(self) -> Iterator[Any]:
        try:
            yield from super()._unpack_records()
        except UnicodeDecodeError:
            # From the beginning of the fetch; what lies below `next_fetch_offset` was handed out and is passed over.
            self._records: Any = _TolerantRecords(self._records.data)
            yield from super()._unpack_records()


def install() -> None:
    """For every consumer of this process; may be called again."""
    fetcher.MemoryRecords, fetcher.PartitionRecords = _KeptRecords, _TolerantPartitionRecords
