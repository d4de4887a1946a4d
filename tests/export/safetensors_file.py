"""Writes small .safetensors without the library that the reader is judged by elsewhere."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any


def save(state: dict[str, Any], path: Path) -> None:
    """Arrays by name, as float32."""
    header, data = {}, b""
    for key, value in state.items():
        raw = value.astype("<f4").tobytes()
        header[key] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
