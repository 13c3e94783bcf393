"""A recurrent cell of highway nodes, for one time step and for many.

`step` is the cell in plain operations: it is exported, and `run` must equal it. `run` is the fast path for many steps:
nodes that read the same node share one matrix product, the gradient of each matrix is computed by one product after the
pass back through time, and a step is a handful of operations on preallocated memory.

Takes matrices and activations; knows nothing of embeddings, losses or search.
Source: Pham et al. 2018, section 3.1.
"""

# T time steps, B batch, H hidden size, k nodes of a group

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

ACTIVATION_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "identity": lambda x: x,
    "sigmoid": torch.sigmoid,
}


class Group(NamedTuple):
    """Nodes that read the same node."""

    source: int
    nodes: tuple[int, ...]


@dataclass(frozen=True)
class CellPlan:
    """A cell's wiring. Nodes are numbered from 0; the first reads the projected input and the state."""

    previous: tuple[int, ...]
    """For each node, the node it reads; for the first, -1, the state."""
    activations: tuple[str, ...]
    averaged: tuple[int, ...]
    """The nodes whose mean is the new state."""

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Ordered so that every group comes after the node it reads."""
        sources = sorted(set(self.previous))
        return tuple(Group(s, tuple(n for n, p in enumerate(self.previous) if p == s)) for s in sources)


class StateNorm(NamedTuple):
    """Batch norm of the new state over the batch, at each time step separately: scale and shift, [H] each."""

    scale: Tensor
    shift: Tensor


_NORM_EPS = 1e-5


def step(
    plan: CellPlan, projected: Tensor, state: Tensor, weights: Sequence[Tensor], norm: StateNorm | None = None
) -> Tensor:
    """The new state [B, H] of one time step.

    Args: projected: [B, 2H], the input times its matrix. state: [B, H]. weights: [H, 2H] for each node. Of the 2H
    columns, here and in projected, the first H are for the gate, the others for the activation.
    """
    nodes: list[Tensor] = []
    for previous, activation, weight in zip(plan.previous, plan.activations, weights, strict=True):
        source = state if previous < 0 else nodes[previous]
        mixed = source @ weight if previous >= 0 else source @ weight + projected
        gate, candidate = mixed.chunk(2, dim=-1)
        candidate = ACTIVATION_FUNCTIONS[activation](candidate)
        nodes.append(source + torch.sigmoid(gate) * (candidate - source))
    mean = torch.stack([nodes[n] for n in plan.averaged]).mean(0)
    if norm is None:
        return mean
    variance, centre = torch.var_mean(mean, dim=0, correction=0)
    return (mean - centre) * torch.rsqrt(variance + _NORM_EPS) * norm.scale + norm.shift


def run(
    plan: CellPlan,
    projected: Tensor,
    state: Tensor,
    weights: Sequence[Tensor],
    *,
    mask: Tensor | None = None,
    norm: StateNorm | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The new states [T, B, H] of T time steps; the last is the initial state for the next steps.

    Args: projected: [T, B, 2H]. state: [B, H], float32 or float64. weights: as for `step`. mask: [B, H], multiplies
    the input of every matrix, the same at every time step (variational dropout). dtype: of the matrix products; the
    state's if None. Everything else, the path that carries the state above all, stays in the state's dtype.
    """
    scale, shift = norm or (None, None)
    needs_gradient = torch.is_grad_enabled() and any(t.requires_grad for t in (projected, state, *weights))
    dtype = dtype or state.dtype
    if needs_gradient:
        return _Recurrence.apply(plan, dtype, projected, state, mask, scale, shift, *weights)
    return _Walk(plan, projected, state, weights, mask, norm, dtype, keep=False).forward()


class _Recurrence(torch.autograd.Function):
    """Glue between autograd and `_Walk`."""

    @staticmethod
    def forward(
        ctx: Any,
        plan: CellPlan,
        dtype: torch.dtype,
        projected: Tensor,
        state: Tensor,
        mask: Tensor | None,
        scale: Tensor | None,
        shift: Tensor | None,
        *weights: Tensor,
    ) -> Tensor:
        norm = None if scale is None or shift is None else StateNorm(scale, shift)
        ctx.walk = _Walk(plan, projected, state, weights, mask, norm, dtype, keep=True)
        # An alias: autograd ties the returned tensor to ctx. If the walk held that tensor, the walk would be part of a
        # reference cycle and keep all its memory until Python's cycle collector runs.
        return ctx.walk.forward().detach()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        walk: _Walk = ctx.walk
        grads = walk.backward(grad)
        return None, None, grads.projected, grads.state, None, grads.scale, grads.shift, *grads.weights


class _Gradients(NamedTuple):
    projected: Tensor
    state: Tensor
    scale: Tensor | None
    shift: Tensor | None
    weights: list[Tensor]


class _Walk:
    """One pass through time, and the memory it fills; without `keep`, memory for one time step only."""

    def __init__(
        self,
        plan: CellPlan,
        projected: Tensor,
        state: Tensor,
        weights: Sequence[Tensor],
        mask: Tensor | None,
        norm: StateNorm | None,
        dtype: torch.dtype,
        *,
        keep: bool,
    ) -> None:
        self.plan, self.projected, self.state, self.mask, self.norm = plan, projected, state, mask, norm
        self.dtype = dtype
        num_steps, batch, _ = projected.shape
        self.hidden = state.shape[1]
        self.depth = num_steps if keep else 1
        # A group's gates side by side, then its candidates: [H, 2kH].
        self.weights = [self._packed([weights[n] for n in group.nodes]) for group in plan.groups]
        self.mixed = [state.new_empty(self.depth, batch, 2 * len(g.nodes) * self.hidden) for g in plan.groups]
        self.nodes = [state.new_empty(self.depth, batch, len(g.nodes), self.hidden) for g in plan.groups]
        self.place = {n: (g, i) for g, group in enumerate(plan.groups) for i, n in enumerate(group.nodes)}
        # The inputs of the matrices; empty if neither mask nor dtype changes them, as the nodes themselves are read.
        self.changes_input = mask is not None or dtype != state.dtype
        sources = [group.source for group in plan.groups]
        self.inputs = (
            {s: state.new_empty(self.depth, batch, self.hidden, dtype=dtype) for s in sources}
            if self.changes_input
            else {}
        )
        self.outputs = state.new_empty(num_steps, batch, self.hidden)
        if norm is not None:
            self.normalised = state.new_empty(self.depth, batch, self.hidden)
            self.inverse_std = state.new_empty(self.depth, self.hidden)

    def _packed(self, weights: list[Tensor]) -> Tensor:
        if len(weights) == 1:
            return weights[0].detach().to(self.dtype)
        halves = [w.detach().unflatten(1, (2, self.hidden)) for w in weights]  # [H, 2, H] each
        return torch.stack(halves, dim=2).flatten(1).to(self.dtype)  # [H, 2, k, H] -> [H, 2kH]

    def _node(self, number: int, at: int) -> Tensor:
        group, index = self.place[number]
        return self.nodes[group][at, :, index]

    def _read(self, source: int, at: int, value: Tensor) -> Tensor:
        """A node's value as a matrix reads it, masked and converted: [B, H]."""
        if not self.changes_input:
            return value
        into = self.inputs[source][at]
        return into.copy_(value) if self.mask is None else torch.mul(value, self.mask, out=into)

    def forward(self) -> Tensor:
        plan, hidden = self.plan, self.hidden
        state = self.state
        for t in range(len(self.projected)):
            at = t % self.depth
            for group, weight, mixed, nodes in zip(plan.groups, self.weights, self.mixed, self.nodes, strict=True):
                source = state if group.source < 0 else self._node(group.source, at)
                mixed = mixed[at]
                inputs = self._read(group.source, at, source)
                if self.dtype == mixed.dtype:
                    torch.mm(inputs, weight, out=mixed)
                else:
                    mixed.copy_(inputs @ weight)
                if group.source < 0:
                    mixed += self.projected[t]
                size = len(group.nodes) * hidden
                gates, candidates = mixed[:, :size], mixed[:, size:]
                gates.sigmoid_()
                for index, node in enumerate(group.nodes):
                    _activate(candidates[:, index * hidden : (index + 1) * hidden], plan.activations[node])
                shape = (-1, len(group.nodes), hidden)
                torch.lerp(source[:, None], candidates.view(shape), gates.view(shape), out=nodes[at])
            state = self._mean(at, out=self.outputs[t])
        return self.outputs

    def _mean(self, at: int, *, out: Tensor) -> Tensor:
        first, *others = self.plan.averaged
        out.copy_(self._node(first, at))
        for other in others:
            out += self._node(other, at)
        out /= 1 + len(others)
        if self.norm is None:
            return out
        variance, centre = torch.var_mean(out, dim=0, correction=0)
        inverse_std = torch.rsqrt(variance + _NORM_EPS, out=self.inverse_std[at])
        normalised = torch.sub(out, centre, out=self.normalised[at]).mul_(inverse_std)
        return torch.addcmul(self.norm.shift, normalised, self.norm.scale, out=out)

    def backward(self, grad_outputs: Tensor) -> _Gradients:
        plan, hidden, state = self.plan, self.hidden, self.state
        num_steps = len(self.projected)
        grad_mixed = [state.new_empty(m.shape, dtype=self.dtype) for m in self.mixed]
        grad_nodes = [torch.zeros_like(n[0]) for n in self.nodes]  # [B, k, H]
        grad_state = torch.zeros_like(state)
        grad_gate = state.new_empty(state.shape)
        transposed = [w.t() for w in self.weights]
        grad_scale = grad_shift = None
        if self.norm is not None:
            grad_scale, grad_shift = torch.zeros_like(self.norm.scale), torch.zeros_like(self.norm.shift)
        share = 1 / len(plan.averaged)

        def grad_of(number: int) -> Tensor:
            group, index = self.place[number]
            return grad_nodes[group][:, index]

        for t in reversed(range(num_steps)):
            grad = grad_outputs[t] + grad_state
            if grad_scale is not None and grad_shift is not None:
                grad = self._norm_backward(grad, t, grad_scale, grad_shift)
            grad *= share
            for nodes in grad_nodes:
                nodes.zero_()
            for number in plan.averaged:
                grad_of(number).copy_(grad)
            grad_state = grad_state.zero_()
            state_before = self.outputs[t - 1] if t > 0 else state
            for g in reversed(range(len(plan.groups))):
                group = plan.groups[g]
                source = state_before if group.source < 0 else self._node(group.source, t)
                grad_source = grad_state if group.source < 0 else grad_of(group.source)
                size = len(group.nodes) * hidden
                mixed, into = self.mixed[g][t], grad_mixed[g][t]
                for index, number in enumerate(group.nodes):
                    columns = slice(index * hidden, (index + 1) * hidden)
                    gate, candidate = mixed[:, :size][:, columns], mixed[:, size:][:, columns]
                    grad_node = grad_nodes[g][:, index]
                    # node = source + gate · (candidate - source)
                    torch.sub(candidate, source, out=grad_gate).mul_(grad_node)
                    into[:, :size][:, columns] = torch.ops.aten.sigmoid_backward(grad_gate, gate)
                    grad_candidate = torch.mul(grad_node, gate, out=grad_gate)
                    grad_source += grad_node
                    grad_source -= grad_candidate
                    into[:, size:][:, columns] = _activation_backward(
                        grad_candidate, candidate, plan.activations[number]
                    )
                through = into @ transposed[g]
                if self.mask is None:
                    grad_source += through
                else:
                    grad_source.addcmul_(through.to(self.mask.dtype), self.mask)
        return _Gradients(
            projected=grad_mixed[0].to(state.dtype),
            state=grad_state,
            scale=grad_scale,
            shift=grad_shift,
            weights=self._weight_gradients(grad_mixed),
        )

    def _norm_backward(self, grad: Tensor, t: int, grad_scale: Tensor, grad_shift: Tensor) -> Tensor:
        """The gradient through the norm of step t: [B, H]; adds to the gradients of scale and shift."""
        assert self.norm is not None
        normalised = self.normalised[t]
        grad_scale += (grad * normalised).sum(0)
        grad_shift += grad.sum(0)
        grad = grad * self.norm.scale
        along = (grad * normalised).mean(0)
        return (grad - grad.mean(0) - normalised * along) * self.inverse_std[t]

    def _weight_gradients(self, grad_mixed: list[Tensor]) -> list[Tensor]:
        """The gradient of each node's matrix, [H, 2H], by one product over all time steps for each group."""
        gradients: dict[int, Tensor] = {}
        for group, grad in zip(self.plan.groups, grad_mixed, strict=True):
            whole = (self._all_inputs(group.source).t() @ grad.flatten(0, 1)).to(self.state.dtype)  # [H, 2kH]
            by_node = whole.view(self.hidden, 2, len(group.nodes), self.hidden)
            for index, number in enumerate(group.nodes):
                gradients[number] = by_node[:, :, index].flatten(1)
        return [gradients[number] for number in range(len(self.plan.previous))]

    def _all_inputs(self, source: int) -> Tensor:
        """A node's values as the matrices read them, at all time steps: [T·B, H]."""
        if self.changes_input:
            return self.inputs[source].flatten(0, 1)
        if source < 0:
            return torch.cat([self.state[None], self.outputs[:-1]]).flatten(0, 1)
        group, index = self.place[source]
        return self.nodes[group][:, :, index].flatten(0, 1)


def _activate(x: Tensor, activation: str) -> None:
    if activation == "tanh":
        x.tanh_()
    elif activation == "relu":
        x.relu_()
    elif activation == "sigmoid":
        x.sigmoid_()


def _activation_backward(grad: Tensor, result: Tensor, activation: str) -> Tensor:
    """The gradient through an activation, computed from its result."""
    if activation == "tanh":
        return torch.ops.aten.tanh_backward(grad, result)
    if activation == "relu":
        return torch.ops.aten.threshold_backward(grad, result, 0)
    if activation == "sigmoid":
        return torch.ops.aten.sigmoid_backward(grad, result)
    return grad
