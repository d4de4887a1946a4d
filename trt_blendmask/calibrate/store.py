"""The histograms of a calibration and which pictures they hold: in a file, to go on from and to draw."""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path

import numpy as np

from trt_blendmask.calibrate.histogram import BINS, Counts, Histogram
from trt_blendmask.errors import DataError
from trt_blendmask.files import atomic_output, existing_file

FORMAT = 1
Groups = tuple[tuple[str, ...], ...]


class Observations:
    """One histogram per group of tensors that share a scale.

    Attributes:
        model_sha256: of the graph that was run. groups: names of the tensors. histograms: one per group.
        seen: sha256 of the pictures that were counted.
    """

    def __init__(self, model_sha256: str, groups: Groups) -> None:
        self.model_sha256, self.groups = model_sha256, groups
        self.histograms = [Histogram() for _ in groups]
        self.seen: set[str] = set()
        self.by_tensor = {name: h for group, h in zip(groups, self.histograms, strict=True) for name in group}

    def save(self, path: Path) -> None:
        """Write everything to `path` (.npz), whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        about = {
            "format": FORMAT,
            "model_sha256": self.model_sha256,
            "groups": self.groups,
            "seen": sorted(self.seen),
            "exponents": [h.exponent for h in self.histograms],
            "zeros": [h.zeros for h in self.histograms],
            "ends": [[float(h.low).hex(), float(h.high).hex()] for h in self.histograms],
        }
        text = np.frombuffer(json.dumps(about).encode(), np.uint8)
        with atomic_output(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, about=text, counts=np.stack([h.counts for h in self.histograms]))

    @staticmethod
    def load(path: Path) -> Observations:
        """Read what `save` wrote.

        Raises:
            InputMissingError: no such file.
            DataError: another kind of file, or a damaged one.
        """
        hint = "Calibrate again: trt-blendmask calibrate MODEL --images DIR -o table.json"
        file = existing_file(path, "histograms of a calibration", hint)
        try:
            with np.load(file, allow_pickle=False) as parts:
                about, counts = json.loads(parts["about"].tobytes()), parts["counts"]
            if about["format"] != FORMAT or counts.shape != (len(about["groups"]), 2 * BINS):
                raise ValueError("of another version")
            read = Observations(about["model_sha256"], tuple(tuple(group) for group in about["groups"]))
            read.seen = set(about["seen"])
            rows = zip(read.histograms, counts, about["exponents"], about["zeros"], about["ends"], strict=True)
            for histogram, row, exponent, zeros, (low, high) in rows:
                histogram.counts, histogram.exponent, histogram.zeros = row.astype(np.int64), int(exponent), int(zeros)
                histogram.low, histogram.high = float.fromhex(low), float.fromhex(high)
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(
                f"Expected histograms of a calibration, but '{file}' holds none: {error}. {hint}"
            ) from error
        return read


def histograms_beside(table: Path) -> Path:
    """Where `calibrate` keeps the histograms of the table in the file `table`."""
    return table.with_name(f"{table.stem}.histograms.npz")


def read_histograms(path: Path) -> dict[str, Counts]:
    """The histogram of each tensor's group, by the tensor's name.

    Raises:
        InputMissingError, DataError: as `Observations.load`.
    """
    return {name: histogram.freeze() for name, histogram in Observations.load(path).by_tensor.items()}
