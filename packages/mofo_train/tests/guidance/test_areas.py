from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mofo_train.guidance import inside_patches, motion_tube_mask


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def strengths(draw: st.DrawFn) -> torch.Tensor:
    """Rows of patches with few levels, so that many are equally strong, and many without any."""
    shape = (draw(st.integers(1, 4)), draw(st.integers(1, 60)))
    levels = draw(st.integers(0, 5))
    return torch.from_numpy(draw(hnp.arrays("float32", shape, elements=st.integers(0, levels).map(float))))


@given(strengths(), st.floats(0, 1), st.floats(0, 1), st.none() | st.integers(0, 99))
def test_the_strongest_and_never_too_many(areas: torch.Tensor, one: float, other: float, seed: int | None) -> None:
    low, high = sorted([one, other])
    generator = None if seed is None else _generator(seed)
    inside = inside_patches(areas, max_share=high, min_share=low, generator=generator)
    num_patches = areas.shape[1]
    most = math.floor(high * num_patches + 1e-9)
    for row, chosen in zip(areas, inside, strict=True):
        strong, number = int((row > 0).sum()), int(chosen.sum())
        least = min(math.ceil(low * num_patches - 1e-9), most)
        assert number == (0 if strong == 0 else min(max(strong, least), most))
        if 0 < number < num_patches:
            assert row[chosen].min() >= row[~chosen].max()


@given(side=st.integers(1, 16), levels=st.integers(1, 300), share=st.floats(0, 1), seed=st.integers(0, 2**31))
def test_the_rule_of_the_paper_holds_in_every_sample(side: int, levels: int, share: float, seed: int) -> None:
    generator, num_patches = _generator(seed), side * side
    areas = (torch.rand(3, num_patches, generator=generator) * levels).ceil()
    areas[torch.rand(3, num_patches, generator=generator) > share] = 0
    inside = inside_patches(areas, generator=generator)
    hidden = motion_tube_mask(inside, 2, generator=generator)
    first, second = hidden.unflatten(1, (2, num_patches)).unbind(1)
    assert torch.equal(first, second)
    assert first.sum(1).tolist() == [round(0.9 * num_patches)] * 3
    assert (first & inside).sum(1).tolist() == [round(0.75 * k) for k in inside.sum(1).tolist()]


@pytest.mark.parametrize("k", range(79))
def test_the_rule_holds_exactly_at_196_patches(k: int, generator: torch.Generator) -> None:
    areas = torch.zeros(3, 196)
    areas[:, :k] = torch.arange(1, k + 1).float()
    inside = inside_patches(areas)
    hidden = motion_tube_mask(inside, 1, generator=generator)
    assert inside.sum(1).tolist() == [k] * 3
    assert (hidden & inside).sum(1).tolist() == [round(0.75 * k)] * 3
    assert hidden.sum(1).tolist() == [176] * 3


def test_what_is_no_strength_is_outside() -> None:
    areas = torch.tensor([[float("nan"), -1.0, 0.0, 2.0, 1.0]])
    assert inside_patches(areas, max_share=0.8).tolist() == [[False, False, False, True, True]]
    assert not inside_patches(torch.zeros(2, 9), min_share=0.3).any()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float16, torch.float64])
def test_any_number_will_do(dtype: torch.dtype) -> None:
    areas = torch.tensor([[3, 0, 200, 7, 0]]).to(dtype)
    assert inside_patches(areas).tolist() == [[False, False, True, True, False]]


def test_chance_decides_between_equals(generator: torch.Generator) -> None:
    areas = torch.ones(4000, 49)
    drawn = inside_patches(areas, generator=generator).double().mean(0)
    assert torch.allclose(drawn, torch.full_like(drawn, 19 / 49), atol=0.03)


def test_without_a_generator_the_values_decide_and_favour_no_place(generator: torch.Generator) -> None:
    areas = (torch.rand(4000, 49, generator=generator) * 3).floor()  # about 16 patches of each level
    chosen = inside_patches(areas)
    assert torch.allclose(chosen.double().mean(0), torch.full((49,), 19 / 49, dtype=torch.float64), atol=0.04)
    assert torch.equal(inside_patches(areas[7:9]), chosen[7:9])
    flat = inside_patches(torch.full((1, 196), 255.0))[0].view(14, 14)
    rows, columns = flat.sum(1), flat.sum(0)
    assert min(rows.min(), columns.min()) > 0, "also the patches of a full frame are not cut off in order"


@pytest.mark.parametrize(
    ("areas", "options", "message"),
    [
        (torch.zeros(4), {}, r"areas must be numbers \(B, H\*W\), got torch.float32 \(4,\)"),
        (torch.zeros(1, 4), {"max_share": 1.1}, r"in \[0, 1\], the smaller first, got 0.0 and 1.1"),
        (torch.zeros(1, 4), {"min_share": 0.5}, r"in \[0, 1\], the smaller first, got 0.5 and 0.4"),
    ],
)
def test_errors_say_what_is_wrong(areas: torch.Tensor, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inside_patches(areas, **options)
