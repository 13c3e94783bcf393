"""Names of the Open Inference Protocol that a server and its clients share."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

# The header with the number of JSON bytes in a body, if tensors follow them as bytes.
HEADER_LENGTH = "Inference-Header-Content-Length"
# The names of element types.
DTYPES: Mapping[str, np.dtype] = {
    "BOOL": np.dtype(np.bool_),
    **{f"FP{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
    **{f"{sign}INT{bits}": np.dtype(f"{sign.lower()}int{bits}") for sign in ("", "U") for bits in (8, 16, 32, 64)},
}
DATATYPES: Mapping[np.dtype, str] = {dtype: name for name, dtype in DTYPES.items()}
