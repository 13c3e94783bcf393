"""Numbers in documents that people write."""

from __future__ import annotations

from pathlib import Path

import pytest

from foundation.document import DocumentError
from searcher.running.run_folder import read_config
from searcher.training.optimizers.optimizer import SgdConfig

DIGITS = "9" * 400


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (f"learning_rate = {DIGITS}", "learning_rate is a whole number of more than 18 digits; expected a number"),
        (f"learning_rate = -{DIGITS}", "learning_rate is a whole number of more than 18 digits; expected a number"),
        (f"learning_rate = {DIGITS}.0", "learning_rate is inf; expected a finite number"),
        ("learning_rate = 1e999", "learning_rate is inf; expected a finite number"),
        ("learning_rate = nan", "learning_rate is nan; expected a finite number"),
        ("learning_rate = true", "learning_rate is True; expected a number"),
        (f"learning_rate = {'9' * 5000}", "not valid TOML: "),
        (
            f"learning_rate = 1\nrestart_epochs = {DIGITS}",
            "restart_epochs is a whole number of more than 18 digits; expected a whole number",
        ),
        ("learning_rate = 1\nrestart_epochs = 2.0", "restart_epochs is 2.0; expected a whole number"),
    ],
)
def test_a_number_that_is_none_is_refused_in_a_line(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(line + "\n")
    with pytest.raises(DocumentError) as error:
        read_config(path, SgdConfig)
    assert str(error.value).startswith(f"{path}: {problem}")
    assert len(error.value.problems) == 1


def test_a_whole_number_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("learning_rate = 1\n")
    assert read_config(path, SgdConfig) == SgdConfig(learning_rate=1.0)
