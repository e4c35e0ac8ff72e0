"""Initial weights: a function of seed, name and full shape, so that every layout starts from the same model."""

import math

import pytest
import torch
from torch import nn

from rlpt.config import Config
from rlpt.distributed.mesh import Axis, Mesh
from rlpt.models.initialization import draw_shard, global_parameter_name, initialize_weights

OBJECTIVES = {"text": {"algorithm": {"name": "next_token"}, "source": {"name": "corpus"}}}
SHAPES = {  # name within a layer -> full shape, the dimension that tensor ranks share out (-1: none)
    "input_layernorm.weight": ((16,), -1),
    "self_attention.linear_qkv.weight": ((32, 16), 0),
    "self_attention.linear_proj.weight": ((16, 16), 1),
    "mlp.linear_fc1.weight": ((48, 16), 0),
    "mlp.linear_fc2.weight": ((16, 24), 1),
}
ADAPTERS = {
    "self_attention.linear_qkv.adapter_a": ((3, 16), -1),
    "self_attention.linear_qkv.adapter_b": ((32, 3), 0),
    "mlp.linear_fc1.adapter_b": ((48, 3), 0),
    "mlp.linear_fc2.adapter_a": ((3, 24), 1),
    "mlp.linear_fc2.adapter_b": ((16, 3), -1),
}
EMBEDDING = "embedding.word_embeddings.weight"


def config(**changes):
    return Config(tokenizer="t", objectives=OBJECTIVES, **changes)


def mesh(tensor_rank=0, tensor=1, stage=0, stages=1):
    axes = [Axis(tensor_rank, tensor, None), Axis(stage, stages, None), *[Axis(0, 1, None)] * 3]
    return Mesh(*axes, torch_device=torch.device("cpu"))


def part(name, shape, dim, tensor):
    """A module path that ends in one parameter of a rank's shape."""
    local = [size // tensor if axis == dim else size for axis, size in enumerate(shape)]
    parameter = nn.Parameter(torch.empty(local))
    parameter.partition_dim = dim
    return name, parameter


class Flat(nn.Module):
    """Parameters under dotted names."""

    def __init__(self, parameters):
        super().__init__()
        for name, parameter in parameters:
            module = self
            *path, last = name.split(".")
            for piece in path:
                if piece not in module._modules:
                    module.add_module(piece, nn.Module())
                module = module._modules[piece]
            module.register_parameter(last, parameter)


def weights(config, place, layers, head=False):
    """Name -> this rank's initial weights of a stage with `layers` layers."""
    size = place.tensor.size
    named = [part(EMBEDDING, (64, 16), 0, size)] if place.is_first_stage else []
    for layer in range(layers):
        named += [part(f"decoder.layers.{layer}.{name}", shape, dim, size) for name, (shape, dim) in SHAPES.items()]
    if head:
        named.append(part("output_layer.weight", (64, 16), 0, size))
    model = Flat(named)
    initialize_weights(model, config, place)
    return {name: value.detach() for name, value in model.named_parameters()}


def test_a_tensor_rank_holds_its_slice_of_the_whole():
    whole = weights(config(), mesh(), 2)
    ranks = [weights(config(), mesh(rank, 2), 2) for rank in range(2)]
    dims = {f"decoder.layers.{i}.{name}": dim for i in range(2) for name, (_, dim) in SHAPES.items()} | {EMBEDDING: 0}
    for name, full in whole.items():
        parts = [rank[name] for rank in ranks]
        if dims[name] < 0:
            assert all(torch.equal(one, full) for one in parts)
        elif name.endswith("linear_fc1.weight"):  # [gate; up]: each rank holds half of the gate and half of up
            gates, ups = zip(*(one.chunk(2) for one in parts))
            assert torch.equal(torch.cat([*gates, *ups]), full)
        else:
            assert torch.equal(torch.cat(parts, dims[name]), full)


def test_adapters_start_without_effect_and_are_shared_out_as_their_weights():
    def parameters(place):
        size = place.tensor.size
        return [part(f"decoder.layers.0.{name}", shape, dim, size) for name, (shape, dim) in ADAPTERS.items()]

    places = [mesh(), mesh(0, 2), mesh(1, 2)]
    models = [Flat(parameters(place)) for place in places]
    for model, place in zip(models, places):
        initialize_weights(model, config(), place)
    for name, (_, dim) in ADAPTERS.items():
        full_name = f"decoder.layers.0.{name}"
        values = [model.get_parameter(full_name).detach() for model in models]
        if name.endswith("adapter_b"):
            assert not any(value.any() for value in values)
            parts = [model.get_parameter(full_name) for model in models]
            values = [draw_shard(full_name, one, 1.0, config(), place) for one, place in zip(parts, places)]
        else:
            assert float(values[0].std()) == pytest.approx(0.02, rel=0.3)
        whole, *shards = values
        if name == "mlp.linear_fc1.adapter_b":
            gates, ups = zip(*(one.chunk(2) for one in shards))
            shards = [torch.cat([*gates, *ups])]
        joined = torch.cat(shards, dim) if dim >= 0 else shards[0]
        assert torch.equal(joined, whole)


def test_heads_start_at_zero():
    model = Flat([part("heads.value.weight", (1, 16), -1, 1), part("heads.value.bias", (1,), -1, 1)])
    initialize_weights(model, config(), mesh())
    assert not any(value.any() for value in model.parameters())


def test_a_pipeline_stage_holds_its_layers_and_a_tied_head_is_the_embedding():
    tied = config(model={"num_layers": 4}, parallel={"pipeline": 2})
    whole = weights(config(model={"num_layers": 4}), mesh(), 4)
    first, last = weights(tied, mesh(0, 1, 0, 2), 2), weights(tied, mesh(0, 1, 1, 2), 2, head=True)
    for layer in range(4):
        stage, local = (first, layer) if layer < 2 else (last, layer - 2)
        for name in SHAPES:
            assert torch.equal(stage[f"decoder.layers.{local}.{name}"], whole[f"decoder.layers.{layer}.{name}"])
    assert torch.equal(last["output_layer.weight"], whole[EMBEDDING])
    untied = config(model={"num_layers": 4, "tie_embeddings": False}, parallel={"pipeline": 2})
    other = weights(untied, mesh(0, 1, 1, 2), 2, head=True)["output_layer.weight"]
    assert not torch.equal(other, whole[EMBEDDING])


def test_scales_and_independence():
    found = weights(config(model={"init_std": 0.5, "num_layers": 2}), mesh(), 2)
    assert (found["decoder.layers.0.input_layernorm.weight"] == 1).all()
    for name, wanted in ((EMBEDDING, 0.5), ("decoder.layers.1.mlp.linear_fc2.weight", 0.5 / math.sqrt(4))):
        values = found[name]
        assert float(values.std()) == pytest.approx(wanted, rel=4 / math.sqrt(2 * values.numel()))
        assert abs(float(values.mean())) < 4 * wanted / math.sqrt(values.numel())
    tensors = [value for value in found.values() if value.dim() > 1]
    heads = {tuple(value.flatten()[:4].tolist()) for value in tensors}
    assert len(heads) == len(tensors)  # no two start alike
    other = weights(config(seed=2, model={"init_std": 0.5, "num_layers": 2}), mesh(), 2)
    assert not torch.equal(found[EMBEDDING], other[EMBEDDING])


def test_the_default_generator_is_left_alone():
    before = torch.get_rng_state()
    weights(config(), mesh(), 1)
    assert torch.equal(before, torch.get_rng_state())


def test_global_names():
    name = "decoder.layers.1.mlp.linear_fc1.weight"
    assert global_parameter_name(name, 0, True) == name
    assert global_parameter_name(name, 2, True) == "decoder.layers.3.mlp.linear_fc1.weight"
    assert global_parameter_name("output_layer.weight", 2, True) == EMBEDDING
    assert global_parameter_name("output_layer.weight", 2, False) == "output_layer.weight"
