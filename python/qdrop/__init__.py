"""Post-training quantization of ONNX networks to weights and activations of 2 to 8 bits by QDrop.

>>> import qdrop
>>> q = qdrop.quantize("model.onnx", samples, weights=4, activations=8)
>>> q.save("model.w4a8.onnx")

The functions do what the commands of the same names do, with models and samples in memory or in files; for equal settings
``quantize`` gives the same bytes as the command line.
"""

from ._api import compare, evaluate, plan, quantize, sensitivity
from ._demo import Demo, demo
from ._errors import (
    DataError,
    Error,
    InternalError,
    IoError,
    ModelError,
    NumericError,
    RecipeError,
    UnsupportedError,
)
from ._qdrop import __version__
from ._recipe import Recipe
from ._results import Comparison, Plan, QuantizedModel, Score, Sensitivity

__all__ = [
    "Comparison",
    "DataError",
    "Demo",
    "Error",
    "InternalError",
    "IoError",
    "ModelError",
    "NumericError",
    "Plan",
    "QuantizedModel",
    "Recipe",
    "RecipeError",
    "Score",
    "Sensitivity",
    "UnsupportedError",
    "__version__",
    "compare",
    "demo",
    "evaluate",
    "plan",
    "quantize",
    "sensitivity",
]
