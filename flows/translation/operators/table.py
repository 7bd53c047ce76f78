"""Every MIL operator that has a translation, over all versions of the operator set (iOS 13 to 18).

Versions of one operator differ in optional inputs and accepted types, which translators ask for.
"""

from collections.abc import Callable, Mapping

from flows.translation.call import Call, Names
from flows.translation.operators import (
    activation,
    control,
    convolution,
    elementwise,
    filling,
    gathering,
    linear,
    normalization,
    pooling,
    recurrent,
    reduction,
    resizing,
    sampling,
    shape,
    slicing,
)

Translator = Callable[[Call], Names]

TRANSLATORS: Mapping[str, Translator] = {
    **activation.TRANSLATORS,
    **control.TRANSLATORS,
    **convolution.TRANSLATORS,
    **elementwise.TRANSLATORS,
    **filling.TRANSLATORS,
    **gathering.TRANSLATORS,
    **linear.TRANSLATORS,
    **normalization.TRANSLATORS,
    **pooling.TRANSLATORS,
    **recurrent.TRANSLATORS,
    **reduction.TRANSLATORS,
    **resizing.TRANSLATORS,
    **sampling.TRANSLATORS,
    **shape.TRANSLATORS,
    **slicing.TRANSLATORS,
}
# Their values are unpacked once, when the file is translated, and stored as plain weights.
CONSTANTS = frozenset(
    {
        "const",
        "constexpr_affine_dequantize",
        "constexpr_blockwise_shift_scale",
        "constexpr_cast",
        "constexpr_lut_to_dense",
        "constexpr_lut_to_sparse",
        "constexpr_sparse_blockwise_shift_scale",
        "constexpr_sparse_to_dense",
    }
)
REASONS = {
    "read_state": "keeps a state between calls, and every call of a served model stands alone",
    "coreml_update_state": "keeps a state between calls, and every call of a served model stands alone",
    "random_bernoulli": "is random, so that no two calls would agree",
    "random_categorical": "is random, so that no two calls would agree",
    "random_normal": "is random, so that no two calls would agree",
    "random_uniform": "is random, so that no two calls would agree",
}
