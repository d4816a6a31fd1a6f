"""Writes small networks in the format of ONNX, message by message."""

import math
import struct
from collections.abc import Sequence
from random import Random

Attribute = int | float | str | bytes | Sequence[int]


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, payload: int | str | bytes) -> bytes:
    """A varint, or a text, message or other bytes with their length."""
    if isinstance(payload, int):
        return varint(number << 3) + varint(payload)
    data = payload.encode() if isinstance(payload, str) else payload
    return varint(number << 3 | 2) + varint(len(data)) + data


def tensor(name: str, shape: Sequence[int], data: bytes, kind: int = 1) -> bytes:
    return b"".join(field(1, n) for n in shape) + field(2, kind) + field(8, name) + field(9, data)


def floats(name: str, shape: Sequence[int], values: Sequence[float] | None = None) -> bytes:
    """Return a tensor of the ``values``, or of random ones."""
    draws = Random(name)
    count = math.prod(shape)
    return tensor(
        name,
        shape,
        struct.pack(f"<{count}f", *(values or (draws.uniform(-0.2, 0.2) for _ in range(count)))),
    )


def whole(name: str, values: Sequence[int], shape: Sequence[int] | None = None) -> bytes:
    return tensor(
        name, [len(values)] if shape is None else shape, struct.pack(f"<{len(values)}q", *values), 7
    )


def value(name: str, shape: Sequence[int]) -> bytes:
    """What a network takes or gives."""
    dimensions = b"".join(field(1, field(1, n)) for n in shape)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, dimensions)))


def attribute(name: str, found: Attribute) -> bytes:
    head = field(1, name)
    if isinstance(found, int):
        return head + field(3, found) + field(20, 2)
    if isinstance(found, float):
        return head + varint(2 << 3 | 5) + struct.pack("<f", found) + field(20, 1)
    if isinstance(found, str):
        return head + field(4, found) + field(20, 3)
    if isinstance(found, bytes):
        return head + field(5, found) + field(20, 4)
    return head + b"".join(field(8, n) for n in found) + field(20, 7)


def node(
    kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Attribute
) -> bytes:
    return (
        b"".join(field(1, name) for name in inputs)
        + b"".join(field(2, name) for name in outputs)
        + field(3, outputs[0])
        + field(4, kind)
        + b"".join(field(5, attribute(name, found)) for name, found in attributes.items())
    )


def network(
    nodes: Sequence[bytes], weights: Sequence[bytes], takes: Sequence[bytes], gives: Sequence[bytes]
) -> bytes:
    graph = (
        b"".join(field(1, one) for one in nodes)
        + field(2, "g")
        + b"".join(field(5, one) for one in weights)
    )
    graph += b"".join(field(11, one) for one in takes) + b"".join(field(12, one) for one in gives)
    return field(1, 7) + field(7, graph) + field(8, field(1, "") + field(2, 11))


def small(nodes: Sequence[bytes], weights: Sequence[bytes] = ()) -> bytes:
    """From x [1, 3, 8, 8] to y."""
    return network(nodes, weights, [value("x", (1, 3, 8, 8))], [value("y", (1, 2))])


def mean(size: int) -> bytes:
    """The mean of all pixels of grey pictures."""
    nodes = [node("ReduceMean", ["x"], ["y"], axes=[1, 2, 3], keepdims=1)]
    return network(nodes, [], [value("x", (1, 1, size, size))], [value("y", (1, 1, 1, 1))])


def classifier(size: int = 16) -> bytes:
    """Two scores from colour pictures, by the operations that classifiers are made of."""
    nodes = [
        node(
            "Conv",
            ["x", "w1", "b1"],
            ["c1"],
            kernel_shape=[3, 3],
            pads=[1, 1, 1, 1],
            strides=[2, 2],
        ),
        node("BatchNormalization", ["c1", "s", "bb", "m", "v"], ["n1"], epsilon=1e-5),
        node("Relu", ["n1"], ["r1"]),
        node("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p1", "w2"], ["c2"], kernel_shape=[1, 1]),
        node("Pad", ["c2", "pads"], ["p2"], mode="constant"),
        node("Transpose", ["p2"], ["t"], perm=[0, 2, 3, 1]),
        node("Transpose", ["t"], ["t2"], perm=[0, 3, 1, 2]),
        node("GlobalAveragePool", ["t2"], ["gp"]),
        node("Flatten", ["gp"], ["fl"], axis=1),
        node("Gemm", ["fl", "fw", "fb"], ["l"], transB=1),
        node("Reshape", ["l", "shape"], ["l2"]),
        node("Constant", [], ["k"], value=floats("", (1, 2))),
        node("Add", ["l2", "k"], ["a"]),
        node("ConstantOfShape", ["shape"], ["z"], value=floats("", (1,), [2.0])),
        node("Mul", ["a", "z"], ["a2"]),
        node("Softmax", ["a2"], ["y"], axis=1),
    ]
    weights = [
        floats("w1", (4, 3, 3, 3)),
        *(floats(name, (4,)) for name in ("b1", "s", "bb", "m")),
        floats("v", (4,), [1.0] * 4),
    ]
    weights += [floats("w2", (6, 4, 1, 1)), floats("fw", (2, 6)), floats("fb", (2,))]
    weights += [whole("pads", [0, 0, 1, 1, 0, 0, 1, 1]), whole("shape", [1, 2])]
    return network(nodes, weights, [value("x", (1, 3, size, size))], [value("y", (1, 2))])


def yunet(width: int = 32, height: int = 32, left_out: str = "", numbers: int = 10) -> bytes:
    """What has the outputs of a YuNet face detector, and sees a face in every bright square.

    Args:
        left_out: an output that it does not have.
        numbers: for every square, where there should be 10.
    """
    nodes, weights, gives = [], [], []
    for stride in (8, 16, 32):
        nodes.append(
            node(
                "AveragePool",
                ["x"],
                [f"p{stride}"],
                kernel_shape=[stride, stride],
                strides=[stride, stride],
            )
        )
        squares = (width // stride) * (height // stride)
        for name, count in {"cls": 1, "obj": 1, "bbox": 4, "kps": numbers}.items():
            output = f"{name}_{stride}"
            if output == left_out:
                continue
            scores = count == 1
            factor = 0.1 if scores else 0.0
            weights.append(floats(f"w_{output}", (count, 3, 1, 1), [factor] * (3 * count)))
            weights.append(floats(f"b_{output}", (count,), [-10.0 if scores else 0.5] * count))
            weights.append(whole(f"s_{output}", [1, squares, count]))
            nodes.append(
                node(
                    "Conv",
                    [f"p{stride}", f"w_{output}", f"b_{output}"],
                    [f"c_{output}"],
                    kernel_shape=[1, 1],
                )
            )
            nodes.append(node("Transpose", [f"c_{output}"], [f"t_{output}"], perm=[0, 2, 3, 1]))
            nodes.append(
                node(
                    "Reshape", [f"t_{output}", f"s_{output}"], [f"r_{output}" if scores else output]
                )
            )
            if scores:
                nodes.append(node("Sigmoid", [f"r_{output}"], [output]))
            gives.append(value(output, (1, squares, count)))
    return network(nodes, weights, [value("x", (1, 3, height, width))], gives)
