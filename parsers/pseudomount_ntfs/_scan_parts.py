"""What a scan of the MFT is put together of: which records to read, and parts of batches, names and streams."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pseudomount.errors import CorruptionError, PseudomountError
from pseudomount.filesystem import FileRows, ScanBatch, ScanLinks, ScanStreams
from pseudomount_ntfs._batch import Batch
from pseudomount_ntfs._layout import DOS_NAMESPACE, AttributeType, units_of
from pseudomount_ntfs._names import wtf8
from pseudomount_ntfs._volume import Volume

__all__ = ["aliases", "bits", "kept_links", "named_streams", "names_only", "record_spans", "selected"]

Bools = NDArray[np.bool_]
Int64s = NDArray[np.int64]
UInt64s = NDArray[np.uint64]
UInt8s = NDArray[np.uint8]

#: NTFS has no more records; and however small a device is, so many are looked at.
_MOST_RECORDS, _LEAST_RECORDS = 1 << 32, 1 << 20


def record_spans(volume: Volume) -> tuple[list[tuple[int, int]], bool]:
    """The records that can be read, as (first, how many), ascending; and whether there should be more of them."""
    size, mft = volume.record_size, volume.mft
    begins = mft.starts[:-1]
    room = np.where(mft.positions >= 0, volume.device.size - mft.positions, 0)
    ends = begins + np.clip(room, 0, np.diff(mft.starts))
    # A volume has room for so many; a forged MFT may claim any number, far apart or the same ones many times.
    most = min(volume.records, _MOST_RECORDS, max(volume.device.size // size, _LEAST_RECORDS))
    have = ends > begins
    first, last = begins[have] // size, np.minimum(-(-ends[have] // size), most)
    spans: list[tuple[int, int]] = []
    at = 0
    for a, b in zip(first.tolist(), last.tolist(), strict=True):  # one step for each fragment of the MFT
        a = max(a, at)
        if b <= a:
            continue
        if spans and a == at:
            spans[-1] = (spans[-1][0], b - spans[-1][0])
        else:
            spans.append((a, b - a))
        at = b
    whole = len(spans) == 1 and spans[0] == (0, volume.records)
    if volume.records > most:
        error = CorruptionError(
            f"the MFT claims {volume.records} records, of which the first {most} are looked at", structure="$MFT"
        )
        volume.findings.add_error(error)
    return spans, not whole


def bits(packed: UInt8s, first: int, count: int) -> Bools:
    """Some bits of a bitmap; 0 behind its end."""
    out = np.zeros(count, np.bool_)
    begin = first // 8
    part = np.unpackbits(packed[begin : (first + count + 7) // 8], bitorder="little")[first - 8 * begin :][:count]
    out[: len(part)] = part != 0
    return out


def selected(batch: Batch, keep: Bools) -> Batch:
    """Some files of a batch; their records stay where they are in the buffer."""
    renumber = np.cumsum(keep) - 1
    attributes = batch.attributes.take(keep[batch.attributes.row])
    attributes = attributes.moved(renumber, 0)
    rows = np.flatnonzero(keep)
    return Batch(
        batch.references[rows],
        batch.buffer,
        attributes,
        batch.flags[rows],
        batch.links[rows],
        batch.sequence[rows],
        {},
        {int(renumber[row]): error for row, error in batch.damage.items() if keep[row]},
    )


def aliases(owner: Int64s, parent: UInt64s, namespace: NDArray[np.uint8]) -> Bools:
    """Names of 8.3 form beside the long name of the same file in the same directory."""
    alias: Bools = namespace == DOS_NAMESPACE
    if not alias.any():
        return alias
    order = np.lexsort((alias, parent, owner))
    same = np.zeros(len(order), np.bool_)
    a, b = order[:-1], order[1:]
    same[1:] = (owner[a] == owner[b]) & (parent[a] == parent[b])
    # Long names come first in a group; an alias that begins one has none beside it.
    starts = np.flatnonzero(~same)
    has_long = ~alias[order[starts]]
    group = np.cumsum(~same) - 1
    drop: Bools = np.zeros(len(order), np.bool_)
    drop[order] = alias[order] & has_long[group]
    return drop


def named_streams(batch: Batch, wanted: Bools) -> ScanStreams:
    """The named streams of some files."""
    picks = batch.of_type(AttributeType.DATA, None)
    attributes = batch.attributes
    picks = picks[(attributes.name_length[picks] > 0) & wanted[attributes.row[picks]]]
    if not len(picks):
        return ScanStreams.none()
    names = wtf8(*units_of(batch.buffer, attributes.name_at[picks], attributes.name_length[picks]))
    stored = np.where(attributes.resident[picks], 0, attributes.stored[picks])
    return ScanStreams(batch.references[attributes.row[picks]], names, attributes.size[picks], stored)


def names_only(links: ScanLinks, done: float, errors: dict[int, PseudomountError] | None = None) -> ScanBatch:
    return ScanBatch(FileRows.none(), links, np.empty(0, np.bool_), ScanStreams.none(), errors or {}, done)


def kept_links(links: ScanLinks, keep: Bools) -> ScanLinks:
    if keep.all():
        return links
    return ScanLinks(links.parent[keep], links.file[keep], links.name.take(keep), links.type[keep], links.deleted[keep])
