"""The verbs of `rlpt bench`. They import what they need when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

bench_app = typer.Typer(no_args_is_help=True, help="Measure against peers, side by side, in paired runs.")


@bench_app.callback()
def bench() -> None:
    """Measure against peers, side by side, in paired runs."""


@bench_app.command("encode")
def bench_encode(
    megabytes: Annotated[int, typer.Option(min=1, help="of text, in UTF-8 bytes / 10^6; two such texts are made")] = 50,
    workers: Annotated[int, typer.Option(min=1, help="processes of each contender")] = 2,
    pairs: Annotated[int, typer.Option(min=1, help="runs of each contender, interleaved")] = 5,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="write the figures here too")] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="of data_prep with export_transformers; default: one is trained"),
    ] = None,
    megatron_script: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Megatron-LM's tools/preprocess_data.py, run as it is")
    ] = None,
) -> None:
    """Encode text to Megatron shards: this project, Megatron-LM's way, and datasets.map, as whole processes.

    [bold]rlpt bench encode[/bold]
    [bold]rlpt bench encode --megabytes 10 --pairs 3 --json encode.json[/bold]
    """
    from rlpt.bench.encode import main as measure_encoding

    measure_encoding(megabytes, workers, pairs, json_file, tokenizer, megatron_script)


@bench_app.command("update")
def bench_update(
    rounds: Annotated[int, typer.Option(min=1, help="runs of each form, interleaved")] = 5,
    microbatches: Annotated[int, typer.Option(min=1, help="of the packed forms")] = 4,
    rows: Annotated[int, typer.Option(min=1, help="a microbatch of the padded forms")] = 16,
    threads: Annotated[int, typer.Option(min=0, help="of torch; 0: one a core")] = 0,
    groups: Annotated[int, typer.Option(min=2, help="prompts")] = 16,
    samples: Annotated[int, typer.Option(min=2, help="samples a prompt")] = 16,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="write the figures here too")] = None,
) -> None:
    """One RL update on groups of ragged lengths: padded as TRL does it, packed, prompts shared, silent groups skipped.

    [bold]rlpt bench update[/bold]
    [bold]rlpt bench update --rounds 3 --threads 1 --json update.json[/bold]
    """
    from rlpt.bench.update import main as measure_update
    from rlpt.bench.update_forms import Workload

    measure_update(microbatches, rows, rounds, threads, Workload(groups, samples), json_file)


@bench_app.command("head")
def bench_head(
    rows: Annotated[int, typer.Option(min=1, help="tokens")] = 2048,
    hidden: Annotated[int, typer.Option(min=1, help="width of the hidden states")] = 512,
    vocabulary: Annotated[int, typer.Option(min=1, help="columns of the output layer")] = 32768,
    live: Annotated[float, typer.Option(min=0, max=1, help="share of the rows that have a loss")] = 1.0,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16")] = "float32",
    device: Annotated[str, typer.Option(help="torch's name of the device")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="of the CPU")] = 2,
    pairs: Annotated[int, typer.Option(min=1, help="runs of each contender, interleaved")] = 7,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="write the figures here too")] = None,
) -> None:
    """Loss and gradients of the output layer: this project's two ways, plain torch, torch's and Liger's chunked ones.

    Liger-Kernel takes part where it is installed: [bold]pip install 'rlpt\\[bench]'[/bold]

    [bold]rlpt bench head[/bold]
    [bold]rlpt bench head --rows 8192 --hidden 2048 --vocabulary 131072 --dtype bfloat16 --device DEVICE[/bold]
    """
    from rlpt.bench.head import main as measure_head
    from rlpt.bench.head_problem import Shape

    measure_head(Shape(rows, hidden, vocabulary, live, dtype, device), pairs, threads, json_file)


_Device = Annotated[str, typer.Option(help="cpu (float32), gpu (bfloat16) or auto")]
_Threads = Annotated[int, typer.Option(min=0, help="of the CPU; 0: one a core")]
_Pairs = Annotated[int, typer.Option(min=1, help="runs of each contender, interleaved")]
_Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="write the figures here too")]
_Layers = Annotated[int, typer.Option(min=1, help="of the model")]
_Hidden = Annotated[int, typer.Option(min=1, help="width of its hidden states")]
_Heads = Annotated[int, typer.Option(min=1, help="of its attention")]
_Ffn = Annotated[int, typer.Option(min=1, help="width inside its MLPs")]
_Vocabulary = Annotated[int, typer.Option(min=2, help="ids")]


@bench_app.command("decode")
def bench_decode(
    batch: Annotated[list[int] | None, typer.Option(min=1, help="rows; several sizes are measured in turn")] = None,
    prompt: Annotated[int, typer.Option(min=1, help="tokens of each prompt")] = 16,
    new: Annotated[int, typer.Option(min=1, help="tokens sampled for each")] = 64,
    layers: _Layers = 4,
    hidden: _Hidden = 256,
    heads: _Heads = 4,
    ffn: _Ffn = 1024,
    vocabulary: _Vocabulary = 512,
    pairs: _Pairs = 5,
    device: _Device = "cpu",
    threads: _Threads = 0,
    json_file: _Json = None,
) -> None:
    """Sample rows of equal lengths: this project, transformers' generate, Megatron-Core's static context; same weights.

    [bold]rlpt bench decode[/bold]
    [bold]rlpt bench decode --batch 8 --batch 128 --json decode.json[/bold]
    [bold]rlpt bench decode --device gpu --layers 12 --hidden 768 --heads 12 --ffn 2048 --vocabulary 50304[/bold]
    """
    from rlpt.bench.decode import main as measure_decoding
    from rlpt.bench.generation import Shape

    shape = Shape(layers, hidden, heads, ffn, vocabulary, max(256, prompt + new))
    measure_decoding(batch or [8, 32, 128], prompt, new, pairs, device, threads, json_file, shape)


@bench_app.command("rollout")
def bench_rollout(
    groups: Annotated[int, typer.Option(min=1, help="different prompts")] = 8,
    samples: Annotated[int, typer.Option(min=1, help="completions of each")] = 16,
    prompt: Annotated[int, typer.Option(min=2, help="longest prompt; the shortest may be half as long")] = 16,
    mean: Annotated[float, typer.Option(min=1.0, help="of the geometric lengths")] = 34.0,
    longest: Annotated[int, typer.Option(min=1, help="completion, to which longer ones are cut")] = 192,
    slots: Annotated[int, typer.Option(min=1, help="rows in our cache at a time")] = 64,
    layers: _Layers = 4,
    hidden: _Hidden = 256,
    heads: _Heads = 4,
    ffn: _Ffn = 1024,
    vocabulary: _Vocabulary = 512,
    pairs: _Pairs = 5,
    device: _Device = "cpu",
    threads: _Threads = 0,
    json_file: _Json = None,
) -> None:
    """Sample groups that end at different lengths: this project and transformers' generate, the same weights.

    [bold]rlpt bench rollout[/bold]
    [bold]rlpt bench rollout --slots 32 --json rollout.json[/bold]
    """
    from rlpt.bench.generation import Shape
    from rlpt.bench.rollout import main as measure_rollouts

    shape = Shape(layers, hidden, heads, ffn, vocabulary, max(256, prompt + longest))
    measure_rollouts(groups, samples, prompt, mean, longest, slots, pairs, device, threads, json_file, shape)


@bench_app.command("step")
def bench_step(
    rows: Annotated[int, typer.Option(min=1, help="a microbatch")] = 8,
    microbatches: Annotated[int, typer.Option(min=1, help="a step")] = 1,
    length: Annotated[int, typer.Option(min=2, help="tokens a row")] = 128,
    steps: Annotated[int, typer.Option(min=1, help="a run")] = 5,
    layers: _Layers = 4,
    hidden: _Hidden = 256,
    heads: _Heads = 4,
    ffn: _Ffn = 1024,
    vocabulary: _Vocabulary = 512,
    pairs: _Pairs = 7,
    device: _Device = "cpu",
    threads: _Threads = 0,
    json_file: _Json = None,
) -> None:
    """A next-token step: this project's, a bare Megatron-Core loop's and a Llama's of transformers.

    [bold]rlpt bench step[/bold]
    [bold]rlpt bench step --vocabulary 32768 --json step.json[/bold]
    [bold]rlpt bench step --device gpu --layers 24 --hidden 1024 --heads 16 --ffn 2816 --vocabulary 50304[/bold]
    """
    from rlpt.bench.generation import Shape
    from rlpt.bench.step import main as measure_step

    shape = Shape(layers, hidden, heads, ffn, vocabulary, length)
    measure_step(shape, rows, microbatches, steps, pairs, device, threads, json_file)


@bench_app.command("overlap")
def bench_overlap(
    groups: Annotated[int, typer.Option(min=1, help="different prompts")] = 16,
    samples: Annotated[int, typer.Option(min=2, help="completions of each")] = 16,
    prompt: Annotated[int, typer.Option(min=2, help="longest prompt; the shortest may be half as long")] = 64,
    mean: Annotated[float, typer.Option(min=1.0, help="of the geometric lengths")] = 48.0,
    longest: Annotated[int, typer.Option(min=1, help="completion, to which longer ones are cut")] = 256,
    rows: Annotated[int, typer.Option(min=1, help="a microbatch of text")] = 8,
    microbatches: Annotated[int, typer.Option(min=1, help="of text a step")] = 4,
    length: Annotated[int, typer.Option(min=2, help="tokens a row")] = 512,
    share: Annotated[list[float] | None, typer.Option(min=0.0, max=1.0, help="batch.overlap; several in turn")] = None,
    layers: _Layers = 4,
    hidden: _Hidden = 256,
    heads: _Heads = 4,
    ffn: _Ffn = 1024,
    vocabulary: _Vocabulary = 512,
    pairs: _Pairs = 5,
    device: _Device = "cpu",
    threads: _Threads = 0,
    json_file: _Json = None,
) -> None:
    """A whole mixed step: text trained on after the play, or beside its longest episodes; utilisation of each.

    [bold]rlpt bench overlap[/bold]
    [bold]rlpt bench overlap --device gpu --layers 12 --hidden 768 --heads 12 --ffn 2048 --vocabulary 50304[/bold]
    """
    from rlpt.bench.generation import Shape
    from rlpt.bench.overlap import Workload
    from rlpt.bench.overlap import main as measure_overlap

    shape = Shape(layers, hidden, heads, ffn, vocabulary, max(length, prompt + longest))
    workload = Workload(groups, samples, prompt, mean, longest, rows, microbatches)
    measure_overlap(workload, shape, share or [0.25, 0.5, 1.0], pairs, device, threads, json_file)


@bench_app.command("growth")
def bench_growth(
    axis: Annotated[
        list[str] | None, typer.Option(help="group, response, turns, vocabulary or tensor; several may be given")
    ] = None,
    pairs: Annotated[int, typer.Option(min=1, help="runs of each way at each size, interleaved")] = 5,
    device: _Device = "cpu",
    threads: _Threads = 0,
    json_file: _Json = None,
    plot_file: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="draw a PNG, too")] = None,
) -> None:
    """How time and memory grow: samples a prompt, response length, turns, vocabulary, tensor ranks; laws beside them.

    [bold]rlpt bench growth --plot growth.png[/bold]
    [bold]rlpt bench growth --axis turns --axis tensor --pairs 3 --json growth.json[/bold]
    """
    from rlpt.bench.growth.command import main as measure_growth

    measure_growth(axis or [], pairs, device, threads, json_file, plot_file)
