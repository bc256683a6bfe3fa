"""Operators and geometry: the one package that knows which device runs what; it imports nothing of ours."""
