"""The errors of serving, each with its HTTP status; messages are sent to the client.

ServeError
  RequestError         400  the request is not what the protocol or the model takes
  UnauthorizedError    401
  ForbiddenError       403
  UnknownError         404  no such model, version or path
  LateError            408  the request did not arrive in time
  TooLargeError        413
  OverloadError        429  the queue is full
  HeadTooLargeError    431
  UnsupportedError     501  a part of the protocol that this server does not have
  UnavailableError     503  temporary: loading, shutting down, or out of memory for requests
    ExpiredError            the request's own deadline passed while it waited
  FailedError          500  the server's fault
"""

from __future__ import annotations

from typing import ClassVar, Literal

Reason = Literal["REJECTED", "CANCELED", "BACKEND", "OTHER"]
"""Triton's names of reasons why an inference request failed."""


class ServeError(ValueError):
    """A request cannot be answered as intended."""

    status: ClassVar[int] = 500
    reason: ClassVar[Reason] = "OTHER"
    retry_after_s: ClassVar[int | None] = None


class RequestError(ServeError):
    status = 400


class UnauthorizedError(ServeError):
    status = 401


class ForbiddenError(ServeError):
    status = 403


class UnknownError(ServeError):
    status = 404


class LateError(ServeError):
    status = 408


class TooLargeError(ServeError):
    status = 413


class OverloadError(ServeError):
    status = 429
    reason = "REJECTED"
    retry_after_s = 1


class HeadTooLargeError(ServeError):
    status = 431


class UnsupportedError(ServeError):
    status = 501


class UnavailableError(ServeError):
    status = 503
    reason = "REJECTED"
    retry_after_s = 1


class ExpiredError(UnavailableError):
    """The request's deadline passed while it waited in a queue or was decoded."""


class FailedError(ServeError):
    reason = "BACKEND"
