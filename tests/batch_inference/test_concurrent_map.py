"""Elements mapped in threads: all of them, in order, a bounded number at once."""

import threading
import time

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from batch_inference.concurrent_map import ConcurrentMap, PoolSize


class _Watched:
    """A function that notes how many of its calls run at once, and how far ahead they are."""

    def __init__(self):
        self.lock = threading.Lock()
        self.running = self.most = self.started = 0

    def __call__(self, group: list[int]) -> list[int]:
        return [self.square(element) for element in group]

    def square(self, element: int) -> int:
        with self.lock:
            self.running += 1
            self.started += 1
            self.most = max(self.most, self.running)
        # Later elements are faster, so that without care they would come out first.
        time.sleep(0.02 / (1 + element % 5))
        with self.lock:
            self.running -= 1
        return element * element


def _drive(function, elements, size):
    """Run a bundle by hand; yield each result with how many calls had started by then."""
    mapped = ConcurrentMap(function, size)
    mapped.setup()
    mapped.start_bundle()
    for element in elements:
        for result in mapped.process(element):
            yield result, function.started
    for windowed in mapped.finish_bundle():
        yield windowed.value, function.started
    mapped.teardown()


@pytest.mark.parametrize("group", [1, 2])
def test_order_is_kept_threads_are_used_and_the_window_holds(group):
    function = _Watched()
    came = list(_drive(function, range(39), PoolSize(window=6, threads=3, group=group)))
    assert [result for result, _ in came] == [n * n for n in range(39)]
    assert function.most == 3
    assert max(started - index for index, (_, started) in enumerate(came)) <= 6 + group


def test_in_a_pipeline():
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        squares = (
            pipeline
            | beam.Create(range(50))
            | beam.Reshuffle()
            | beam.ParDo(
                ConcurrentMap(lambda group: [n * n for n in group], PoolSize(4, 2, group=3))
            )
        )
        assert_that(squares, equal_to([n * n for n in range(50)]))


def test_an_error_of_the_function_is_not_swallowed():
    with pytest.raises(Exception, match="by zero"), beam.Pipeline(runner="FnApiRunner") as pipeline:
        _ = (
            pipeline
            | beam.Create([1, 0])
            | beam.ParDo(ConcurrentMap(lambda group: [1 // n for n in group], PoolSize(4, 2)))
        )


def test_several_results_of_one_element_are_taken_one_by_one():
    made = []

    def countdown(group: list[int]):
        (n,) = group

        def later():
            for value in range(n, 0, -1):
                made.append(value)
                yield value

        return later() if n > 2 else list(range(n, 0, -1))

    mapped = ConcurrentMap(countdown, PoolSize(1, 2))
    mapped.setup()
    mapped.start_bundle()
    assert [*mapped.process(2), *mapped.process(4)] == [2, 1]
    end = mapped.finish_bundle()
    assert not made and next(end).value == 4 and made == [4]
    assert [windowed.value for windowed in end] == [3, 2, 1]
    mapped.teardown()
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        values = (
            pipeline | beam.Create([1, 3, 0]) | beam.ParDo(ConcurrentMap(countdown, PoolSize(4, 2)))
        )
        assert_that(values, equal_to([1, 3, 2, 1]))
