"""A command whose options can come from the environment, as containers are told.

Kubernetes puts the address of every Service of a namespace into the environment, too: a Service called `enas-serve`
makes `ENAS_SERVE_PORT=tcp://10.0.0.1:8000`, `ENAS_SERVE_SERVICE_HOST` and others. These are no options.
Source: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
"""

from __future__ import annotations

import difflib
import os
import re
from typing import Any

import click

_OF_KUBERNETES = re.compile(r"\w*(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


class EnvironmentCommand(click.Command):
    """A command each of whose parameters has variables: with PREFIX, `--port` has PREFIX_PORT, and so has an alias.

    A variable of that prefix which no parameter has is a mistake.
    """

    def __init__(self, *args: Any, prefix: str, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._prefix = f"{prefix}_"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for param in self.params:
            param.envvar = [name for name in self._variables(param) if not _is_of_kubernetes(name)]
        try:
            rest = super().parse_args(ctx, args)
        except click.MissingParameter:
            # It may be there under a name that is none.
            self._refuse_strange_variables()
            raise
        self._refuse_strange_variables()
        return rest

    def _variables(self, param: click.Parameter) -> list[str]:
        """In the order in which they are asked."""
        names = [name for name in param.opts if name.startswith("--")] or [str(param.name)]
        return [self._prefix + name.removeprefix("--").replace("-", "_").upper() for name in names]

    def _refuse_strange_variables(self) -> None:
        """Raises: click.UsageError: a variable that no parameter has; names the nearest that one has."""
        known = [name for param in self.params for name in self._variables(param)]
        for name in os.environ:
            if name.startswith(self._prefix) and name not in known and not _is_of_kubernetes(name):
                (nearest,) = difflib.get_close_matches(name, known, n=1, cutoff=0)
                raise click.UsageError(f"{name} is set, but sets no option; did you mean {nearest}?")


def _is_of_kubernetes(name: str) -> bool:
    """Whether an environment variable tells where a Service is."""
    return bool(_OF_KUBERNETES.fullmatch(name) or _ADDRESS.match(os.environ.get(name, "")))
