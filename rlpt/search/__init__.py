"""Search: more computation for a better answer, over completions (Generators that wrap a Generator) or over moves.

One file a search; one import line registers it.
"""

from rlpt.search import beam, best_of_n, gumbel, puct, revision, text_mcts

__all__ = ["beam", "best_of_n", "gumbel", "puct", "revision", "text_mcts"]
