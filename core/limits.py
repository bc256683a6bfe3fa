"""Limits that several layers apply."""

# Each class is a channel of every output map, a row of every table and a curve of every plot; the largest detection
# data sets have a few thousand.
MAX_CLASSES = 10_000

# First training steps of a process that are not timed: allocation, choice of algorithms, building of kernels.
WARMUP_STEPS = 3

# Fraction of the step time spent waiting for data above which a training time says nothing about the network.
MAX_DATA_WAIT_FRACTION = 0.05
