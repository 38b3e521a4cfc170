"""Batches: contents, buckets, and an order that depends on (seed, epoch) alone."""

import pytest
import torch

from structlv.data import Batches

LENGTHS = torch.randint(1, 40, (103,), generator=torch.Generator().manual_seed(0)).tolist()
SEQUENCES = [torch.full((n,), i) for i, n in enumerate(LENGTHS)]


def items(batches: Batches) -> list[list[int]]:
    return [batch.tokens[:, 0].tolist() for batch in batches]


@pytest.mark.parametrize("shuffle", [True, False])
def test_every_sequence_once_padded_with_its_length(shuffle: bool) -> None:
    seen = []
    for batch in Batches(SEQUENCES, 8, shuffle=shuffle, pool=4):
        assert batch.tokens.shape == (len(batch.lengths), int(batch.lengths.max()))
        for row, n in zip(batch.tokens, batch.lengths.tolist(), strict=True):
            assert row[:n].unique().numel() == 1
            assert (row[n:] == 0).all()
            assert LENGTHS[int(row[0])] == n
            seen.append(int(row[0]))
    assert sorted(seen) == list(range(103))


def test_the_number_of_batches_is_the_length() -> None:
    batches = Batches(SEQUENCES, 8)
    assert len(batches) == len(list(batches)) == 13


def test_order_is_a_function_of_seed_and_epoch() -> None:
    first, again, other = Batches(SEQUENCES, 8), Batches(SEQUENCES, 8), Batches(SEQUENCES, 8, seed=1)
    torch.manual_seed(7)  # the global generator has no say
    assert items(first) == items(again)
    assert items(first) != items(other)
    epoch_0 = items(first)
    first.set_epoch(1)
    assert items(first) != epoch_0
    first.set_epoch(0)
    assert items(first) == epoch_0


def test_position_skips_and_is_asked_for_at_the_first_draw() -> None:
    batches = Batches(SEQUENCES, 8, seed=2)
    batches.set_epoch(3)
    whole = items(batches)
    iterator = iter(batches)
    batches.seek(3, 5)  # after iter, before the first draw
    assert [b.tokens[:, 0].tolist() for b in iterator] == whole[5:]


def test_buckets_waste_little() -> None:
    padded = sum(b.tokens.numel() for b in Batches(SEQUENCES, 8, pool=100))
    assert padded < 1.1 * sum(LENGTHS)


def test_the_fingerprint_tells_data_size_and_seed_apart() -> None:
    changed = [SEQUENCES[0] + 1, *SEQUENCES[1:]]
    different = [
        Batches(SEQUENCES, 8),
        Batches(changed, 8),
        Batches(SEQUENCES, 4),
        Batches(SEQUENCES, 8, seed=1),
    ]
    assert len({batches.fingerprint() for batches in different}) == len(different)
    assert Batches(SEQUENCES, 8).fingerprint() == Batches([s.clone() for s in SEQUENCES], 8).fingerprint()


def test_bad_arguments() -> None:
    for sequences in ([], [torch.tensor([], dtype=torch.int64)]):
        with pytest.raises(ValueError, match="sequences must be at least one"):
            Batches(sequences, 4)
    with pytest.raises(ValueError, match="batch_size"):
        Batches(SEQUENCES, 0)


def test_a_curriculum_starts_with_the_short_sequences_and_keeps_epochs_equally_long() -> None:
    sequences = [torch.arange(1 + i % 10) for i in range(50)]
    batches = Batches(sequences, 5, seed=3, curriculum=(4, 3))
    for epoch, longest in enumerate((4, 7, 10, 10)):
        batches.set_epoch(epoch)
        seen = [batch.lengths for batch in batches]
        assert len(seen) == len(batches) == 10
        assert int(torch.cat(seen).max()) == longest
    counts = torch.bincount(torch.cat(batches.order(0)), minlength=50)
    short = torch.tensor([len(s) <= 4 for s in sequences])
    assert int(counts[~short].sum()) == 0
    assert set(counts[short].tolist()) <= {2, 3}  # they come round again: 50 draws of 20
    assert torch.equal(torch.cat(batches.order(2)).sort().values, torch.arange(50))


def test_a_curriculum_must_begin_with_something() -> None:
    with pytest.raises(ValueError, match="must start at 2"):
        Batches([torch.arange(2)], 1, curriculum=(1, 1))


def test_the_fingerprint_tells_curricula_apart() -> None:
    sequences = [torch.arange(1 + i % 3) for i in range(9)]
    prints = {Batches(sequences, 2, curriculum=c).fingerprint() for c in (None, (1, 1), (2, 1))}
    assert len(prints) == 3
