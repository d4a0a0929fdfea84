"""A pass that is replayed gives what it gives, each size from its own graph; a stand-in records it on a CPU."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from segadapt.inference.replay import MOST, PLAIN, Replayed


class Again:
    """Computes the pass again at each replay, from the tensor that stays, into the same one each time."""

    def capture(self, work: Callable[[], Tensor]) -> None:
        self.work, self.result = work, torch.empty_like(work())

    def replay(self) -> Tensor:
        return self.result.copy_(self.work())


class Never:
    """What records nothing."""

    def capture(self, work: Callable[[], Tensor]) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nsearch for it")

    def replay(self) -> Tensor:
        raise AssertionError("nothing was recorded")


def doubled(given: Tensor) -> Tensor:
    return 2.0 * given


def test_each_image_has_a_result_of_its_own() -> None:
    """Also where sizes take turns, and results are kept while others come."""
    images = [torch.randn(1, 3, 4 + number % 2, 5) for number in range(12)]
    work = Replayed(doubled, Again)
    results = [work(image) for image in images]
    assert all(torch.equal(result, 2 * image) for result, image in zip(results, images, strict=True))
    assert len(work._graphs) == 2 and work.refused is None


def test_a_graph_is_for_one_dtype() -> None:
    """Windows of a scaled image have the size of those of the image itself, and fractions."""
    work = Replayed(lambda given: 2.0 * given.float(), Again)
    whole, fractions = torch.full((4,), 3, dtype=torch.uint8), torch.full((4,), 3.75)
    for _ in range(PLAIN + 2):
        assert torch.equal(work(whole), torch.full((4,), 6.0))
        assert torch.equal(work(fractions), torch.full((4,), 7.5))
    assert len(work._graphs) == 2


def test_the_first_passes_are_launched_as_always_and_not_all_sizes_are_recorded() -> None:
    work = Replayed(doubled, Again)
    for _ in range(PLAIN):
        work(torch.zeros(1))
    assert not work._graphs
    for size in range(1, MOST + 3):
        for _ in range(PLAIN + 1):
            assert torch.equal(work(torch.ones(size)), torch.full((size,), 2.0))
    assert len(work._graphs) == MOST


def test_where_nothing_can_be_recorded_passes_are_launched() -> None:
    work, image = Replayed(doubled, Never), torch.ones(3)
    for _ in range(PLAIN + 3):
        assert torch.equal(work(image), 2 * image)
    assert work.refused == "operation not permitted when stream is capturing"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is to be seen")
def test_on_a_gpu_it_is_a_graph() -> None:
    network = torch.nn.Conv2d(3, 8, 3).cuda()
    work = Replayed(lambda given: network(given).relu())
    with torch.inference_mode():
        for number in range(6):
            image = torch.randn(1, 3, 20, 30 + number % 2, device="cuda")
            torch.testing.assert_close(work(image), network(image).relu())
    assert len(work._graphs) == 2 and work.refused is None
