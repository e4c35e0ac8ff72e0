"""The stages of a preparation: each says which units it has, and what one unit does."""
