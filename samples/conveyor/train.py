"""Trains the bundled BlendMask from scratch on synthetic conveyor scenes.

    python samples/conveyor/train.py --out runs/conveyor --cache runs/scenes
    python samples/conveyor/train.py --out runs/conveyor --cache runs/scenes --resume
    python samples/conveyor/train.py --evaluate runs/conveyor/conveyor.pth --cache runs/scenes

Training uses scenes of seed 1, the curves 96 scenes of seed 900001, `--evaluate` 500 scenes of seed 777. The
folder holds conveyor.pth (moving average of the weights, float16: the file to export), state.pth (to resume),
log.jsonl and curves.png.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a script's folder is on the path, its project is not
from samples.conveyor.config import Config
from samples.conveyor.data import Scenes, batches, open_scenes
from samples.conveyor.losses import Batch, losses
from samples.conveyor.model import BlendMask, load_weights
from trt_blendmask.bundled import CONFIG

TRAIN_SEED, VALIDATION_SEED, FINAL_SEED = 1, 900001, 777
WARM_UP = 200
WEIGHT_DECAY = 0.03


@dataclass(frozen=True)
class Plan:
    """What must be equal for a resumed run to be the same run."""

    iterations: int
    batch: int
    workers: int
    scenes: int
    seed: int
    rate: float
    calm: float = 0.15

    def rate_at(self, iteration: int) -> float:
        """Linear warm-up, then half a cosine down to 1 %."""
        warm_up = min(WARM_UP, self.iterations // 10)
        if iteration < warm_up:
            return self.rate * (iteration + 1) / warm_up
        done = (iteration - warm_up) / max(1, self.iterations - warm_up)
        return self.rate * (0.01 + 0.99 * (1 + math.cos(math.pi * min(1.0, done))) / 2)


class Trainer:
    """Model, moving average and optimiser of one run."""

    def __init__(self, cfg: Config, plan: Plan, device: str, amp: bool) -> None:
        torch.manual_seed(plan.seed)
        self.plan, self.device, self.amp, self.iteration = plan, device, amp, 0
        self.model = BlendMask(cfg).to(device).to(memory_format=torch.channels_last)
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        weights = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim == 1]
        groups = [{"params": weights, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.99))

    def step(self, batch: Batch) -> dict[str, float]:
        """One update; the loss terms, and the gradient's norm before clipping."""
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate_at(self.iteration)
        rng = torch.Generator().manual_seed(self.plan.seed * 1_000_003 + self.iteration)
        batch = batch.to(self.device)
        images = batch.images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.amp):
            terms = losses(self.model, self.model(images), batch, rng)
        total = torch.stack(list(terms.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        if self.plan.workers > 1:
            self.share_gradients()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
        if bool(torch.isfinite(norm)):
            self.optimizer.step()
        self.iteration += 1
        self.update_average()
        return {"loss": total.item(), **{k: v.item() for k, v in terms.items()}, "gradient": norm.item()}

    @torch.no_grad()
    def share_gradients(self) -> None:
        """Every worker goes on with the mean of all workers' gradients."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= self.plan.workers
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view(gradient.shape))

    @torch.no_grad()
    def update_average(self) -> None:
        keep = min(0.998, (1 + self.iteration) / (10 + self.iteration))
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - keep)
            else:
                self.average[name].copy_(value)

    def state(self) -> dict[str, Any]:
        model, optimizer = self.model.state_dict(), self.optimizer.state_dict()
        return {"model": model, "average": self.average, "optimizer": optimizer, "iteration": self.iteration}

    def start_from(self, path: Path) -> None:
        """Begins with the weights of another run, for example at another input size."""
        load_weights(self.model, path)
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}

    def load(self, path: Path) -> None:
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average, self.iteration = state["average"], state["iteration"]
        self.optimizer.load_state_dict(state["optimizer"])

    def deployable(self) -> dict[str, Tensor]:
        """The averaged weights as float16, without what only training needs."""
        kept = {k: v for k, v in self.average.items() if not k.startswith("basis_module.seg_head.")}
        return {k: v.cpu().half().contiguous() if v.is_floating_point() else v.cpu() for k, v in kept.items()}


def save(value: object, path: Path) -> None:
    """Writes beside the path and renames: a killed run never leaves half a file."""
    temporary = path.with_name(path.name + ".partial")
    torch.save(value, temporary)
    temporary.replace(path)


def draw_curves(rows: list[dict[str, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    steps = [row for row in rows if "loss" in row]
    for name in ("loss", "class", "box", "centerness", "mask", "segmentation"):
        left.plot([row["iteration"] for row in steps], [row[name] for row in steps], label=name, lw=1)
    left.set(title="training loss", xlabel="iteration", yscale="log")
    checks = [row for row in rows if "mask_ap" in row]
    for name in ("mask_ap", "box_ap", "mask_ap50", "mask_ap75"):
        right.plot([row["iteration"] for row in checks], [row[name] for row in checks], label=name, marker=".", lw=1)
    right.set(title="AP of the averaged weights, 96 unseen scenes", xlabel="iteration", ylim=(0, 1))
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def check(cfg: Config, weights: Path, scenes: Scenes, device: str) -> dict[str, float]:
    from samples.conveyor.evaluate import average_precision

    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)  # the other workers wait meanwhile
    model = BlendMask(cfg).to(device)
    load_weights(model, weights)
    found: dict[str, float] = average_precision(model, scenes, device)
    torch.set_num_threads(threads)
    return found


def train(cfg: Config, plan: Plan, args: argparse.Namespace, device: str) -> None:
    """Starts the workers. On a CPU, processes of one thread each beat threads: no operator waits for another core."""
    args.out.mkdir(parents=True, exist_ok=True)
    for seed, count in ((TRAIN_SEED, plan.scenes), (VALIDATION_SEED, 96)):
        open_scenes(args.cache, seed, count)
    if plan.workers == 1:
        work(0, cfg, plan, args, device, "")
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    torch.multiprocessing.spawn(work, (cfg, plan, args, device, meeting), nprocs=plan.workers)


def work(rank: int, cfg: Config, plan: Plan, args: argparse.Namespace, device: str, meeting: str) -> None:
    """One worker: its share of each batch. The first also validates, logs and saves."""
    out: Path = args.out
    if plan.workers > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // plan.workers))
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=plan.workers)
    scenes = open_scenes(args.cache, TRAIN_SEED, plan.scenes)
    trainer = Trainer(cfg, plan, device, args.amp)
    if args.weights:
        trainer.start_from(args.weights)
    if args.resume:
        trainer.load(out / "state.pth")
    journal = Journal(out, trainer.iteration) if rank == 0 else None
    numbers = range(trainer.iteration * plan.workers + rank, plan.iterations * plan.workers, plan.workers)
    strong_until = int(plan.iterations * plan.workers * (1 - plan.calm))
    for batch in batches(scenes, cfg, plan.seed, numbers, plan.batch // plan.workers, strong_until):
        terms = trainer.step(batch)
        if journal is None:
            continue
        journal.add(terms)
        done = trainer.iteration
        last = done == plan.iterations
        if done % args.save_every == 0 or last:
            save(trainer.state(), out / "state.pth")
            save(trainer.deployable(), out / "conveyor.pth")
        if done % args.validate_every == 0 or last:
            unseen = open_scenes(args.cache, VALIDATION_SEED, 96)
            save(trainer.deployable(), out / "conveyor.pth")
            journal.write(done, check(cfg, out / "conveyor.pth", unseen, device))
            draw_curves(journal.rows, out / "curves.png")
        elif done % args.log_every == 0:
            journal.write(done, {"rate": round(plan.rate_at(done), 7)})


class Journal:
    """log.jsonl: loss terms averaged since the last row, AP where measured."""

    def __init__(self, out: Path, iteration: int) -> None:
        self.path = out / "log.jsonl"
        lines = self.path.read_text().splitlines() if iteration else []
        self.rows: list[dict[str, float]] = [row for row in map(json.loads, lines) if row["iteration"] <= iteration]
        self.path.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        self.started = time.time() - (self.rows[-1]["seconds"] if self.rows else 0)
        self.recent: list[dict[str, float]] = []

    def add(self, terms: dict[str, float]) -> None:
        self.recent.append(terms)

    def write(self, iteration: int, more: dict[str, float]) -> None:
        means = {k: round(sum(r[k] for r in self.recent) / len(self.recent), 5) for k in self.recent[0]}
        self.rows.append({"iteration": iteration, "seconds": round(time.time() - self.started, 1), **means, **more})
        self.recent = []
        with self.path.open("a") as file:
            file.write(json.dumps(self.rows[-1]) + "\n")
        print(self.rows[-1], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--out", type=Path, default=Path("runs/conveyor"))
    parser.add_argument("--cache", type=Path, default=Path("runs/scenes"), help="rendered scenes, 0.6 MB each")
    parser.add_argument("--iterations", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", type=int, help="processes that share a batch (default: 2 on a CPU, else 1)")
    parser.add_argument("--scenes", type=int, default=4000)
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate after the warm-up")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the order, not of the scenes")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--amp", action=argparse.BooleanOptionalAction, default=True, help="bfloat16 where it is safe")
    parser.add_argument("--resume", action="store_true", help="continue from OUT/state.pth with the same options")
    parser.add_argument("--weights", type=Path, metavar="CKPT", help="start from these weights instead of random ones")
    parser.add_argument("--calm", type=float, default=0.15, help="last share of the run, without pasted parts and zoom")
    parser.add_argument("--log-every", type=int, default=20)
    parser.add_argument("--save-every", type=int, default=250)
    parser.add_argument("--validate-every", type=int, default=500)
    parser.add_argument(
        "--evaluate", type=Path, metavar="CKPT", help="print the AP of weights on 500 scenes of seed 777"
    )
    args = parser.parse_args()
    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    cfg = Config.read(args.config)
    if args.evaluate:
        unseen = open_scenes(args.cache, FINAL_SEED, 500)
        print(json.dumps(check(cfg, args.evaluate, unseen, device), indent=1))
        return
    workers = args.workers or (2 if device == "cpu" else 1)
    if args.batch % workers:
        parser.error(f"--batch {args.batch} does not divide by {workers} workers")
    plan = Plan(args.iterations, args.batch, workers, args.scenes, args.seed, args.rate, args.calm)
    with contextlib.suppress(KeyboardInterrupt):
        train(cfg, plan, args, device)


if __name__ == "__main__":
    main()
