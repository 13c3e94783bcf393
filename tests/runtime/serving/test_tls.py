"""Which file of a certificate and its key is at fault."""

from __future__ import annotations

import os
import ssl
import subprocess
from pathlib import Path

import pytest

from runtime.serving.connections.tls import check_certificate, renew_certificate
from runtime.serving.settings import Settings, SettingsError

MAKE = "openssl req -x509 -days 1 -subj /CN=localhost -newkey"
EC = "ec -pkeyopt ec_paramgen_curve:prime256v1"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs, `own` and `other`, one of RSA, the own key with a password, too, and a file of neither."""
    folder = tmp_path_factory.mktemp("tls")
    for name, kind in (("own", EC), ("other", EC), ("rsa", "rsa:2048")):
        made = ["-nodes", "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"]
        subprocess.run([*MAKE.split(), *kind.split(), *made], check=True, capture_output=True)
    line = "openssl pkey -aes256 -passout pass:secret -in own.key -out locked.key"
    subprocess.run(line.split(), cwd=folder, check=True, capture_output=True)
    (folder / "notes.txt").write_text("neither")
    return folder


@pytest.mark.parametrize(
    ("certificate", "key", "fault"),
    [
        ("notes.txt", "own.key", "{0}/notes.txt: not a certificate in PEM"),
        ("own.pem", "notes.txt", "{0}/notes.txt: not a private key in PEM"),
        ("own.pem", "other.key", "{0}/other.key: not the key of the certificate {0}/own.pem"),
        ("own.pem", "rsa.key", "{0}/rsa.key: not the key of the certificate {0}/own.pem"),
        ("rsa.pem", "own.key", "{0}/own.key: not the key of the certificate {0}/rsa.pem"),
        (
            "own.pem",
            "locked.key",
            "{0}/locked.key: the key takes a password; expected one without: openssl pkey -in {0}/locked.key -out FILE",
        ),
    ],
)
def test_the_file_at_fault_is_named(files: Path, certificate: str, key: str, fault: str) -> None:
    settings = Settings(Path("models"), tls_certificate=files / certificate, tls_key=files / key)
    with pytest.raises(SettingsError) as caught:
        check_certificate(settings)
    assert str(caught.value) == fault.format(files)


def test_a_file_that_has_gone_is_named(files: Path) -> None:
    settings = Settings(Path("models"), tls_certificate=files / "own.pem", tls_key=files / "gone.key")
    with pytest.raises(FileNotFoundError, match=r"gone\.key"):
        renew_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), settings)


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="needs pipes that have a path")
def test_what_comes_from_a_pipe_is_left_for_the_server_to_read(files: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, (files / "own.pem").read_bytes())
    os.close(writing)
    piped = Path(f"/dev/fd/{reading}")
    settings = Settings(Path("models"), tls_certificate=piped, tls_key=files / "own.key")
    try:
        check_certificate(settings)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(piped, files / "own.key")
        with pytest.raises(SettingsError, match=f"^{piped}: no regular file, and cannot be read a second time$"):
            renew_certificate(context, settings)
    finally:
        os.close(reading)


def test_beside_a_pipe_a_file_that_has_gone_is_named(files: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    settings = Settings(Path("models"), tls_certificate=tmp_path / "pipe", tls_key=files / "gone.key")
    with pytest.raises(FileNotFoundError, match=r"gone\.key"):
        check_certificate(settings)
