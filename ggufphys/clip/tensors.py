"""Which tensors of an mmproj file does llama.cpp load? Names it doesn't ask for stay in the file.

In a pattern `*` stands for weight or bias, `#` for a number, `@` for the encoder's prefix. A file with encoders of two
kinds is loaded once for each, and what both ask for is held twice.

Source: llama.cpp 0c1e570 tools/mtmd/clip.cpp, clip_model_loader::load_tensors; tools/mtmd/clip-impl.h, TN_*.
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

from ggufphys.clip.projectors import Modality
from ggufphys.gguf import GGUFFile, TensorInfo

PREFIX: Final[Mapping[Modality, str]] = {"vision": "v", "audio": "a", "gen.audio": "a.gen.code"}

# fmt: off
# Asked for whatever the projector is; the prefix decides, but some names are spelt out.
COMMON: Final = (
    "v.class_embd", "@.pre_ln.*", "@.post_ln.*", "v.patch_embd.{bias,weight,weight.1}", "v.norm_embd.*",
    "@.position_embd.weight",
)
# Asked for in layers below block_count.
LAYER: Final = (
    "@.blk.#.{attn_k,attn_q,attn_v,attn_out,attn_qkv,ln1,ln2,ffn_up,ffn_gate,ffn_down}.*",
    "@.blk.#.{attn_k_norm,attn_q_norm,ls1,ls2,out_scale,attn_post_norm,ffn_post_norm,ffn_gate_inp,ffn_gate_exps}.weight",
    "@.blk.#.{ffn_up_exps,ffn_down_exps,exp_probs_b}.weight", "@.blk.#.attn_sinks", "v.deepstack.#.{norm,fc1,fc2}.*",
)
WITHOUT_LAYERS: Final = frozenset({"gemma3nv", "qwen3tts_spkenc", "pockettts_gen"})

_QFORMER: Final = "{self_attn,cross_attn}_{q,k,v,out,norm}"
_WHISPER: Final = "a.conv1d.{1,2}.*"
_CONFORMER: Final = ("a.blk.#.{ffn_norm,ffn_norm_1,ffn_up_1,ffn_down_1,norm_conv,conv_norm,conv_pw1,conv_pw2}.*",)
_SEANET: Final = "seanet.{conv_in,conv_out,blk.#.res_conv1,blk.#.res_conv2,blk.#.scale_conv}.*"
_SAM: Final = (
    "v.sam.pos_embd.weight", "v.sam.patch_embd.*", "v.sam.blk.#.{attn.qkv,attn.out,pre_ln,post_ln,mlp.lin1,mlp.lin2}.*",
    "v.sam.blk.#.attn.{pos_h,pos_w}.weight", "v.sam.neck.{0,2}.weight", "v.sam.neck.{1,3}.*",
    "v.sam.net_{2,3}.weight", "v.image_newline", "v.view_seperator", "mm.model.fc.*",
    "v.resample_query_{768,1024}.weight",
)

BY_PROJECTOR: Final[Mapping[str, tuple[str, ...]]] = {
    "mlp": ("mm.{0,1,2,3,4}.*", "v.image_newline"),
    "ldp": (
        "mm.model.mlp.{1,3}.*", "mm.model.mb_block.{1,2}.block.{0,2}.0.weight",
        "mm.model.mb_block.{1,2}.block.{0,2}.1.*", "mm.model.mb_block.{1,2}.block.1.{fc1,fc2}.*",
    ),
    "ldpv2": ("mm.model.mlp.{0,2}.*", "mm.model.peg.0.*"),
    "adapter": (
        "adapter.conv.*", "adapter.linear.norm1.*", "adapter.linear.{linear,dense_h_to_4h,gate,dense_4h_to_h}.weight",
        "adapter.{boi,eoi}",
    ),
    "resampler": (
        "resampler.{pos_embed_k,query}", "resampler.{proj,kv}.weight", "resampler.attn.{q,k,v,out}.*",
        "resampler.ln_{q,kv,post}.*",
    ),
    "minicpmv4_6": (
        "v.vit_merger.{ln1,attn_q,attn_k,attn_v,attn_out,ds_ln,ds_ffn_up,ds_ffn_down}.*", "mm.{input_norm,up,down}.*",
    ),
    "qwen2vl_merger": ("mm.{0,2}.*",),
    "qwen2.5vl_merger": ("mm.{0,2}.*",),
    "exaone4_5": ("mm.{0,2}.*",),
    "qwen3vl_merger": ("mm.{0,2}.*",),
    "ling3vl": ("mm.{0,2,input_norm}.*",),
    "mimovl": ("mm.{0,2}.*",),
    "minimax_m3": ("mm.{1,2,merger.fc1,merger.fc2}.*",),
    "muse-glimmer": ("mm.{0,1,2}.weight",),
    "step3vl": ("mm.{0,1}.*", "mm.model.fc.weight"),
    "youtuvl": ("mm.{0,2}.*", "mm.input_norm.weight"),
    "yasa2": (
        "v.{patch_ln,backbone_ln}.*", "v.vision_pos_embed", "mm.{0,2}.*", "v.stage.#.down.{ln,conv}.*",
        "v.stage.#.blk.#.{dw,ln,pw1,grn,pw2}.*",
    ),
    "glm4v": ("mm.model.fc.weight", "mm.{up,gate,down,post_norm,patch_merger}.*"),
    "glm5v": ("mm.model.fc.weight", "mm.{up,gate,down,post_norm,patch_merger}.*"),
    "gemma3": ("mm.{input_projection,soft_emb_norm}.weight",),
    "gemma4v": ("mm.input_projection.weight", "v.{std_bias,std_scale}"),
    "gemma4uv": ("mm.input_projection.weight", "v.patch_norm.{1,2,3}.*"),
    "gemma3nv": (
        "v.conv_stem.conv.*", "v.conv_stem.bn.weight", "v.msfa.ffn.{pw_exp,pw_proj}.{conv,bn}.weight",
        "v.msfa.norm.weight", "v.blk.#.#.{conv_exp,bn1,conv_pwl,bn2,norm}.weight",
        "v.blk.#.#.{dw_start,dw_mid,pw_exp,pw_proj}.{conv,bn}.weight", "v.blk.#.#.layer_scale.gamma",
        "v.blk.#.#.attn.{query,key,value,output}.proj.weight", "v.blk.#.#.attn.{key,value}.{down_conv,norm}.weight",
        "mm.{input_projection,soft_emb_norm}.weight",
    ),
    "idefics3": ("mm.model.fc.weight",),
    "lfm2": ("mm.{1,2,input_norm}.*",),
    "kimivl": ("mm.{1,2,input_norm}.*",),
    "kimik25": ("mm.{1,2,input_norm}.*",),
    "paddleocr": ("mm.{1,2,input_norm}.*",),
    "deepseek4v": ("mm.{1,2}.*", "v.image_newline", "v.token_embd.{img_start,img_end,img_pad}"),
    "pixtral": ("mm.{1,2}.*", "v.token_embd.img_break", "mm.{input_norm,patch_merger}.weight"),
    "lightonocr": ("mm.{1,2}.*", "mm.{input_norm,patch_merger}.weight"),
    "dots_ocr": ("mm.{0,2,input_norm}.*", "mm.post_norm.weight"),
    "dots3note_v": ("mm.{0,2,input_norm}.*", "mm.post_norm.weight"),
    "internvl": ("mm.model.mlp.{0,1,3}.*",),
    "nemotron_v2_vl": ("mm.model.mlp.{0,1,3}.weight",),
    "llama4": ("mm.model.{fc,mlp.1,mlp.2}.weight",),
    "cogvlm": ("mm.{model.fc,up,gate,down}.weight", "mm.post_fc_norm.*", "v.{boi,eoi}"),
    "hunyuanvl": (
        "mm.{0,2,model.fc}.*", "mm.{pre_norm,post_norm}.weight", "mm.{image_begin,image_end}", "v.image_newline",
        "v.view_seperator",
    ),
    "janus_pro": ("mm.{0,1}.*",),
    "phi4": ("mm.{0,2}.*",),
    "deepseekocr": _SAM,
    "deepseekocr2": _SAM,
    "granite4_vision": (
        "v.image_newline", "v.proj_blk.#.{img_pos,query}", "v.proj_blk.#.{linear,norm,post_norm}.*",
        f"v.proj_blk.#.{_QFORMER}.*", "v.proj_blk.#.ffn_{up,down,norm}.*",
    ),
    "ultravox": (_WHISPER, "mm.a.mlp.{1,2}.weight", "mm.a.{norm_pre,norm_mid}.weight"),
    "voxtral": (_WHISPER, "mm.a.mlp.{1,2}.weight"),
    "musicflamingo": (_WHISPER, "mm.a.mlp.{1,2}.*"),
    "meralion": (_WHISPER, "mm.a.mlp.{0,1,2,3}.*", "mm.a.norm_pre.*"),
    "qwen2a": (_WHISPER, "mm.a.fc.*"),
    "glma": (_WHISPER, "mm.a.mlp.{1,2}.*", "mm.a.norm_pre.*", "v.{boi,eoi}"),
    "qwen3a": ("a.conv2d.{1,2,3}.*", "a.conv_out.weight", "mm.a.mlp.{1,2}.*"),
    "dots3note_a": ("a.conv2d.{1,2,3}.*", "a.conv_out.weight", "mm.a.norm_pre.*", "mm.a.mlp.{1,3}.*"),
    "mimo_audio": (
        _WHISPER, "a.downsample.conv.weight", "a.downsample.norm.*", "a.rvq.codebook.weight", "mm.a.code_embd.weight",
        "mm.a.local_blk.#.attn_{q,k,v}.*", "mm.a.local_blk.#.{attn_out,ffn_gate,ffn_up,ffn_down,ln1,ln2}.weight",
        "mm.a.local_norm.weight", "mm.a.mlp.{1,2}.weight",
    ),
    "gemma4a": (
        "a.conv1d.{0,1}.*", "a.conv1d.{0,1}.norm.weight", "a.{input_projection,pre_encode.out}.*",
        "mm.a.{soft_emb_norm,input_projection}.weight",
        "a.blk.#.{ffn_norm,ffn_norm_1,attn_pre_norm,per_dim_scale,per_dim_k_scale,attn_k_rel,ffn_post_norm_1}.weight",
        "a.blk.#.{conv_norm,conv_pw1,conv_dw,norm_conv,conv_pw2,ffn_up_1,ffn_down_1}.*",
    ),
    "gemma4ua": ("mm.a.input_projection.weight",),
    "lfm2a": (
        *_CONFORMER, "a.conv1d.{0,2,3,5,6}.*", "a.pre_encode.out.*", "mm.a.mlp.{0,1,3}.*", "a.blk.#.pos_bias_{u,v}",
        "a.blk.#.linear_pos.weight", "a.blk.#.conv_dw.*",
    ),
    "parakeet": (
        *_CONFORMER, "a.conv1d.{0,2,3,5,6}.*", "a.pre_encode.out.*", "mm.a.norm_pre.weight", "mm.a.mlp.{1,2}.weight",
        "a.blk.#.pos_bias_{u,v}", "a.blk.#.linear_pos.weight", "a.blk.#.conv_dw.*", "a.blk.#.conv_norm_{mean,var}",
        "mm.model.mlp.{0,1,3}.weight",
    ),
    "granite_speech": (
        *_CONFORMER, "a.{input_projection,enc_ctc_out,enc_ctc_out_mid}.*", "a.blk.#.attn_rel_pos_emb",
        "a.blk.#.conv_dw.weight", "a.proj_query", "a.{proj_norm,proj_linear}.*", f"a.proj_blk.#.{_QFORMER}.*",
        "a.proj_blk.#.ffn_{up,down,norm}.*",
    ),
    "qwen3tts_spkenc": (
        "a.conv1d.0.*", "a.blk.#.{conv_pw1,conv_pw2,se_conv1,se_conv2}.*", "a.blk.#.res2.#.*",
        "a.{conv_out,asp_attn,asp_tdnn}.*", "mm.a.fc.*",
    ),
    "pockettts_spkenc": (f"a.{_SEANET}", "a.{downsample.conv,speaker_proj}.weight"),
    "pockettts_gen": (
        "a.gen.flow.{input_proj,cond_embd,final.ada,final.proj}.*", "a.gen.flow.time.{0,1}.{freqs,norm}",
        "a.gen.flow.time.{0,1}.{up,down}.*", "a.gen.flow.blk.#.{norm,up,down,ada}.*", "a.gen.out_eos.*",
        "a.gen.input_linear.weight", "a.gen.{emb_mean,emb_std}", "a.gen.wav.{quant_out,upsample}.weight",
        f"a.gen.wav.{_SEANET}", "a.gen.wav.tfm.blk.#.{ln1,ln2}.*",
        "a.gen.wav.tfm.blk.#.{attn_q,attn_k,attn_v,attn_out,ls1,ls2,ffn_up,ffn_down}.weight",
    ),
    "qwen3tts_gen": (
        "a.gen.code.proj_in.*", "a.gen.code.{embd,head,out_embd,output_norm}.weight",
        "a.gen.wav.quant.{first,rest}.{in_proj,out_proj,codebook}.weight", "a.gen.wav.pre_conv.*",
        "a.gen.wav.tfm.{in_proj,out_proj}.*", "a.gen.wav.tfm.output_norm.weight",
        "a.gen.wav.tfm.blk.#.{attn_q,attn_k,attn_v,attn_out,ln1,ln2,ls1,ls2,ffn_gate,ffn_up,ffn_down}.weight",
        "a.gen.wav.up.blk.#.{conv,dwconv,norm,pw1,pw2}.*", "a.gen.wav.up.blk.#.gamma", "a.gen.wav.dac.entry.*",
        "a.gen.wav.dac.blk.#.snake.{alpha,beta}", "a.gen.wav.dac.blk.#.conv.*",
        "a.gen.wav.dac.blk.#.res.#.{act1,act2}.{alpha,beta}", "a.gen.wav.dac.blk.#.res.#.{conv1,conv2}.*",
        "a.gen.wav.dac.post_snake.{alpha,beta}", "a.gen.wav.dac.post_conv.*",
    ),
}
# fmt: on
_NUMBER: Final = re.compile(r"\.(\d+)\.")


def loaded_tensors(gguf: GGUFFile, projector: str, modality: Modality, n_layer: int) -> Iterator[TensorInfo]:
    """The tensors that llama.cpp holds for one encoder."""
    common, layer = _expressions(projector, modality)
    for tensor in gguf.tensors:
        if common.fullmatch(tensor.name):
            yield tensor
        elif layer.fullmatch(tensor.name):
            number = _NUMBER.search(tensor.name)
            if number is not None and int(number[1]) < n_layer:
                yield tensor


@lru_cache
def _expressions(projector: str, modality: Modality) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What is asked for anywhere, and what in numbered layers only."""
    layer = () if projector in WITHOUT_LAYERS else LAYER
    return tuple(  # type: ignore[return-value]  # two of them
        re.compile("|".join(_regular(pattern, PREFIX[modality]) for pattern in patterns) or "(?!)")
        for patterns in ((*COMMON, *BY_PROJECTOR.get(projector, ())), layer)
    )


def _regular(pattern: str, prefix: str) -> str:
    """A pattern of this file as a regular expression."""
    text = re.escape(pattern).replace(r"\*", "(?:weight|bias)").replace(r"\#", r"\d+").replace("@", re.escape(prefix))
    return text.replace(r"\{", "(?:").replace(r"\}", ")").replace(",", "|")
