"""What the fused pair does on a CPU it does by its CUDA kernels too, here computed on the processor."""

import pytest

from tests.ops.test_norm_act import (  # noqa: F401  # tests, to be run again
    test_as_many_bytes_are_kept_as_with_relu_in_place,
    test_frozen_parts_and_second_derivatives,
    test_it_computes_what_the_modules_compute,
    test_it_stands_aside_where_it_is_not_for_the_case,
    test_one_large_tensor_is_kept,
    test_opcheck,
    test_strange_layouts_are_taken,
    test_the_norms_options,
    test_values_far_from_zero_keep_their_variance,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("emulated")]
