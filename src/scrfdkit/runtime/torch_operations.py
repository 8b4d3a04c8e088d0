"""What a torch program may compute: operations of ordinary convolution networks and of the programs written here.

torch's operations are many, and some of them write files, read memory or call other machines. So programs are not
searched for known bad ones: every operation that is not named here is refused, before anything is run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch

from scrfdkit.errors import ModelError

_LAYERS = """
    _convolution adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool2d addmm alpha_dropout avg_pool2d
    batch_norm bmm celu channel_shuffle constant_pad_nd conv1d conv2d conv_transpose2d convolution dropout elu
    feature_dropout gelu glu group_norm hardsigmoid hardswish hardtanh instance_norm layer_norm leaky_relu
    linear log_softmax matmul max_pool2d max_pool2d_with_indices mish mm pad pixel_shuffle pixel_unshuffle prelu
    reflection_pad2d relu relu6 replication_pad2d rrelu selu sigmoid silu softmax softplus tanh
    _softmax _log_softmax adaptive_avg_pool3d upsample_bicubic2d upsample_bilinear2d upsample_linear1d
    upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d _upsample_bicubic2d_aa
    _upsample_bilinear2d_aa _upsample_lanczos2d_aa _upsample_nearest_exact1d _upsample_nearest_exact2d
    _upsample_nearest_exact3d
"""
_ARITHMETIC = """
    __and__ __or__ __not__ __is__ __isnot__ __contains__ abs add addcdiv addcmul all any bitwise_and bitwise_not
    bitwise_or ceil clamp clamp_max clamp_min clip cos div eq erf exp exp2 expm1 floor floor_divide floordiv
    fmod ge gt isfinite isinf isnan le log log1p log2 logical_and logical_not logical_or lt max maximum min
    minimum mul ne neg pow reciprocal remainder round rsqrt rsub sin sqrt square sub trunc where
"""
_AXES = """
    amax amin argmax argmin argsort cumprod cumsum mean norm prod sort std sum topk var var_mean
"""
_SHAPES = """
    alias broadcast_tensors broadcast_to cat chunk clone concat contiguous copy detach expand expand_as fill
    flatten flip gather index index_put index_select lift_fresh lift_fresh_copy masked_fill masked_select
    meshgrid movedim narrow nonzero permute repeat repeat_interleave reshape reshape_as roll scatter scatter_add
    select slice split split_with_sizes squeeze stack swapaxes swapdims t tile transpose unbind unflatten
    unsqueeze view view_as zero
"""
_MAKERS = """
    arange full full_like linspace new_full new_ones new_zeros ones ones_like scalar_tensor tensor zeros
    zeros_like dim device is_complex is_floating_point item numel size sym_numel sym_size to type_as _to_copy
    _unsafe_view _assert_tensor_metadata _assert_scalar sym_constrain_range sym_constrain_range_for_size
    _local_scalar_dense
"""
_PLAIN = """
    Bool Float FloatImplicit Int IntImplicit ScalarImplicit __getitem__ __range_length __derive_index append
    extend format keys len list values warn
"""
_CONTROL = """
    Constant DictConstruct GetAttr If ListConstruct ListUnpack Loop NumToTensor RaiseException TupleConstruct
    TupleIndex TupleSlice TupleUnpack Uninitialized device dtype is_cuda isinstance max min unchecked_cast
    unchecked_unwrap_optional
"""
"""Of scripts, named prim."""
_ATEN = frozenset(f"{_LAYERS}{_ARITHMETIC}{_AXES}{_SHAPES}{_MAKERS}{_PLAIN}".split())
_PRIM = frozenset(_CONTROL.split())
_PYTHON = re.compile(
    r"torch\.sym_(float|int|ite|max|min|not)|math\.(ceil|floor|trunc)"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|pow|neg|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem)"
)


def check_script(module: Any) -> None:
    """Raises ModelError, naming it, for an operation in any method of a TorchScript module and the modules in it.

    module: as `torch.jit.load` gives it; none of it is run.
    """
    if not module._c._has_method("forward"):
        raise ModelError("it holds no forward, the program of a network")
    waiting = [module._c]
    while waiting:
        one = waiting.pop()
        waiting += [inner for _, inner in torch._C.ModuleDict(one).items()]
        if one._get_forward_hooks() or one._get_forward_pre_hooks():
            raise ModelError("it has hooks that run beside the network")
        for name in one._method_names():
            for node in _nodes(one._get_method(name).inlined_graph):
                space, _, word = node.kind().partition("::")
                if not (space == "aten" and _is_known(word)) and not (space == "prim" and word in _PRIM):
                    raise _refused(node.kind())


def check_graphs(module: torch.nn.Module) -> None:
    """Raises ModelError, naming it, for an operation in the graphs of a program of torch.export."""
    for part in module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            if node.op == "call_function":
                check_target(_full_name(node.target))
            elif node.op not in ("placeholder", "get_attr", "output"):
                raise _refused(f"{node.op} {node.target}")


def check_target(target: str) -> None:
    """Raises ModelError for an operation, as files of torch.export name it, that is not allowed."""
    found = re.fullmatch(r"torch\.ops\.aten\.(\w+)\.\w+", target, re.ASCII)
    if found and _is_known(found[1]):
        return
    if target != "torch.ops.higher_order.while_loop" and not _PYTHON.fullmatch(target):
        raise _refused(target)


def _is_known(name: str) -> bool:
    """Operations in place have a line at the end of their names."""
    return name in _ATEN or (name.endswith("_") and name[:-1] in _ATEN)


def _nodes(block: Any) -> Iterator[Any]:
    """Those of a graph and of the blocks in it."""
    waiting = [block]
    while waiting:
        for node in waiting.pop().nodes():
            yield node
            waiting += node.blocks()


def _full_name(target: Any) -> str:
    if isinstance(target, torch._ops.OpOverload):
        return f"torch.ops.{target}"
    if isinstance(target, torch._ops.HigherOrderOperator):
        return f"torch.ops.{target.namespace}.{target._name}"
    return f"{getattr(target, '__module__', '')}.{getattr(target, '__name__', target)}"


def _refused(name: str) -> ModelError:
    return ModelError(f"its program uses {name[:60]!r}, which no face detector needs")
