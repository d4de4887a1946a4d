"""From a checkpoint or any ONNX to the deployable ONNX that `build` takes, in one go.

What each stage makes is kept in the user's cache, under a name that changes with what it was made from, how, and with
the code that made it; beside it lies its hash, so that a file that was damaged since is made again.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from trt_blendmask.cache import cache_folder, code_sha256
from trt_blendmask.engines.passport import check_private
from trt_blendmask.errors import UsageError
from trt_blendmask.export.sniff import ONNX, describe
from trt_blendmask.files import atomic_output, cannot_write, existing_file, file_sha256, short_stem
from trt_blendmask.structures import ModelSpec

if TYPE_CHECKING:
    from trt_blendmask.export import BlendMaskConfig

Say = Callable[[str], None]
Make = Callable[[Path], list[str]]  # writes a file, and tells about it
PRECISIONS = ("fp16", "int8")
_CODE = ("export", "surgery", "calibrate", "quantize", "runtime", "backends")  # the last two make what is calibrated on


@dataclass(frozen=True)
class StageOptions:
    """What the stages before `build` are told; each part is as the option of that name of the stage's own verb.

    Attributes:
        precision: "fp16", "int8", or "" to leave the precision as it is.
        images: pictures for it: folder, list or video. held_out: others to compare an INT8 model on.
        config, input_hw: of a checkpoint; `config` also of an ONNX without our metadata.
    """

    precision: str = ""
    images: str = ""
    held_out: str = ""
    config: BlendMaskConfig | None = None
    input_hw: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.precision not in ("", *PRECISIONS):
            raise UsageError(f"Expected --precision fp16 or int8, got '{self.precision}'.")
        if self.precision == "int8" and not self.images:
            raise UsageError("INT8 needs pictures of what the camera sees: add --images DIR|LIST|VIDEO.")
        if (self.images and not self.precision) or (self.held_out and self.precision != "int8"):
            option, wanted = ("--held-out", "int8") if self.held_out else ("--images", "fp16|int8")
            raise UsageError(f"{option} is for --precision {wanted}: add that, or leave it out.")


def make_deployable(
    source: Path,
    options: StageOptions,
    say: Say,
    shows_progress: bool = False,
    before_long: Callable[[], object] = lambda: None,
) -> Path:
    """The deployable ONNX of `source`, a checkpoint or an ONNX before or after surgery, in the precision asked for.

    Args:
        say: is given a line for each stage, and what it tells. before_long: is called before the stages that take long,
            to raise what would be in the way after them.

    Returns:
        `source` itself where nothing is to do, else a file in the cache.

    Raises:
        UsageError: options that do not fit `source`. Others as the stages: `export_onnx`, `operate`, `calibrate`,
        `quantize_fp16`, `quantize_int8_file`.
    """
    file = existing_file(source, "a checkpoint or an ONNX model", "Type: trt-blendmask build --help")
    stages = _Stages(short_stem(file), options, say, shows_progress)
    with file.open("rb") as stream:
        is_onnx = describe(stream.read(512)) == ONNX
    spec = _spec(file) if is_onnx else None
    if is_onnx and options.input_hw:
        raise UsageError(f"--input-size is for checkpoints, and '{source}' is an ONNX: leave it out.")
    if spec is not None and spec.kind == "deployable" and options.config:
        raise UsageError(f"'{source}' says itself what it is: leave --config, --preset and --opts out.")
    if spec is None or spec.kind != "deployable":
        raw = file if is_onnx else stages.export(file)
        file = stages.operate(raw)
        spec = None
    if options.precision and (spec is None or spec.precision != options.precision):
        before_long()
        file = stages.quantize(file)
    return file


class _Stages:
    def __init__(self, stem: str, options: StageOptions, say: Say, shows_progress: bool) -> None:
        self.stem, self.options, self.say, self.shows_progress = stem, options, say, shows_progress

    def export(self, checkpoint: Path) -> Path:
        from trt_blendmask.export import export_onnx

        options = self.options

        def make(output: Path) -> list[str]:
            return [export_onnx(checkpoint, options.config, output, options.input_hw).summary()]

        return self._kept("export", ".raw.onnx", [checkpoint], (_settings(options), str(options.input_hw)), make)

    def operate(self, raw: Path) -> Path:
        from trt_blendmask.surgery import SurgeryOptions, operate

        given = SurgeryOptions(config=None if self.options.input_hw else self.options.config)

        def make(output: Path) -> list[str]:
            return [operate(raw, output, given).summary()]

        return self._kept("surgery", ".onnx", [raw], (_settings(self.options),), make)

    def quantize(self, model: Path) -> Path:
        from trt_blendmask.quantize.fp16 import quantize_fp16

        options = self.options
        if options.precision == "int8":
            return self._int8(model)

        def make(output: Path) -> list[str]:
            return quantize_fp16(model, output, options.images, shows_progress=self.shows_progress).lines()

        return self._kept("quantize", ".fp16.onnx", [model], ("fp16", _pictures(options.images)), make)

    def _int8(self, model: Path) -> Path:
        from trt_blendmask.calibrate import calibrate
        from trt_blendmask.quantize.int8_file import Int8Options, quantize_int8_file

        options, shown = self.options, self.shows_progress
        images, held_out = _pictures(options.images), _pictures(options.held_out)

        def table(output: Path) -> list[str]:
            return calibrate(model, options.images, output, shows_progress=shown).lines()

        ranges = self._kept("calibrate", ".table.json", [model], (images,), table)
        given = Int8Options(images=options.images, held_out=options.held_out, shows_progress=shown)

        def make(output: Path) -> list[str]:
            return quantize_int8_file(model, ranges, output, given).lines()

        return self._kept("quantize", ".int8.onnx", [model, ranges], ("int8", images, held_out), make)

    def _kept(self, stage: str, suffix: str, inputs: list[Path], settings: tuple[str, ...], make: Make) -> Path:
        """What `make` made of `inputs` by `settings` before, or makes now."""
        folder = _folder()
        words = (code_sha256(*_CODE), *map(file_sha256, inputs), *settings)
        key = hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]
        file = folder / f"{self.stem}-{key}{suffix}"
        if _is_whole(file):
            self.say(f"{stage}: made before, {file}")
            return file
        self.say(f"{stage}: {' '.join(shlex.quote(str(path)) for path in inputs)}")
        for line in make(file):
            self.say(f"  {line}" if line else "")
        with atomic_output(_hash_beside(file)) as temporary:
            temporary.write_text(file_sha256(file), encoding="ascii")
        return file


def _spec(file: Path) -> ModelSpec | None:
    """Our metadata in an ONNX file; None: there is none, or surgery is to say what is wrong with the file."""
    import onnx

    from trt_blendmask.surgery.reading.load import metadata

    try:
        text = metadata(onnx.load_model_from_string(file.read_bytes()))
    except Exception:  # protobuf has exceptions of its own
        return None
    return ModelSpec.from_json(text, file) if text else None


def _settings(options: StageOptions) -> str:
    """The configuration as it works, wherever it was read from."""
    return repr(replace(options.config, source="", files=(), unused_options=())) if options.config else ""


def _pictures(text: str) -> str:
    """What changes when the pictures do: their names, sizes and times."""
    if not text:
        return ""
    from trt_blendmask.calibrate.pictures import LISTS

    path = Path(text)
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        if path.suffix.lower() in LISTS:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            files += [file for line in lines if (file := path.parent / line.strip()).is_file()]
        states = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    except (OSError, ValueError):  # none, or no file: who opens them says what is wrong
        return text
    return f"{os.path.realpath(path)} {states}"


def _folder() -> Path:
    folder = cache_folder() / "stages"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise cannot_write(folder, error) from error
    check_private(folder)
    return folder


def _is_whole(file: Path) -> bool:
    try:
        return _hash_beside(file).read_bytes() == file_sha256(file).encode()
    except OSError:
        return False


def _hash_beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.sha256")
