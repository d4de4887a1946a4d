"""The bundled model's form (basic blocks, batch norm per level) against plain NumPy in float64: needs no PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.export.safetensors_file import save
from trt_blendmask.export import export_onnx

F64 = npt.NDArray[np.float64]
HEAD, BASIS = "proposal_generator.fcos_head", "basis_module"
STEM, WIDTH, PYRAMID, CLASSES, K, M = 8, 8, 32, 3, 4, 3


class Network:
    """Draws each weight when it is first used, so that the state dict is written down nowhere but here."""

    def __init__(self, plain: bool) -> None:
        self.plain = plain
        self.random = np.random.default_rng(11)
        self.state: dict[str, F64] = {}

    def weight(self, key: str, *shape: int) -> F64:
        if key not in self.state:
            if len(shape) == 4:
                value = self.random.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape)
            elif key.endswith(("running_var", "scale")):
                value = self.random.uniform(0.5, 2, shape)
            else:
                value = self.random.normal(1 if ".norm.weight" in key or ".1.weight" in key else 0, 0.3, shape)
            self.state[key] = value.astype(np.float32).astype(np.float64)
        return self.state[key]

    def conv(self, key: str, x: F64, channels: int, kernel: int, stride: int = 1, bias: bool = True) -> F64:
        """[C, H, W] to [channels, ceil(H / stride), ceil(W / stride)]."""
        pad = kernel // 2
        padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (1, 2))[:, ::stride, ::stride]
        y = np.einsum("oikl,ihwkl->ohw", self.weight(f"{key}.weight", channels, len(x), kernel, kernel), windows)
        return y + self.weight(f"{key}.bias", channels)[:, None, None] if bias else y

    def norm(self, key: str, x: F64) -> F64:
        names = ("weight", "bias", "running_mean", "running_var")
        gamma, beta, mean, variance = (self.weight(f"{key}.{n}", len(x))[:, None, None] for n in names)
        return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta

    def backbone(self, image: F64) -> list[F64]:
        prefix = "backbone.bottom_up"
        x = relu(self.norm(f"{prefix}.stem.conv1.norm", self.conv(f"{prefix}.stem.conv1", image, STEM, 7, 2, False)))
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
        x = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))[:, ::2, ::2].max((3, 4))
        stages = []
        for stage, channels in zip((2, 3, 4, 5), (WIDTH, 2 * WIDTH, 4 * WIDTH, 8 * WIDTH), strict=True):
            for block in (0, 1):
                key, stride = f"{prefix}.res{stage}.{block}", 2 if block == 0 and stage > 2 else 1
                y = relu(self.norm(f"{key}.conv1.norm", self.conv(f"{key}.conv1", x, channels, 3, stride, False)))
                y = self.norm(f"{key}.conv2.norm", self.conv(f"{key}.conv2", y, channels, 3, 1, False))
                if len(x) != channels:
                    x = self.norm(f"{key}.shortcut.norm", self.conv(f"{key}.shortcut", x, channels, 1, stride, False))
                x = relu(x + y)
            stages.append(x)
        return stages[1:]

    def pyramid(self, stages: list[F64]) -> list[F64]:
        merged: list[F64] = []
        for level, x in zip((5, 4, 3), reversed(stages), strict=True):
            y = self.conv(f"backbone.fpn_lateral{level}", x, PYRAMID, 1)
            merged.insert(0, y + merged[0].repeat(2, 1).repeat(2, 2) if merged else y)
        return [self.conv(f"backbone.fpn_output{3 + i}", x, PYRAMID, 3) for i, x in enumerate(merged)]

    def head(self, level: int, x: F64) -> dict[str, F64]:
        for layer in (0, 1):
            x = self.conv(f"{HEAD}.share_tower.{(2 if self.plain else 3) * layer}", x, PYRAMID, 3)
            x = relu(x if self.plain else self.norm(f"{HEAD}.share_tower.{3 * layer + 1}.{level}", x))
        distances = self.conv(f"{HEAD}.bbox_pred", x, 4, 3)
        if self.plain:
            distances = distances * self.weight(f"{HEAD}.scales.{level}.scale", 1)
        return {
            f"P{3 + level}logits": self.conv(f"{HEAD}.cls_logits", x, CLASSES, 3),
            f"P{3 + level}bbox_reg": relu(distances),
            f"P{3 + level}centerness": self.conv(f"{HEAD}.ctrness", x, 1, 3),
            f"P{3 + level}top_feats": self.conv("top_layer", x, K * M * M, 3),
        }

    def bases(self, levels: list[F64]) -> F64:
        def block(name: str, x: F64) -> F64:
            return relu(self.norm(f"{BASIS}.{name}.1", self.conv(f"{BASIS}.{name}.0", x, 16, 3, 1, False)))

        x = sum(enlarge(block(f"refine.{i}", p), 2**i) for i, p in enumerate(levels))
        x = block("tower.1", block("tower.0", np.asarray(x)))
        return self.conv(f"{BASIS}.tower.4", block("tower.3", enlarge(x, 2)), K, 1)


def relu(x: F64) -> F64:
    return np.maximum(x, 0)


def enlarge(x: F64, factor: int) -> F64:
    """Bilinear at half-pixel centres, edges held."""
    for axis in (1, 2):
        size = x.shape[axis]
        where = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
        low = np.minimum(where.astype(int), max(size - 2, 0))
        shape = [1, 1, 1]
        shape[axis] = -1
        share = (where - low).reshape(shape)
        x = x.take(low, axis) * (1 - share) + x.take(np.minimum(low + 1, size - 1), axis) * share
    return x


@pytest.mark.parametrize("plain", [False, True], ids=["batch norm per level", "no norm, learned scales"])
def test_heads_match_plain_numpy(
    plain: bool,
    small_config: Callable[..., Path],
    tmp_path: Path,
    heads: Callable[..., dict[str, np.ndarray]],
    worst: Callable[..., float],
) -> None:
    network = Network(plain)
    image = network.random.normal(0, 1, (3, 64, 96)).astype(np.float32)
    levels = network.pyramid(network.backbone(image.astype(np.float64)))
    expected = {"bases": network.bases(levels)[None]}
    for index, level in enumerate(levels):
        expected |= {name: value[None] for name, value in network.head(index, level).items()}
    save(network.state, tmp_path / "small.safetensors")
    config = small_config({"FCOS": {"NORM": "none", "USE_SCALE": True}} if plain else None)
    report = export_onnx(tmp_path / "small.safetensors", config, tmp_path / "small.onnx")
    got = heads(report.output, image[None])
    assert set(got) == set(expected)
    assert worst(got, expected) <= 2e-5
    assert report.ignored_keys == ()
