"""Checked access to a checkpoint's weights, and batch norm folded into convolutions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trt_blendmask.errors import DataError
from trt_blendmask.export.advice import advise
from trt_blendmask.export.reader import Checkpoint
from trt_blendmask.export.storage import FLOATS, DamagedError
from trt_blendmask.structures import F32, F64

EPSILON = 1e-5  # of every norm in detectron2 and AdelaiDet
SHOWN = 5
# Not part of inference: the semantic branch that only training uses, ImageNet's classifier, buffers.
TRAINING_ONLY = ("basis_module.seg_head.", "backbone.bottom_up.linear.", "pixel_mean", "pixel_std")
# Of a panoptic network: its semantic branch, and P2, which only that branch uses.
PANOPTIC = ("panoptic_module.", "sem_seg_head.", "backbone.fpn_lateral2.", "backbone.fpn_output2.")
# AdelaiDet's DLA computes these two and uses them nowhere.
DEAD = ("backbone.bottom_up.level3.project.", "backbone.bottom_up.level4.project.")


@dataclass(frozen=True)
class Affine:
    """y = scale * x + shift per channel, float64 [C]."""

    scale: F64
    shift: F64


class Weights:
    """Hands out weights by key and expected shape, and collects what does not fit for one message at the end.

    After a first misfit it hands out stand-ins without memory of their own, so that building goes on to find the rest.
    """

    def __init__(self, checkpoint: Checkpoint, config: str) -> None:
        self._checkpoint = checkpoint
        self._config = config  # in words
        self._taken: set[str] = set()
        self._problems: dict[str, dict[str, str]] = {}  # by what the YAML says

    @property
    def fit(self) -> bool:
        """Whether all weights so far were there, of the right shape."""
        return not self._problems

    def take(self, key: str, shape: tuple[int, ...], why: str) -> F32:
        """The float32 tensor of that key; `why` names the YAML values that its shape follows from."""
        weight = self._checkpoint.weights.get(key)
        self._taken.add(key)
        if weight is None:
            self._misfit(key, f"{list(shape)}, which is missing", why)
        elif weight.shape != shape:
            self._misfit(key, f"{list(shape)}, got {list(weight.shape)}", why)
        elif weight.dtype not in FLOATS:
            raise self._unusable(key, f"numbers of type {weight.dtype}")
        elif self.fit:
            try:
                values = weight.read()
            except (DamagedError, OSError) as error:
                raise DataError(f"Cannot read '{key}' of '{self._checkpoint.path}': {error}. Copy it again.") from error
            if not np.isfinite(values).all():
                raise self._unusable(key, "NaN or infinity")
            return values
        return np.broadcast_to(np.float32(0), shape)

    def channels(self, key: str, usual: int) -> int:
        """How many output channels the convolution of that key has; `usual` where the checkpoint lacks it."""
        weight = self._checkpoint.weights.get(key)
        return weight.shape[0] if weight is not None and weight.shape else usual

    def _misfit(self, key: str, what: str, why: str) -> None:
        self._problems.setdefault(why, {})[key] = f"{key[:120]} {what}"

    def _unusable(self, key: str, has: str) -> DataError:
        return DataError(
            f"Expected finite floating point weights in '{self._checkpoint.path}', but '{key}' has {has}. Choose "
            "another checkpoint of the training."
        )

    def batch_norm(self, key: str, channels: int, why: str) -> Affine:
        """Weight, bias, running mean and variance of `key` as one scale and shift."""
        names = ("weight", "bias", "running_mean", "running_var")
        gamma, beta, mean, variance = (self.take(f"{key}.{n}", (channels,), why).astype(np.float64) for n in names)
        if (variance < 0).any():
            raise self._unusable(f"{key}.running_var", "negative variances")
        scale = gamma / np.sqrt(variance + EPSILON)
        return Affine(scale, beta - mean * scale)

    def fold(self, weight: F32, bias: F32 | None, affine: Affine) -> tuple[F32, F32]:
        """The convolution that computes affine(conv(x)), in float64 until the last step."""
        if not self.fit:
            return weight, np.broadcast_to(np.float32(0), weight.shape[:1])
        offset = np.zeros(len(weight)) if bias is None else bias.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            shift = (affine.scale * offset + affine.shift).astype(np.float32)
            column = affine.scale.reshape(-1, *[1] * (weight.ndim - 1))
            folded = np.multiply(weight, column, out=np.empty_like(weight), casting="same_kind")  # no float64 copy
        if not (np.isfinite(folded).all() and np.isfinite(shift).all()):
            raise self._unusable("a batch norm", "values beyond float32 once folded")
        return folded, shift

    def finish(self) -> tuple[str, ...]:
        """The checkpoint's keys that inference has no use for.

        Raises:
            DataError: weights were missing or misshapen, or some are left over that the YAML has no place for.
        """
        left = [key for key in self._checkpoint.weights if key not in self._taken]
        ignored = [
            k for k in left if k.startswith(TRAINING_ONLY + PANOPTIC + DEAD) or k.endswith("num_batches_tracked")
        ]
        unknown = sorted(set(left) - set(ignored))
        misfits = [_more(f"{why} implies", list(found.values())) for why, found in self._problems.items()]
        if unknown:
            misfits.append(_more("the configuration has no layer for", unknown))
        if misfits:
            raise DataError(
                f"The checkpoint '{self._checkpoint.path}' and {self._config} describe different networks: "
                f"{'; '.join(misfits[:SHOWN])}. {advise(self._checkpoint)}"
            )
        return (*ignored, *self._checkpoint.other_keys)


def _more(start: str, found: list[str]) -> str:
    return f"{start} {found[0][:200]}" + (f" (and {len(found) - 1} more like it)" if found[1:] else "")
