"""Networks as users have them, for the library."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from . import _qdrop
from ._errors import DataError, ModelError

if TYPE_CHECKING:
    import onnx

    from ._results import QuantizedModel

#: A network: the path of an ONNX file, its bytes, an ``onnx.ModelProto``, or the result of ``quantize``.
ModelLike = Union[str, "os.PathLike[str]", bytes, bytearray, memoryview, "onnx.ModelProto", "QuantizedModel"]
#: Inputs or open sizes that are fixed, by name: a number for all elements, or one per element.
Fix = Mapping[str, Union[float, Sequence[float]]]

# Most bytes of a protobuf message that is serialised in one piece.
WHOLE = 2_000_000_000


def native(model: Any, fix: Fix | None = None, *, known: bool = False) -> _qdrop.Model:
    """``model`` with what is fixed; names that it does not have are an error unless ``known`` is true."""
    network = _read(model)
    for name, values in (fix or {}).items():
        numbers = [float(v) for v in values] if isinstance(values, Sequence) else [float(values)]
        network = network.fix(name, numbers, not known)
    return network


def _read(model: Any) -> _qdrop.Model:
    from ._results import QuantizedModel

    if isinstance(model, QuantizedModel):
        return model._network()
    if isinstance(model, (str, os.PathLike)):
        return _qdrop.Model.open(os.fspath(model), None)
    if isinstance(model, (bytes, bytearray, memoryview)):
        return _qdrop.Model.from_bytes(bytes(model))
    if hasattr(model, "SerializeToString") and hasattr(model, "graph"):
        return _read_proto(model)
    got = type(model).__name__
    hint = "give the path of an ONNX file, its bytes, or an onnx.ModelProto"
    if hasattr(model, "state_dict") or hasattr(model, "parameters"):
        hint = "export it first, for example with torch.onnx.export(net, (example,), 'model.onnx')"
    raise DataError(f"expected a network, got {got}", hint=hint)


def _read_proto(model: Any) -> _qdrop.Model:
    try:
        size = model.ByteSize()
    except Exception:  # protobuf raises what it likes where a message is too large to be measured
        size = WHOLE + 1
    if size <= WHOLE:
        return _qdrop.Model.from_bytes(model.SerializeToString())
    try:
        import onnx
    except ImportError:
        raise ModelError(
            "the model is too large to be serialised in one piece",
            hint="save it with external data, and give the path of the file",
        ) from None
    # Saving with external data takes the weights out of the model: it is done to a copy.
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with tempfile.TemporaryDirectory(prefix="qdrop-") as folder:
        path = Path(folder) / "model.onnx"
        onnx.save_model(copy, str(path), save_as_external_data=True, location="model.data", size_threshold=1024)
        del copy
        return _qdrop.Model.open(str(path), None)
