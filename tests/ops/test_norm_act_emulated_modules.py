"""The tests of the fused CPU modules, repeated with CUDA kernels emulated on the CPU."""

import pytest

from tests.ops.test_norm_act import (  # noqa: F401  # tests, to be run again
    test_frozen_parts_and_second_derivatives,
    test_one_large_tensor_is_saved,
    test_opcheck,
    test_options_of_the_norm,
    test_other_layouts_are_accepted,
    test_results_match_the_modules,
    test_saved_bytes_equal_those_with_inplace_relu,
    test_unsupported_cases_run_unfused,
    test_values_far_from_zero_keep_their_variance,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("emulated")]
