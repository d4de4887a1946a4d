"""What a build can be told."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trt_blendmask.engines.flavor import Flavor
from trt_blendmask.errors import DataError, UsageError

FLAVORS = ("auto", "tensorrt", "rtx")
HARDWARE = ("ampere+", "same-compute-capability")
_ONLY_FULL = ("version_compatible", "hardware_compatible", "dla", "embed_plugin", "exclude_lean")


@dataclass(frozen=True)
class BuildOptions:
    """How an engine is built; as they are, all leave it to TensorRT.

    Attributes:
        flavor: "auto", "tensorrt" or "rtx"; see `engines.flavor.find`.
        tail_check: build the graph's tail alone first, which takes seconds, and stop there if it does not build.
        timing_cache: file with timings of kernels, read and added to; None: full TensorRT uses one in the user's cache
            folder. seed_from: another such file, which is only read.
        workspace_mib: bound on TensorRT's working memory on the GPU, MiB. opt_level: 0 (quick build) to 5.
        profile: smallest, usual and largest batch of a graph whose batch is free.
        compute_capability: TensorRT-RTX: GPUs to build for, as "8.6", or "current"; empty: all it knows.
        version_compatible: the engine also runs in later TensorRT of the same or the next major version; it then
            carries a runtime, unless `exclude_lean`.
        hardware_compatible: "ampere+", "same-compute-capability", or "" for this GPU only.
        plugin: of `surgery --tail plugin`: its library; None: see `engines.plugin`. embed_plugin: put it into the plan.
        dla: number of the deep-learning accelerator of a Jetson to use.
    """

    flavor: str = "auto"
    tail_check: bool = False
    timing_cache: Path | None = None
    seed_from: Path | None = None
    workspace_mib: int | None = None
    opt_level: int | None = None
    profile: tuple[int, int, int] | None = None
    compute_capability: tuple[str, ...] = ()
    version_compatible: bool = False
    exclude_lean: bool = False
    hardware_compatible: str = ""
    plugin: Path | None = None
    embed_plugin: bool = False
    dla: int | None = None

    def __post_init__(self) -> None:
        _require(self.flavor in FLAVORS, "flavor", " or ".join(FLAVORS), self.flavor)
        _require(self.opt_level in (None, 0, 1, 2, 3, 4, 5), "opt-level", "0 to 5", self.opt_level)
        _require(self.workspace_mib is None or self.workspace_mib > 0, "workspace", "MiB above 0", self.workspace_mib)
        _require(self.dla is None or self.dla >= 0, "dla", "the number of a core", self.dla)
        _require(
            self.hardware_compatible in ("", *HARDWARE),
            "hardware-compatible",
            " or ".join(HARDWARE),
            self.hardware_compatible,
        )
        rising = self.profile is None or 1 <= self.profile[0] <= self.profile[1] <= self.profile[2]
        _require(rising, "profile", "three rising batch sizes, MIN,OPT,MAX", self.profile)
        for each in self.compute_capability:
            _require(re.fullmatch(r"\d+\.\d|current", each) is not None, "compute-capability", "as 8.6", each)
        if "current" in self.compute_capability and len(self.compute_capability) > 1:
            raise UsageError("--compute-capability current stands alone: name the others by number, as 8.6,12.0.")
        if self.tail_check and self.profile is not None:
            raise UsageError("--tail-check needs a fixed batch: leave out that or --profile.")
        if self.exclude_lean and not self.version_compatible:
            raise UsageError("--exclude-lean is for --version-compatible: add that, or leave it out.")

    def check(self, flavor: Flavor) -> None:
        """Refuse what that flavor cannot do, in words, where it would only log a warning.

        Raises:
            UsageError: there is such an option.
        """
        changed = self.recorded()
        given = [name for name in _ONLY_FULL if name in changed]
        if flavor.name == "rtx" and given:
            option = given[0].replace("_", "-")
            raise UsageError(f"{flavor.title} has no --{option}: leave it out, or build with --flavor tensorrt.")
        if flavor.name == "tensorrt" and self.compute_capability:
            raise UsageError(
                "--compute-capability is for TensorRT-RTX; TensorRT builds for the GPU it runs on: leave it out, or "
                "add --flavor rtx."
            )

    def recorded(self) -> dict[str, Any]:
        """Those that shape the engine and are not as they are by default, as plain JSON values."""
        apart = ("flavor", "tail_check", "timing_cache", "seed_from", "plugin")
        usual = _plain(BuildOptions())
        return {k: v for k, v in _plain(self).items() if k not in apart and v != usual[k]}

    def to_json(self) -> dict[str, Any]:
        """All of them as plain JSON values; `from_json` reads them back."""
        return _plain(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> BuildOptions:
        """Read what `to_json` gave."""
        paths = {k: Path(values[k]) for k in ("timing_cache", "seed_from", "plugin") if values[k] is not None}
        rows = {k: tuple(values[k]) for k in ("profile", "compute_capability") if values[k] is not None}
        return BuildOptions(**{**values, **paths, **rows})

    @staticmethod
    def from_recorded(values: dict[str, Any], flavor: str) -> BuildOptions:
        """Those of an engine of that flavor, from what `recorded` gave.

        Raises:
            DataError: of another version: unknown names or values.
        """
        try:
            return BuildOptions.from_json({**BuildOptions(flavor=flavor).to_json(), **values})
        except (UsageError, TypeError, LookupError) as error:
            raise DataError(f"Expected options that this version knows, got {values!r:.200}: {error}.") from error


def _plain(options: BuildOptions) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        return os.path.realpath(value) if isinstance(value, Path) else list(value) if type(value) is tuple else value

    return {name: plain(value) for name, value in asdict(options).items()}


def _require(holds: bool, name: str, expected: str, got: object) -> None:
    if not holds:
        raise UsageError(f"Expected --{name} {expected}, got '{got}'.")
