"""The seal of a finished run, and of a plan: one hash over the files that a comparison reads.

It finds accidents and tidying-up: an edited number, a missing row, files of two runs in one folder. It is no signature:
whoever edits a run on purpose can compute it again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

SEAL = "seal"


def seal_of(record: Mapping[str, object], results: bytes) -> str:
    """SHA-256 over run.json (without its seal, in canonical form) and the bytes of results.csv."""
    content = {key: value for key, value in record.items() if key != SEAL}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode() + b"\0" + results).hexdigest()
