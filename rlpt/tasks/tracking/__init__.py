"""State that changes step by step: permutations, automata, brackets, stacks."""
