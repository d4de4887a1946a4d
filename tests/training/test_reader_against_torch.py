"""Checkpoints that PyTorch writes are read as PyTorch reads them."""

from __future__ import annotations

import argparse
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
import torch

from trt_blendmask.export.reader import read_checkpoint


def test_reads_what_torch_reads(reference: Path) -> None:
    model = reference / "end_to_end" / "rt_r50" / "model_plain.pth"
    expected = torch.load(model, weights_only=True)
    got = read_checkpoint(model)
    assert set(got.weights) == set(expected)
    for key, value in expected.items():
        weight = got.weights[key]
        assert weight.shape == tuple(value.shape)
        np.testing.assert_array_equal(weight.read(), value.float().numpy())


def test_all_forms_read_the_same(tmp_path: Path) -> None:
    base = torch.randn(4, 6, 3, 3)
    tensors = {
        "module.plain": base,
        "module.channels_last": base.to(memory_format=torch.channels_last),
        "module.slice": base[1:3, ::2],
        "module.transposed": torch.randn(3, 5).t(),
        "module.half": base.half(),
        "module.brain": base.bfloat16(),
        "module.double": base.double(),
        "module.counter": torch.tensor(7),
        "module.none": torch.zeros(0, 3),
        "module.parameter": torch.nn.Parameter(torch.randn(3)),
        "proposal_generator.fcos_head.centerness.bias": torch.randn(1),
    }
    path = tmp_path / "x.pth"
    for zipped in (True, False):
        for wrap in (lambda t: t, lambda t: {"model": t, "iteration": 3}, lambda t: {"state_dict": t, "epoch": 1}):
            torch.save(wrap(tensors), path, _use_new_zipfile_serialization=zipped)
            got = read_checkpoint(path)
            assert len(got.weights) == len(tensors)
            for key, value in tensors.items():
                name = key.removeprefix("module.").replace("centerness", "ctrness")
                np.testing.assert_array_equal(got.weights[name].read(), value.detach().float().numpy())
    assert got.other_keys == ("epoch",)


def test_old_form_with_views_of_one_storage(tmp_path: Path) -> None:
    base = torch.arange(20.0)
    path = tmp_path / "old.pth"
    torch.save({"a": base[2:8], "b": base[10:].view(2, 5)}, path, _use_new_zipfile_serialization=False)
    weights = read_checkpoint(path).weights
    np.testing.assert_array_equal(weights["a"].read(), np.arange(2, 8))
    np.testing.assert_array_equal(weights["b"].read(), np.arange(10, 20).reshape(2, 5))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_any_pickle_protocol(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "x.pth"
    for zipped in (True, False):
        torch.save({"a": torch.arange(3.0)}, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
        np.testing.assert_array_equal(read_checkpoint(path).weights["a"].read(), np.arange(3))


def test_what_trainers_note_beside_the_weights(tmp_path: Path) -> None:
    args = argparse.Namespace(output=Path("out"), amp=torch.float16)
    notes = {"args": args, "done": {1, 2}, "when": datetime.now(timezone.utc).replace(tzinfo=None)}
    torch.save({"model": {"a": torch.arange(3.0)}, **notes}, tmp_path / "x.pth")
    assert read_checkpoint(tmp_path / "x.pth").other_keys == ("args", "done", "when")


def test_training_state_beside_the_weights_is_left_alone(tmp_path: Path) -> None:
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
    path = tmp_path / "training.pth"
    whole = {"model": layer.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": schedule.state_dict()}
    torch.save({**whole, "iteration": 9, "best": np.float64(0.5)}, path)
    got = read_checkpoint(path)
    assert set(got.weights) == {"weight", "bias"}
    assert set(got.other_keys) == {"optimizer", "scheduler", "iteration", "best"}
