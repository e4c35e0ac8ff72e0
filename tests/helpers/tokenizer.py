"""A tokenizer that needs no files: pad, end of text, the template's marks, then one token a UTF-8 byte."""

from collections.abc import Sequence

from rlpt.template import SPECIAL_TOKENS


class CharacterTokenizer:
    """Implements `rlpt.types.Tokenizer`; a non-ASCII character is several tokens."""

    pad_id = 0
    eos_id = 1
    first_byte = 2 + len(SPECIAL_TOKENS)
    vocab_size = first_byte + 256

    def encode(self, text: str) -> list[int]:
        return self.encode_characters(text)

    def encode_characters(self, text: str) -> list[int]:
        return [self.first_byte + byte for byte in text.encode()]

    def decode(self, ids: Sequence[int]) -> str:
        pieces = []
        for token in ids:
            if token >= self.first_byte:
                pieces.append(bytes([token - self.first_byte]))
            elif token >= 2:
                pieces.append(SPECIAL_TOKENS[token - 2].encode())
        return b"".join(pieces).decode(errors="replace")

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        return bytes(token - self.first_byte for token in ids if token >= self.first_byte)

    def mark_id(self, mark: str) -> int:
        return 2 + SPECIAL_TOKENS.index(mark)
