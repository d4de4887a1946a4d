"""A batch of several images through `TensorRtSession` over a double of a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.cuda.fake_cuda import FakeDevice
from tests.cuda.fake_engine import IMAGES, OUTPUTS, FakeEngine, network, picture
from tests.cuda.test_session import device  # noqa: F401
from trt_blendmask.backends.tensorrt import TensorRtSession
from trt_blendmask.structures import TensorSpec


def test_a_batch(device: FakeDevice) -> None:  # noqa: F811
    """All slots of all images come back, however many objects each has."""
    size = 3
    images = TensorSpec("images", "uint8", (size, *IMAGES.shape[1:]))
    outputs = tuple(TensorSpec(spec.name, spec.dtype, (size, *spec.shape[1:])) for spec in OUTPUTS)

    def each(batch: Any) -> dict[str, Any]:
        found = [network(batch[number : number + 1]) for number in range(size)]
        return {spec.name: np.concatenate([one[spec.name] for one in found]) for spec in outputs}

    session = TensorRtSession(FakeEngine(device, each, ((images,), outputs)), device)
    for seed, counts in enumerate([(0, 100, 7), (33, 0, 32), (1, 1, 99)]):
        batch = np.concatenate([picture(count, seed + 9 * number) for number, count in enumerate(counts)])
        session.input_buffer()[...] = batch
        got, wanted = session.run(session.input_buffer()), each(batch)
        for number, count in enumerate(counts):
            assert got["count"][number] == count
            for name in ("boxes", "scores", "classes", "masks"):
                np.testing.assert_array_equal(got[name][number][:count], wanted[name][number][:count])
    session.close()
