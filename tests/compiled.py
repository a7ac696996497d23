"""Compiles the Triton kernels for GPUs that are not there and prints the shared memory that each form needs, as JSON.

Run in a process without TRITON_INTERPRET: [[architecture, kernel, type, precision, width, bytes], ...].
"""

import json
import sys
from itertools import product

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from counterpoint.kernels import fused

TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16"}
POINTERS = {"row_x": "*i64", "key_x": "*i64", "row_o": "*i64", "key_o": "*i64", "n": "i32", "m": "i32", "width": "i32"}
WIDTHS = (1024,)  # the largest tiles
FORMS = [
    (fused._forward, {"COLUMNS": True, "SELF": False}),
    (fused._forward, {"COLUMNS": True, "SELF": True}),
    (fused._backward, {"BY_ROW": True, "BY_KEY": True}),
]


def shared(architecture: int, kernel, dtype: torch.dtype, precision: str, width: int, options: dict) -> int:
    rows = torch.zeros(1, width, dtype=dtype)
    _, _, constants = fused.Problem(rows, rows, (rows, rows), (rows, rows)).arguments()
    constants |= options | {"PRECISE": precision}
    if kernel is fused._backward:
        constants["WIDE"] = fused._power_of_2(width, fused.WIDEST)
    signature = {
        name: "constexpr" if name in constants else TYPES[dtype] if name in "ab" else POINTERS.get(name, "*fp32")
        for name in kernel.arg_names
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    target = GPUTarget("cuda", architecture, 32)
    return triton.compile(source, target=target, options={"num_warps": fused.WARPS}).metadata.shared


def main(architectures: list[int]) -> None:
    found = []
    for architecture, (kernel, options), dtype, width in product(architectures, FORMS, TYPES, WIDTHS):
        for precision in fused.PRECISION.values() if dtype == torch.float32 else ["ieee"]:
            need = shared(architecture, kernel, dtype, precision, width, options)
            found.append([architecture, kernel.__name__, str(dtype), precision, width, need])
    print(json.dumps(found))


if __name__ == "__main__":
    main([int(one) for one in sys.argv[1:]])
