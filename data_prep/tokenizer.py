"""Stage tokenizer: SentencePiece BPE on a keyed sample of the training text and of the solutions' prompts.

Every printable ASCII character, the newline and every character of a task's answers and traces has a token of its own
(an answer is a row of single characters), and digits are never merged. Rare characters are cut out of the sample and
become bytes.
"""

from __future__ import annotations

import hashlib
import heapq
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from data_prep.config import PrepConfig, TokenizerConfig
from data_prep.documents import read_documents
from data_prep.existing_tokenizer import adapt_existing, write_existing
from data_prep.layout import SOLUTIONS
from data_prep.stages.synthesize import create_tasks
from rlpt.data.manifest import atomic_writer, write_json
from rlpt.data.tokenizer import META_FILE, MODEL_FILE, SPACE_PIECE, SentencePieceTokenizer
from rlpt.data.transformers_tokenizer import TOKENIZER_CONFIG_FILE, TOKENIZER_FILE
from rlpt.errors import DataError
from rlpt.tasks.styles import styled_alphabet
from rlpt.template import ANSWER, PROMPT, SPECIAL_TOKENS, THINK
from rlpt.types import Tokenizer

Measure = Literal["bytes", "texts"]  # what a budget counts
PRINTABLE = "".join(map(chr, range(32, 127)))
_MAX_SENTENCE = 1000  # characters; SentencePiece leaves out sentences above 4192 bytes
_PROBES = ("", " a  b ", "x = [1, 22, 333]\n\ty\r\n", "é漢😀", "<|answer|>9<|end|>", f"a{SPACE_PIECE}b", "\x00<s></s>")


def train_tokenizer(config: PrepConfig, samples: Mapping[str, Sequence[Path]], out: Path) -> dict[str, Any]:
    """Writes out/tokenizer/; returns {sha256, vocab_size}. `samples`: by source, and of the solutions, what `draw` took
    of each part. Raises DataError when the text is too poor for the size, or when an existing tokenizer can't serve."""
    if config.tokenizer.existing:
        return _use_existing(config, out / "tokenizer")
    sentences = _sentences(config, samples)
    characters = _task_characters(config)
    model = train_model(sentences, config.tokenizer, characters)
    tokenizer = SentencePieceTokenizer(model)
    check_tokenizer(tokenizer, characters)
    folder = out / "tokenizer"
    (folder / META_FILE).unlink(missing_ok=True)  # a folder without it is no tokenizer: written last
    with atomic_writer(folder / MODEL_FILE) as file:
        file.write(model)
    for stale in (TOKENIZER_FILE, TOKENIZER_CONFIG_FILE):
        (folder / stale).unlink(missing_ok=True)
    if config.tokenizer.export_transformers:
        _export_transformers(folder, tokenizer, sentences)
    figures = {"sha256": tokenizer.sha256, "vocab_size": tokenizer.vocab_size}
    write_json(folder / META_FILE, figures)
    return figures


def _use_existing(config: PrepConfig, folder: Path) -> dict[str, Any]:
    tokenizer, definition, meta = adapt_existing(config.tokenizer.existing)
    remedy = "leave the tasks with such characters out, or tokenizer.existing to train a tokenizer"
    check_tokenizer(tokenizer, _task_characters(config), remedy)
    write_existing(folder, tokenizer, definition, meta, [PRINTABLE, *_PROBES[:4]])
    return {"sha256": tokenizer.sha256, "vocab_size": tokenizer.vocab_size}


def train_model(sentences: list[str], options: TokenizerConfig, extra_characters: str = "") -> bytes:
    """A serialised BPE model with exactly `vocab_size` tokens, the same bytes for the same sentences. Printable ASCII
    and `extra_characters` have tokens of their own, and so have `options.words`."""
    import sentencepiece

    model = io.BytesIO()
    own = "".join(dict.fromkeys(PRINTABLE + extra_characters))
    characters = [*own, "\n "]  # SentencePiece strips newlines at the end of a sentence
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([*_without_rare(sentences, options.character_coverage, own), *characters]),
            model_writer=model,
            model_type="bpe",
            vocab_size=options.vocab_size,
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,
            character_coverage=1.0,
            user_defined_symbols=[*SPECIAL_TOKENS, *options.words],
            pad_id=3,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).rpartition("] ")[2]
        raise DataError(
            f"tokenizer.vocab_size={options.vocab_size} does not fit the sample of {len(sentences)} sentences: {reason}"
            " Change tokenizer.vocab_size, lower tokenizer.character_coverage or add text"
        ) from None
    return model.getvalue()


def check_tokenizer(
    tokenizer: Tokenizer,
    extra_characters: str = "",
    remedy: str = "raise tokenizer.vocab_size or change the sample",
) -> None:
    """Raises DataError unless printable ASCII, newline and `extra_characters` have single tokens, and texts come back
    as they went in."""
    lacking = [c for c in PRINTABLE + "\n" + extra_characters if len(tokenizer.encode_characters(c)) != 1]
    changed = [text for text in (*_PROBES, PRINTABLE) if tokenizer.decode(tokenizer.encode(text)) != text]
    if lacking or changed:
        raise DataError(f"tokenizer: no token for {lacking}, text not kept for {changed}; {remedy}")


def _task_characters(config: PrepConfig) -> str:
    """What answers and traces of the synthesised tasks may hold, each character once."""
    tasks = create_tasks(config)
    alphabets = [task.alphabet + task.thought_alphabet for task in tasks]
    for task, entry in zip(tasks, config.synthesize.tasks, strict=True):
        alphabets += [styled_alphabet(task, style) for style in entry.styles or config.synthesize.styles]
    return "".join(sorted({c for alphabet in alphabets for c in alphabet if c.isprintable()}))


def _sentences(config: PrepConfig, samples: Mapping[str, Sequence[Path]]) -> list[str]:
    """Lines of training documents (the byte budget shared equally among sources), then prompts of solutions."""
    sentences: list[str] = []
    budget = config.tokenizer.sample_bytes // len(config.sources)
    for source in config.sources:
        sentences += _lines(draw(samples[source.name], config.seed, budget, "bytes"), budget)
    for text in draw(samples[SOLUTIONS], config.seed, config.tokenizer.sample_solutions, "texts"):
        sentences.append(re.split(f"{re.escape(THINK)}|{re.escape(ANSWER)}", text)[0].removeprefix(PROMPT))
    return sentences


def draw(paths: Sequence[Path], seed: int, budget: int, unit: Measure) -> list[str]:
    """The files' texts with the smallest keyed hashes, just enough for `budget`; no more than those are in memory."""
    measure = (lambda text: len(text.encode("utf-8"))) if unit == "bytes" else (lambda text: 1)
    heap: list[tuple[int, int, str]] = []
    total = 0
    texts = (document.text for path in paths for document in read_documents(path))
    for number, text in enumerate(texts):
        key = hashlib.blake2b(f"{seed}\x1fsample\x1f{text}".encode(), digest_size=8).digest()
        heapq.heappush(heap, (-int.from_bytes(key, "big"), number, text))
        total += measure(text)
        while heap and total - measure(heap[0][2]) >= budget:
            total -= measure(heapq.heappop(heap)[2])
    return [text for _, _, text in sorted(heap, reverse=True)]


def _lines(texts: list[str], budget: int) -> Iterator[str]:
    for text in texts:
        for line in text.splitlines():
            for start in range(0, len(line), _MAX_SENTENCE):
                sentence = line[start : start + _MAX_SENTENCE]
                budget -= len(sentence.encode("utf-8"))
                if budget < 0:
                    return
                yield sentence


def _without_rare(sentences: list[str], coverage: float, own: str) -> Iterator[str]:
    """The sentences cut at characters outside `own` beyond the most frequent ones that make up `coverage` of all."""
    counts: Counter[str] = Counter()
    for sentence in sentences:
        counts.update(sentence)
    wanted, covered = coverage * counts.total(), 0
    kept = set(own)
    for character, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if covered >= wanted:
            break
        covered += count
        kept.add(character)
    cut = re.compile("[" + "".join(map(re.escape, sorted(set(counts) - kept | {"\x00", SPACE_PIECE}))) + "]")
    for sentence in sentences:
        yield from filter(None, cut.split(sentence))


def _export_transformers(folder: Path, tokenizer: SentencePieceTokenizer, sentences: list[str]) -> None:
    """Writes tokenizer.json and tokenizer_config.json. Raises DataError unless transformers gives the same ids."""
    import transformers

    exported = transformers.AutoTokenizer.from_pretrained(folder)
    exported.pad_token = "<pad>"
    exported.save_pretrained(folder)
    reloaded = transformers.AutoTokenizer.from_pretrained(folder)
    probes = [*sentences[:: max(1, len(sentences) // 1000)], PRINTABLE, " a  b ", "x\n\n\ty 123 é漢😀"]
    for text in (probe for probe in probes if SPACE_PIECE not in probe and "<|" not in probe):
        if reloaded(text, add_special_tokens=False)["input_ids"] != tokenizer.encode(text):
            raise DataError(
                f"{folder}: transformers {transformers.__version__} tokenizes {text[:60]!r} differently; set "
                "tokenizer.export_transformers=false or use another version of transformers"
            )
    if reloaded.pad_token_id != tokenizer.pad_id or reloaded.eos_token_id != tokenizer.eos_id:
        raise DataError(f"{folder}: transformers gives other ids to pad or end of text; export_transformers=false")
