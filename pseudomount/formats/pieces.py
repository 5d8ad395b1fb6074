"""Disks in pieces: `disk.img.000`, `disk.img.001` …, as split(1), dd and imaging tools number them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pseudomount.errors import AccessDeniedError, CorruptionError, UnsupportedError, UsageError
from pseudomount.findings import FindingLog, Severity
from pseudomount.storage import Store

__all__ = ["Numbered", "find_pieces", "group_names", "numbered"]

_PATTERN = re.compile(r"(?P<stem>.*[^/]\.)(?P<number>[0-9]{2,9}|[a-z]{2,9})", re.DOTALL)

#: How far behind the last piece a name of letters still tells of a missing one: `.gz` beside `.aa` does not.
_NEAR = 26


@dataclass(frozen=True, slots=True)
class Numbered:
    """A name that may be a piece's: `stem` ends with the dot, `number` is all digits or all small letters."""

    stem: str
    number: str

    @property
    def first(self) -> bool:
        """Whether counting begins here: at 0, 1 or "aa"."""
        if self.number.isdigit():
            return int(self.number) <= 1
        return not self.number.strip("a")

    @property
    def position(self) -> tuple[int, int]:
        """Width, and value within the width."""
        digits = "0123456789" if self.number.isdigit() else "abcdefghijklmnopqrstuvwxyz"
        value = 0
        for character in self.number:
            value = value * len(digits) + digits.index(character)
        return len(self.number), value

    def next(self) -> Iterator[str]:
        """Numbers that may follow: the next one, and where GNU split widens its suffixes, the next one it would write.

        (split goes from "89" to "9000" and from "yz" to "zaaa", so that names keep their order.)
        """
        low, high = ("0", "9") if self.number.isdigit() else ("a", "z")
        below = chr(ord(high) - 1)
        kept = self.number.rstrip(high)
        if kept:
            yield kept[:-1] + chr(ord(kept[-1]) + 1) + low * (len(self.number) - len(kept))
        else:
            yield ("1" if low == "0" else "a") + low * len(self.number)
        nines = len(self.number) - len(self.number.lstrip(high))
        rest = self.number[nines:]
        if len(rest) >= 2 and rest == below + high * (len(rest) - 1):
            yield high * (nines + 1) + low * (len(rest) + 1)


def numbered(name: str) -> Numbered | None:
    """The parts of a name that may be a piece's."""
    match = _PATTERN.fullmatch(name)
    return Numbered(match["stem"], match["number"]) if match else None


def group_names(names: Sequence[str], split: str) -> list[list[str]]:
    """Names → disks. `split`: "yes" all are one disk, "no" each is one, "auto" those whose numbers belong together are.

    Raises:
        UsageError: `split` is none of these.
    """
    if split == "yes":
        return [list(names)]
    if split == "no":
        return [[name] for name in names]
    if split != "auto":
        raise UsageError(f'option split is "auto", "yes" or "no", not {split!r}')
    disks: dict[tuple[str, bool], list[str]] = {}
    order: list[list[str]] = []
    for name in names:
        parts = numbered(name)
        key = (parts.stem, parts.number.isdigit()) if parts else None
        if key is not None and key in disks:
            disks[key].append(name)
            continue
        order.append([name])
        if key is not None:
            disks[key] = order[-1]
    # Two letters are also what endings are made of: names of letters are pieces only where the first of them is "aa".
    result: list[list[str]] = []
    for group in order:
        numbers = [part for part in map(numbered, group) if part is not None]
        letters = len(group) > 1 and not numbers[0].number.isdigit()
        result += [[name] for name in group] if letters and not any(part.first for part in numbers) else [group]
    return result


def find_pieces(store: Store, names: Sequence[str], findings: FindingLog) -> list[str]:
    """All pieces of a disk of which these were named: the only one, or several in the order to be kept.

    A first piece that is named alone brings those that follow it in the store. Where the store does not let us list
    them, that is a note, and there are none.

    Raises:
        CorruptionError: a piece is missing between others.
        UsageError: one piece was named, and it is not the first.
    """
    parts = [numbered(name) for name in names]
    first = parts[0]
    if first is None or any(part is None or part.stem != first.stem for part in parts):
        return list(names)
    beside = _beside(store, first, findings)
    if len(names) > 1:
        _check_given(names, [part for part in parts if part is not None], beside, findings)
        return list(names)
    if not first.first:
        _refuse_later_piece(names[0], first, beside)
        return list(names)
    zero = "0" * len(first.number)
    if first.number.isdigit() and int(first.number) == 1 and zero in beside:
        raise UsageError(f"{names[0]} is the second piece of a disk: name the first one, {beside[zero]}")
    return [names[0], *_following(store, names[0], first, beside)]


def _beside(store: Store, piece: Numbered, findings: FindingLog) -> dict[str, str]:
    """The pieces, or what may be, in the same folder: number → name."""
    letters = not piece.number.isdigit()
    if store.remote and letters and not piece.first and len(piece.number) > 2:
        return {}  # "vm.img", "vm.raw": no request for that
    try:
        names = store.list(piece.stem)
    except (AccessDeniedError, UnsupportedError) as error:
        if piece.first or not letters:
            message = f"whether more pieces of the disk follow cannot be seen; name them all if there are: {error}"
            findings.add(Severity.NOTE, message, structure="split raw")
        return {}
    parts = ((name, numbered(name)) for name in names)
    return {
        part.number: name
        for name, part in parts
        if part is not None and part.stem == piece.stem and part.number.isdigit() != letters
    }


def _following(store: Store, name: str, first: Numbered, beside: dict[str, str]) -> Iterator[str]:
    seen = {first.number}
    at = first
    while True:
        nexts = [number for number in at.next() if number in beside]
        if not nexts:
            break
        at = Numbered(first.stem, nexts[0])
        seen.add(at.number)
        yield beside[at.number]
    width, last = at.position
    size = store.size(name)
    for number in sorted(beside.keys() - seen):
        later = Numbered(first.stem, number).position
        if later[0] != width or later[1] <= last or (not number.isdigit() and later[1] > last + _NEAR):
            continue
        if store.size(beside[number]) <= size:
            missing = first.stem + next(at.next())
            raise CorruptionError(f"a piece of the disk is missing: {missing} (there is {beside[number]})")


def _refuse_later_piece(name: str, piece: Numbered, beside: dict[str, str]) -> None:
    """Refuses a piece that was named alone where the ones before it are all there."""
    before = sorted(number for number in beside if len(number) == len(piece.number) and number < piece.number)
    if before and Numbered(piece.stem, before[0]).first:
        expected = list(range(Numbered(piece.stem, before[0]).position[1], piece.position[1]))
        if [Numbered(piece.stem, number).position[1] for number in before] == expected:
            raise UsageError(
                f"{name} is a later piece of a disk: name the first one, {beside[before[0]]} (or set split=no)"
            )


def _check_given(names: Sequence[str], parts: list[Numbered], beside: dict[str, str], findings: FindingLog) -> None:
    """Checks pieces that were all named: none is missing between them, in this order or another."""
    ordered = sorted(zip(parts, names, strict=True), key=lambda pair: (len(pair[0].number), pair[0].number))
    for (here, _), (there, name) in pairwise(ordered):
        if there.number == here.number:
            raise UsageError(f"{name} was named twice")
        if there.number not in set(here.next()):
            raise CorruptionError(f"a piece of the disk is missing: {here.stem}{next(here.next())} (there is {name})")
    if [name for _, name in ordered] != list(names):
        findings.add(
            Severity.NOTE,
            f"the pieces of the disk were named in another order than they are numbered: {', '.join(names)}",
            structure="split raw",
        )
    (begin, first), (end, last) = ordered[0], ordered[-1]
    zero = beside.get("0" * len(begin.number))
    if not begin.first or (zero is not None and zero not in names):
        findings.add(Severity.DEGRADED, f"{first} is not the first piece of its disk", structure="split raw")
    after = [beside[number] for number in end.next() if number in beside]
    if after:
        findings.add(Severity.DEGRADED, f"{after[0]} was not named, but follows {last}", structure="split raw")
