"""COCO content on its way from another format, and the source that its messages name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from data.issues import Issue

Record = dict[str, Any]  # of a COCO file


class Section(Protocol):
    """A split of a data set in the configuration (`configs.schema.Split`)."""

    @property
    def images(self) -> str:
        """Folder of the images."""

    @property
    def annotations(self) -> str:
        """File or folder of the annotations."""

    @property
    def format(self) -> str:
        """Of the annotations."""

    @property
    def parts(self) -> list[str]:
        """Folders and lists of images or names; empty: all."""


Sections = Mapping[str, Section]  # by the name of the split
MANY_IMAGES = 200  # from which progress is shown


@dataclass
class Converted:
    """A split as COCO content, what was skipped, and lines for the user."""

    folder: Path  # file names are relative to it
    images: list[Record] = field(default_factory=list)
    annotations: list[Record] = field(default_factory=list)
    categories: list[Record] = field(default_factory=list)  # of all splits, so known last
    issues: list[Issue] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lost_images: int = 0
    lost_annotations: int = 0

    @property
    def content(self) -> Record:
        """The content of a COCO file."""
        return {"images": self.images, "annotations": self.annotations, "categories": self.categories}

    def lose_image(self, issue: Issue) -> None:
        """Add the issue of an image that is skipped."""
        self.issues.append(issue)
        self.lost_images += 1

    def lose_annotations(self, *issues: Issue) -> None:
        """Add the issues of annotations that are skipped, one each."""
        self.issues += issues
        self.lost_annotations += len(issues)


def source_of(sections: Sections) -> str:
    """What messages on a data set name: the annotations of its first split."""
    return next(iter(sections.values())).annotations
