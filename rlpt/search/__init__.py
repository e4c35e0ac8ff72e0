"""Search: more computation for a better answer, over completions (Generators that wrap a Generator) or over moves."""
