"""Duplicate images in a data set: the same file, identical bytes, or visually almost identical.

Near duplicates are defined by one rule. Each image is converted to grey and reduced twice by area averaging: to 9 x 8,
where the 64 signs of the differences between neighbours form the difference hash (dHash), and to a thumbnail of
16 x 16. Two images are near duplicates if at most DISTANCE of the 64 bits differ and the thumbnails correlate by at
least CORRELATION; the second condition excludes images that only share their layout of light and dark. Images without
contrast are ignored. Groups are the connected components of such pairs. This finds copies that were re-encoded, scaled,
stretched, brightened or converted to grey, and most crops of a few per cent, but not larger crops or mirror images.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from core.progress import map_in_threads
from data.annotations import Annotations
from data.image import ImageError, decode_image

DISTANCE = 6
CORRELATION = 0.95
MIN_CONTRAST = 2.0  # standard deviation of the thumbnail in grey levels
THUMBNAIL = 16
RULE = (
    f"dHash (64 bits) differs in at most {DISTANCE} bits and grey thumbnails of {THUMBNAIL} x {THUMBNAIL} correlate by "
    f"at least {CORRELATION:g}"
)
KINDS = {
    "same-file": "one file is listed more than once",
    "same-bytes": "files with identical content",
    "near": f"different content, almost identical picture: {RULE}",
}


@dataclass(frozen=True)
class Member:
    """One image of a group."""

    split: str
    index: int  # position in the split's annotations
    file: str


@dataclass(frozen=True)
class Group:
    """Duplicate images; a group of near duplicates also contains the exact copies of its members."""

    kind: str  # one of KINDS
    members: tuple[Member, ...]

    @property
    def splits(self) -> list[str]:
        """The splits of its members."""
        return list(dict.fromkeys(member.split for member in self.members))

    def as_dict(self) -> dict[str, object]:
        """Plain form for a JSON file."""
        return {"kind": self.kind, "images": [{"split": member.split, "file": member.file} for member in self.members]}


@dataclass(frozen=True)
class Overlap:
    """How many images of split `other` are also in split `one`, as exact or near duplicates."""

    one: str
    other: str
    exact: int
    near: int
    images: int  # of `other`


@dataclass(frozen=True)
class Fingerprint:
    """The properties by which images are compared."""

    content: bytes  # SHA-256 of the file
    hash: np.ndarray  # (8,) uint8, the 64 bits
    thumbnail: np.ndarray  # (256,) uint8


def fingerprint(path: str | os.PathLike[str]) -> Fingerprint:
    """Read and decode an image file; ValueError if it no longer exists or cannot be decoded."""
    try:
        data = Path(path).read_bytes()
        image = decode_image(data)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    except ImageError as error:
        raise ValueError(f"{path}: {error.what}; expected the image that existed when the check began") from error
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    columns = cv2.resize(grey.astype(np.float32), (9, 8), interpolation=cv2.INTER_AREA)
    thumbnail = cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    bits = np.packbits(columns[:, 1:] > columns[:, :-1])
    return Fingerprint(hashlib.sha256(data).digest(), bits, thumbnail.reshape(-1))


def find_duplicates(splits: Mapping[str, Annotations], *, progress: bool = True) -> list[Group]:
    """Groups of duplicates within and across splits: exact ones first, each kind in the order of the data."""
    members = [Member(split, k, name) for split, data in splits.items() for k, name in enumerate(data.file_names)]
    locations = [os.path.realpath(splits[member.split].path(member.index)) for member in members]
    files = list(dict.fromkeys(locations))
    show = progress and len(files) >= 50
    prints = list(map_in_threads(lambda k: fingerprint(files[k]), len(files), "looking for duplicates", show=show))
    content_of = {file: image.content for file, image in zip(files, prints, strict=True)}
    same: dict[bytes, list[int]] = defaultdict(list)
    for position, location in enumerate(locations):
        same[content_of[location]].append(position)
    groups = []
    for positions in same.values():
        if len(positions) > 1:
            kind = "same-file" if len({locations[k] for k in positions}) == 1 else "same-bytes"
            groups.append(Group(kind, tuple(members[k] for k in positions)))
    groups.sort(key=lambda group: list(KINDS).index(group.kind))
    distinct = {image.content: image for image in prints}
    contents = list(distinct)
    links = near_pairs(
        np.array([distinct[content].hash for content in contents], np.uint8).reshape(-1, 8),
        np.array([distinct[content].thumbnail for content in contents], np.uint8).reshape(-1, THUMBNAIL**2),
    )
    for linked in _components(links):
        positions = sorted(k for content in linked for k in same[contents[content]])
        groups.append(Group("near", tuple(members[k] for k in positions)))
    return groups


def overlaps(groups: list[Group], counts: Mapping[str, int]) -> list[Overlap]:
    """How many images of each later split are also in each earlier split; `counts`: images per split."""
    names = list(counts)
    found = []
    for place, one in enumerate(names):
        for other in names[place + 1 :]:
            shared: dict[bool, set[int]] = {True: set(), False: set()}
            for group in groups:
                if one in group.splits:
                    exact = group.kind != "near"
                    shared[exact] |= {member.index for member in group.members if member.split == other}
            found.append(Overlap(one, other, len(shared[True]), len(shared[False] - shared[True]), counts[other]))
    return found


def near_pairs(hashes: np.ndarray, thumbnails: np.ndarray) -> list[tuple[int, int]]:
    """Links (i, j) between near duplicates, by hashes (n, 8) and thumbnails (n, 256), both uint8.

    Not every pair is listed, but each group is connected. Two 64-bit hashes that differ in at most DISTANCE bits agree
    in at least one of DISTANCE + 1 bands, so only images that share a band are compared.
    """
    usable = np.flatnonzero(thumbnails.std(axis=1) >= MIN_CONTRAST) if len(thumbnails) else np.zeros(0, int)
    links: list[tuple[int, int]] = []
    apart: list[int] = []  # one image for all that are linked with the same hash
    for alike in _buckets(hashes[usable]):
        leaders: list[int] = []
        table = np.empty((len(alike), thumbnails.shape[1]), np.float32)  # standardised, of the leaders
        for image, unit in zip(usable[alike].tolist(), _standardised(thumbnails[usable[alike]]), strict=True):
            similarity = table[: len(leaders)] @ unit
            if len(leaders) and similarity.max() >= CORRELATION:
                links.append((leaders[int(similarity.argmax())], image))
            else:
                table[len(leaders)] = unit
                leaders.append(image)
        apart += leaders
    images = np.array(sorted(apart), np.int64)
    bits, units = np.unpackbits(hashes[images], axis=1), _standardised(thumbnails[images])
    for band in np.array_split(np.arange(64), DISTANCE + 1):
        for bucket in _buckets(np.packbits(bits[:, band], axis=1)):
            for place, position in enumerate(bucket[:-1]):
                rest = bucket[place + 1 :]
                distance = (bits[rest] != bits[position]).sum(axis=1)
                rest = rest[(distance > 0) & (distance <= DISTANCE)]  # images with equal hashes were compared above
                close = images[rest[units[rest] @ units[position] >= CORRELATION]]
                links += [(int(images[position]), int(other)) for other in close]
    return links


def _buckets(keys: np.ndarray) -> Iterator[np.ndarray]:
    """Positions of equal rows of keys (n, k), in order of appearance within each bucket."""
    if not len(keys):
        return
    _, group = np.unique(keys, axis=0, return_inverse=True)
    group = group.reshape(-1)
    order = np.argsort(group, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(group[order])) + 1)


def _standardised(thumbnails: np.ndarray) -> np.ndarray:
    """Non-constant rows (n, k) uint8 as float32 with mean 0 and norm 1: their products are correlations."""
    rows = thumbnails.astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _components(links: list[tuple[int, int]]) -> list[list[int]]:
    """The connected components of pairs, each sorted, in the order of their first member."""
    parent: dict[int, int] = {}

    def root(node: int) -> int:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for one, other in links:
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    sets: dict[int, list[int]] = defaultdict(list)
    for node in sorted(parent):
        sets[root(node)].append(node)
    return list(sets.values())
