"""samples/conveyor: the PyTorch model is AdelaiDet's, its losses fall, and a resumed run is the same run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from samples.conveyor import losses as sample_losses
from samples.conveyor import train as sample_train
from samples.conveyor.config import Config
from samples.conveyor.data import MAX_INSTANCES, Scenes, augment, make_batch
from samples.conveyor.losses import Batch, blend, giou_loss, mask_targets
from samples.conveyor.model import BlendMask, load_weights
from trt_blendmask.bundled import CONFIG


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def small_config() -> Config:
    """The bundled configuration with a fraction of its channels."""
    cfg = Config.read(CONFIG)
    return replace(cfg, stem_channels=8, res2_channels=8, fpn_channels=16, proto_channels=16, input_hw=(96, 128))


def square_batch(count: int = 2) -> Batch:
    """Bright squares and wide bars on a dark ground, 96 x 128."""
    rng = np.random.default_rng(3)
    images = rng.normal(-60, 4, (count, 3, 96, 128)).astype(np.float32)
    ids = np.zeros((count, 96, 128), np.uint8)
    rows = []
    for image in range(count):
        for k, (x, y, w, h) in enumerate(((10, 12, 30, 30), (70, 20, 44, 22), (30, 60, 24, 24))):
            x += int(rng.integers(0, 8))
            images[image, :, y : y + h, x : x + w] += 90 + 40 * (w == h)
            ids[image, y : y + h, x : x + w] = k + 1
            rows.append((image, k + 1, int(w != h), x, y, x + w, y + h))
    table = torch.tensor(rows)
    return Batch(
        images=torch.from_numpy(images),
        boxes=table[:, 3:].float(),
        classes=table[:, 2],
        owner=table[:, 0],
        number=table[:, 1],
        ids=torch.from_numpy(ids),
        affine=torch.tensor([[1.0, 0.0, 1.0, 0.0]]).repeat(count, 1),
    )


@pytest.mark.parametrize("name", ["550_r50", "rt_r50"])
def test_heads_equal_adelaidet(reference: Path, name: str) -> None:
    folder = reference / "end_to_end" / name
    model = BlendMask(Config.read(folder / "config_full.yaml")).eval()
    assert set(model.state_dict()) == set(json.loads((folder / "state_dict_keys.json").read_text()))
    load_weights(model, folder / "model_plain.pth")
    truth = np.load(folder / "img0.npz")
    with torch.no_grad():
        heads = model.raw_heads(torch.from_numpy(truth["input_tensor"])[None])
    assert len(heads) == 1 + 4 * len(model.cfg.strides)
    for key, value in heads.items():
        error = np.abs(value.numpy() - truth[key]) / np.maximum(1, np.abs(truth[key]))
        assert error.max() <= 1e-4, key


def test_sparse_attention_equals_dense() -> None:
    torch.manual_seed(0)
    model = BlendMask(small_config()).eval()
    torch.nn.init.normal_(model.top_layer.weight)
    images = torch.randn(2, 3, 96, 128)
    with torch.no_grad():
        towers = model(images).towers
        dense = [model.top_layer(tower) for tower in towers]
        where = torch.tensor([[0, 1, 0, 0], [2, 0, 2, 3], [0, 0, 11, 15], [1, 1, 3, 7]])
        sparse = model.attention_at(towers, where)
    for row, (level, image, y, x) in zip(sparse, where.tolist(), strict=True):
        assert torch.allclose(row, dense[level][image, :, y, x], rtol=1e-4, atol=1e-4)


def test_blend_equals_the_reference(reference: Path) -> None:
    case = reference / "blender" / "a06_m_gt_r"
    facts, data = json.loads(case.with_suffix(".json").read_text()), np.load(case.with_suffix(".npz"))
    bases, boxes, attention = (torch.from_numpy(data[k]) for k in ("bases", "boxes", "attn"))
    owner = torch.from_numpy(data["batch_index"]).long()
    masks = blend(bases, boxes, owner, attention, facts["R"], facts["M"]).sigmoid().numpy()
    solid = ~data["fragile"].astype(bool)
    assert np.abs(masks - data["masks"][:, 0])[solid].max() <= 1e-4


def test_mask_targets_follow_the_zoom() -> None:
    """A scene seen twice as large and mirrored gives the same box-local truth, mirrored."""
    batch = square_batch(1)
    plain = mask_targets(batch, batch.boxes, torch.arange(3), 28)
    assert plain.min() > 0.5  # rectangles fill their boxes
    assert plain[:, 1:-1, 1:-1].min() > 0.99
    box = torch.tensor([[0.0, 0.0, 60.0, 60.0]])
    before = mask_targets(batch, box, torch.tensor([0]), 28)
    zoomed = replace(batch, affine=torch.tensor([[-0.5, 64.0, 0.5, 0.0]]))
    after = mask_targets(zoomed, torch.tensor([[8.0, 0.0, 128.0, 120.0]]), torch.tensor([0]), 28)
    assert torch.allclose(before.flip(2), after, atol=1e-5)
    assert (before - after).abs().max() > 0.5


def test_giou_against_hand_numbers() -> None:
    target = torch.tensor([[2.0, 2.0, 2.0, 2.0]]).repeat(3, 1)
    predicted = torch.tensor([[2.0, 2.0, 2.0, 2.0], [1.0, 1.0, 1.0, 1.0], [4.0, 2.0, 0.0, 2.0]])
    # equal; a quarter of the area; moved by two: overlap 8 of union 24, hull 24
    assert giou_loss(predicted, target).tolist() == pytest.approx([0.0, 0.75, 2 / 3], abs=1e-4)


def new_trainer() -> sample_train.Trainer:
    plan = sample_train.Plan(iterations=60, batch=2, workers=1, scenes=2, seed=5, rate=0.1)
    return sample_train.Trainer(small_config(), plan, "cpu", amp=False)


def test_loss_falls_and_a_resumed_run_is_the_same(tmp_path: Path) -> None:
    batch, trainer = square_batch(), new_trainer()
    first, second = trainer.step(batch), trainer.step(batch)
    assert second["loss"] < first["loss"]
    sample_train.save(trainer.state(), tmp_path / "state.pth")
    going_on = [trainer.step(batch)["loss"] for _ in range(3)]
    assert going_on[-1] < 0.97 * first["loss"]

    resumed = new_trainer()
    resumed.load(tmp_path / "state.pth")
    assert [resumed.step(batch)["loss"] for _ in range(3)] == pytest.approx(going_on, rel=1e-5)
    assert not list(tmp_path.glob("*.partial"))


def test_shipped_weights_are_half_precision_and_load(tmp_path: Path) -> None:
    trainer = new_trainer()
    sample_train.save(trainer.deployable(), tmp_path / "conveyor.pth")
    state = torch.load(tmp_path / "conveyor.pth", weights_only=True)
    assert not [k for k in state if "seg_head" in k]
    assert {v.dtype for v in state.values() if v.ndim} == {torch.float16}
    model = BlendMask(small_config())
    load_weights(model, tmp_path / "conveyor.pth")
    with pytest.raises(ValueError, match="first wrong key"):
        load_weights(BlendMask(Config.read(CONFIG)), save_other(tmp_path))


def save_other(folder: Path) -> Path:
    path = folder / "other.pth"
    torch.save({"head.weight": torch.zeros(3)}, path)
    return path


def test_every_positive_is_inside_its_box() -> None:
    batch, model = square_batch(), BlendMask(small_config())
    targets = sample_losses.assign(batch, [(12, 16), (6, 8), (3, 4)], model)
    assert set(targets.instance.tolist()) == set(range(len(batch.boxes)))
    strides = torch.tensor(model.cfg.strides)[targets.where[:, 0]]
    places = targets.where[:, [3, 2]] * strides[:, None] + strides[:, None] // 2
    corners = torch.cat([places, places], 1) + targets.distances * strides[:, None] * torch.tensor([-1, -1, 1, 1])
    assert torch.allclose(corners, batch.boxes[targets.instance], atol=1e-3)
    assert targets.distances.min() > 0


def little_scenes() -> Scenes:
    """Three scenes of discs and bars in the arrays that the trainer maps into memory."""
    rng = np.random.default_rng(0)
    images = rng.integers(60, 90, (3, 96, 128, 3)).astype(np.uint8)
    ids = np.zeros((3, 96, 128), np.uint8)
    boxes, classes = np.zeros((3, MAX_INSTANCES, 4), np.int32), np.full((3, MAX_INSTANCES), -1, np.int32)
    y, x = np.mgrid[0:96, 0:128]
    for scene in range(3):
        disc = (x - 30 - 9 * scene) ** 2 + (y - 40) ** 2 < 200
        bar = (abs(x - 90) < 9) & (abs(y - 50) < 22)
        for k, mask in enumerate((disc, bar)):
            images[scene][mask], ids[scene][mask] = 200 - 50 * k, k + 1
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            boxes[scene, k] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
            classes[scene, k] = k
    return Scenes(images, ids, boxes, classes)


def test_augmented_boxes_stay_tight_about_what_is_seen() -> None:
    scenes, cfg, pasted = little_scenes(), small_config(), 0
    for seed in range(40):
        sample = augment(scenes, seed % 3, np.random.default_rng(seed), strong=True, cfg=cfg)
        pasted += len(sample.boxes) > 2
        ax, bx, ay, by = sample.affine
        y, x = np.mgrid[0:96, 0:128] + 0.5
        columns, rows = (ax * x + bx).astype(int).clip(0, 127), (ay * y + by).astype(int).clip(0, 95)
        seen = sample.ids[rows, columns]
        for box, number in zip(sample.boxes, sample.numbers, strict=True):
            found = np.nonzero(seen == number)
            tight = (found[1].min(), found[0].min(), found[1].max() + 1, found[0].max() + 1)
            assert np.abs(box - tight).max() <= 1.01  # the zoom lands between pixels
    assert pasted > 10


def test_a_batch_depends_on_its_number_only() -> None:
    scenes, cfg = little_scenes(), small_config()
    first, again, other = (make_batch(scenes, cfg, 0, number, 2, True) for number in (4, 4, 5))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.boxes, again.boxes)
    assert not torch.equal(first.images, other.images)
