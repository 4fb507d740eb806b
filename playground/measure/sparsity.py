"""Metrics of a model's size and of its zeros, as counted on the loaded model by techniques.pruning.

Pure. Example::

    METRICS[0].measure(trace, None)   # parameters
"""

from __future__ import annotations

from playground.measure.trace import Trace
from playground.measure.values import Found, Measure, Metric, Missing

NOT_COUNTED = "this engine counts nothing of its loaded model"


def _counted(name: str, reason: str) -> Measure:
    """A number that was counted, else why there is none."""

    def measure(trace: Trace, baseline: Trace | None) -> Found:
        if name in trace.counts:
            return trace.counts[name]
        return Missing(reason if "parameters" in trace.counts else NOT_COUNTED)

    return measure


METRICS = (
    Metric(
        "parameters",
        "Parameters",
        "parameters",
        "lower",
        "numbers that the loaded weights stand for, each once: a packed layer counts its inputs times its outputs",
        _counted("parameters", NOT_COUNTED),
    ),
    Metric("decoder_layers", "Decoder layers", "layers", "none", "layers of the loaded decoder", _counted("decoder_layers", NOT_COUNTED)),
    Metric(
        "mlp_width",
        "MLP width",
        "channels",
        "none",
        "intermediate channels of each layer's MLP",
        _counted("mlp_width", "the layers of this model have no single intermediate size"),
    ),
    Metric(
        "weights_zero_share",
        "Zeros among the weights",
        "share",
        "none",
        "numbers that are exactly zero / all numbers, of the decoder's linear layers",
        _counted("weights_zero_share", "the weights are packed, so their zeros cannot be counted"),
    ),
)
