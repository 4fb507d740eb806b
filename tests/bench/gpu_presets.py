"""The techniques on a GPU, a `run` command each; what the README says of them there was measured so, as they stood that day.

Each is one command line of the playground, so that anybody can repeat it; with --only a part of them. Shapes show time and memory, the real
default model quality. What OUT holds already is not run again. Needs neither gradio nor plotly::

    python tests/bench/gpu_presets.py --out recordings
    python tests/bench/gpu_presets.py --only serving --only two-four --out recordings
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from playground.cli import main as playground

ONE, EIGHT = "--model shape:llama-3.2-1b --set precision=bf16", "--model shape:llama-3.1-8b --set precision=bf16"
FEW = "--protocol quick --no-energy --no-quality"  # the text of random weights has no quality to lose
RUNS = {
    "llama-3.2-1b-attention-kernels": f"attention-kernels {ONE} --prompt-tokens 8192 --variant attention=sdpa_efficient "
    f"--variant attention=sdpa_cudnn --variant attention=flex {FEW}",
    "llama-3.1-8b-two-four": f"{EIGHT} --engine transformers --prompt-tokens 4096 --max-new-tokens 16 "
    f"--variant prune=magnitude,prune_share=0.5 --variant prune=two_four {FEW} --title 'Pruning: zeros, and zeros that are not stored'",
    "llama-3.1-8b-torchao": f"{EIGHT} --engine transformers --prompt-tokens 4096 --max-new-tokens 24 "
    "--variant torchao=int8_weight_only --variant torchao=int8_dynamic --variant torchao=fp8 "
    f"--variant torchao=int4_weight_only {FEW} --title 'torchao: fewer bits, in memory and in products'",
    "llama-3.2-1b-torchao-compiled": f"{ONE} --engine transformers --set kv_cache=static --set compile=reduce_overhead "
    f"--variant torchao=int8_weight_only --variant torchao=fp8 {FEW} --title 'torchao, compiled and captured'",
    "llama-3.2-1b-kv-cache-kinds": f"kv-cache-kinds {ONE} --prompt-tokens 8192 {FEW}",
    "llama-3.2-1b-kv-cache-host": f"{ONE} --engine transformers --prompt-tokens 8192 --variant kv_cache=quantized,kv_backend=fp8 "
    f"--variant kv_cache=offloaded {FEW} --title 'KV cache: fp8, and in host memory'",
    "llama-3.2-1b-offloading": f"{ONE} --engine transformers --max-new-tokens 16 --variant offload=cpu "
    f"--variant offload=cpu,offload_share=1.0 --variant offload=cpu,offload_share=1.0,batch_size=8 {FEW} "
    "--title 'Offloading: layers in host memory'",
    "llama-3.1-8b-offloading": f"{EIGHT} --engine transformers --max-new-tokens 16 --variant offload=cpu --variant offload=pinned {FEW} "
    "--title 'Offloading: ordinary and pinned host memory'",
    "llama-3.1-70b-offloading": "--model shape:llama-3.1-70b --engine transformers --set precision=bf16 --set batch_size=4 "
    "--set offload=pinned --set offload_share=0.2 --prompt-tokens 8192 --max-new-tokens 4 --variant offload=none --variant offload=cpu "
    f"{FEW} --title 'Offloading: a model that does not fit'",
    "llama-3.2-1b-serving": f"serving {ONE} --set requests_per_s=8 {FEW}",
    "llama-3.1-8b-prefix-cache": f"prefix-cache {EIGHT} {FEW}",
    "llama-3.2-1b-mixed-precision": f"mixed-precision --model shape:llama-3.2-1b --prompt-tokens 2048 {FEW}",
    "llama-3.1-8b-graph-pruning": f"pruning {EIGHT} --engine graph {FEW}",
    "llama-3.1-8b-graph-quantization": "--model shape:llama-3.1-8b --set precision=fp16 --engine graph "
    f"--variant quantization=int8,int8_threshold=0 --variant quantization=nf4 --variant quantization=fp4 {FEW} "
    "--title 'Captured steps: bitsandbytes'",
    "llama-3.1-8b-graph-fusion": f"{EIGHT} --engine graph --set fusion=off --variant fusion=compile --variant batch_size=8 "
    f"--variant fusion=compile,batch_size=8 {FEW} --title 'Captured steps: fused or not'",
    "llama-3.2-1b-adapters": f"{ONE} --engine transformers --variant adapter=random:8 --variant adapter=random:8,adapter_mode=unmerged "
    f"--variant adapter=random:8,adapter_mode=unmerged,quantization=nf4 {FEW} --title 'Adapters: merged, beside the weights, over 4 bits'",
    "llama-3.2-1b-several-adapters": f"{ONE} --engine transformers --set adapter=random:8 --set adapter_mode=unmerged "
    f"--variant adapter=random:8,random:16 --variant adapter=random:8,random:16,random:4,random:32 {FEW} "
    "--title 'Adapters: several on one base'",
    "llama-3.2-1b-hardware": f"hardware {ONE} --max-new-tokens 16 {FEW}",
    "llama-3.2-1b-compiled-graph": f"compiled-graph {ONE} --variant kv_cache=static,compile=reduce_overhead {FEW}",
    "smollm2-135m-speculative-own-draft": "speculative-own-draft --protocol quick --no-energy",
    "smollm2-135m-speculative": "speculative --protocol quick --no-energy",
    "smollm2-135m-torchao": "--engine transformers --set precision=bf16 --max-new-tokens 8 --variant torchao=int8_weight_only "
    "--variant torchao=fp8 --variant torchao=int8_dynamic --protocol quick --no-energy --title 'torchao: fewer bits, and what they cost'",
    "smollm2-135m-torchao-int4": "--engine transformers --set precision=bf16 --max-new-tokens 16 --variant torchao=int4_weight_only "
    "--protocol quick --no-energy --title 'torchao: int4, and what it costs'",
    "smollm2-135m-two-four": "--engine transformers --set precision=bf16 --max-new-tokens 16 --variant prune=magnitude,prune_share=0.5 "
    "--variant prune=two_four --protocol quick --no-energy --title 'Pruning: half of the weights, and what it costs'",
    "smollm2-135m-kv-cache-host": "--engine transformers --set precision=bf16 --variant kv_cache=quantized,kv_backend=fp8 "
    "--variant kv_cache=offloaded --protocol quick --no-energy --title 'KV cache: fp8, and in host memory'",
    "smollm2-135m-gguf-blocks": "gguf-blocks --protocol quick --no-energy",
    "smollm2-135m-adapters": "adapters --protocol quick --no-energy",
    "smollm2-135m-distillation": "distillation --protocol quick --no-energy",
    "smollm2-135m-kv-cache-kinds": "kv-cache-kinds --protocol quick --no-energy",
}


def main() -> int:
    """Run and record them; returns 1 where one did not do all of its work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help=f"names that contain this; all: {', '.join(RUNS)}")
    parser.add_argument("--within", type=float, default=3600.0, metavar="SECONDS", help="begin none later than this")
    parser.add_argument("--out", type=Path, default=Path("recordings"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    failed, begun = [], time.monotonic()
    for name, line in RUNS.items():
        target = args.out / f"{name}.jsonl.gz"
        if target.exists() or (args.only and not any(part in name for part in args.only)):
            continue
        if (started := time.monotonic()) - begun > args.within:
            return 1
        status = playground(["run", *shlex.split(line), "--record", str(target)])
        print(f"## {name}: exit {status}, {time.monotonic() - started:.0f} s", flush=True)
        failed += [name] * bool(status)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
