"""What searches are tried on: small alphabets, judges that are functions of the text, and a chooser without a model."""

from collections.abc import Callable, Sequence

import numpy as np
from helpers.players import RandomGenerator
from helpers.tokenizer import CharacterTokenizer

from rlpt.tasks.base import keyed_hash
from rlpt.types import SamplingParams

TOKENIZER = CharacterTokenizer()


def params_of(characters: str, length: int, stop: str = "") -> SamplingParams:
    """Sampling from `characters`, `stop` among them."""
    legal = tuple(sorted(TOKENIZER.encode(characters)))
    return SamplingParams(max_new_tokens=length, legal_ids=legal, stop=tuple(TOKENIZER.encode(stop)))


def text_of(completion) -> str:
    return TOKENIZER.decode(completion.token_ids.tolist())


def judged_by(value: Callable[[str], float]):
    """A judge that looks at the text alone."""
    return lambda rows, completions: [value(text_of(one)) for one in completions]


def whim(text: str) -> float:
    """In [0, 1), of no rhyme or reason but that short texts are worth less, and the same wherever it is asked."""
    return keyed_hash("whim", text) / 2**64 * min(1, len(text) / 4)


def uniform(texts: Sequence[Sequence[int]], candidates: Sequence[Sequence[int]]):
    """A Chooser to which all candidates are equal."""
    return [np.full(len(ids), -np.log(len(ids)), np.float32) for ids in candidates], None


class CountingGenerator(RandomGenerator):
    """Counts its calls and the tokens that it wrote."""

    def __init__(self) -> None:
        self.calls, self.tokens = 0, 0

    def __call__(self, prompts, params, keys):
        found = super().__call__(prompts, params, keys)
        self.calls, self.tokens = self.calls + 1, self.tokens + sum(len(one.token_ids) for one in found)
        return found


def assert_same_completions(ours, theirs) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs):
        assert one.token_ids.tolist() == other.token_ids.tolist()
        assert one.logprobs.tolist() == other.logprobs.tolist()
        assert one.finish_reason == other.finish_reason
