"""The plugin's kernel against PyTorch's chain roi_align, interpolate, softmax, mul, sum, sigmoid, on a GPU.

    python -m benchmarks.blend_kernel [--replays 1000] [--json F]

Needs a GPU, nvcc, torch and torchvision (without it the chain samples by grid_sample, and the figures say so). Every
figure is the p50 of single calls between two CUDA events. Ours and the chain's "graph" are replays of a CUDA graph,
queued behind a spinning kernel or a flush of L2, so that the host is never waited for; "eager" and "compiled" are calls
as Python makes them. Two floors are measured as well: an empty kernel in a graph, and the bytes that must be moved, at
the speed of a large copy. Masks are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.plugin.twins import Params, build

K, D, R, STRIDE = 4, 100, 56, 4
BARS = {"eager": 10.0, "graph": 5.0, "compiled": 2.0}  # how many times ours
FLOOR_BAR = 2.0  # ours, of the greater floor


@dataclass(frozen=True)
class Setting:
    """What is blended: type of all tensors, and sizes."""

    half: bool
    bases_hw: tuple[int, int]
    attention_size: int

    @property
    def bytes_moved(self) -> int:
        """Bases, attention and masks once, and the boxes."""
        h, w = self.bases_hw
        elements = K * h * w + D * K * self.attention_size**2 + D * R * R
        return elements * (2 if self.half else 4) + D * 16 + 4


SETTINGS = [
    Setting(half, bases_hw, m) for half in (True, False) for bases_hw in ((144, 144), (200, 336)) for m in (14, 7)
]


class Bench:
    """One setting's tensors and calls on the GPU."""

    def __init__(self, setting: Setting, library: Any, torch: Any) -> None:
        self.setting, self.library, self.torch = setting, library, torch
        torch.manual_seed(0)
        self.type = torch.float16 if setting.half else torch.float32
        h, w = setting.bases_hw
        kwargs = {"device": "cuda", "dtype": self.type}
        self.bases = 2 * torch.randn(1, K, h, w, **kwargs)
        self.channels = 8 if setting.half else K  # of a pixel in TensorRT's formats HWC8 and HWC
        self.pixels = torch.zeros(1, h, w, self.channels, **kwargs)
        self.pixels[..., :K] = self.bases.permute(0, 2, 3, 1)
        self.attention = 2 * torch.randn(D, K, setting.attention_size, setting.attention_size, **kwargs)
        size = torch.tensor([w * STRIDE, h * STRIDE], device="cuda", dtype=torch.float32)
        extent = size * (0.03 + 0.4 * torch.rand(D, 2, device="cuda") ** 2)
        low = (size - extent) * torch.rand(D, 2, device="cuda")
        self.boxes = torch.cat([low, low + extent], dim=1).contiguous()
        self.count = torch.tensor([D], device="cuda", dtype=torch.int32)
        self.masks = torch.empty(D, R, R, **kwargs)

    def ours(self, pixels: bool) -> Callable[[], None]:
        """The launch, with the bases plane by plane, or pixel by pixel as TensorRT's formats have them."""
        params = Params()
        geometry, (h, w) = params.geometry, self.setting.bases_hw
        geometry.num_bases, geometry.bases_h, geometry.bases_w, geometry.mask_size = K, h, w, R
        geometry.attention_size, geometry.spatial_scale = self.setting.attention_size, 1 / STRIDE
        geometry.sampling_ratio, geometry.aligned = 1, True
        params.batch, params.detections, params.bases_channels, params.bases_layout = 1, D, self.channels, int(pixels)
        params.bases_type = params.attention_type = params.masks_type = int(self.setting.half)
        tensors = [self.pixels if pixels else self.bases, self.boxes, self.attention, self.count, self.masks]
        pointers = [ctypes.c_void_p(t.data_ptr()) for t in tensors]

        def launch() -> None:
            self.check(self.library.launch(ctypes.byref(params), *pointers, self.stream()))

        return launch

    def nothing(self) -> None:
        self.check(self.library.launch_nothing(self.stream()))

    def stream(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.torch.cuda.current_stream().cuda_stream)

    @staticmethod
    def check(error: int) -> None:
        if error != 0:
            raise RuntimeError(f"CUDA error {error}")

    def chain(self) -> Any:
        """AdelaiDet's blender in PyTorch; its roi_align asks for boxes of the bases' type."""
        functional = self.torch.nn.functional
        rois = self.roi_align()
        weights = functional.interpolate(self.attention, (R, R), mode="bilinear", align_corners=False).softmax(dim=1)
        return (rois * weights).sum(dim=1).sigmoid()

    def roi_align(self) -> Any:
        try:
            from torchvision.ops import roi_align
        except ImportError:
            return self.grid_sample()
        return roi_align(self.bases, [self.boxes.to(self.type)], R, 1 / STRIDE, sampling_ratio=1, aligned=True)

    def grid_sample(self) -> Any:
        torch, (h, w) = self.torch, self.setting.bases_hw
        cells = (torch.arange(R, device="cuda") + 0.5) / R
        x, y = ((self.boxes[:, i, None] + cells * (self.boxes[:, i + 2] - self.boxes[:, i])[:, None]) for i in (0, 1))
        x, y = (
            (2 * x / (STRIDE * w) - 1)[:, None, :].expand(D, R, R),
            (2 * y / (STRIDE * h) - 1)[:, :, None].expand(D, R, R),
        )
        grid = torch.stack([x, y], dim=-1).to(self.type)
        sample = torch.nn.functional.grid_sample
        return sample(self.bases.expand(D, -1, -1, -1), grid, padding_mode="border", align_corners=False)

    def compare(self) -> float:
        """The greatest difference of our masks and the chain's in float32. Half a pixel would make a hundred times it.

        Both round coordinates of hundreds of pixels to float32, each in its way, and the bases are noise: steep.
        """
        wide = Bench.__new__(Bench)
        wide.__dict__.update(
            self.__dict__, type=self.torch.float32, bases=self.bases.float(), attention=self.attention.float()
        )
        wanted, worst = wide.chain(), 0.0
        for pixels in (False, True):
            self.masks.zero_()
            self.ours(pixels)()
            worst = max(worst, float((self.masks.float() - wanted).abs().max()))
        if not worst <= (4e-3 if self.setting.half else 5e-4):
            raise SystemExit(f"{self.setting}: masks differ by {worst}; no figure is worth printing.")
        return worst


def in_graph(torch: Any, work: Callable[[], Any]) -> Callable[[], Any]:
    """`work` captured; a call replays it."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    replay: Callable[[], Any] = graph.replay
    return replay


def microseconds(torch: Any, work: Callable[[], Any], replays: int, before: Callable[[], Any] | None) -> list[float]:
    """Times of single calls; `before` keeps the GPU busy while the host queues what is timed."""
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(replays + 20)]
    for start, end in events:
        if before is not None:
            before()
        start.record()
        work()
        end.record()
    torch.cuda.synchronize()
    return [1e3 * start.elapsed_time(end) for start, end in events[20:]]


def copy_bandwidth(torch: Any) -> float:
    """Bytes read and written per microsecond, by copies of 1 GiB."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    times = microseconds(torch, lambda: target.copy_(source), 20, None)
    return 2 * (1 << 30) / statistics.median(times)


def measure(bench: Bench, torch: Any, replays: int, bandwidth: float) -> dict[str, Any]:
    """p50 in microseconds of everything, for one setting."""
    flushed = torch.empty(4 * torch.cuda.get_device_properties(0).L2_cache_size, dtype=torch.uint8, device="cuda")
    torch.compiler.reset()  # else the second setting's shapes make the chain a slower one, of any shape
    compiled = torch.compile(bench.chain, dynamic=False)
    for _ in range(3):
        compiled()
    graphs = {
        "ours, planes": bench.ours(pixels=False),
        "ours, pixels": bench.ours(pixels=True),
        "graph": bench.chain,
        "compiled, graph": compiled,
        "empty kernel": bench.nothing,
    }
    p50: dict[str, Any] = {"byte floor": bench.setting.bytes_moved / bandwidth}
    for name, work in graphs.items():
        replay = in_graph(torch, work)
        warm = microseconds(torch, replay, replays, lambda: torch.cuda._sleep(100_000))
        cold = microseconds(torch, replay, replays, flushed.zero_)
        p50[name], p50[f"{name}, L2 flushed"] = statistics.median(warm), statistics.median(cold)
    for name, work in {"eager": bench.chain, "compiled": compiled}.items():
        p50[name] = statistics.median(microseconds(torch, work, replays, None))
    return p50


def judge(p50: dict[str, Any]) -> dict[str, bool]:
    """Prints the figures of a setting beside the bars."""
    ours = min(p50["ours, planes"], p50["ours, pixels"])
    verdicts = {}
    for name, value in p50.items():
        print(f"  {name:28s} {value:9.2f} us  {value / ours:7.2f} x ours", end="")
        if name in BARS:
            verdicts[name] = value >= BARS[name] * ours
            print(f"  (bar: {BARS[name]:g}, {'met' if verdicts[name] else 'MISSED'})", end="")
        print()
    floor = max(p50["byte floor"], p50["empty kernel"])
    verdicts["floor"] = ours <= FLOOR_BAR * floor
    print(f"  ours / floor {ours / floor:.2f} (bar: at most {FLOOR_BAR:g}, {'met' if verdicts['floor'] else 'MISSED'})")
    return verdicts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replays", type=int, default=1000)
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/blend_kernel-DATE-DEVICE.json")
    args = parser.parse_args()

    import torch

    if not torch.cuda.is_available():
        raise SystemExit("This benchmark needs a GPU that torch can use; none was found.")
    try:
        import torchvision

        roi_align = f"torchvision {torchvision.__version__}"
    except ImportError:
        roi_align = "grid_sample (no torchvision)"
    library = ctypes.CDLL(str(build("device") / "libdevice.so"))
    bandwidth = copy_bandwidth(torch)
    results = []
    for setting in SETTINGS:
        bench = Bench(setting, library, torch)
        difference = bench.compare()
        print(setting)
        with torch.no_grad():
            p50 = measure(bench, torch, args.replays, bandwidth)
        bars = judge(p50)
        results.append({"setting": asdict(setting), "largest_difference": difference, "p50_us": p50, "bars_met": bars})
    device, today = torch.cuda.get_device_name(0), datetime.date.today().isoformat()
    figures = {
        "device": device,
        "date": today,
        "versions": {"torch": torch.__version__, "cuda": torch.version.cuda, "roi_align": roi_align},
        "replays": args.replays,
        "copy_gb_per_s": bandwidth / 1e3,
        "results": results,
    }
    name = f"blend_kernel-{today}-{device.lower().replace(' ', '-')}.json"
    path = args.json or Path(__file__).parent / "results" / name
    path.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
