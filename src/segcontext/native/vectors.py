"""Vectors of floats at addresses, for kernels whose inner loops are spelt out; imports numba's compiler.

A loop that numba vectorises by itself keeps few sums in registers. The products of `window_products` need twenty, so
they are built from the few pieces here, in LLVM's instructions, which are the same for every processor.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import binding, ir
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = [
    "FLAGS",
    "FLOAT",
    "LANES",
    "REGISTERS",
    "SUMS",
    "VECTOR",
    "ZERO",
    "Builder",
    "bytes_",
    "each_step",
    "each_vector",
    "fetch",
    "fma",
    "instructions",
    "load",
    "pointer_at",
    "same",
    "splat",
    "store",
    "sums",
    "transposed",
]

#: Floats in a vector.
LANES = 8


def _registers() -> int:
    # Those of aarch64 are 32 of four floats each.
    return 32 if binding.get_host_cpu_features().get("avx512vl", False) else 16


def _sums() -> int:
    if REGISTERS == 32:
        # The others hold what is multiplied.
        return 24
    return 12 if platform.machine().lower() in ("aarch64", "arm64") else 10


#: Vectors that this processor's registers hold.
REGISTERS = _registers()
#: Those of them that sums over channels may take.
SUMS = _sums()

Builder = Any
INTEGER = ir.IntType(64)
FLOAT = ir.FloatType()
VECTOR = ir.VectorType(FLOAT, LANES)
ZERO = ir.Constant(VECTOR, [0.0] * LANES)
#: Sums may be taken in another order, and a product and a sum in one instruction.
FLAGS = ("contract", "reassoc")


def instructions(function: Callable[..., Any]) -> Any:
    """Marks a function that says, in numba's types, what kernels may call, and writes its instructions."""
    return intrinsic(function)


def bytes_(count: int) -> Any:
    """A constant."""
    return ir.Constant(INTEGER, count)


def pointer_at(builder: Builder, table: Any, number: int) -> Any:
    """The address that stands at a place in a table of addresses."""
    at = builder.inttoptr(builder.add(table, bytes_(8 * number)), INTEGER.as_pointer())
    return builder.load(at)


def load(builder: Builder, address: Any) -> Any:
    """A vector; its address need not be a multiple of its size."""
    found = builder.load(builder.inttoptr(address, VECTOR.as_pointer()))
    found.align = 4
    return found


def store(builder: Builder, vector: Any, address: Any) -> None:
    """Writes a vector."""
    builder.store(vector, builder.inttoptr(address, VECTOR.as_pointer())).align = 4


def splat(builder: Builder, address: Any) -> Any:
    """A vector of one float, read from its address."""
    return same(builder, builder.load(builder.inttoptr(address, FLOAT.as_pointer())))


def same(builder: Builder, scalar: Any) -> Any:
    """A vector of one float."""
    first = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    return _shuffled(builder, first, first, [0] * LANES)


def fma(builder: Builder, x: Any, y: Any, added: Any) -> Any:
    """x·y + added."""
    return builder.fadd(builder.fmul(x, y, flags=FLAGS), added, flags=FLAGS)


def fetch(builder: Builder, address: Any) -> None:
    """Has the line of the cache with an address brought near, while others are worked on; any address will do."""
    byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")  # type: ignore[no-untyped-call]
    builder.call(function, [builder.inttoptr(address, byte), number(0), number(2), number(1)])


def each_vector(
    builder: Builder, floats: Any, carried: Sequence[Any], body: Callable[[Any, list[Any]], list[Any]]
) -> list[Any]:
    """A loop over the vectors of some floats, whose number is a multiple of `LANES`.

    Args:
        builder: LLVM's.
        floats: how many, one vector at least.
        carried: what the loop begins with.
        body: is handed the offset in bytes and what is carried, and returns what is carried on.

    Returns:
        What is carried in the end.
    """
    return each_step(builder, builder.mul(floats, bytes_(4)), bytes_(4 * LANES), carried, body)


def each_step(
    builder: Builder, end: Any, step: Any, carried: Sequence[Any], body: Callable[[Any, list[Any]], list[Any]]
) -> list[Any]:
    """A loop over offsets in bytes.

    Args:
        builder: LLVM's.
        end: the offset behind the last, larger than 0.
        step: from offset to offset.
        carried: what the loop begins with.
        body: is handed the offset and what is carried, and returns what is carried on.

    Returns:
        What is carried in the end.
    """
    before, function = builder.block, builder.function
    inside, behind = function.append_basic_block("inside"), function.append_basic_block("behind")
    builder.branch(inside)
    builder.position_at_end(inside)
    offset = builder.phi(INTEGER)
    offset.add_incoming(bytes_(0), before)
    held = [builder.phi(value.type) for value in carried]
    for each, value in zip(held, carried, strict=True):
        each.add_incoming(value, before)
    results = body(offset, list(held))
    following = builder.add(offset, step)
    offset.add_incoming(following, builder.block)
    for each, value in zip(held, results, strict=True):
        each.add_incoming(value, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, end), inside, behind)
    builder.position_at_end(behind)
    return results


def sums(builder: Builder, vectors: Sequence[Any]) -> Any:
    """The sums over each of up to `LANES` vectors, as one vector, in their order."""
    held = [*vectors, *[ZERO] * (LANES - len(vectors))]
    owners = 1
    while len(held) > 1:
        # A vector holds, for each of its owners, LANES / owners partial sums: one of each owner after the other.
        first, second = [], []
        for part in range(0, LANES // owners, 2):
            for shift in (0, LANES):
                for owner in range(owners):
                    first.append(shift + part * owners + owner)
                    second.append(shift + (part + 1) * owners + owner)
        held = [
            builder.fadd(_shuffled(builder, x, y, first), _shuffled(builder, x, y, second), flags=FLAGS)
            for x, y in zip(held[::2], held[1::2], strict=True)
        ]
        owners *= 2
    return held[0]


def _shuffled(builder: Builder, x: Any, y: Any, places: Sequence[int]) -> Any:
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(places)), list(places))
    return builder.shuffle_vector(x, y, mask)


def transposed(builder: Builder, rows: Sequence[Any]) -> list[Any]:
    """The columns of `LANES` vectors."""
    held, width = list(rows), LANES // 2
    while width:
        # Swaps the off-diagonal halves of each square of 2·width vectors and lanes.
        places = range(LANES)
        low = [lane if not lane & width else LANES + lane - width for lane in places]
        high = [lane + width if not lane & width else LANES + lane for lane in places]
        for number in places:
            if not number & width:
                x, y = held[number], held[number + width]
                held[number], held[number + width] = (_shuffled(builder, x, y, each) for each in (low, high))
        width //= 2
    return held
