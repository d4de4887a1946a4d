"""Annotated scenes of the bundled model's world, and the command on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from samples.conveyor.scenes import write_scenes
from tests.quick_model import quick_model
from trt_blendmask import Model, cli, evaluate, load


@cache
def loaded(path: Path) -> Model:
    return load(path)


def kept(path: Path, *_: object, **__: object) -> AbstractContextManager[Model]:
    return nullcontext(loaded(path))


@pytest.fixture(scope="session", autouse=True)
def one_model_for_all() -> Iterator[None]:
    """These tests are about what is made of what a model finds: it is loaded once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "load", kept)
        yield


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with annotations.json and images/, four of them."""
    folder = tmp_path_factory.mktemp("evaluate") / "scenes"
    write_scenes(folder, 777, 4, (512, 288), None)
    return folder


def command(scenes: Path, output: Path, *more: str, annotations: Path | None = None) -> int:
    words = ["eval", str(quick_model()), "--annotations", str(annotations or scenes / "annotations.json")]
    return cli.main([*words, "--images", str(scenes), "-o", str(output), *more])


def changed(scenes: Path, target: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    document = json.loads((scenes / "annotations.json").read_text())
    change(document)
    target.write_text(json.dumps(document))
    return target
