"""Puts tests/ on the path, so that `from helpers.tokenizer import CharacterTokenizer` works in every test."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
