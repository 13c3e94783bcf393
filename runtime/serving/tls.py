"""The certificate of a server: what is wrong with its files is told by their names, which OpenSSL does not do."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NoReturn

from runtime.serving.settings import Settings, SettingsError


def check_certificate(settings: Settings) -> None:
    """Raises: SettingsError: certificate and key are no such pair; says which file is at fault. OSError."""
    _load(_context(), settings)


def renew_certificate(context: ssl.SSLContext, settings: Settings) -> None:
    """Have new connections shown what is in the certificate's files now. Raises: as `check_certificate`."""
    # One that is refused halfway would leave a certificate with another's key.
    check_certificate(settings)
    _load(context, settings)


def _load(context: ssl.SSLContext, settings: Settings) -> None:
    certificate, key = settings.tls_certificate, settings.tls_key
    assert certificate is not None
    assert key is not None
    for path in (certificate, key):
        # Its error names the file.
        path.read_bytes()

    def ask() -> NoReturn:
        # Without this OpenSSL asks the terminal.
        raise SettingsError(f"{key}: the key takes a password; expected one without: openssl pkey -in {key} -out FILE")

    try:
        context.load_cert_chain(certificate, key, password=ask)
    except ssl.SSLError as error:
        raise SettingsError(_fault(error, certificate, key)) from error


def _fault(error: ssl.SSLError, certificate: Path, key: Path) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
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
