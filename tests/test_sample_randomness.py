"""Dropout and drop path: masks of each sample's own, whatever is beside it, computed again, or mixed."""

import copy

import pytest
import torch
from torch import Tensor, nn

from by_hand import CPU, EQUAL, batch
from forgetful import Forgetful
from segadapt.batch import Batch
from segadapt.engine.updater import Updater
from segadapt.methods.method import Update
from segadapt.methods.supervised import SourceOnly, SourceOnlySettings
from segadapt.sample_randomness import Draws, Dropout, Dropout2d, DropPath, drawing

SEEDS = (3, 2**63 - 1, 12345, 7)
DEVICE = torch.device("cpu")


def placed() -> Forgetful:
    torch.manual_seed(0)
    network = Forgetful()
    CPU.place(network)
    network.train()
    return network


def reference(seed: int, draw: int, element: int) -> int:
    """The hash in Python's integers."""

    def rounds(x: int, second: int = 0) -> int:
        x ^= x >> 16
        x = x * 0x7FEB352D % 2**32 ^ second
        x ^= x >> 15
        x = x * 0x846CA68B % 2**32
        return x ^ x >> 16

    z = (seed + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    z ^= z >> 31
    first = rounds(z >> 32 ^ draw)
    return rounds(element ^ first, rounds(z % 2**32 ^ first))


def test_words_are_the_hash_of_seed_draw_and_element() -> None:
    draws = Draws(SEEDS, DEVICE)
    for draw in range(3):
        words = draws.words(4, 1000)
        for sample, seed in enumerate(SEEDS):
            for element in (0, 1, 517, 999):
                assert int(words[sample, element]) == reference(seed, draw, element)


def test_words_are_uniform_and_independent() -> None:
    """Bits, and pairs of neighbours, samples, draws and passes: all within five deviations of a fair coin."""
    n = 2**16
    one, other = Draws((0, 1), DEVICE), Draws((0, 1), DEVICE, pass_number=1)
    streams = [*one.words(2, n), *one.words(2, n), *other.words(2, n)]
    for stream in streams:
        for bit in range(32):
            bits = stream >> bit & 1
            assert abs(int(bits.sum()) - n / 2) < 5 * (n / 4) ** 0.5
            assert abs(int((bits[1:] ^ bits[:-1]).sum()) - n / 2) < 5 * (n / 4) ** 0.5
    for i, a in enumerate(streams):
        for b in streams[:i]:
            for bit in (0, 15, 31):
                assert abs(int(((a ^ b) >> bit & 1).sum()) - n / 2) < 5 * (n / 4) ** 0.5


@pytest.mark.parametrize("module", [Dropout(0.25), Dropout2d(0.25), DropPath(0.25)])
def test_a_share_is_dropped_and_the_rest_makes_up_for_it(module: nn.Module) -> None:
    values = torch.ones(4000, 2, 2, 3, requires_grad=True)
    with drawing(Draws(tuple(range(4000)), DEVICE)):
        given = module(values)
    assert given.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert float((given == 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    (gradient,) = torch.autograd.grad(given.sum(), values)
    assert torch.equal(gradient, given.detach())
    whole = {Dropout: 1, Dropout2d: 6, DropPath: 12}[type(module)]  # elements that share one fate
    flat = given.detach().reshape(-1, whole)
    assert torch.equal(flat, flat[:, :1].expand_as(flat))
    assert torch.equal(module.eval()(values), values)
    module.train()


def test_a_sample_has_the_same_masks_whatever_is_beside_it() -> None:
    values, blocks = torch.ones(4, 3, 4, 5), nn.Sequential(Dropout(0.5), Dropout2d(0.3), DropPath(0.4), Dropout(0.5))

    def of(seeds: tuple[int, ...]) -> Tensor:
        with drawing(Draws(seeds, DEVICE)):
            out: Tensor = blocks(values[: len(seeds)])
        return out

    whole = of(SEEDS)
    for i, seed in enumerate(SEEDS):
        assert torch.equal(of((seed,))[0], whole[i])
    assert torch.equal(of(SEEDS[::-1]), whole.flip(0))
    assert not torch.equal(whole[0], whole[1])


def test_several_samples_of_one_seed_have_its_next_draws() -> None:
    """Mixed images behind the plain ones: sample i of n·B has seed i mod B, and what follows is counted from there."""
    dropout, values = Dropout(0.5), torch.ones(4, 3, 4, 5)
    with drawing(Draws(SEEDS, DEVICE)):
        apart = [dropout(values) for _ in range(4)]
    with drawing(Draws(SEEDS, DEVICE)):
        together = dropout(torch.cat([values, values, values]))
        after = dropout(values)
    assert torch.equal(together, torch.cat(apart[:3])) and torch.equal(after, apart[3])
    with drawing(Draws(SEEDS, DEVICE)):  # and fewer than the seeds
        assert torch.equal(dropout(values[:2]), apart[0][:2])


def test_networks_get_it_when_they_are_placed_and_stay_what_they_are() -> None:
    plain, network = Forgetful(), placed()
    assert plain.state_dict().keys() == network.state_dict().keys()
    kinds = {type(module) for module in copy.deepcopy(network).modules()}
    assert {Dropout, Dropout2d, DropPath} <= kinds and not {nn.Dropout, nn.Dropout2d} & kinds
    # Without a training they are PyTorch's.
    torch.manual_seed(5)
    mine = network.body[2].elements(torch.ones(2, 6, 3, 3))  # type: ignore[operator]
    torch.manual_seed(5)
    assert torch.equal(mine, nn.functional.dropout(torch.ones(2, 6, 3, 3), 0.25))


def update(accumulate: int, checkpointing: bool = False) -> dict[str, Tensor]:
    """All gradients of one update, and its loss."""
    network = placed()
    network.checkpointing = checkpointing
    method = SourceOnly(network, SourceOnlySettings.model_validate({"steps": 1, "batch": 4, "accumulate": accumulate}))
    values = Updater(method.optimizers, CPU, accumulate).run(method, batch(3, 4))
    return {"loss": values["seg"], **{name: p.grad for name, p in network.named_parameters() if p.grad is not None}}


@pytest.mark.usefixtures("float64")
def test_micro_batches_and_checkpointing_change_no_mask() -> None:
    whole = update(1)
    for other in (update(2), update(4), update(1, checkpointing=True), update(2, checkpointing=True)):
        assert other.keys() == whole.keys()
        for name, expected in whole.items():
            assert float((other[name] - expected).norm()) <= EQUAL * float(expected.norm()), name


@pytest.mark.usefixtures("float64")
def test_a_block_is_computed_again_with_its_own_masks_each_time() -> None:
    """Two backward passes through two passes, in the other order, while other draws are current."""
    found = []
    for checkpointing in (False, True):
        network = placed()
        network.checkpointing = checkpointing
        images, weights = batch(0, 4).images("source"), list(network.parameters())
        with drawing(Draws(SEEDS, DEVICE)):
            first, second = network(images).logits, network(images).logits
        ways = [
            torch.autograd.grad(loss.square().sum(), weights, retain_graph=True) for loss in (second, first, second)
        ]
        found.append([gradient for way in ways for gradient in way])
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(again, plain, rtol=EQUAL, atol=EQUAL * float(plain.abs().max()))
    assert not torch.equal(found[0][0], found[0][len(weights)])


def test_a_second_loop_over_the_micro_batches_draws_anew() -> None:
    """And passes outside of them, too: a network never looks twice through one mask in an update."""
    network, seen = placed(), list[Tensor]()

    class Looking(SourceOnly):
        def step(self, batch: Batch, update: Update) -> None:
            seen.append(network(batch.images("source")).logits)
            for _ in range(2):
                seen.extend(network(part.images("source")).logits for part in update.micro_batches(batch))

    method = Looking(network, SourceOnlySettings.model_validate({"steps": 1}))
    for _ in range(2):
        Updater(method.optimizers, CPU).run(method, batch(0))
    assert all(not torch.equal(seen[i], seen[j]) for i in range(3) for j in range(i))
    assert all(torch.equal(a, b) for a, b in zip(seen[:3], seen[3:], strict=True))


@pytest.mark.usefixtures("float64")
def test_compiled_code_draws_the_same_and_is_compiled_once() -> None:
    """Seeds and the count are its inputs: what is in them is no reason to compile again."""
    found: list[list[Tensor]] = []
    for compiled in (False, True):
        network = placed()
        torch._dynamo.reset()
        if compiled:
            network.compile(backend="aot_eager")
        found.append([])
        for step in range(3):
            given = batch(step, 4)
            once = torch._dynamo.config.patch(error_on_recompile=step > 0)
            with once, drawing(Draws(given.seeds, DEVICE)):
                logits = [network(given.images("source")).logits for _ in range(2)]
            found[-1] += torch.autograd.grad(torch.stack(logits).square().sum(), list(network.parameters()))
    for plain, same in zip(*found, strict=True):
        torch.testing.assert_close(same, plain, rtol=EQUAL, atol=EQUAL * float(plain.abs().max()))
