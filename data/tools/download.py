"""Download a public data set and unpack it: `python -m data.download coco2017 [--splits val] [--to DIR]`.

Without a name it lists the data sets of downloads.yaml. An interrupted download resumes where it stopped; the archive
is unpacked once its checksum is right, and then removed. Nothing is downloaded by any other command.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from pydantic import BaseModel, ConfigDict

from configs.cli import Parser, run_script
from configs.loading import read_yaml
from core.commands import INSTALLED, ROOT, command, near
from core.files import is_disk_full
from core.progress import progress_bar
from core.text import did_you_mean, one_line

TABLE = Path(__file__).with_name("downloads.yaml")
BLOCK = 1 << 20
TIMEOUT = 30.0  # seconds without any data
ATTEMPTS = 5  # that bring no data, one after the other
PAUSE = 2.0  # seconds before the second attempt, doubled before each further one


class Archive(BaseModel):
    """A file to download. `split`: whose images it holds; None: it is needed for each of them."""

    model_config = ConfigDict(extra="forbid")

    url: str
    split: str | None = None
    bytes: int
    unpacked: int
    md5: str

    @property
    def name(self) -> str:
        """Its file name."""
        return PurePosixPath(self.url).name


class DataSet(BaseModel):
    """A data set. `folder`: its place in datasets/; `data`: the data YAML in configs/data that has it, if any."""

    model_config = ConfigDict(extra="forbid")

    about: str
    licence: str
    home: str
    folder: str
    data: str | None = None
    files: list[Archive]

    @property
    def splits(self) -> list[str]:
        """The splits that can be had apart."""
        return [file.split for file in self.files if file.split is not None]


def data_sets(table: Path) -> dict[str, DataSet]:
    """The data sets of a table by name."""
    return {name: DataSet.model_validate(entry) for name, entry in read_yaml(table).items()}


def download(data_set: DataSet, folder: Path, splits: Sequence[str]) -> None:
    """Bring the archives of some splits into a folder and unpack them; those already there are left alone.

    ValueError if the server has something else, or the disk too little space; ConnectionError if the server cannot be
    reached, or ends the connection again and again.
    """
    files = [file for file in data_set.files if file.split is None or file.split in splits]
    missing = [file for file in files if not _marker(folder, file).exists()]
    folder.mkdir(parents=True, exist_ok=True)
    _require_space(missing, folder)
    for file in missing:
        path = folder / file.name
        _fetch(file, path)
        _unpack(path, folder)
        _marker(folder, file).touch()
        path.unlink()


def _marker(folder: Path, file: Archive) -> Path:
    return folder / f".{file.name}.unpacked"


def _require_space(files: Sequence[Archive], folder: Path) -> None:
    """ValueError if the archives, each removed once it is unpacked, do not fit on the disk."""
    needed, unpacked = 0, 0
    for file in files:
        path = folder / file.name
        needed = max(needed, unpacked + file.unpacked + file.bytes - _size(path) - _size(_part(path)))
        unpacked += file.unpacked
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"{folder}: {needed / 1e9:,.1f} GB of disk space are needed and {free / 1e9:,.1f} GB are free; free some, "
            "or choose another disk with --to"
        )


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _fetch(file: Archive, path: Path) -> None:
    """Download an archive to `path`, continuing what is there of it."""
    part = _part(path)
    if not path.exists():
        attempts = 0
        while (there := _size(part)) < file.bytes:
            try:
                _continue(file, part)
            except (HTTPException, OSError) as error:
                if isinstance(error, HTTPError) and error.code < 500:
                    raise ValueError(f"{file.url}: the server answers {error.code} {one_line(error.reason)}") from error
                if is_disk_full(error):
                    raise
                attempts = 1 if _size(part) > there else attempts + 1
                if attempts == ATTEMPTS:
                    cause = error if isinstance(error, HTTPError) else getattr(error, "reason", error)
                    reason = one_line(cause) or type(error).__name__
                    raise ConnectionError(
                        f"{file.url}: the download stopped at {_size(part):,} of {file.bytes:,} bytes ({reason}); the "
                        "same command continues it"
                    ) from error
                time.sleep(PAUSE * 2 ** (attempts - 1))
        part.rename(path)
    if (found := _md5(path)) != file.md5:
        path.unlink()
        raise ValueError(
            f"{file.url}: the file has the MD5 checksum {found}, expected {file.md5}; it was removed, and the same "
            "command downloads it again"
        )


def _continue(file: Archive, part: Path) -> None:
    """Download from the end of `part` on; returns at the end of the file, or raises what ended the connection."""
    there = _size(part)
    headers = {"User-Agent": "yolo-mish"} | ({"Range": f"bytes={there}-"} if there else {})
    with urlopen(Request(file.url, headers=headers), timeout=TIMEOUT) as response:
        if there and response.status != 206:  # the server sends the whole file
            there = 0
        _require_size(file, response, there)
        nothing: tuple[bytes, ...] = ()
        bar = progress_bar(nothing, file.name, total=file.bytes, unit="B")
        with bar, open(part, "r+b" if there else "wb") as target:
            target.seek(there)
            bar.update(there)
            while there < file.bytes and (block := response.read1(BLOCK)):
                there += len(block)
                target.write(block[: len(block) - max(0, there - file.bytes)])
                bar.update(len(block))
    if there < file.bytes:
        raise ConnectionError("the server closed the connection")


def _require_size(file: Archive, response: HTTPResponse, there: int) -> None:
    """ValueError if the server says that its file has another size than expected."""
    length = response.headers.get("Content-Length", "")
    if length.isdigit() and there + int(length) != file.bytes:
        raise ValueError(f"{file.url}: a file of {there + int(length):,} bytes, expected {file.bytes:,}")


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as stream:
        blocks = iter(lambda: stream.read(BLOCK), b"")
        for block in progress_bar(blocks, f"checking {path.name}", total=-(-path.stat().st_size // BLOCK), unit="MiB"):
            digest.update(block)
    return digest.hexdigest()


def _unpack(path: Path, folder: Path) -> None:
    """Unpack an archive into a folder. ValueError if a member would be written elsewhere."""
    try:
        for _ in progress_bar(_members(path, folder), f"unpacking {path.name}", unit="file"):
            pass
    except (zipfile.BadZipFile, tarfile.TarError) as error:
        raise ValueError(f"{path}: {one_line(error)}") from error


def _members(path: Path, folder: Path) -> Iterator[str]:
    """Extract the members one by one; yields the name of each."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                archive.extract(name, folder)  # which leaves out drives and ".."
                yield name
        return
    with tarfile.open(path) as archive:
        for member in archive:
            archive.extract(member, folder, filter="data")
            yield member.name


def table_text(known: dict[str, DataSet]) -> str:
    """The data sets as a table for the terminal."""
    lines = []
    for name, entry in known.items():
        size = sum(file.bytes for file in entry.files) / 1e9
        lines += [f"{name:10} {size:5.1f} GB  {entry.about}", f"{'':20} licence: {entry.licence} ({entry.home})"]
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None, known: dict[str, DataSet]) -> tuple[DataSet, list[str], Path] | None:
    """Read the command line; None: list what there is."""
    parser = Parser(prog="python -m data.download", description="Download a public data set.")
    parser.add_argument("name", nargs="?", help=f"one of {', '.join(known)}; none: list them")
    parser.add_argument("--splits", nargs="+", metavar="SPLIT", help="train, val or test; default: all there are")
    parser.add_argument("--to", metavar="DIR", help="folder for the data set; default: datasets/ and its own name")
    options = parser.parse_args(arguments)
    if options.name is None:
        return None
    if options.name not in known:
        hint = did_you_mean(options.name, known) or f", expected one of {', '.join(known)}"
        parser.error(f"{options.name!r} is not a known data set{hint}")
    found = known[options.name]
    splits = [split for text in options.splits or found.splits for split in text.split(",")]
    for split in splits:
        if split not in found.splits:
            parser.error(f"--splits {split}: {options.name} has {' and '.join(found.splits)}")
    return found, splits, Path(options.to) if options.to else _usual_folder(found)


def _usual_folder(data_set: DataSet) -> Path:
    return (Path.cwd() if INSTALLED else ROOT) / "datasets" / data_set.folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    known = data_sets(TABLE)
    chosen = parse(arguments, known)
    if chosen is None:
        print(table_text(known))
        return 0
    found, splits, folder = chosen
    try:
        download(found, folder, splits)
    except ConnectionError as error:
        print(f"data.download: error: {one_line(error)}", file=sys.stderr)
        return 1
    data = found.data if found.data and folder == _usual_folder(found) else near(folder)
    print(f"{folder} is complete ({', '.join(splits)}); licence: {found.licence}")
    if "train" in splits:
        print(f"train with: {command('train.py', '--cfg', 'yolo-mish.yaml', '--data', data)}")
    else:
        print(f"evaluate with: {command('val.py', '--weights', 'BEST.PT', '--data', data)}")
    return 0


if __name__ == "__main__":
    run_script(main)
