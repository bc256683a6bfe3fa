"""The fixed texts of the page."""

from comparison.checks import MAX_OTHER_CORES, MAX_OTHER_CORES_ONCE
from core.limits import MAX_DATA_WAIT_FRACTION

PAGE = {
    "title": "Which activation should this detector use?",
    "failed": (
        "A diverged loss is an outcome of the activation; other failures may be those of the machine. All results "
        "below are those of completed runs."
    ),
    "pairing": (
        "Within a seed, the runs of all activations start from the same weights and see the same batches, unless the "
        "activations differ in a setting that changes them. Other batches can mean other training images, so the "
        "difference may not be that of the activation."
    ),
    "unfinished": "not finished, not included",
    "exploratory": "The numbers are correct, but they carry no verdict.",
    "effects": (
        "One row per activation, compared with the baseline. A difference is significant if its interval excludes "
        "0, a time ratio if its interval excludes ×1. Small dots are single seeds."
    ),
    "tradeoff": (
        "Up is a higher mAP, right is a longer training. A mark whose interval crosses a black line is not "
        "distinguished from the baseline in that direction."
    ),
    "table": (
        "mAP and AP in points (100 × the fraction), of the EMA weights after the last epoch: mean ± standard "
        "deviation over seeds. Click a column header to sort."
    ),
    "secondary": (
        "Only mAP50-95 of the last epoch was declared as the primary metric. With several other metrics, one of "
        "them is likely to stand out by chance."
    ),
    "curves": (
        "Mean over seeds and the range from the lowest to the highest seed. Time is training time without warm-up, "
        "validation, saving and waiting for data."
    ),
    "times": "Training time per epoch. A cross marks a run excluded from timing.",
    "all_timed": (
        f"No run is excluded from timing: none waited for data for more than {100 * MAX_DATA_WAIT_FRACTION:g} % of "
        f"its step time, and other processes used at most {MAX_OTHER_CORES:g} of a core on average and "
        f"{MAX_OTHER_CORES_ONCE:g} in any epoch."
    ),
    "timing": (
        "Measured separately from training: preloaded batches, short blocks of steps, all networks alternating in "
        "one process, many repetitions"
    ),
    "tuning_figure": (
        "mAP50-95 of the last epoch on the held-out training images: the mean over the tuning seeds, and small dots for"
        " single runs. A ring marks the chosen value, the dashed line the common one. These scores chose a value; they "
        "are no estimate of its mAP."
    ),
    "places": (
        "mAP50-95 of the exported files against their latency at batch 1: the mean over seeds, and small dots for "
        "single runs. Filled marks are fp32, open ones int8. The legend has the training time of each relative to the "
        "baseline."
    ),
    "timing_figure": "Ratio to the first row, with simultaneous 95 % intervals.",
    "causes": (
        "Descriptive: each interval holds for all candidates in one quantity, not over all quantities, so one of them "
        "is likely to stand out by chance. Differences are paired by seed."
    ),
    "causes_how": (
        "Of the detections of the last epoch: AP50 that would be gained if the errors of a kind were removed (TIDE), "
        "and the expected calibration error of the scores. Of the weights after the last epoch, on the first "
        "validation images: the share of channels whose activation is constant, and the norm of the loss gradient."
    ),
    "no_energy": "Energy: not measured (no counter of the GPU or the CPU could be read).",
    "no_causes": "No stored detections and no diagnostics in these runs.",
    "required": (
        "“Conservative” uses the 80 % upper confidence limit of the residual standard deviation. Hours are those of"
        " all activations, one run after another on this machine."
    ),
    "larger": (
        "The verdict above remains that of the plan: adding runs until a result is significant inflates the error "
        "rate. With all runs:"
    ),
    "no_difference": "No difference between runs other than activation and seed, as far as recorded.",
    "no_plan": "No plan was written before the runs, so the result is exploratory.",
    "no_candidate": "no candidate has a completed run to compare with the baseline",
    "files": "The same numbers in full precision are in this folder:",
}
NOTES = {
    "best": "The best epoch is selected on the set it is measured on, which favours noisy curves; it is descriptive.",
    "memory": (
        "Peak memory is what training adds: on a GPU the peak allocation of PyTorch, on a CPU the peak size of the "
        "process minus its size after the model was built. It is descriptive."
    ),
    "latency": (
        "Inference latency is that of the trained network on the machine of the training, of one validation image "
        "at batch 1, without NMS (median of 20); runs excluded from timing have none. It is descriptive."
    ),
    "correlation": (
        "Correlation: between the paired runs of a candidate and the baseline. Near 1, pairing by seed removes most"
        " of the seed variation; near 0, it removes none."
    ),
}


def page_text(noun: str) -> dict[str, str]:
    """The texts of the page for what is compared, "activation" or "arm"."""
    if noun == "activation":
        return PAGE
    texts = {key: text.replace("an activation", "an arm").replace("activation", "arm") for key, text in PAGE.items()}
    return {**texts, "title": "Which setting should this detector use?"}
