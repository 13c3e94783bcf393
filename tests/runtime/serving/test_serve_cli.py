"""Options of `enas serve` from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from runtime.commands import serve as serve_cli
from runtime.models.artifact import ArtifactError
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


def test_an_alias_of_an_option_has_a_variable_too(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"ENAS_SERVE_DEVICE": "cpu", "ENAS_SERVE_HTTP_PORT": "9000", "ENAS_SERVE_MODELS": "/models"}
    settings = settings_of(environment=environment, monkeypatch=monkeypatch)
    assert (settings.provider, settings.port) == ("cpu", 9000)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("ENAS_SERVE_MAX_BATCH", "ENAS_SERVE_MAX_BATCH_SIZE"),
        ("ENAS_SERVE_MODEL", "ENAS_SERVE_MODELS"),
        ("ENAS_SERVE_TOKEN", "ENAS_SERVE_TOKEN_FILE"),
    ],
)
def test_a_variable_that_sets_no_option_is_refused(name: str, nearest: str) -> None:
    for arguments in ([], ["models"]):
        result = CliRunner().invoke(serve_cli.serve, arguments, env={name: "1"})
        assert result.exit_code == 2
        assert f"Error: {name} is set, but sets no option; did you mean {nearest}?\n" in result.stderr
    assert CliRunner().invoke(serve_cli.serve, ["--help"], env={name: "1"}).exit_code == 0


def test_what_kubernetes_tells_of_services_sets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {
        "ENAS_SERVE_SERVICE_HOST": "10.0.0.1",
        "ENAS_SERVE_SERVICE_PORT": "8000",
        "ENAS_SERVE_SERVICE_PORT_HTTP": "8000",
        "ENAS_SERVE_PORT": "tcp://10.0.0.1:80",
        "ENAS_SERVE_PORT_8000_TCP": "tcp://10.0.0.1:80",
        "ENAS_SERVE_PORT_8000_TCP_PROTO": "tcp",
        "ENAS_SERVE_PORT_8000_TCP_PORT": "80",
        "ENAS_SERVE_PORT_8000_TCP_ADDR": "10.0.0.1",
        # Of another Service, `enas-serve-gpu`.
        "ENAS_SERVE_GPU_SERVICE_HOST": "10.0.0.2",
        "ENAS_SERVE_GPU_PORT": "tcp://10.0.0.2:80",
        "ENAS_SERVE_MODELS": "/models",
    }
    assert settings_of(environment=environment, monkeypatch=monkeypatch).port == 8000
    environment["ENAS_SERVE_HTTP_PORT"] = "9000"
    assert settings_of(environment=environment, monkeypatch=monkeypatch).port == 9000


def test_the_command_line_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"ENAS_SERVE_PORT": "9000", "ENAS_SERVE_MODELS": "/models"}
    settings = settings_of("here", "--port", "1", environment=environment, monkeypatch=monkeypatch)
    assert (settings.models, settings.port) == (Path("here"), 1)


def test_models_are_looked_for_before_it_is_said_that_they_are_served(tmp_path: Path) -> None:
    result = CliRunner().invoke(serve_cli.serve, [str(tmp_path / "none"), "--port", "0"])
    assert isinstance(result.exception, ArtifactError)
    assert str(result.exception) == f"{tmp_path}/none: no such file or directory"
    assert result.output == ""


@pytest.mark.parametrize("content", [b"\xff\xfe" * 20, "ein schlüssel, lang genug".encode("latin-1")])
def test_a_file_that_is_no_text_holds_no_token(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(SettingsError, match=r"^the token must be at least 16 printable ASCII characters$"):
        read_token(tmp_path / "token")
