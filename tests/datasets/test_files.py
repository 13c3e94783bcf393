"""Files as others read them: JSON without numbers that JSON does not have."""

from __future__ import annotations

import json
import math

from datasets.files import strict_json


def test_what_json_has_no_number_for_becomes_null() -> None:
    document = {"perplexity": math.inf, "rewards": [0.5, math.nan, (-math.inf, 2)], "name": "é", "count": 3}
    expected = {"perplexity": None, "rewards": [0.5, None, [None, 2]], "name": "é", "count": 3}

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert json.loads(strict_json(document), parse_constant=refuse) == expected
    assert "\n" not in strict_json(document, indent=None)
