"""Looking at a corpus: figures, token boundaries, a page with plots; and checking its hashes."""
