import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from motionbox.motion.robust import median


@given(
    st.sampled_from([np.float32, np.float64]).flatmap(
        lambda kind: arrays.arrays(
            kind,
            arrays.array_shapes(max_dims=2, max_side=40),
            elements=st.floats(-1e6, 1e6, width=32).map(lambda value: round(value, 1)),  # some are equal
        )
    )
)
def test_the_median_is_numpys_to_the_bit(values: np.ndarray) -> None:
    before = values.copy()
    assert median(values) == float(np.median(values))
    assert median(values[::2]) == float(np.median(values[::2])), "of a view too"
    np.testing.assert_array_equal(values, before)
