"""How right pseudomount, dissect, The Sleuth Kit and 7-Zip are, measured.

    python benchmarks/peers.py [--fixtures NAME,…] [--no-defects] [--corpus FOLDER] [--readers ours,dissect,…] [--list]

Three tables, in Markdown:

- the images of `fixtures/` against their manifests, which the Linux kernel, ntfs-3g, mtools and exfat-fuse wrote;
- one small image for each defect that was found in a peer, made here by mke2fs, ntfs-3g and by hand, whose truth is
  what was put into it (`benchmarks/peers_defects.py`);
- with `--corpus`, a folder as `benchmarks/corpus.py` takes it: its images marked valid.

An entry is right where the reader shows its path once with the type, the size, the content, the target and the time of
last change (whole seconds) that the truth has; what a reader does not tell of (dissect.fat no times of exFAT, say) is
not held against it. Readers that are not installed are left out, and it is said. Each volume is cut out into a file of
its own, and each reader asked in a process of its own, for `--seconds` at most.
"""

from __future__ import annotations

import argparse
import csv
import json
import lzma
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.corpus import read_truth  # noqa: E402
from benchmarks.peers_defects import DEFECTS  # noqa: E402
from benchmarks.peers_readers import READERS, Seen, version  # noqa: E402

_SECOND = 10**9
_STEP = 1 << 20
#: Made by mkfs in the root, and of no interest.
_IGNORED = {"lost+found"}


@dataclass(slots=True)
class Score:
    """How a reader did on a volume.

    Attributes:
        entries: of the truth.
        right: of these.
        wrong: what was wrong, by word: "missing", "extra", "type", "size", "content", "target", "time", "error".
        failure: why it broke off, "" where it did not.
        details: one line for each wrong entry.
    """

    entries: int = 0
    right: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    failure: str = ""
    details: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether nothing was wrong."""
        return not self.failure and not self.wrong

    def cell(self) -> str:
        """For a table."""
        if self.whole:
            return f"{self.right}"
        said = ", ".join(f"{count} {word}" for word, count in self.wrong.most_common())
        if self.failure and not self.right:
            return self.failure
        return f"{self.right} ({said}{'; ' * bool(said and self.failure)}{self.failure})"


def ask(reader: str, volume: Path, filesystem: str, seconds: float) -> tuple[dict[str, Seen], Counter[str], str]:
    """(rows by path, how often a path came again, why it broke off)."""
    command = [sys.executable, str(ROOT / "benchmarks" / "peers_readers.py"), reader, str(volume), filesystem]
    rows: dict[str, Seen] = {}
    again: Counter[str] = Counter()
    failure = "crashed"
    with tempfile.TemporaryFile() as said:
        try:
            subprocess.run(command, stdout=said, stderr=subprocess.DEVNULL, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            failure = f"not done in {seconds:g} s"
        said.seek(0)
        for line in said:
            try:
                item = json.loads(line)
            except ValueError:  # it was ended in the middle of a line
                break
            if isinstance(item, dict):
                failure = _short(item["failure"])
            elif item[0] in rows:
                again[item[0]] += 1
            else:
                rows[item[0]] = Seen(**item[1])
    return rows, again, failure


def _short(failure: str) -> str:
    if failure.startswith("RuntimeError"):
        return "does not open it"
    if failure.startswith("_BrokenFolderError"):
        return failure.partition(": ")[2]
    if "does not read this file system" in failure:
        return "has no such reader"
    return "stops: " + failure.partition(":")[0] if failure else ""


def judge(truth: Mapping[str, Seen], rows: Mapping[str, Seen], again: Mapping[str, int], failure: str) -> Score:
    """Compares."""
    score = Score(len(truth), failure=failure)
    for path in sorted(truth.keys() | rows.keys()):
        want, got = truth.get(path), rows.get(path)
        word = _difference(want, got) or ("extra" if again.get(path) else "")
        if not word:
            score.right += 1
            continue
        score.wrong[word] += 1
        score.details.append(f"{path[:100]}: {word}: {want} expected, {got}")
    return score


def _difference(want: Seen | None, got: Seen | None) -> str:
    if want is None or got is None:
        return "extra" if want is None else "missing"
    if want.type != "?" and want.type != got.type:
        return "type"
    if want.error is not None:  # what cannot be read must not be made up
        return "" if got.error is not None or got.sha256 is None else "content"
    if want.sha256 is not None and got.error is not None:
        return "error"
    pairs = (("size", want.size, got.size), ("content", want.sha256, got.sha256))
    for word, a, b in (*pairs, ("target", want.target, got.target)):
        if a is not None and a != b and not (word == "size" and b is None):
            return word
    return "time" if None not in (want.mtime, got.mtime) and want.mtime != got.mtime else ""


# -- what to compare --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume in a file of its own, and the truth about it."""

    name: str
    filesystem: str
    path: Path
    truth: Mapping[str, Seen]


def fixture_volumes(names: list[str], scratch: Path) -> list[Volume]:
    """Those of `fixtures/`."""
    found = []
    for packed in sorted((ROOT / "fixtures").glob("*.img.xz")):
        name = packed.name.removesuffix(".img.xz")
        if names and name not in names:
            continue
        lines = (ROOT / "fixtures" / f"{name}.jsonl").read_text("utf-8").splitlines()
        header, *rows = map(json.loads, lines)
        data = memoryview(lzma.decompress(packed.read_bytes()))
        for volume in header["volumes"]:
            shown = name if volume["name"] == "disk0" else f"{name} {volume['name']}"
            path = scratch / f"{shown.replace(' ', '-')}.img"
            _write_sparse(path, data[volume["start"] : volume["start"] + volume["size"]])
            mine = {row["path"]: _of_manifest(row) for row in rows if row["volume"] == volume["name"]}
            found.append(Volume(shown, volume["filesystem"], path, {k: v for k, v in mine.items() if _counts(k)}))
    return found


def _counts(path: str) -> bool:
    return bool(path) and path not in _IGNORED


def _of_manifest(row: Mapping[str, Any]) -> Seen:
    kind = row["type"]
    mtime = row.get("mtime_ns")
    return Seen(
        kind,
        row.get("size") if kind == "file" else None,
        row.get("sha256"),
        None if mtime is None or kind != "file" else mtime // _SECOND,
        row.get("target"),
        row.get("error"),
    )


def _write_sparse(path: Path, data: memoryview) -> None:
    with path.open("wb") as file:
        for at in range(0, len(data), _STEP):
            piece = bytes(data[at : at + _STEP])
            if piece.strip(b"\0"):
                file.seek(at)
                file.write(piece)
        file.truncate(len(data))


def corpus_volumes(folder: Path, index: Path) -> list[tuple[str, str, Path, int, int, Path]]:
    """(image, file system, its file, offset, size, truth) of images marked valid that lie in files as they are."""
    found = []
    with index.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    for row in rows:
        if row["validity"] != "valid":
            continue
        for name in filter(None, row["truth_files"].split(",")):
            truth = folder / "truth" / name.strip()
            if not truth.is_file() or ".ads." in name:
                continue
            header, _ = read_truth(truth)
            filesystem = header.get("fs", "")
            if header.get("unwrapped_by", "direct") != "direct":
                continue
            if filesystem.rstrip("0123456789") not in ("ext", "ntfs", "fat", "vfat", "exfat"):
                continue
            image = folder / row["path"]
            size = int(header.get("size", image.stat().st_size))
            found.append((row["path"], filesystem, image, int(header.get("offset", 0)), size, truth))
    return found


def _cut(image: Path, offset: int, size: int, target: Path) -> None:
    with image.open("rb") as source, target.open("wb") as file:
        source.seek(offset)
        at = 0
        while at < size and (piece := source.read(min(_STEP, size - at))):
            if piece.strip(b"\0"):
                file.seek(at)
                file.write(piece)
            at += len(piece)
        file.truncate(at)


def _of_truth(path: Path) -> dict[str, Seen]:
    _, rows = read_truth(path)
    found = {}
    for name, row in rows.items():
        link = row.content.startswith("->")
        unread = row.content.startswith("ERR:") or row.content.startswith("->unsupported reparse")
        found[name] = Seen(
            "?" if unread else row.type,
            int(row.size) if row.type == "file" and row.size and not unread else None,
            row.content if row.type == "file" and not unread and row.content else None,
            target=row.content[2:] if link and not unread else None,
        )
    return {name: seen for name, seen in found.items() if _counts(name)}


# -- tables -----------------------------------------------------------------------------------------------------------


def _row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def _head(*cells: str) -> None:
    _row(*cells)
    _row(*("---" for _ in cells))


def compare(volumes: list[Volume], readers: list[str], options: argparse.Namespace) -> None:
    """One line a volume, with the number of entries that each reader has right, and what is wrong with the others."""
    _head("image", "entries", *readers)
    for volume in volumes:
        scores = [
            judge(volume.truth, *_known(ask(reader, volume.path, volume.filesystem, options.seconds)))
            for reader in readers
        ]
        _row(volume.name, len(volume.truth), *(score.cell() for score in scores))
        _tell(volume.name, readers, scores, options)


def _known(answer: tuple[dict[str, Seen], Counter[str], str]) -> tuple[dict[str, Seen], Counter[str], str]:
    rows, again, failure = answer
    return {path: seen for path, seen in rows.items() if path not in _IGNORED}, again, failure


def _tell(name: str, readers: list[str], scores: list[Score], options: argparse.Namespace) -> None:
    if options.list:
        for reader, score in zip(readers, scores, strict=True):
            for line in score.details[:40]:
                print(f"  {name}: {reader}: {line}", file=sys.stderr)


def compare_corpus(folder: Path, readers: list[str], options: argparse.Namespace) -> None:
    """By file system: images whole, and entries right."""
    totals: dict[str, dict[str, Counter[str]]] = {}
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        path = Path(scratch) / "volume.img"
        for name, filesystem, image, offset, size, truth_file in corpus_volumes(folder, options.index):
            truth = _of_truth(truth_file)
            _cut(image, offset, size, path)
            kind = filesystem.replace("vfat", "fat").rstrip("0123456789")
            total = totals.setdefault(kind, {reader: Counter() for reader in ["truth", *readers]})
            total["truth"].update(images=1, entries=len(truth))
            scores = [judge(truth, *_known(ask(reader, path, kind, options.seconds))) for reader in readers]
            for reader, score in zip(readers, scores, strict=True):
                total[reader].update(images=score.whole, entries=score.right)
            _tell(name, readers, scores, options)
    totals["all"] = {
        reader: sum((total[reader] for total in totals.values()), Counter()) for reader in ["truth", *readers]
    }
    _head("file system", "images", "entries", *(f"{reader}: images whole, entries right" for reader in readers))
    for kind, total in sorted(totals.items()):
        cells = (f"{total[reader]['images']}, {total[reader]['entries']}" for reader in readers)
        _row(kind, total["truth"]["images"], total["truth"]["entries"], *cells)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--fixtures", default="", help="only these, separated by commas; '-' for none")
    parser.add_argument("--no-defects", action="store_true")
    parser.add_argument("--corpus", type=Path, help="a folder of images with truth")
    parser.add_argument("--index", type=Path, help="the index, where it is not CORPUS/INDEX.tsv")
    parser.add_argument("--readers", default=",".join(READERS))
    parser.add_argument("--seconds", type=float, default=120.0, help="limit for a reader and a volume")
    parser.add_argument("--scratch", type=Path, help="where to put volumes; memory is best")
    parser.add_argument("--list", action="store_true", help="every difference, to standard error")
    options = parser.parse_args()
    os.environ["TZ"] = "UTC"
    readers = []
    for reader in options.readers.split(","):
        found = version(reader)
        print(f"- {reader}: {found or 'not installed, left out'}")
        if found:
            readers.append(reader)
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        scratch = Path(folder)
        if options.fixtures != "-":
            print("\n### Fixtures\n")
            compare(fixture_volumes([*filter(None, options.fixtures.split(","))], scratch), readers, options)
        if not options.no_defects:
            print("\n### Defects\n")
            made: list[Volume] = []
            for defect in DEFECTS:
                path = scratch / "defect.img"
                try:
                    path = scratch / f"{len(made)}.img"
                    made.append(Volume(defect.name, defect.filesystem, path, defect.make(path, scratch)))
                except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
                    print(f"left out: {defect.name}: {error}", file=sys.stderr)
            compare(made, readers, options)
    if options.corpus:
        options.index = options.index or options.corpus / "INDEX.tsv"
        print("\n### Corpus\n")
        compare_corpus(options.corpus, readers, options)


if __name__ == "__main__":
    main()
