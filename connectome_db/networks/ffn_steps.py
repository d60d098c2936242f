"""One step of training a flood-filling network, on TensorFlow or JAX: everything that stays on the device.

    canvas (what is known of each object so far) ── where to look next ── window of image, canvas, truth
        ^                                                                     │ network, loss, gradient
        └──────────────────────── new answer, without a gradient ─────────────┘

As in the published training (Januszewski et al. 2018, 10.1038/s41592-018-0049-4): a window starts in the middle of its
example and then moves by ±delta to where the canvas reaches the move threshold, in random order and to each place once.
Every window is a step of the optimiser. A place that is below the threshold when its turn comes is tried again later;
the published code passes it over for good.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from connectome_db.networks.architecture import Triple
from connectome_db.networks.backend import keras_module
from connectome_db.networks.ffn import FFNConfig
from connectome_db.networks.ffn_jax import added
from connectome_db.networks.ffn_sampling import OBJECT, UNKNOWN, Example, shifts_of

Reduce = Callable[[Sequence[NDArray[np.float32]]], list[NDArray[np.float32]]]
"""Arrays of one rank -> their means over all ranks; the same on every rank."""


@dataclass(frozen=True)
class StepConfig:
    """What a step does, besides the network. Probabilities within (0, 1)."""

    target: float = 0.95
    """What the network shall say of the object; 1 - target of the rest. As published."""
    init_activation: float = 0.95
    pad_value: float = 0.05
    move_threshold: float = 0.9
    teacher_share: float = 0.0
    """Share of the target that is the teacher's answer."""


class State(NamedTuple):
    """Tensors of the examples in work; rows first, voxels of the example flattened."""

    image: Any
    """(batch, voxels) uint8."""
    truth: Any
    """(batch, voxels) uint8."""
    canvas: Any
    """(batch, voxels) float32 logits."""
    order: Any
    """(batch, shifts) int32: when each shift is tried; the number of shifts once it was."""


def logit(probability: float) -> float:
    """Natural logarithm of the odds."""
    return float(np.log(probability / (1 - probability)))


def window_of(config: FFNConfig, teacher: FFNConfig | None = None) -> Triple:
    """Extent (z, y, x) of an example: the larger of the windows of network and teacher, and one step to each side."""
    seen = config.fov_vx if teacher is None else np.maximum(config.fov_vx, teacher.fov_vx)
    z, y, x = (int(n) + 2 * step for n, step in zip(seen, config.deltas_vx, strict=True))
    return z, y, x


class Looks:
    """Where windows are in a flattened example, and the operations on them that need no gradient."""

    def __init__(self, batch: int, config: FFNConfig, teacher: FFNConfig | None, step: StepConfig) -> None:
        """`batch`: rows of this rank."""
        self.ops = keras_module().ops
        self.batch, self.config, self.teacher, self.step = batch, config, teacher, step
        self.extent = window_of(config, teacher)
        shifts, centre = shifts_of(config.deltas_vx), np.asarray(self.extent) // 2
        self.shifts = len(shifts)
        strides = np.array([self.extent[1] * self.extent[2], self.extent[2], 1])
        self.moved = (shifts @ strides).astype(np.int32)
        self.middles = (self.moved + centre @ strides).astype(np.int32)
        rows = np.arange(batch, dtype=np.int32)[:, None]
        self.first = rows * np.int32(np.prod(self.extent))
        self.voxels = self._around(config.fov_vx, strides, centre)
        self.teacher_voxels = None if teacher is None else self._around(teacher.fov_vx, strides, centre)

    def _around(self, fov_vx: Triple, strides: NDArray[np.int64], centre: NDArray[np.int64]) -> NDArray[np.int32]:
        corner = centre - np.asarray(fov_vx) // 2
        places = np.indices(fov_vx).reshape(3, -1).T + corner
        result: NDArray[np.int32] = (places @ strides).astype(np.int32)[None]
        return result

    def next_moves(self, canvas: Any, order: Any) -> Any:
        """(batch, shifts): the turn of each shift that can be made now, the number of shifts for others."""
        reached = self.ops.take(canvas, self.middles, axis=1) >= logit(self.step.move_threshold)
        return self.ops.where(reached, order, self.shifts)

    def window(self, state: State) -> tuple[Any, Any, Any, Any, Any]:
        """Choose each row's window: its voxels' places, its input, the turns left, and the teacher's places and input.

        Inputs are (batch, z, y, x, 2), scaled as their network wants them.
        """
        ops = self.ops
        chosen = ops.argmin(self.next_moves(state.canvas, state.order), axis=1)
        used = ops.cast(ops.one_hot(chosen, self.shifts, dtype="int32"), "bool")
        order = ops.where(used, self.shifts, state.order)
        moved = ops.take(ops.convert_to_tensor(self.moved), chosen)[:, None] + ops.convert_to_tensor(self.first)
        places = ops.convert_to_tensor(self.voxels) + moved
        seen = self._input(state, places, self.config)
        if self.teacher is None:
            return places, seen, order, None, None
        wide = ops.convert_to_tensor(self.teacher_voxels) + moved
        return places, seen, order, wide, self._input(state, wide, self.teacher)

    def _input(self, state: State, places: Any, config: FFNConfig) -> Any:
        image = self.ops.cast(self.take(state.image, places, config.fov_vx), "float32")
        image = (image - config.image_mean) / config.image_std
        return self.ops.stack([image, self.take(state.canvas, places, config.fov_vx)], axis=-1)

    def take(self, values: Any, places: Any, fov_vx: Triple) -> Any:
        """The values at some places, as windows (batch, z, y, x)."""
        flat = self.ops.take(self.ops.reshape(values, (-1,)), places)
        return self.ops.reshape(flat, (self.batch, *fov_vx))

    def target(self, state: State, places: Any, answer: Any) -> tuple[Any, Any]:
        """What the network shall say (probability) and how much it counts, both (batch, z, y, x).

        `answer`: the teacher's logits for its own window, or None.
        """
        ops, share = self.ops, self.step.teacher_share
        truth = self.take(state.truth, places, self.config.fov_vx)
        wanted = ops.where(truth == OBJECT, self.step.target, 1 - self.step.target)
        known = ops.cast(truth != UNKNOWN, "float32")
        if answer is None or self.teacher is None:
            return wanted, known
        cut = [(a - b) // 2 for a, b in zip(self.teacher.fov_vx, self.config.fov_vx, strict=True)]
        inner = (slice(None), *(slice(c, c + n) for c, n in zip(cut, self.config.fov_vx, strict=True)))
        said = ops.sigmoid(answer)[inner]
        weight = known * (1 - share) + share
        return (known * (1 - share) * wanted + share * said) / ops.maximum(weight, 1e-6), weight

    def cost(self, logits: Any, wanted: Any, weight: Any) -> Any:
        """Mean over all voxels of the weighted cross-entropy, so that means over ranks are means over the batch."""
        ops = self.ops
        each = ops.relu(logits) - logits * wanted + ops.log1p(ops.exp(-ops.abs(logits)))
        return ops.mean(weight * each)

    def written(self, state: State, places: Any, logits: Any, order: Any) -> tuple[State, Any]:
        """The state after an answer, and (batch,) whether a row has a move left."""
        ops = self.ops
        flat = ops.scatter_update(
            ops.reshape(state.canvas, (-1,)), ops.reshape(places, (-1, 1)), ops.reshape(logits, (-1,))
        )
        canvas = ops.reshape(flat, ops.shape(state.canvas))
        left = ops.any(self.next_moves(canvas, order) < self.shifts, axis=1)
        return State(state.image, state.truth, canvas, order), left

    def blank(self, rows: int) -> NDArray[np.float32]:
        """Canvases (rows, voxels) before the first window."""
        canvas = np.full((rows, int(np.prod(self.extent))), logit(self.step.pad_value), np.float32)
        canvas[:, self.middles[0]] = logit(self.step.init_activation)
        return canvas


class Stepper:
    """Weights, optimiser and examples in work on the device of the chosen backend."""

    def __init__(self, looks: Looks, model: Any, optimizer: Any, teacher: Any = None) -> None:
        """`model`, and `teacher` where `looks` has one: keras models of their configurations."""
        self.looks, self.model, self.optimizer, self.teacher = looks, model, optimizer, teacher
        optimizer.build(model.trainable_variables)
        ops, size = looks.ops, int(np.prod(looks.extent))
        self.state = State(
            ops.zeros((looks.batch, size), "uint8"),
            ops.zeros((looks.batch, size), "uint8"),
            ops.convert_to_tensor(looks.blank(looks.batch)),
            ops.zeros((looks.batch, looks.shifts), "int32"),
        )
        is_jax = keras_module().backend.backend() == "jax"
        self._engine: Any = (_Jax if is_jax else _TensorFlow)(looks, model, optimizer, teacher)

    def fill(self, rows: Sequence[int], examples: Sequence[Example]) -> None:
        """Give some rows new examples, with blank canvases."""
        count = 1 << (len(rows) - 1).bit_length()  # few different shapes: each is compiled once
        padded = [*rows, *[rows[-1]] * (count - len(rows))]
        chosen = [*examples, *[examples[-1]] * (count - len(rows))]
        new = State(
            np.stack([e.image.ravel() for e in chosen]),
            np.stack([e.truth.ravel() for e in chosen]),
            self.looks.blank(1),
            np.stack([e.order for e in chosen]),
        )
        self.state = self._engine.fill(self.state, np.array(padded, np.int32)[:, None], new)

    def step(self, reduce: Reduce | None = None) -> tuple[float, NDArray[np.bool_]]:
        """Look once in every row and learn from it: (loss, which rows have a move left).

        `reduce` averages gradients and loss over ranks.
        """
        loss, self.state, left = self._engine.step(self.state, reduce)
        return float(loss), np.asarray(left)

    def variables(self) -> list[Any]:
        """Keras variables of model and optimiser with their present values; after `assign`, call `reload`."""
        self._engine.store()
        return [*self.model.weights, *self.optimizer.variables]

    def reload(self) -> None:
        """Go on from the values that the variables have now."""
        self._engine.load()

    def averaged(self) -> list[NDArray[np.float32]]:
        """The weights to keep, in the model's order: their moving average where there is one."""
        self._engine.store()
        now = [np.asarray(weight).copy() for weight in self.model.weights]
        self.optimizer.finalize_variable_values(self.model.trainable_variables)
        kept = [np.asarray(weight).astype(np.float32) for weight in self.model.weights]
        for weight, value in zip(self.model.weights, now, strict=True):
            weight.assign(value)
        return kept


def _put(ops: Any, state: State, rows: Any, new: State) -> State:
    """State with some rows (n, 1) exchanged; the canvas of `new` is one for all of them."""
    blank = ops.broadcast_to(new.canvas, (rows.shape[0], state.canvas.shape[1]))
    values = (new.image, new.truth, blank, new.order)
    return State(*(ops.scatter_update(old, rows, value) for old, value in zip(state, values, strict=True)))


def _functional(model: Any, config: FFNConfig) -> Callable[[Sequence[Any], Any], Any]:
    """A keras.Model as a function of its weights and its input to logits, in the form that is fast on a GPU.

    Keras would take 3-D convolutions, whose gradients are slow there (measured in benchmarks/README.md).
    """
    names = [variable.path for variable in model.trainable_variables]
    precision = model.get_layer("conv0_a").compute_dtype

    def logits(weights: Sequence[Any], seen: Any) -> Any:
        return seen[..., 1] + added(dict(zip(names, weights, strict=True)), seen, config.depth, precision)

    return logits


class _Jax:
    """Functional: values live outside of Keras' variables, and a step is one compiled call on one rank."""

    def __init__(self, looks: Looks, model: Any, optimizer: Any, teacher: Any) -> None:
        import jax  # noqa: PLC0415 - only where it is the backend

        self.model, self.optimizer = model, optimizer
        self.weights: list[Any] = []
        self.memory: list[Any] = []
        self.load()
        taught = None if teacher is None else [v.value for v in teacher.trainable_variables]
        says = _functional(model, looks.config)
        teaches = None if looks.teacher is None else _functional(teacher, looks.teacher)

        def lost(weights: Any, state: State, seen: Any, places: Any, answer: Any) -> tuple[Any, Any]:
            logits = says(weights, seen)
            return looks.cost(logits, *looks.target(state, places, answer)), logits

        def gradient(weights: Any, known: Any, state: State) -> Any:
            places, seen, order, _, shown = looks.window(state)
            answer = None if teaches is None else teaches(known, shown)
            (loss, logits), slope = jax.value_and_grad(lost, has_aux=True)(weights, state, seen, places, answer)
            return slope, loss, *looks.written(state, places, logits, order)

        def whole(weights: Any, memory: Any, known: Any, state: State) -> Any:
            slope, loss, after, left = gradient(weights, known, state)
            return *optimizer.stateless_apply(memory, slope, weights), loss, after, left

        self.taught = taught
        self._gradient = jax.jit(gradient, donate_argnums=2)
        self._whole = jax.jit(whole, donate_argnums=(0, 1, 3))
        self._apply = jax.jit(optimizer.stateless_apply)
        self._fill = jax.jit(lambda state, rows, new: _put(looks.ops, state, rows, new), donate_argnums=0)

    def fill(self, state: State, rows: NDArray[np.int32], new: State) -> Any:
        return self._fill(state, rows, new)

    def step(self, state: State, reduce: Reduce | None) -> Any:
        if reduce is None:
            self.weights, self.memory, loss, after, left = self._whole(self.weights, self.memory, self.taught, state)
            return loss, after, left
        slope, loss, after, left = self._gradient(self.weights, self.taught, state)
        *slope, loss = reduce([np.asarray(part, np.float32) for part in (*slope, loss)])
        self.weights, self.memory = self._apply(self.memory, slope, self.weights)
        return loss, after, left

    def load(self) -> None:
        import jax.numpy as jnp  # noqa: PLC0415 - as above

        # Copies: a step gives its buffers away, and Keras' variables would be left without theirs.
        self.weights = [jnp.array(v.value, copy=True) for v in self.model.trainable_variables]
        self.memory = [jnp.array(v.value, copy=True) for v in self.optimizer.variables]

    def store(self) -> None:
        pairs = zip((*self.model.trainable_variables, *self.optimizer.variables), (*self.weights, *self.memory),
                    strict=True)  # fmt: skip
        for variable, value in pairs:
            variable.assign(np.asarray(value))


class _TensorFlow:
    """Values live in Keras' variables."""

    def __init__(self, looks: Looks, model: Any, optimizer: Any, teacher: Any) -> None:
        import tensorflow as tf  # noqa: PLC0415 - only where it is the backend

        xla = bool(tf.config.list_physical_devices("GPU"))
        variables = model.trainable_variables

        def gradient(state: State) -> Any:
            places, seen, order, _, shown = looks.window(state)
            answer = None if teacher is None else shown[..., 1] + teacher(shown, training=False)[..., 0]
            wanted, weight = looks.target(state, places, answer)
            with tf.GradientTape() as tape:
                logits = seen[..., 1] + model(seen, training=True)[..., 0]
                loss = looks.cost(logits, wanted, weight)
            slope = tape.gradient(loss, [v.value for v in variables])
            return slope, loss, *looks.written(state, places, logits, order)

        def whole(state: State) -> Any:
            slope, loss, after, left = gradient(state)
            optimizer.apply(slope)
            return loss, after, left

        self._gradient = tf.function(gradient, jit_compile=xla)
        self._whole = tf.function(whole, jit_compile=xla)
        self._apply = tf.function(optimizer.apply)
        self._fill = tf.function(lambda state, rows, new: _put(looks.ops, state, rows, new))
        self._tensor = tf.convert_to_tensor

    def fill(self, state: State, rows: NDArray[np.int32], new: State) -> Any:
        return self._fill(state, self._tensor(rows), State(*map(self._tensor, new)))

    def step(self, state: State, reduce: Reduce | None) -> Any:
        if reduce is None:
            return self._whole(state)
        slope, loss, after, left = self._gradient(state)
        *slope, loss = reduce([np.asarray(part, np.float32) for part in (*slope, loss)])
        self._apply([self._tensor(part) for part in slope])
        return loss, after, left

    def load(self) -> None:
        """Nothing to do: a step reads the variables."""

    def store(self) -> None:
        """Nothing to do: a step writes the variables."""
