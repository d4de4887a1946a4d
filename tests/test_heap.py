"""That threads which come and go do not each leave an arena of memory behind."""

from __future__ import annotations

import subprocess
import sys

# Twenty threads at a time take memory; then the C library tells its arenas.
PROBE = """
import ctypes, re, tempfile, threading
libc = ctypes.CDLL(None)
if {shared}:
    from trt_blendmask.cli.heap import share_one_arena
    share_one_arena()
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
together = threading.Barrier(20)
def take():
    together.wait()
    libc.malloc(100_000)
threads = [threading.Thread(target=take) for _ in range(20)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
with tempfile.NamedTemporaryFile() as told:
    stream = ctypes.c_void_p(libc.fopen(told.name.encode(), b"w"))
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    print(len(re.findall(b"<heap nr=", told.read())))
"""


def arenas(shared: bool) -> int:
    words = [sys.executable, "-c", PROBE.format(shared=shared)]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def test_all_threads_share_one_arena() -> None:
    assert arenas(shared=True) == 1
    assert arenas(shared=False) > 4  # the control
