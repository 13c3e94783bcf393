"""Options of `enas serve` from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from runtime.commands import serve as serve_cli
from runtime.serving.settings import Settings, SettingsError, read_token


def settings_of(*arguments: str, environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What the command would serve with."""
    found: list[Settings] = []
    monkeypatch.setattr(serve_cli, "_serve", found.append)
    monkeypatch.setattr("runtime.serving.logs.configure", lambda _: None)
    result = CliRunner().invoke(serve_cli.serve, arguments, env=environment, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return found[0]


def test_every_option_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {
        "ENAS_SERVE_MODELS": "/models",
        "ENAS_SERVE_HOST": "0.0.0.0",
        "ENAS_SERVE_PORT": "9000",
        "ENAS_SERVE_MAX_BATCH_SIZE": "8",
        "ENAS_SERVE_ACCESS_LOG": "1",
        "ENAS_SERVE_ALLOWED_HOST": "a.example b.example",
    }
    settings = settings_of(environment=environment, monkeypatch=monkeypatch)
    assert (settings.models, settings.host, settings.port) == (Path("/models"), "0.0.0.0", 9000)
    assert (settings.limits.max_batch_size, settings.access_log) == (8, True)
    assert settings.allowed_hosts == ("a.example", "b.example")


def test_the_command_line_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"ENAS_SERVE_PORT": "9000", "ENAS_SERVE_MODELS": "/models"}
    settings = settings_of("here", "--port", "1", environment=environment, monkeypatch=monkeypatch)
    assert (settings.models, settings.port) == (Path("here"), 1)


@pytest.mark.parametrize("content", [b"\xff\xfe" * 20, "ein schlüssel, lang genug".encode("latin-1")])
def test_a_file_that_is_no_text_holds_no_token(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(SettingsError, match=r"^the token must be at least 16 printable ASCII characters$"):
        read_token(tmp_path / "token")
