"""What every implementation of `trt_blendmask.cuda.Device` must do. tests/cuda runs it on a double and on the real back
ends over a double of the driver, tests/gpu on the real ones; each gives the fixture `device`.
"""

from __future__ import annotations

import contextlib
import threading

import numpy as np
import pytest

from trt_blendmask.cuda import Device, Stream
from trt_blendmask.errors import SourceUnavailableError
from trt_blendmask.structures import U8

N = 100_003  # bytes; no round number


def numbers(seed: int, n: int = N) -> U8:
    return np.random.default_rng(seed).integers(0, 256, n, dtype=np.uint8)


class DeviceSuite:
    """See above."""

    def test_names(self, device: Device) -> None:
        assert device.name
        assert device.library
        assert device.integrated in (False, True)

    def test_there_and_back(self, device: Device) -> None:
        with device.current():
            stream, host, first, second = device.stream(), device.pinned(N), device.memory(N), device.memory(N)
            back = device.pinned(N)
            host.array[:], back.array[:] = numbers(1), 0
            stream.upload(first.pointer, host.array)
            stream.copy(second.pointer, first.pointer, N)
            stream.download(back.array, second.pointer)
            stream.synchronize()
            np.testing.assert_array_equal(back.array, numbers(1))
            for thing in (host, first, second, back, stream):
                thing.free()

    def test_parts_of_a_buffer(self, device: Device) -> None:
        with device.current():
            stream, host, memory = device.stream(), device.pinned(N), device.memory(N)
            host.array[:] = numbers(2)
            stream.upload(memory.pointer, host.array)
            stream.synchronize()
            host.array[:] = 0
            stream.download(host.array[77:1077], memory.pointer + 500)
            stream.copy(memory.pointer, memory.pointer + 1000, 10)
            stream.download(host.array[5000:5010], memory.pointer)
            stream.synchronize()
            expected = np.zeros(N, np.uint8)
            expected[77:1077], expected[5000:5010] = numbers(2)[500:1500], numbers(2)[1000:1010]
            np.testing.assert_array_equal(host.array, expected)
            for thing in (host, memory, stream):
                thing.free()

    def test_addresses_suit_tensorrt(self, device: Device) -> None:
        with device.current():
            buffers = [make(n) for make in (device.memory, device.pinned) for n in (1, 3, 257)]
            assert [b.nbytes for b in buffers] == [1, 3, 257] * 2
            assert all(b.pointer % 256 == 0 for b in buffers)
            for buffer in buffers:
                buffer.free()

    def test_mapped_memory(self, device: Device) -> None:
        """The device reads and writes pinned memory at its `pointer`."""
        with device.current():
            stream, source, target = device.stream(), device.pinned(N), device.pinned(N)
            source.array[:], target.array[:] = numbers(3), 0
            stream.copy(target.pointer, source.pointer, N)
            stream.synchronize()
            np.testing.assert_array_equal(target.array, numbers(3))
            for thing in (source, target, stream):
                thing.free()

    def test_graph_reads_what_is_there_by_then(self, device: Device) -> None:
        with device.current():
            stream, host, memory, back = device.stream(), device.pinned(N), device.memory(N), device.pinned(N)
            host.array[:], back.array[:] = numbers(4), 0

            def frame() -> None:
                stream.upload(memory.pointer, host.array)
                stream.download(back.array, memory.pointer)

            graph = device.capture(stream, frame)
            stream.synchronize()
            assert not back.array.any(), "capturing does nothing yet"
            for seed in (5, 6, 7):
                host.array[:] = numbers(seed)
                graph.launch(stream)
                stream.synchronize()
                np.testing.assert_array_equal(back.array, numbers(seed))
            graph.free()
            for thing in (host, memory, back, stream):
                thing.free()

    def test_capture_that_fails_leaves_the_stream_usable(self, device: Device) -> None:
        with device.current():
            stream, host, memory = device.stream(), device.pinned(N), device.memory(N)
            with pytest.raises(SourceUnavailableError), device.current():
                device.capture(stream, stream.synchronize)
            with pytest.raises(SourceUnavailableError), device.current():
                device.capture(stream, lambda: self._spoil(device, stream))
            with pytest.raises(ZeroDivisionError):
                device.capture(stream, lambda: print(1 // 0))
            host.array[:] = numbers(8)
            stream.upload(memory.pointer, host.array)
            stream.synchronize()
            for thing in (host, memory, stream):
                thing.free()

    @staticmethod
    def _spoil(device: Device, stream: Stream) -> None:
        """What cannot be captured, done by somebody who says nothing of it."""
        with contextlib.suppress(SourceUnavailableError), device.current():
            stream.synchronize()

    def test_memory_is_counted_and_given_back(self, device: Device) -> None:
        large = 8 << 20
        with device.current():
            before = device.memory_info()
            assert 0 < before.free_bytes <= before.total_bytes
            buffer = device.memory(large)
            device.synchronize()
            assert device.memory_info().free_bytes <= before.free_bytes - large
            assert device.memory_info().total_bytes == before.total_bytes
            buffer.free()
            device.synchronize()
            assert device.memory_info().free_bytes > before.free_bytes - large

    def test_too_much_memory(self, device: Device) -> None:
        with pytest.raises(SourceUnavailableError, match="Its memory is full"), device.current():
            device.memory(1 << 50)
        with pytest.raises(SourceUnavailableError), device.current():
            device.pinned(1 << 50)
        with device.current():
            device.memory(256).free()

    def test_events(self, device: Device) -> None:
        with device.current():
            stream, host, memory = device.stream(), device.pinned(N), device.memory(N)
            marks = [device.event() for _ in range(3)]
            stream.record(marks[0])
            for _ in range(20):
                stream.upload(memory.pointer, host.array)
            stream.record(marks[1])
            stream.record(marks[2])
            marks[2].synchronize()
            assert 0 < marks[1].ms_since(marks[0]) <= marks[2].ms_since(marks[0]) < 1e4
            for thing in (host, memory, stream):
                thing.free()

    def test_synchronize_waits_for_all_streams(self, device: Device) -> None:
        with device.current():
            streams, hosts = [device.stream() for _ in range(3)], [device.pinned(N) for _ in range(3)]
            memory, source = device.memory(N), device.pinned(N)
            source.array[:] = numbers(9)
            streams[0].upload(memory.pointer, source.array)
            device.synchronize()
            for stream, host in zip(streams, hosts, strict=True):
                stream.download(host.array, memory.pointer)
            device.synchronize()
            for host in hosts:
                np.testing.assert_array_equal(host.array, numbers(9))
            for thing in (*hosts, memory, source, *streams):
                thing.free()

    def test_handles_differ(self, device: Device) -> None:
        with device.current():
            streams = [device.stream() for _ in range(4)]
            assert len({stream.handle for stream in streams} - {0}) == 4
            for stream in streams:
                stream.free()

    def test_current_nests(self, device: Device) -> None:
        with device.current():
            with device.current(), device.current():
                inner = device.memory(16)
            inner.free()
        with device.current():
            device.memory(16).free()

    def test_other_threads(self, device: Device) -> None:
        """Each with buffers of its own, made in one thread and used and freed in another; or all in another."""
        errors: list[BaseException] = []
        with device.current():
            lanes = [(device.stream(), device.pinned(N), device.memory(N)) for _ in range(6)]

        def work(number: int) -> None:
            stream, host, memory = lanes[number]
            try:
                for seed in range(10):
                    with device.current():
                        host.array[:] = numbers(100 * number + seed)
                        stream.upload(memory.pointer, host.array)
                        stream.synchronize()
                        host.array[:] = 0
                        stream.download(host.array, memory.pointer)
                        stream.synchronize()
                    np.testing.assert_array_equal(host.array, numbers(100 * number + seed))
                with device.current():
                    for mine in (device.stream(), device.memory(64), device.pinned(64)):
                        mine.free()
                    stream.record(device.event())
                    graph = device.capture(stream, lambda: stream.upload(memory.pointer, host.array))
                    graph.launch(stream)
                    stream.synchronize()
                    graph.free()
                    for thing in (host, memory, stream):
                        thing.free()
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(lanes))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
