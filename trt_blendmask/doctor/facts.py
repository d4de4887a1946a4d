"""What `doctor` found out, as plain data: the fields are the keys of its JSON."""

from __future__ import annotations

from dataclasses import dataclass, field

from trt_blendmask.engines.flavor import TITLES


@dataclass(frozen=True)
class System:
    """`kernel` as uname says; memory and cores are those that this process may use."""

    name: str
    kernel: str
    architecture: str
    container: bool
    cores: int
    memory_bytes: int
    memory_free_bytes: int
    swap_bytes: int


@dataclass(frozen=True)
class Disk:
    folder: str
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class Python:
    """`packages`: versions of those that matter here, by name."""

    version: str
    venv: bool
    packages: dict[str, str]
    problem: str = ""


@dataclass(frozen=True)
class Jetson:
    """A board: "36.4.3" of Jetson Linux, the JetPack that it belongs to ("" unknown), versions of Debian packages."""

    model: str
    l4t: str
    jetpack: str
    packages: dict[str, str]


@dataclass(frozen=True)
class Gpu:
    name: str
    compute_capability: str
    memory_bytes: int


@dataclass(frozen=True)
class Driver:
    """`cuda`: the newest CUDA that the driver runs. `problem`: why there is no GPU to use, "" where there is."""

    version: str
    cuda: str
    toolkit: str
    gpus: tuple[Gpu, ...]
    problem: str
    nvidia_smi_problem: str = ""


@dataclass(frozen=True)
class TensorRt:
    """One flavor.

    Attributes:
        version: "" where it is not installed. problem: why it cannot be used.
        plugin: "loads", "fails", "crashes", "missing", or "" where it was not tried; library: which file that is.
    """

    flavor: str
    installed: bool
    version: str
    plugin: str
    library: str
    problem: str
    plugin_problem: str

    @property
    def usable(self) -> bool:
        return self.installed and not self.problem

    @property
    def title(self) -> str:
        return TITLES[self.flavor]


@dataclass(frozen=True)
class Library:
    """A Python library that was really imported: what it can do, by name; `problem`: why it could not be imported."""

    version: str
    features: dict[str, object] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class Clock:
    """Frequencies in MHz; locked: the lowest equals the highest."""

    unit: str
    now_mhz: float
    lowest_mhz: float
    highest_mhz: float

    @property
    def locked(self) -> bool:
        return self.lowest_mhz == self.highest_mhz > 0


@dataclass(frozen=True)
class Power:
    """`mode`: as nvpmodel says, "" where there is none. `limit_w`: of a desktop's GPU, 0 unknown."""

    mode: str
    limit_w: float
    governor: str
    clocks: tuple[Clock, ...]
    problem: str = ""


@dataclass(frozen=True)
class Finding:
    """Something that will not work ("stops") or that one should know ("risk"), and how to mend it; `code` stays."""

    code: str
    level: str
    what: str
    mend: str


def stops(code: str, what: str, mend: str) -> Finding:
    return Finding(code, "stops", what, mend)


def risk(code: str, what: str, mend: str) -> Finding:
    return Finding(code, "risk", what, mend)


@dataclass(frozen=True)
class Facts:
    system: System
    disks: tuple[Disk, ...]
    python: Python
    jetson: Jetson | None
    driver: Driver
    tensorrt: tuple[TensorRt, ...]
    cuda_python: dict[str, str]
    onnxruntime: Library
    opencv: Library
    pyav: Library
    power: Power
