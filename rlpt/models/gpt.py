"""GPT on Megatron-Core by our own ModuleSpec: RMSNorm, SwiGLU, rotary, grouped queries (the Llama/Qwen shape)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
from megatron.core.transformer.attention import SelfAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import TransformerLayer, TransformerLayerSubmodules
from torch import Tensor, nn

from rlpt.config import AdapterConfig, Config
from rlpt.distributed.device import Device
from rlpt.distributed.mesh import Mesh
from rlpt.models.attention import Layout, PackedSelfAttention, SdpaAttention
from rlpt.models.heads import ScalarHead
from rlpt.models.initialization import initialize_weights
from rlpt.models.layers import RMSNorm, SwiGLU, get_add
from rlpt.models.lora import AdaptedColumnParallelLinear, AdaptedRowParallelLinear

RECOMPUTE: dict[str, dict[str, Any]] = {  # model.recompute in Megatron's words
    "none": {},
    "mlp": {"recompute_granularity": "selective", "recompute_modules": ["mlp"]},
}


class GPT(GPTModel):
    """Megatron's GPTModel that ends in hidden states: the output layer is the log-prob kernel's, so no logits exist.

    `heads`: scalar heads by name, on the last stage only.
    """

    def __init__(self, heads: Sequence[str] = (), **options: Any) -> None:
        super().__init__(**options)
        own = heads if self.post_process else ()
        self.heads = nn.ModuleDict(
            {name: ScalarHead(self.config.hidden_size, self.config.params_dtype) for name in own}
        )

    def layout(
        self,
        positions: Tensor,
        segments: Tensor | None = None,
        parents: Tensor | None = None,
        exact: bool = False,
    ) -> Layout:
        """How rows attend, to be given as `attention_mask`; all [B, T]. Without segments each row is one. `exact`: as
        the sampler does, to the last bit."""
        frequencies = self.rotary_pos_emb.inv_freq.to(positions.device)
        return Layout.of(frequencies, positions, segments, parents, self.config.params_dtype, exact=exact)

    def forward(
        self, input_ids: Tensor, position_ids: Tensor, attention_mask: Layout | None = None, **options: Any
    ) -> Tensor:
        """tokens and positions [B, T] -> this stage's hidden states [T, B, H]; no layout: each row is one segment."""
        layout = attention_mask or self.layout(position_ids)
        hidden: Tensor = super().forward(input_ids, position_ids, layout, **options)
        return hidden

    def _preprocess(self, *arguments: Any, **options: Any) -> tuple[Any, ...]:
        """Megatron's, without its rotary table, which goes by columns: attention turns by positions, which restart."""
        hidden, _, *others = super()._preprocess(*arguments, **options)
        return (hidden, None, *others)

    def _postprocess(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        return hidden_states

    def head_weight(self) -> Tensor:
        """This rank's vocabulary shard of the output head, [padded vocabulary / tensor size, hidden]."""
        if self.share_embeddings_and_output_weights:
            return self.shared_embedding_or_output_weight()
        return self.output_layer.weight


def transformer_config(config: Config, device: Device) -> TransformerConfig:
    """Our configuration in Megatron's words; the fusions that need its GPU extensions are off."""
    model, parallel = config.model, config.parallel
    return TransformerConfig(
        num_layers=model.num_layers,
        hidden_size=model.hidden_size,
        num_attention_heads=model.num_attention_heads,
        num_query_groups=model.num_query_groups,
        ffn_hidden_size=model.ffn_hidden_size,
        normalization="RMSNorm",
        layernorm_epsilon=model.norm_epsilon,
        gated_linear_unit=True,
        activation_func=F.silu,
        use_te_activation_func=True,  # the spec's own module: SwiGLU
        add_bias_linear=False,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        init_method_std=model.init_std,
        tensor_model_parallel_size=parallel.tensor,
        pipeline_model_parallel_size=parallel.pipeline,
        variable_seq_lengths=parallel.pipeline > 1,  # microbatches of text and of trajectories differ in shape
        moe_token_dispatcher_type="alltoall",  # Megatron refuses those lengths with its default, experts or none
        sequence_parallel=parallel.sequence_parallel and parallel.tensor > 1,
        params_dtype=device.dtype,
        pipeline_dtype=torch.promote_types(device.dtype, torch.float32),  # what stages hand on is the residual stream
        fp32_residual_connection=device.dtype == torch.bfloat16,
        bf16=device.dtype == torch.bfloat16,
        calculate_per_token_loss=True,  # an objective returns a sum; train_step normalises
        use_cpu_initialization=True,
        perform_initialization=True,  # marks the parameters' partitions; initialization.py then redraws them
        gradient_accumulation_fusion=False,
        bias_activation_fusion=False,
        masked_softmax_fusion=False,
        persist_layer_norm=False,
        apply_rope_fusion=False,
        bias_dropout_fusion=False,
        deallocate_pipeline_outputs=False,
        **RECOMPUTE[model.recompute],
    )


def layer_spec(adapter: AdapterConfig | None = None) -> ModuleSpec:
    """One decoder layer."""
    column: Any = ColumnParallelLinear
    row: Any = RowParallelLinear
    if adapter is not None:
        column = ModuleSpec(module=AdaptedColumnParallelLinear, params={"adapter": adapter})
        row = ModuleSpec(module=AdaptedRowParallelLinear, params={"adapter": adapter})
    return ModuleSpec(
        module=TransformerLayer,
        submodules=TransformerLayerSubmodules(
            input_layernorm=RMSNorm,
            self_attention=ModuleSpec(
                module=PackedSelfAttention,
                params={"attn_mask_type": AttnMaskType.causal},
                submodules=SelfAttentionSubmodules(
                    linear_qkv=column,
                    core_attention=SdpaAttention,
                    linear_proj=row,
                    q_layernorm=IdentityOp,
                    k_layernorm=IdentityOp,
                ),
            ),
            self_attn_bda=get_add,
            pre_mlp_layernorm=RMSNorm,
            mlp=ModuleSpec(
                module=MLP, submodules=MLPSubmodules(linear_fc1=column, linear_fc2=row, activation_func=SwiGLU)
            ),
            mlp_bda=get_add,
        ),
    )


def build_gpt(config: Config, padded_vocabulary: int, mesh: Mesh, device: Device, heads: Sequence[str] = ()) -> GPT:
    """This rank's part of the model on `device`, with weights that depend on `config.seed` and shape only.

    `heads` names the scalar heads that its last stage has.
    """
    gpt = assemble_gpt(config, padded_vocabulary, mesh, device, heads)
    initialize_weights(gpt, config, mesh)
    return gpt.to(device.torch_device)


def assemble_gpt(config: Config, padded_vocabulary: int, mesh: Mesh, device: Device, heads: Sequence[str] = ()) -> GPT:
    """The modules of `build_gpt` without its weights: what they hold is not defined."""
    megatron_config = transformer_config(config, device)
    with device.megatron():
        model_parallel_cuda_manual_seed(config.seed, force_reset_rng=True)
        stage_layers = config.model.num_layers // config.parallel.pipeline
        return GPT(
            heads,
            config=megatron_config,
            transformer_layer_spec=TransformerBlockSubmodules(
                layer_specs=[layer_spec(config.model.adapter)] * stage_layers, layer_norm=RMSNorm
            ),
            vocab_size=padded_vocabulary,
            max_sequence_length=config.batch.sequence_length,
            pre_process=mesh.is_first_stage,
            post_process=mesh.is_last_stage,
            share_embeddings_and_output_weights=config.model.tie_embeddings,
            position_embedding_type="rope",
            rotary_base=config.model.rotary_base,
        )
