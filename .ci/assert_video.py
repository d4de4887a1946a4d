"""Assert that a video decodes to as many frames of the same size as the one it was made from.

python .ci/assert_video.py ORIGINAL MADE
"""

from __future__ import annotations

import sys

import av


def frames(path: str) -> list[tuple[int, int]]:
    """Width and height of every frame that decodes."""
    with av.open(path) as container:
        return [(frame.width, frame.height) for frame in container.decode(video=0)]


original, made = (frames(path) for path in sys.argv[1:3])
if not original or made != original:
    sys.exit(f"{sys.argv[2]}: expected {len(original)} frames of {original[:1]}, got {len(made)} of {made[:1]}.")
print(f"{sys.argv[2]}: {len(made)} frames of {made[0][0]}x{made[0][1]}, as in {sys.argv[1]}")
