"""A network in ONNX's format, which onnxruntime and many others run: `onnx.save(export.model(network), "net.onnx")`.

What goes into the file's graph is "images", float32 (N, C, H, W), with any N; what comes out is "logits", (N, classes).
The rest of minicnn has (N, H, W, C): other tools expect maps and weights the other way round. The network is run once,
in evaluation mode, and watched; `table` says what each op is in ONNX. So auxiliary heads, which are of training, and
dropout leave no trace, whatever the network is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import kernels
import minicnn
from minicnn import device, no_grad, observe, ops
from minicnn.autograd import Event, Tensor
from minicnn.export.graph import INPUT, OUTPUT, Graph, order
from minicnn.export.table import TABLE
from minicnn.layers import Module, evaluation

OPSET, IR = 17, 8  # versions of ONNX's operators and of its file format, both of 2022


def model(
    network: Module,
    image_size: int | None = None,
    in_channels: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Any:
    """The network as an `onnx.ModelProto`: weights in float32, under their names in `state_dict`.

    Image size and channels need not be given for a model of `models.build`, which knows its own. `metadata` is added to
    the file's own. Raises ValueError, naming op and option, for what ONNX has no way to say, RuntimeError where the
    package onnx is missing.
    """
    helper = _onnx().helper
    size, channels = image_size or network.image_size, in_channels or network.in_channels  # type: ignore[attr-defined]
    state = network.state_dict()
    # Two images, not one: a batch is told from an axis of one element.
    images = _placed(network, np.zeros((2, size, size, channels), np.float32))
    graph = Graph(images, {id(array): name for name, array in state.items()})

    def watch(event: Event) -> None:
        y = event.outputs[0]
        if event.phase == "backward" or not any(map(graph.depends_on_images, event.inputs)):
            return  # a result without an image in it is a constant, if it is used
        if any(y is x for x in event.inputs):
            return  # nothing has happened
        graph.op = event.name
        if event.name not in TABLE:
            raise graph.cannot("this op")
        graph.label = graph.label_of(event.inputs)
        graph.define(y, TABLE[event.name](graph, y, *event.inputs, **event.options))

    with ops.fused.disabled(), observe(watch):
        logits = _run(network, images)
    if isinstance(logits, tuple):
        raise ValueError(f"{type(network).__name__} returns {len(logits)} results: one can be exported to ONNX")
    if not graph.depends_on_images(logits.data):
        raise ValueError(
            f"{type(network).__name__}: what it returns is computed from the images by other means than ops"
        )
    graph.finish(logits.data)

    def value(name: str, *shape: int) -> Any:
        return helper.make_tensor_value_info(name, _onnx().TensorProto.FLOAT, ["batch", *shape])

    exported = helper.make_model(
        helper.make_graph(
            graph.nodes,
            getattr(network, "name", type(network).__name__),
            [value(INPUT, channels, size, size)],
            [value(OUTPUT, *(logits.shape[i] for i in order(logits.ndim)[1:]))],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR,
        producer_name="minicnn",
        producer_version=minicnn.__version__,
    )
    helper.set_model_props(exported, dict(metadata or {}))
    return exported


def difference(network: Module, exported: bytes) -> float:
    """How far onnxruntime's logits are from the network's own: the largest difference, as a share of the largest logit.

    On three random images, of the size that `exported`, a file's content, says.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    _, *shape = session.get_inputs()[0].shape
    x = np.random.default_rng(0).standard_normal((3, *shape), np.float32)
    (theirs,) = session.run([OUTPUT], {INPUT: x})
    ours = _run(network, _placed(network, np.ascontiguousarray(x.transpose(0, 2, 3, 1)))).numpy()
    return float(np.abs(theirs - ours).max() / np.abs(ours).max())


def _onnx() -> Any:
    try:
        import onnx
    except ImportError:
        raise RuntimeError("exporting needs the package onnx: pip install 'minicnn[onnx]'") from None
    return onnx


def _placed(network: Module, images: np.ndarray) -> Any:
    """Images on the device and in the dtype of the network's weights."""
    like = next(iter(network.state_dict().values()), images)
    return device.to(images.astype(like.dtype, copy=False), device.of(like))


def _run(network: Module, images: Any) -> Any:
    """What the network makes of images (N, H, W, C) in evaluation mode: nothing is recorded, nothing compiled."""
    with evaluation(network), kernels.use("reference"), threadpool_limits(1, user_api="blas"), no_grad():
        return network(Tensor(images))
