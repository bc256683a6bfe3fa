"""Limits that several layers enforce."""

# Each class is a channel of every output map, a row of every table and a curve of every plot; the largest detection
# data sets have a few thousand.
MAX_CLASSES = 10_000
