"""What a bundle's graphs may use of the ONNX file format: field numbers of onnx.proto (IR 8).

A field that a rule of `graphs` refuses by name is listed as plain bytes; one that is not listed is
refused unread.
"""

from __future__ import annotations

from scgan_infer.bundle.protobuf import Message

FLOAT, UINT8, INT8, INT32, INT64, BOOL, DOUBLE, UINT32, UINT64 = 1, 2, 3, 6, 7, 9, 11, 12, 13
# ONNX's number of a type: numpy's, and the field that holds its values when raw_data does not
TYPES = {
    FLOAT: ("<f4", "float_data"),
    UINT8: ("u1", "int32_data"),
    INT8: ("i1", "int32_data"),
    INT32: ("<i4", "int32_data"),
    INT64: ("<i8", "int64_data"),
    BOOL: ("u1", "int32_data"),
    DOUBLE: ("<f8", "double_data"),
    UINT32: ("<u4", "uint64_data"),
    UINT64: ("<u8", "uint64_data"),
}

_ENTRY = Message("StringStringEntryProto", "1 key text, 2 value text")
_TENSOR = Message(
    "TensorProto",
    "1 dims int*, 2 data_type int, 4 float_data fixed32*, 5 int32_data int*, 7 int64_data int*,"
    "8 name text, 9 raw_data bytes, 10 double_data fixed64*, 11 uint64_data int*, "
    "12 doc_string text,"
    "13 external_data bytes*, 14 data_location int, 16 metadata_props StringStringEntryProto*",
    _ENTRY,
)
_DIMENSION = Message("Dimension", "1 dim_value int, 2 dim_param text, 3 denotation text")
_SHAPE = Message("TensorShapeProto", "1 dim Dimension*", _DIMENSION)
_TENSOR_TYPE = Message("TypeProto.Tensor", "1 elem_type int, 2 shape TensorShapeProto", _SHAPE)
_TYPE = Message("TypeProto", "1 tensor_type TypeProto.Tensor, 6 denotation text", _TENSOR_TYPE)
_VALUE = Message(
    "ValueInfoProto",
    "1 name text, 2 type TypeProto, 3 doc_string text, 4 metadata_props StringStringEntryProto*",
    _TYPE,
    _ENTRY,
)
_ATTRIBUTE = Message(
    "AttributeProto",
    "1 name text, 2 f fixed32, 3 i int, 4 s bytes, 5 t TensorProto, 6 g bytes, 7 floats fixed32*,"
    "8 ints int*, 9 strings bytes*, 11 graphs bytes*, 13 doc_string text, 20 type int",
    _TENSOR,
)
_NODE = Message(
    "NodeProto",
    "1 input text*, 2 output text*, 3 name text, 4 op_type text, 5 attribute AttributeProto*,"
    "6 doc_string text, 7 domain text, 9 metadata_props StringStringEntryProto*",
    _ATTRIBUTE,
    _ENTRY,
)
_GRAPH = Message(
    "GraphProto",
    "1 node NodeProto*, 2 name text, 5 initializer TensorProto*, 10 doc_string text,"
    "11 input ValueInfoProto*, 12 output ValueInfoProto*, 13 value_info ValueInfoProto*,"
    "14 quantization_annotation bytes*, 15 sparse_initializer bytes*,"
    "16 metadata_props StringStringEntryProto*",
    _NODE,
    _TENSOR,
    _VALUE,
    _ENTRY,
)
_OPERATOR_SET = Message("OperatorSetIdProto", "1 domain text, 2 version int")
MODEL = Message(
    "ModelProto",
    "1 ir_version int, 2 producer_name text, 3 producer_version text, 4 domain text, "
    "5 model_version int,"
    "6 doc_string text, 7 graph GraphProto, 8 opset_import OperatorSetIdProto*,"
    "14 metadata_props StringStringEntryProto*, 25 functions bytes*",
    _GRAPH,
    _OPERATOR_SET,
    _ENTRY,
)
ATTRIBUTE_FIELDS = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints", 8: "strings"}
