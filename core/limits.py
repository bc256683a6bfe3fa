"""Thresholds that more than one part applies."""

# Fraction of the step time spent waiting for data above which a training time says nothing about the network.
MAX_DATA_WAIT_FRACTION = 0.05
