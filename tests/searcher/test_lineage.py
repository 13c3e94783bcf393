"""What a run's files say of where they come from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from searcher.lineage import is_model_current


def test_a_model_that_was_not_verified_is_not_current_whatever_the_report_beside_it_says(tmp_path: Path) -> None:
    (tmp_path / "retrain").mkdir()
    (tmp_path / "retrain" / "best.pt").write_bytes(b"weights")
    (tmp_path / "model.onnx").write_bytes(b"model")
    digests = {"weights_sha256": hashlib.sha256(b"weights").hexdigest()}
    verification = tmp_path / "verification.json"
    verification.write_text(json.dumps(digests))  # as a run has it that does not record the model
    assert is_model_current(tmp_path)
    verification.write_text(json.dumps(digests | {"model_sha256": hashlib.sha256(b"model").hexdigest()}))
    assert is_model_current(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"another")  # replaced, or of an export that was killed before its report
    assert is_model_current(tmp_path) is False
    (tmp_path / "retrain" / "best.pt").unlink()  # not copied, or deleted for its size
    assert is_model_current(tmp_path) is False
    (tmp_path / "model.onnx").unlink()
    assert is_model_current(tmp_path) is None
