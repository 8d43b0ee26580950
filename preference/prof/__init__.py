"""PROF: reward code that a language model writes, ranked without a simulator (arXiv 2511.13765; formulae: our reconstruction)."""
