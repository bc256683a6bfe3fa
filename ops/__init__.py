"""Operators: Mish, fused batch norm and activation, and the building and dispatch of their kernels."""
