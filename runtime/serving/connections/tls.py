"""Loads a server's certificate and key. Unlike OpenSSL, its errors name the file at fault."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path
from typing import NoReturn

from runtime.serving.settings import Settings, SettingsError

# OpenSSL's reasons if a key is not the certificate's: of the same type, and of another type (according to TLS, X.509).
_NOT_OF_ONE_PAIR = ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED", "KEY_TYPE_MISMATCH")


def check_certificate(settings: Settings) -> None:
    """Check certificate and key before serving; a pipe is skipped, since it can be read only once.

    Raises: SettingsError: they are not a valid pair. OSError: one of them cannot be opened.
    """
    if not _pipes(settings):
        _load(_context(), settings)


def renew_certificate(context: ssl.SSLContext, settings: Settings) -> None:
    """Reload certificate and key for new connections.

    Raises: SettingsError: they are not a valid pair, or one is a pipe. OSError.
    """
    if pipes := _pipes(settings):
        raise SettingsError(f"{pipes[0]}: no regular file, and cannot be read a second time")
    # Checked in another context first: a failure halfway would combine the new certificate with the old key.
    _load(_context(), settings)
    _load(context, settings)


def _pair(settings: Settings) -> tuple[Path, Path]:
    assert settings.tls_certificate is not None
    assert settings.tls_key is not None
    return settings.tls_certificate, settings.tls_key


def _pipes(settings: Settings) -> list[Path]:
    """The files of the pair that are pipes or devices. Raises: OSError: one cannot be opened; names it."""
    pipes = []
    for path in _pair(settings):
        mode = path.stat().st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            # Opened here, since OpenSSL's error would not name the file.
            path.open("rb").close()
        else:
            pipes.append(path)
    return pipes


def _load(context: ssl.SSLContext, settings: Settings) -> None:
    certificate, key = _pair(settings)

    def ask() -> NoReturn:
        # Without this callback OpenSSL asks for the password in the terminal.
        raise SettingsError(f"{key}: the key takes a password; expected one without: openssl pkey -in {key} -out FILE")

    try:
        context.load_cert_chain(certificate, key, password=ask)
    except ssl.SSLError as error:
        raise SettingsError(_fault(error, certificate, key)) from error


def _fault(error: ssl.SSLError, certificate: Path, key: Path) -> str:
    if error.reason in _NOT_OF_ONE_PAIR:
        return f"{key}: not the key of the certificate {certificate}"
    if error.reason:
        return f"{certificate}: {error.reason.lower().replace('_', ' ')}"
    try:
        _context().load_verify_locations(certificate)
    except ssl.SSLError:
        return f"{certificate}: not a certificate in PEM"
    return f"{key}: not a private key in PEM"


def _context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
