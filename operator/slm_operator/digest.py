"""Short names for JSON values: equal values have equal digests."""

import hashlib
import json
from typing import Any


def digest(value: Any) -> str:
    """Sixteen hex digits of the value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
