from __future__ import annotations

import pytest

from mofo_train.data.sampler import ResumableSampler, Turns
from mofo_train.errors import DataError


def test_order_covers_every_clip_once_and_depends_on_the_epoch() -> None:
    sampler = ResumableSampler(12, 4, seed=7, epochs=2)
    keys = [key for batch in sampler for key in batch]
    assert sampler.steps_per_epoch == 3
    assert len(sampler) == 6
    first, second = [key.clip for key in keys[:12]], [key.clip for key in keys[12:]]
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second
    assert [key.position for key in keys] == [*range(12), *range(12)]


@pytest.mark.parametrize(("world", "grad_accum_steps"), [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1)])
def test_a_step_takes_the_same_clips_on_any_number_of_ranks(world: int, grad_accum_steps: int) -> None:
    reference = list(ResumableSampler(13, 4, seed=7, epochs=3))
    ranks = [
        list(ResumableSampler(13, 4, seed=7, epochs=3, grad_accum_steps=grad_accum_steps, rank=rank, world_size=world))
        for rank in range(world)
    ]
    for step, expected in enumerate(reference):
        parts = [
            ranks[rank][step * grad_accum_steps + part] for part in range(grad_accum_steps) for rank in range(world)
        ]
        assert [key for part in parts for key in part] == expected


def test_a_resumed_sampler_goes_on_where_it_was() -> None:
    whole = list(ResumableSampler(13, 4, seed=7, epochs=3))
    assert list(ResumableSampler(13, 4, seed=7, epochs=3, start_step=4)) == whole[4:]


def test_batches_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="a step needs 16 clips, got 12"):
        ResumableSampler(12, 16, seed=0, epochs=1)
    with pytest.raises(DataError, match="divisible by 2 ranks x 2 micro-batches, got 6"):
        ResumableSampler(12, 6, seed=0, epochs=1, grad_accum_steps=2, world_size=2)


def test_the_order_depends_on_the_seed() -> None:
    orders = [[key.clip for batch in ResumableSampler(12, 4, seed=seed, epochs=1) for key in batch] for seed in (7, 8)]
    assert orders[0] != orders[1]
    assert orders[0] == [key.clip for batch in ResumableSampler(12, 4, seed=7, epochs=1) for key in batch]


@pytest.mark.parametrize("processes", [1, 2, 5])
@pytest.mark.parametrize("batch", [2, 40])
def test_each_process_knows_what_it_will_be_asked_for(processes: int, batch: int) -> None:
    """At least 32 samples and one whole batch beside the one at hand, each told once and in order."""
    sampler = ResumableSampler(200, batch, seed=7, epochs=2)
    dealt = list(sampler)
    turns = list(Turns(sampler, processes))
    assert [turn.batch for turn in turns] == dealt
    for process in range(processes):
        own, told = dealt[process::processes], []
        for place, turn in enumerate(turns[process::processes]):
            told += turn.news
            assert turn.num_ahead * batch >= 32
            assert told == own[: place + 1 + turn.num_ahead]


def test_few_batches_or_none_have_fewer_turns() -> None:
    assert len(Turns(ResumableSampler(6, 3, seed=0, epochs=1), 4)) == 2
    first, second = Turns(ResumableSampler(6, 3, seed=0, epochs=1), 4)
    assert (first.news, second.news) == ([first.batch], [second.batch])
    assert list(Turns(ResumableSampler(6, 3, seed=0, epochs=1, start_step=2), 1)) == []
