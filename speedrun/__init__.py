"""A detection speedrun: the least training time to a target mAP on two CPU cores (README.md)."""
