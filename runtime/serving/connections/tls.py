"""The certificate of a server: what is wrong with its files is told by their names, which OpenSSL does not do."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path
from typing import NoReturn

from runtime.serving.settings import Settings, SettingsError

# OpenSSL's reasons: keys of one kind, a key of a kind that the certificate is not of, as TLS sees it and as X.509 does.
_NOT_OF_ONE_PAIR = ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED", "KEY_TYPE_MISMATCH")


def check_certificate(settings: Settings) -> None:
    """Say early which file is at fault; what comes from a pipe can be read once, and is not looked at.

    Raises: SettingsError: certificate and key are no such pair. OSError: one of them cannot be opened.
    """
    if not _pipes(settings):
        _load(_context(), settings)


def renew_certificate(context: ssl.SSLContext, settings: Settings) -> None:
    """Have new connections shown what is in the certificate's files now.

    Raises: SettingsError: certificate and key are no such pair, or come from a pipe. OSError.
    """
    if pipes := _pipes(settings):
        raise SettingsError(f"{pipes[0]}: no regular file, and cannot be read a second time")
    # One that is refused halfway would leave a certificate with another's key.
    _load(_context(), settings)
    _load(context, settings)


def _pair(settings: Settings) -> tuple[Path, Path]:
    assert settings.tls_certificate is not None
    assert settings.tls_key is not None
    return settings.tls_certificate, settings.tls_key


def _pipes(settings: Settings) -> list[Path]:
    """Those of the pair that are no regular files. Raises: OSError: one cannot be opened; names it."""
    pipes = []
    for path in _pair(settings):
        mode = path.stat().st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            # OpenSSL's error would not name it.
            path.open("rb").close()
        else:
            pipes.append(path)
    return pipes


def _load(context: ssl.SSLContext, settings: Settings) -> None:
    certificate, key = _pair(settings)

    def ask() -> NoReturn:
        # Without this OpenSSL asks the terminal.
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
