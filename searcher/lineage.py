"""Whether the products of a run were made from what the run contains now.

A search or a derivation chooses `spec.json`; `retrain/` trains that network, `retrain-lstm/` the LSTM beside it;
`model.onnx` has the weights of `retrain/`; the other forms that `variants.json` lists are made from `model.onnx`. Each
function checks one of these steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundation.document import read_json
from foundation.files import sha256_of
from searcher.arch.catalog import find_spec
from searcher.arch.widths import is_same_network


def is_retraining_outdated(run: Path) -> bool:
    """Whether a run has retrained another network than that of its spec.json, which a later search or derivation chose.

    Raises: ArchitectureError: as `find_spec`.
    """
    chosen, retrained = run / "spec.json", run / "retrain" / "spec.json"
    return chosen.exists() and retrained.exists() and not is_same_network(find_spec(chosen), find_spec(retrained))


def is_lstm_of(retraining: Mapping[str, Any], lstm: Mapping[str, Any]) -> bool:
    """Whether an LSTM was trained beside a retraining, for the same spec and with the same settings.

    Args: the content of the config.toml of each.
    """
    return {**retraining, "model": "lstm"} == {**lstm, "model": "lstm"}


def is_model_current(run: Path) -> bool | None:
    """Whether a run's model is the verified one and has the present weights of its retraining; None if that is not
    recorded.

    Raises: DocumentError: verification.json is damaged.
    """
    report, model, retrain = run / "verification.json", run / "model.onnx", run / "retrain"
    model_sha256 = _entry(report, "model_sha256")
    if model_sha256 and model.exists() and model_sha256 != sha256_of(model):
        return False
    verified = _entry(report, "weights_sha256")
    if not verified:
        return None
    if (retrain / "best.pt").exists():
        return verified == sha256_of(retrain / "best.pt")
    is_anew = (retrain / "config.toml").exists() and not (retrain / "summary.json").exists()
    return False if is_anew else None


def are_variants_current(run: Path) -> bool:
    """Whether `variants.json` is about a run's present model. Raises: DocumentError: it is damaged."""
    listed, model = _entry(run / "variants.json", "model_sha256"), run / "model.onnx"
    return model.exists() and listed == sha256_of(model)


def _entry(path: Path, key: str) -> object:
    """The value of a key in a file's JSON object; None if there is no file, or no such key."""
    document = read_json(path) if path.exists() else None
    return document.get(key) if isinstance(document, dict) else None
