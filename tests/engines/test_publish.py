"""Plan and passport change together, whatever moment the process is killed at."""

from __future__ import annotations

import os
import random
import signal
import stat
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engines.fake_runtime import info_of, plan_of, put_pair
from trt_blendmask.engines import passport as module
from trt_blendmask.engines.checks import read_plan
from trt_blendmask.engines.lock import locked, sweep
from trt_blendmask.engines.passport import (
    amend,
    as_recorded,
    check_private,
    passport_path,
    publish,
    read_passport,
    recorded_onnx,
    waiting_path,
)
from trt_blendmask.errors import DataError, InputMissingError, NotTrustedError, OutputError
from trt_blendmask.files import temporary_beside
from trt_blendmask.structures import EngineInfo

OLD, NEW = plan_of(1), plan_of(2)


def which(engine: Path) -> bytes:
    """The plan that lies there, which must have its own passport beside it."""
    plan = read_plan(engine)
    assert plan.info is not None
    assert plan.info == info_of(plan.content, device_name=plan.info.device_name)
    assert plan.info.device_name == ("old" if plan.content == OLD else "new")
    return plan.content


def test_a_pair_replaces_a_pair(tmp_path: Path) -> None:
    engine = tmp_path / "F.engine"
    put_pair(engine, OLD, device_name="old")
    assert which(engine) == OLD
    info = put_pair(engine, NEW, device_name="new")
    assert which(engine) == NEW
    assert read_passport(passport_path(engine)) == info
    assert sorted(f.name for f in tmp_path.iterdir()) == ["F.engine", "F.engine.json"]


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("step", range(4))
def test_killed_between_any_two_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, before: bool) -> None:
    engine = tmp_path / "F.engine"
    if before:
        put_pair(engine, OLD, device_name="old")
    real, calls = module.put_in_place, []

    def killed(*args: object) -> None:
        if len(calls) == step:
            raise KeyboardInterrupt
        calls.append(args)
        real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "put_in_place", killed)
    try:
        put_pair(engine, NEW, device_name="new")
    except KeyboardInterrupt:
        assert step < 3
    if step < 2 and not before:
        assert not engine.exists()
    else:
        assert which(engine) == (OLD if step < 2 else NEW)
    monkeypatch.undo()
    put_pair(engine, NEW, device_name="new")  # and the next build finds nothing in its way
    assert which(engine) == NEW
    assert not waiting_path(engine).exists()


@pytest.mark.parametrize("step", range(4))
def test_killed_again_before_the_first_kill_was_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    engine, third = tmp_path / "F.engine", plan_of(3)
    put_pair(engine, OLD, device_name="old")
    for plan, end in ((NEW, 2), (third, step)):
        real, left = module.put_in_place, [end]

        def killed(*args: object, real: Callable[..., None] = real, left: list[int] = left) -> None:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            real(*args)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(module, "put_in_place", killed)
            put_pair(engine, plan, device_name="new")
    assert which(engine) == (third if step == 3 else NEW)


def test_a_passport_is_amended_only_while_its_plan_lies_there(tmp_path: Path) -> None:
    """Another user of the folder, with a cache of their own, does not wait for this one."""
    engine = tmp_path / "F.engine"
    mine = put_pair(engine, OLD, device_name="old")
    amend(replace(mine, parity="compared"), engine)
    assert read_passport(passport_path(engine)).parity == "compared"
    put_pair(engine, NEW, device_name="new")
    amend(replace(mine, parity="compared"), engine)
    assert which(engine) == NEW


@pytest.mark.parametrize("name", ["F.engine", "F", "\u6f22" * 70 + ".engine", os.fsdecode(b"\xff.engine")], ids=ascii)
def test_what_the_killed_left_is_swept_and_what_is_held_is_not(tmp_path: Path, name: str) -> None:
    engine, kept = tmp_path / name, list[Path]()
    for left in (engine, passport_path(engine)):
        with temporary_beside(left) as dead, temporary_beside(left) as alive, locked(alive):
            sweep(engine, passport_path(engine))
            kept.append(alive)
            assert (dead.exists(), alive.exists()) == (False, True)
    assert list(tmp_path.iterdir()) == []


def test_two_that_publish_at_once_leave_a_pair(tmp_path: Path) -> None:
    engine, children = tmp_path / "F.engine", []
    for number, (plan, name) in enumerate(((OLD, "old"), (NEW, "new"))):
        child = os.fork()
        if child == 0:
            try:
                for turn in range(60):
                    info, file = info_of(plan, device_name=name), tmp_path / f"{number}.{turn}"
                    file.write_bytes(plan)
                    publish(file, info, engine)
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert which(engine) in (OLD, NEW)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["F.engine", "F.engine.json"]


def test_killed_at_fifty_random_moments(tmp_path: Path) -> None:
    engine, rng, seen = tmp_path / "F.engine", random.Random(0), set()
    put_pair(engine, OLD, device_name="old")
    for _ in range(50):
        done, tell = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                while True:
                    put_pair(engine, NEW, device_name="new")
                    os.write(tell, b"!")
                    put_pair(engine, OLD, device_name="old")
                    os.write(tell, b"!")
            finally:
                os._exit(1)
        for _ in range(rng.randint(1, 2)):
            os.read(done, 1)
        time.sleep(rng.uniform(0, 0.002))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(done)
        os.close(tell)
        seen.add(which(engine))
    assert seen == {OLD, NEW}


def test_a_pair_put_in_place_while_the_old_one_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = tmp_path / "F.engine"
    put_pair(engine, OLD, device_name="old")
    real, reads = module.read_passport, []

    def late(path: Path, private: bool) -> EngineInfo:
        if not reads:
            reads.append(path)
            put_pair(engine, NEW, device_name="new")
        return real(path, private)

    monkeypatch.setattr(module, "read_passport", late)
    assert which(engine) == NEW


def test_only_the_owner_can_write_what_is_published(tmp_path: Path) -> None:
    engine, umask = tmp_path / "F.engine", os.umask(0o002)  # as for the users of Ubuntu and of a Jetson
    try:
        put_pair(engine, OLD, device_name="old")
    finally:
        os.umask(umask)
    for file in (engine, passport_path(engine)):
        assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert which(engine) == OLD


def test_a_link_is_written_through(tmp_path: Path) -> None:
    real, link = tmp_path / "real" / "F.engine", tmp_path / "link.engine"
    real.parent.mkdir()
    put_pair(real, OLD, device_name="old")
    link.symlink_to(real)
    temporary = real.with_name("plan")
    temporary.write_bytes(NEW)
    publish(temporary, info_of(NEW, device_name="new"), link)
    assert link.is_symlink()
    assert which(real) == which(link) == NEW


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "F.engine.json").mkdir()
    plan = tmp_path / "plan"
    plan.write_bytes(OLD)
    with pytest.raises(OutputError, match="folder"):
        publish(plan, info_of(OLD), tmp_path / "F.engine")
    assert not (tmp_path / "F.engine").exists()


@pytest.mark.parametrize(("owner", "fits"), [(os.geteuid(), True), (0, True), (os.geteuid() + 4321, False)])
def test_owners(tmp_path: Path, owner: int, fits: bool) -> None:
    file = tmp_path / "F.engine"
    file.touch(mode=0o600)
    status = list(file.stat())
    status[stat.ST_UID] = owner
    if fits:
        check_private(file, os.stat_result(status))
    else:
        with pytest.raises(NotTrustedError, match=f"user {owner} owns it"):
            check_private(file, os.stat_result(status))


def test_passports_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match=r"trt-blendmask build MODEL.onnx -o .*/F.engine$"):
        read_passport(tmp_path / "F.engine.json")
    (tmp_path / "F.engine.json").write_bytes(b" " * (module.MAX_BYTES + 1))
    with pytest.raises(DataError, match="it is none"):
        read_passport(tmp_path / "F.engine.json")


def test_the_onnx_is_found_after_the_folder_was_moved(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "sub").mkdir(parents=True)
    assert as_recorded(old / "sub" / "m.onnx", old / "F.engine") == "sub/m.onnx"
    assert as_recorded(tmp_path / "m.onnx", old / "F.engine") == str(tmp_path / "m.onnx")
    put_pair(old / "F.engine", OLD, onnx_path=as_recorded(old / "m.onnx", old / "F.engine"))
    old.rename(new)
    info = read_passport(new / "F.engine.json")
    assert recorded_onnx(info, new / "F.engine") == new / "m.onnx"
