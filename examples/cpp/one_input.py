"""generator.onnx for programs that feed one tensor, and for onnxruntime 1.11: python one_input.py BUNDLE OUT.onnx.

The graph takes noise [n, h + m + q]: u, w and, where the bundle has decoder noise, z beside each other. It is stamped
opset 16. Of its operators opset 18 changed Split alone, whose number of outputs was not written down before.
"""

import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

graph = onnx.load(f"{sys.argv[1]}/generator.onnx").graph
normals = {value.name: value.type.tensor_type.shape.dim[1].dim_value for value in graph.input[1:]}
dims = graph.input[0].type.tensor_type.shape.dim  # u is [n], or [n, h] with discrete values
h = dims[1].dim_value if len(dims) > 1 else 1
widths = np.array([h, *normals.values()])
for node in graph.node:
    for value in [value for value in node.attribute if value.name == "num_outputs"]:
        node.attribute.remove(value)
cut = [
    helper.make_node("Split", ["noise", "noise/widths"], ["noise/u", *normals], axis=1),
    helper.make_node("Identity", ["noise/u"], ["u"])
    if len(dims) > 1
    else helper.make_node("Squeeze", ["noise/u", "noise/axis"], ["u"]),
]
constants = [
    numpy_helper.from_array(widths, "noise/widths"),
    *([] if len(dims) > 1 else [numpy_helper.from_array(np.array([1]), "noise/axis")]),
]
noise = helper.make_tensor_value_info("noise", TensorProto.FLOAT, ["n", int(widths.sum())])
one = helper.make_graph(
    [*cut, *graph.node], "generator", [noise], graph.output, [*constants, *graph.initializer]
)
model = helper.make_model(one, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, sys.argv[2])
