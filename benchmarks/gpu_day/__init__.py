"""All measurements and checks on a GPU in one command with a time budget; see docs/gpu_day.md."""
