"""Converts a network to ONNX in a fraction of a second, so that it can be timed before it is trained.

`convert.py` makes the files that ship, in about ten seconds each, most of which torch.export spends on free sizes. Here
the network runs once, and every operation that depends on the images is recorded. onnxruntime optimises both files to
the same graph, node for node, so both take the same time; the tests compare them. The operations of our spaces and
references are supported; each is a line in `_OPERATIONS`.
"""

# B batch, C channels, H height, W width

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from exporter.conversion.convert import DEFAULT_OPSET
from exporter.conversion.transforms.passes import transform

# As in the files that ship: onnxruntime refuses files of a version newer than it supports.
_IR_VERSION = 10
_SMALL = 1024


def trace(network: nn.Module, *, input_shape: tuple[int, ...]) -> bytes:
    """Returns a deployed network as an ONNX file, with the inputs and outputs of an exported model.

    Norms use running averages.

    Args and Raises: as `record`.
    """
    return bytes(transform(record(network, input_shape=input_shape)).SerializeToString())


def record(network: nn.Module, *, input_shape: tuple[int, ...]) -> onnx.ModelProto:
    """Returns the same model before the passes of `transforms`.

    Args: network: uint8 [B, H, W, C] -> logits and probabilities, as `DeployedNetwork`. input_shape: H, W, C.
    Raises: NotImplementedError: it has an operation that is not in `_OPERATIONS`.
    """
    # Two images, to distinguish the free batch size from a size of 1.
    images = torch.zeros(2, *input_shape, dtype=torch.uint8)
    recorder = _Recorder(images)
    with torch.no_grad(), recorder:
        outputs = network.eval()(images)
    names = {recorder.name_of(x): name for x, name in zip(outputs, ("logits", "probabilities"), strict=True)}
    for node in recorder.nodes:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    graph = helper.make_graph(
        recorder.nodes,
        "network",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", *input_shape])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", x.shape[1]])
            for x, name in zip(outputs, names.values(), strict=True)
        ],
        initializer=recorder.initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", DEFAULT_OPSET)], ir_version=_IR_VERSION)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the operations that depend on the images. Values that depend only on weights are constants."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.batch_size = len(images)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._names: dict[int, str] = {id(images): "images"}
        self._kept: list[Any] = [images]  # Python reuses an id after its tensor is freed
        self._constants: dict[int | tuple[Any, ...], str] = {}
        self._written: dict[tuple[Any, ...], list[str]] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        self._kept += [args, result]
        if any(id(x) in self._names for x in _tensors(args)):
            name = str(function).removesuffix(".default")
            if name not in _OPERATIONS:
                raise NotImplementedError(f"{name} is not an operation that a network can be timed with yet")
            _OPERATIONS[name](self, result, *args, **(kwargs or {}))
        return result

    def name_of(self, x: Tensor) -> str:
        """Returns the name of a tensor's value; a tensor that does not depend on the images becomes a constant."""
        if id(x) in self._names:
            return self._names[id(x)]
        if id(x) not in self._constants:
            self._constants[id(x)] = self.constant(x.detach().contiguous().numpy())
            self._kept.append(x)
        return self._constants[id(x)]

    def constant(self, array: np.ndarray) -> str:
        """Returns the name of a constant. Equal small constants share a name."""
        key = (array.dtype, array.shape, array.tobytes()) if array.nbytes < _SMALL else ()
        if key not in self._constants:
            name = f"constant_{len(self.initializers)}"
            self.initializers.append(numpy_helper.from_array(array, name))
            if not key:
                return name
            self._constants[key] = name
        return self._constants[key]

    def scalar(self, value: float) -> str:
        return self.constant(np.array(value, dtype=np.float32))

    def keep(self, *tensors: Tensor) -> None:
        self._kept += tensors

    def is_same(self, x: Tensor, like: Tensor) -> None:
        self._names[id(x)] = self.name_of(like)

    def is_from(self, operation: str, x: Tensor) -> bool:
        """Whether a node of that operation produces a tensor."""
        name = self._names.get(id(x))
        return any(node.op_type == operation and name in node.output for node in self.nodes)

    def add(self, operation: str, inputs: Sequence[Tensor | str], *results: Tensor, **attributes: Any) -> None:
        """Records a node. Equal computations are recorded once, as by the exporter."""
        sources = [x if isinstance(x, str) else self.name_of(x) for x in inputs]
        key = (operation, *sources, repr(attributes))
        if key not in self._written:
            names = [f"value_{len(self.nodes)}_{index}" for index in range(len(results))]
            self.nodes.append(helper.make_node(operation, sources, names, **attributes))
            self._written[key] = names
        self._names.update(zip(map(id, results), self._written[key], strict=True))


def _tensors(args: Sequence[Any]) -> list[Tensor]:
    return [x for one in args for x in (one if isinstance(one, list | tuple) else [one]) if isinstance(x, Tensor)]


def _int64(recorder: _Recorder, *values: int) -> str:
    return recorder.constant(np.array(values, dtype=np.int64))


# --- operations of aten: (recorder, result, *arguments of the operation) ----------------------------------------------


def _simple(operation: str) -> Callable[..., None]:
    """Returns the writer of an ONNX operation with the same inputs and no attributes."""

    def write(recorder: _Recorder, result: Tensor, *inputs: Tensor) -> None:
        recorder.add(operation, [x if isinstance(x, Tensor) else recorder.scalar(x) for x in inputs], result)

    return write


def _relu(recorder: _Recorder, result: Tensor, x: Tensor) -> None:
    # The exporter merges two in a row.
    if recorder.is_from("Relu", x):
        recorder.is_same(result, x)
    else:
        recorder.add("Relu", [x], result)


def _same(recorder: _Recorder, result: Tensor, x: Tensor, *_: Any, **__: Any) -> None:
    recorder.is_same(result, x)


def _convolution(
    recorder: _Recorder,
    result: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> None:
    assert not transposed
    recorder.add(
        "Conv",
        [x, weight, *([] if bias is None else [bias])],
        result,
        kernel_shape=weight.shape[2:],
        strides=stride,
        pads=[*padding, *padding],
        dilations=dilation,
        group=groups,
    )


def _batch_norm(
    recorder: _Recorder,
    results: Sequence[Tensor],
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> None:
    assert not training
    recorder.add("BatchNormalization", [x, weight, bias, mean, var], results[0], epsilon=eps)


def _average_pool(
    recorder: _Recorder,
    result: Tensor,
    x: Tensor,
    size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> None:
    assert not ceil_mode
    recorder.add(
        "AveragePool",
        [x],
        result,
        kernel_shape=size,
        strides=stride or size,
        pads=[*padding, *padding],
        count_include_pad=int(count_include_pad),
    )


def _max_pool(
    recorder: _Recorder,
    results: Sequence[Tensor],
    x: Tensor,
    size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
) -> None:
    recorder.add(
        "MaxPool",
        [x],
        results[0],
        kernel_shape=size,
        strides=stride or size,
        pads=[*padding, *padding],
        dilations=[1, 1],
    )


def _cat(recorder: _Recorder, result: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> None:
    if len(tensors) == 1:
        recorder.is_same(result, tensors[0])
    else:
        recorder.add("Concat", tensors, result, axis=dim)


def _stack(recorder: _Recorder, result: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> None:
    parts = [x.unsqueeze(dim) for x in tensors]  # the recorder does not see this; recorded below
    for part, x in zip(parts, tensors, strict=True):
        _unsqueeze(recorder, part, x, dim)
    recorder.keep(*parts)
    _cat(recorder, result, parts, dim)


def _unsqueeze(recorder: _Recorder, result: Tensor, x: Tensor, dim: int) -> None:
    recorder.add("Unsqueeze", [x, _int64(recorder, dim)], result)


def _split(recorder: _Recorder, results: Sequence[Tensor], x: Tensor, size: int, dim: int = 0) -> None:
    recorder.add("Split", [x, _int64(recorder, *(part.shape[dim] for part in results))], *results, axis=dim)


def _slice(
    recorder: _Recorder,
    result: Tensor,
    x: Tensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> None:
    if result.shape == x.shape:
        recorder.is_same(result, x)
        return
    bounds = [start or 0, x.shape[dim] if end is None else min(end, x.shape[dim]), dim, step]
    recorder.add("Slice", [x, *(_int64(recorder, value) for value in bounds)], result)


def _pad(recorder: _Recorder, result: Tensor, x: Tensor, pad: Sequence[int], value: float = 0.0) -> None:
    # torch lists the last dimension first, with both ends of each dimension together.
    before, after = list(pad[::2]), list(pad[1::2])
    missing = [0] * (x.ndim - len(before))
    amounts = _int64(recorder, *missing, *reversed(before), *missing, *reversed(after))
    recorder.add("Pad", [x, amounts, recorder.scalar(value)], result)


def _view(recorder: _Recorder, result: Tensor, x: Tensor, size: Sequence[int]) -> None:
    # 0 copies the size of the input, which keeps the batch free.
    shape = [0 if place == 0 and length == recorder.batch_size else length for place, length in enumerate(result.shape)]
    recorder.add("Reshape", [x, _int64(recorder, *shape)], result)


def _permute(recorder: _Recorder, result: Tensor, x: Tensor, dims: Sequence[int]) -> None:
    recorder.add("Transpose", [x], result, perm=dims)


def _mean(recorder: _Recorder, result: Tensor, x: Tensor, dims: Sequence[int], keepdim: bool = False) -> None:
    recorder.add("ReduceMean", [x, _int64(recorder, *(dim % x.ndim for dim in dims))], result, keepdims=int(keepdim))


def _to_float(recorder: _Recorder, result: Tensor, x: Tensor, **_: Any) -> None:
    if result.dtype == x.dtype:
        recorder.is_same(result, x)
    else:
        assert result.dtype == torch.float32
        recorder.add("Cast", [x], result, to=TensorProto.FLOAT)


def _hardtanh(recorder: _Recorder, result: Tensor, x: Tensor, low: float = -1.0, high: float = 1.0) -> None:
    recorder.add("Clip", [x, *(recorder.scalar(value) for value in (low, high))], result)


def _mm(recorder: _Recorder, result: Tensor, x: Tensor, weight: Tensor) -> None:
    recorder.add("Gemm", [x, weight], result)


def _addmm(recorder: _Recorder, result: Tensor, bias: Tensor, x: Tensor, weight: Tensor) -> None:
    recorder.add("Gemm", [x, weight, bias], result)


def _softmax(recorder: _Recorder, result: Tensor, x: Tensor, dim: int, half_to_float: bool) -> None:
    recorder.add("Softmax", [x], result, axis=dim)


_OPERATIONS: dict[str, Callable[..., None]] = {
    "aten.convolution": _convolution,
    "aten.native_batch_norm": _batch_norm,
    "aten.avg_pool2d": _average_pool,
    "aten.max_pool2d_with_indices": _max_pool,
    "aten.relu": _relu,
    "aten.relu_": _relu,
    "aten.sigmoid": _simple("Sigmoid"),
    "aten.hardswish": _simple("HardSwish"),
    "aten.hardswish_": _simple("HardSwish"),
    "aten.hardtanh": _hardtanh,
    "aten.hardtanh_": _hardtanh,
    "aten.add.Tensor": _simple("Add"),
    "aten.add_.Tensor": _simple("Add"),
    "aten.mul.Tensor": _simple("Mul"),
    "aten.cat": _cat,
    "aten.stack": _stack,
    "aten.unsqueeze": _unsqueeze,
    "aten.split.Tensor": _split,
    "aten.slice.Tensor": _slice,
    "aten.constant_pad_nd": _pad,
    "aten.view": _view,
    "aten._unsafe_view": _view,
    "aten.permute": _permute,
    "aten.mean.dim": _mean,
    "aten._to_copy": _to_float,
    "aten.clone": _same,
    "aten.detach": _same,
    "aten.alias": _same,
    "aten.mm": _mm,
    "aten.addmm": _addmm,
    "aten._softmax": _softmax,
}
