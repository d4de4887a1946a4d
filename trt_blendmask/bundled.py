"""The model that travels with the package: a small BlendMask trained on synthetic scenes of a conveyor belt."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from trt_blendmask.cache import cache_folder, code_sha256
from trt_blendmask.errors import OutputError
from trt_blendmask.files import atomic_output

PACKAGE = Path(__file__).resolve().parent
CHECKPOINT = PACKAGE / "data" / "conveyor.pth"
CONFIG = PACKAGE / "data" / "conveyor.yaml"
VIDEO = PACKAGE / "data" / "conveyor.mp4"


def bundled_model() -> Path:
    """Path of the deployable ONNX of the bundled checkpoint.

    Exported and operated on at first use (a few seconds), then kept in the user's cache folder
    (`$XDG_CACHE_HOME` or `~/.cache`, below `trt_blendmask`) under a name that changes with the checkpoint, the config
    and the code that made it.

    Raises:
        OutputError: the cache folder cannot be written.
    """
    hint = "The bundled model needs a cache: set XDG_CACHE_HOME to a folder of yours."
    model = cache_folder() / f"conveyor-{_fingerprint()}.onnx"
    if not os.access(model, os.R_OK):
        try:
            _make(model)
        except OutputError as error:
            raise OutputError(f"{error} {hint}") from error
    return model


def _make(model: Path) -> None:
    from trt_blendmask.export import export_onnx
    from trt_blendmask.surgery import operate

    with atomic_output(model) as temporary, tempfile.TemporaryDirectory(dir=model.parent) as folder:
        raw = export_onnx(CHECKPOINT, CONFIG, Path(folder) / "raw.onnx").output
        operate(raw, temporary)


def _fingerprint() -> str:
    digest = hashlib.sha256(code_sha256("export", "surgery").encode())
    for file in (CHECKPOINT, CONFIG):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
