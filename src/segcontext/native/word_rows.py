"""Blocks of bits, 64 columns wide and eight rows high: a word a row, all eight in one register of the processor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import datamodel, extending

from segcontext.native.intrinsics import called, intrinsic, pointer, spread

__all__ = ["ROWS", "block_at", "joined", "moved_down", "moved_up", "ones", "put", "without"]

#: Rows of a block.
ROWS = 8

_WORD = ir.IntType(64)
_WORDS = ir.VectorType(_WORD, ROWS)


class _Block(types.Type):  # type: ignore[misc, unused-ignore]
    """What kernels hold a block in."""


_block = _Block("block of bits")


@extending.register_model(_Block)
class _BlockModel(datamodel.models.PrimitiveModel):  # type: ignore[misc, unused-ignore]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _WORDS)  # type: ignore[no-untyped-call, unused-ignore]


@intrinsic
def block_at(_: Any, plane: Any, at: Any) -> Any:
    """The block of the words plane[at + n]."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load(pointer(context, builder, signature.args[0], values[0], values[1], _WORDS), align=8)

    return _block(plane, types.intp), generate


@intrinsic
def put(_: Any, block: Any, plane: Any, at: Any) -> Any:
    """Writes a block to the words plane[at + n]."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        builder.store(values[0], pointer(context, builder, signature.args[1], values[1], values[2], _WORDS), align=8)
        return context.get_dummy_value()

    return types.void(block, plane, types.intp), generate


@intrinsic
def joined(_: Any, block: Any, other: Any) -> Any:
    """The bits that are set in either."""
    return _block(_block, _block), lambda context, builder, signature, values: builder.or_(*values)


@intrinsic
def without(_: Any, block: Any, other: Any) -> Any:
    """The bits of a block that another lacks."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.and_(values[0], builder.not_(values[1]))

    return _block(_block, _block), generate


@intrinsic
def moved_up(_: Any, block: Any, before: Any, steps: Any) -> Any:
    """Moves bits to columns up to 63 higher; those of the 64 columns before it move in."""
    return _block(_block, _block, types.intp), _funnel("fshl", lambda block, before: (block, before))


@intrinsic
def moved_down(_: Any, block: Any, behind: Any, steps: Any) -> Any:
    """Moves bits to columns up to 63 lower; those of the 64 columns behind it move in."""
    return _block(_block, _block, types.intp), _funnel("fshr", lambda block, behind: (behind, block))


@intrinsic
def ones(_: Any, block: Any) -> Any:
    """How many bits are set."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        counts = called(builder, f"llvm.ctpop.v{ROWS}i64", values, _WORDS)
        return called(builder, f"llvm.vector.reduce.add.v{ROWS}i64", [counts], _WORD)

    return types.int64(_block), generate


def _funnel(name: str, ordered: Callable[[Any, Any], tuple[Any, Any]]) -> Callable[..., Any]:
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        steps = spread(builder, values[2], _WORDS)
        return called(builder, f"llvm.{name}.v{ROWS}i64", [*ordered(*values[:2]), steps], _WORDS)

    return generate
