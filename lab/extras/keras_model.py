"""A problem in TensorFlow: a Keras model with the weights of the blocks, and its loss. Used inside the ranks only."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from simulator.errors import DivergedError
from simulator.holdings import Piece
from simulator.problem import Problem
from simulator.rules import SGD, Rule

from .translation import Activation, Convolution, Dense, Plain, layers, loss_of

Arrays = Mapping[str, "np.ndarray"]


def load(cluster: Mapping[str, list[str]] | None = None, task: tuple[str, int] | None = None, devices: int = 1) -> Any:
    """TensorFlow, with one thread per ``device``. ``cluster`` and ``task`` become TF_CONFIG."""
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", TF_ENABLE_ONEDNN_OPTS="0", CUDA_VISIBLE_DEVICES="-1")
    if cluster is not None and task is not None:
        os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": task[0], "index": task[1]}})
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(max(2, devices))  # one may wait for a message
    tf.get_logger().setLevel("ERROR")
    if devices > 1:
        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
    return tf


@dataclass(frozen=True)
class Translated:
    """A problem's Keras model. Made under the scope of a strategy, which then has its variables."""

    tf: Any
    keras: Any
    variables: Mapping[str, Any]
    loss_name: str
    batch: int

    @property
    def elements(self) -> int:
        """The number of parameters."""
        return sum(int(np.prod(variable.shape)) for variable in self.variables.values())

    @property
    def nbytes(self) -> float:
        """The bytes of all parameters."""
        return float(sum(int(np.prod(v.shape)) * v.dtype.size for v in self.variables.values()))

    def fill(self, arrays: Arrays) -> None:
        """Set the parameters, by the problem's names and in PyTorch's layout."""
        for name, variable in self.variables.items():
            variable.assign(_to_keras(arrays[name]))

    def losses(self, inputs: Any, targets: Any) -> Any:
        """The loss of every sample."""
        output = self.keras(inputs, training=True)
        if self.loss_name == "cross_entropy":
            return self.tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=output)
        squares = (output - targets) ** 2
        return self.tf.reduce_mean(squares, axis=list(range(1, len(squares.shape))))

    def gradient(self, inputs: Any, targets: Any, scale: float) -> tuple[Any, list[Any]]:
        """The mean loss, and the gradient of ``scale`` times the sum of the samples' losses."""
        with self.tf.GradientTape() as tape:
            losses = self.losses(inputs, targets)
            total = scale * self.tf.reduce_sum(losses)
        return self.tf.reduce_mean(losses), tape.gradient(total, list(self.variables.values()))

    def pieces(self, problem: Problem, read: Any = None) -> list[Piece]:
        """The parameters now, as pieces of the flat vector of all; ``read`` gives the array of a variable."""
        pieces: list[Piece] = []
        offset = 0
        for name, initial in problem.parameters(0).items():
            value = self.variables[name] if read is None else read(self.variables[name])
            numbers = _to_torch(np.asarray(value)).reshape(-1).astype(initial.dtype)
            pieces.append((offset, numbers))
            offset += numbers.size
        return pieces


def translate(tf: Any, problem: Problem, seed: int) -> Translated:
    """The problem's model with the initial weights of a seed."""
    import keras

    shape, _ = problem.shapes()[0]
    model = keras.Sequential([keras.Input(shape, dtype=problem.dtype)])
    variables: dict[str, Any] = {}
    pixels_last = False
    for layer in layers(problem.build(seed)):
        if isinstance(layer, Convolution) and not pixels_last:
            # TensorFlow convolves on CPUs with channels last only
            model.add(keras.layers.Permute((2, 3, 1), dtype=problem.dtype))
        elif pixels_last and not isinstance(layer, (Convolution, Activation)):
            model.add(keras.layers.Permute((3, 1, 2), dtype=problem.dtype))
        pixels_last = isinstance(layer, Convolution) or (pixels_last and isinstance(layer, Activation))
        variables |= _add(keras, model, layer, problem.dtype)
    if pixels_last:
        model.add(keras.layers.Permute((3, 1, 2), dtype=problem.dtype))
    made = Translated(tf, model, variables, loss_of(problem), problem.batch)
    made.fill(problem.parameters(seed))
    return made


def _add(keras: Any, model: Any, layer: Plain, dtype: str) -> dict[str, Any]:
    """Add a layer; its variables by the problem's names."""
    if isinstance(layer, Activation):
        model.add(keras.layers.Activation(layer.function, dtype=dtype))
        return {}
    if isinstance(layer, Dense):
        made = keras.layers.Dense(layer.units, use_bias=layer.bias is not None, dtype=dtype)
    elif isinstance(layer, Convolution):
        model.add(keras.layers.ZeroPadding2D(layer.padding, dtype=dtype))  # "same" pads one side more than the other
        made = keras.layers.Conv2D(
            layer.filters, layer.kernel, layer.stride, "valid", use_bias=layer.bias is not None, dtype=dtype
        )
    else:
        model.add(keras.layers.Flatten(dtype=dtype))
        return {}
    model.add(made)
    names = [layer.weight] + ([layer.bias] if layer.bias else [])
    return {name: variable.value for name, variable in zip(names, made.trainable_variables, strict=True)}


def descend(tf: Any, rule: Rule, variable: Any, gradient: Any) -> Any:
    """One step of SGD on one variable, in place."""
    assert isinstance(rule, SGD)
    lr, decay = (tf.constant(number, gradient.dtype) for number in (rule.lr, rule.weight_decay))
    return variable.assign_sub(lr * (gradient + decay * variable if rule.weight_decay else gradient))


def finite(rank: int, step: int, loss: float) -> float:
    """The loss, or DivergedError when it is no longer a number."""
    if not isfinite(loss):
        raise DivergedError.of_loss(rank, step, loss)
    return loss


def _to_keras(array: np.ndarray) -> np.ndarray:
    """Inputs before outputs, pixels before both."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def _to_torch(array: np.ndarray) -> np.ndarray:
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
