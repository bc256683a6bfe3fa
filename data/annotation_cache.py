"""Annotations of large files kept in a cache file as arrays, which loads in a fraction of the parsing time."""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from core.files import replacing
from data.annotations import Annotations
from data.issues import Issue
from data.text_column import TextColumn


def write_annotations(path: Path, annotations: Annotations) -> None:
    """Write a cache file: arrays by the names of their fields, the plain values as JSON."""
    arrays: dict[str, np.ndarray] = {}
    for column in fields(Annotations):
        value = getattr(annotations, column.name)
        if isinstance(value, TextColumn):
            arrays[f"{column.name}.buffer"], arrays[f"{column.name}.starts"] = value.buffer, value.starts
        elif isinstance(value, np.ndarray):
            arrays[column.name] = value
    plain = {
        "sha256": annotations.sha256,
        "classes": annotations.classes,
        "category_ids": annotations.category_ids,
        "issues": [asdict(issue) for issue in annotations.issues],
        "notes": annotations.notes,
        "listed": annotations.listed,
    }
    arrays["plain"] = np.frombuffer(json.dumps(plain).encode(), np.uint8)
    with replacing(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_annotations(path: Path, *, source: str, image_folder: str) -> Annotations | None:
    """The annotations in a cache file, or None if it does not exist or is damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            plain = json.loads(arrays["plain"].tobytes())
            columns: dict[str, Any] = {}
            for column in fields(Annotations):
                if f"{column.name}.buffer" in arrays:
                    buffer, starts = arrays[f"{column.name}.buffer"], arrays[f"{column.name}.starts"]
                    columns[column.name] = TextColumn(buffer, starts)
                elif column.name in arrays:
                    columns[column.name] = arrays[column.name]
            plain["issues"] = [Issue(**entry) for entry in plain["issues"]]
            plain["listed"] = tuple(plain["listed"])
            return Annotations(source=source, image_folder=image_folder, **plain, **columns)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
