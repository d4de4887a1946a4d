"""The quick plugin in the hands of TensorRT's own tensorrt.plugin, as its lean runtime carries it, and of its registry.

Run by `make test-plugin`. The lean runtime lacks what only a builder has: its place is taken by `Expression` and the
like below, which hold the constants of static shapes. NVRTC is left out here; test_aot_kernel.py has it.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorrt_lean as trt

from trt_blendmask.aot import NAME, NAMESPACE, Target, plugin, register
from trt_blendmask.aot.attributes import TYPES, Floats, encode
from trt_blendmask.aot.launch import plan
from trt_blendmask.aot.params import BlendParams
from trt_blendmask.errors import SourceUnavailableError

N, D, K, HB, WB, R, M = 2, 100, 4, 36, 40, 28, 14
TARGET = Target(arch=87, multiprocessors=16)
FIELDS: dict[str, Any] = {
    "mask_size": R,
    "attention_size": M,
    "spatial_scale": 0.25,
    "sampling_ratio": 2,
    "aligned": 1,
    "attention_interpolation": "nearest",
    "activation": "none",
    "mask_dtype": "float16",
}


class TensorFormat(enum.Enum):
    LINEAR, HWC, HWC8 = range(3)


class Expression(trt.PluginTensorDesc):
    """A dimension: a constant, and an object that TensorRT's bindings take for one of theirs."""

    def __init__(self, value: int) -> None:
        super().__init__()
        self.value = value

    def is_constant(self) -> bool:
        return True

    def get_constant_value(self) -> int:
        return self.value


class Builder:
    """An expression builder for constants."""

    def constant(self, value: int) -> Expression:
        return Expression(value)


class Description(trt.DynamicPluginTensorDesc):
    """A tensor in the graph: shape, type and format."""

    desc: Any = None

    def __init__(self, shape: tuple[int, ...], dtype: Any, layout: TensorFormat = TensorFormat.LINEAR) -> None:
        super().__init__()
        self.desc = SimpleNamespace(dims=shape, type=dtype, format=layout, scale=1.0)
        self.type, self.format = dtype, layout


@pytest.fixture(scope="module", autouse=True)
def _tensorrt() -> Iterator[None]:
    """The lean runtime under the full one's name, with the stand-ins."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trt, "TensorFormat", TensorFormat, raising=False)
        patch.setattr(trt, "ITensor", object, raising=False)
        patch.setattr(trt, "DimsExprs", lambda length: [None] * length)
        patch.setattr(trt, "IDimensionExpr", Expression)
        patch.setitem(sys.modules, "tensorrt", trt)
        import tensorrt_lean.plugin as trtp

        patch.setitem(sys.modules, "tensorrt.plugin", trtp)
        patch.setattr(trt, "PluginTensorDesc", SimpleNamespace)
        register(TARGET)
        register(TARGET)
        yield


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What NVRTC was asked to compile."""
    asked: list[tuple[str, int]] = []
    monkeypatch.setattr(plugin, "compile_ptx", lambda *given: asked.append(given) or b"the PTX")
    return asked


def create(changes: dict[str, Any] | None = None) -> Any:
    """The plugin, of fields as the ONNX parser makes them of a node's attributes."""
    creator = trt.get_plugin_registry().get_creator(NAME, "1", NAMESPACE)
    kinds = {"float32": trt.PluginFieldType.FLOAT32, "int32": trt.PluginFieldType.INT32}
    values = {**encode(FIELDS), **(changes or {})}
    arrays = {n: np.array([values[n]], np.float32 if kind is Floats else np.int32) for n, kind in TYPES.items()}
    fields = [trt.PluginField(name, array, kinds[str(array.dtype)]) for name, array in arrays.items()]
    collection = trt.PluginFieldCollection(fields)  # borrows the arrays
    request = trt.QuickPluginCreationRequest.STRICT_AOT
    return creator.create_plugin(NAME, NAMESPACE, collection, trt.TensorRTPhase.BUILD, request)


def tensors(bases: Any, attention: Any, masks: Any, layout: TensorFormat = TensorFormat.LINEAR) -> list[Description]:
    return [
        Description((N, K, HB, WB), bases, layout),
        Description((N, D, 4), trt.float32),
        Description((N, D, K * M * M), attention),
        Description((N,), trt.int32),
        Description((N, D, R, R), masks),
    ]


def shapes(made: Any, described: list[Description]) -> list[int]:
    """Goes through a build as far as the outputs' shapes, in the builder's order."""
    made.get_output_data_types([d.type for d in described[:4]], [len(d.desc.dims) for d in described[:4]])
    dims = [[Expression(size) for size in d.desc.dims] for d in described[:4]]
    (masks,) = made.get_output_shapes(dims, [], Builder())
    return [size.value for size in masks]


def test_registry_knows_the_creator() -> None:
    creator = trt.get_plugin_registry().get_creator(NAME, "1", NAMESPACE)
    assert (creator.name, creator.plugin_namespace, creator.plugin_version) == (NAME, NAMESPACE, "1")
    assert [each.name for each in creator.field_names] == list(TYPES)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_output(dtype: str) -> None:
    made, kind = create({"half_masks": dtype == "float16"}), getattr(trt, dtype)
    assert made.num_outputs == 1
    assert list(made.get_output_data_types([trt.float16, trt.float32, trt.float16, trt.int32], [4, 3, 3, 1])) == [kind]
    assert shapes(made, tensors(trt.float16, trt.float16, kind)) == [N, D, R, R]


@pytest.mark.parametrize("bases", ["float32", "float16"])
@pytest.mark.parametrize("attention", ["float32", "float16"])
def test_formats(bases: str, attention: str) -> None:
    """The types of the graph and no others; linear bases, or a pixel's K values together."""
    made = create()
    described = tensors(getattr(trt, bases), getattr(trt, attention), trt.float16)
    shapes(made, described)
    got = made.get_supported_format_combinations(described, 4)
    assert [g.type for g in got] == [d.type for d in described] * 2
    packed = TensorFormat.HWC if bases == "float32" else TensorFormat.HWC8
    assert [g.format for g in got] == [TensorFormat.LINEAR] * 5 + [packed] + [TensorFormat.LINEAR] * 4


def launch_of(made: Any, described: list[Description]) -> tuple[dict[str, int], Any]:
    """Launch parameters and scalars that TensorRT is given."""
    given: dict[str, Any] = {}

    class Sizes:
        def __setattr__(self, name: str, expression: Any) -> None:
            given[name] = expression

    class Scalars(dict[int, Any]):
        nbSymExprs = None  # noqa: N815

    scalars = Scalars()
    made.set_tactic(0)
    dims = [[Expression(size) for size in d.desc.dims] for d in described[:4]]
    made.get_launch_params(dims, described, 4, Sizes(), scalars, Builder())
    return given, scalars


@pytest.mark.parametrize("layout", ["LINEAR", "HWC", "HWC8"])
def test_kernel_and_launch(sources: list[Any], monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    """Attributes, shapes, types and formats all reach the kernel."""
    values: list[int] = []
    setter = trt.ISymExpr.expr.fset
    monkeypatch.setattr(
        trt.ISymExpr, "expr", property(fset=lambda self, e: (values.append(e.value), setter(self, e))[1])
    )
    bases = trt.float32 if layout == "HWC" else trt.float16
    described = tensors(bases, trt.float32, trt.float16, TensorFormat[layout])
    made = create()
    shapes(made, described)
    made.get_supported_format_combinations(described, 4)
    given, scalars = launch_of(made, described)

    types = ("float32" if layout == "HWC" else "float16", "float32", "float16")
    channels = {"LINEAR": 0, "HWC": K, "HWC8": 8}[layout]
    params = BlendParams(K, HB, WB, R, M, 0.25, 2, True, "nearest", "none", N, D, *types, channels)
    wanted = plan(params, TARGET.multiprocessors)
    assert list(given) == ["grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z", "shared_mem"]
    assert values == [*wanted.grid, *wanted.block, wanted.shared_bytes]
    assert (scalars.nbSymExprs, dict(scalars)) == (0, {})
    assert sources == [(plugin.kernel_source(params, wanted), TARGET.arch)]
    assert made.get_kernel(described[:4], described[4:]) == (plugin.ENTRY, b"the PTX")


def test_clone_and_serialisation(sources: list[Any]) -> None:
    """Nothing is left to serialise: all is in the kernel."""
    described = tensors(trt.float16, trt.float16, trt.float16)
    made = create().clone()
    shapes(made, described)
    made.get_supported_format_combinations(described, 4)
    launch_of(made, described)
    assert len(sources) == 1
    assert made.clone().get_kernel(described[:4], described[4:])[1] == b"the PTX"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"mask_size": 300}, "mask_size is 300, expected 1 to 256"),
        ({"sampling_ratio": 0}, "sampling_ratio is 0, expected 1 to 2"),
        ({"spatial_scale": 0}, "spatial_scale is 0, expected a positive number"),
    ],
)
def test_what_the_kernel_cannot_do_is_refused(sources: list[Any], change: dict[str, Any], sentence: str) -> None:
    described = tensors(trt.float16, trt.float16, trt.float16)
    made = create(change)
    shapes(made, described)
    made.get_supported_format_combinations(described, 4)
    with pytest.raises(Exception, match=sentence):
        launch_of(made, described)
    assert sources == []


def test_open_shapes_are_refused() -> None:
    described = tensors(trt.float16, trt.float16, trt.float16)
    described[1].desc.dims = (N, -1, 4)
    made = create()
    shapes(made, described)
    made.get_supported_format_combinations(described, 4)
    with pytest.raises(Exception, match="expected a fixed one"):
        launch_of(made, described)


def test_releases_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="10.3.0"))
    with pytest.raises(SourceUnavailableError, match=r"10\.9 or newer.*got 10\.3\.0"):
        register()
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(SourceUnavailableError, match="got none"):
        register()
