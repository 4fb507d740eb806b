"""Longer texts of the page in one place. Names and explanations of settings are not here: they come from the techniques and engines."""

from __future__ import annotations

TITLE = "Inference Playground"
TAGLINE = "Change how a language model runs. See what it costs, and why."
PROMPTS_INFO = "One prompt a line. ⏎ stands for a line break inside a prompt."
MODEL_INFO = "Pick one, or type a hub id, a folder, a .gguf file, shape:NAME or made:NAME."
IGNORE_EOS_INFO = "Go on after the model's end-of-text token, so that all variants generate the same number of tokens."
TOP_K_INFO = "Draw from this many of the most likely tokens; 0: all."
TOP_P_INFO = "And of these from the fewest with this share of the probability; 1: all."
CHAT_INFO = "Put each prompt through the model's chat template, where it has one."
QUALITY_INFO = "Compare each variant's predictions with the baseline's on a fixed text."
WARMUPS_INFO = "Passes before the clock starts."
REPEATS_INFO = "Timed passes; two or more give an interval."
PROTOCOL_INFO = """quick: a first look, 3 repeats and a short text.
standard: for numbers to keep, 5 repeats, all texts and the questions; about twice as long.
careful: for small differences, 10 repeats in two alternating rounds (A B A B) of fresh workers; about four times as long."""
ROUNDS_INFO = "The variants take turns this many times; the repeats are shared out."
EVALUATION_INFO = "What quality is scored on. short: 512 tokens of English. full: English, Chinese and multiple-choice questions."
ENERGY_INFO = "Repeats the workload for some seconds, where the device counts its energy."
PROFILE_INFO = "One more decode step under a profiler: it tells what bounds the speed."
PRICE_INFO = "Of this machine, optional: gives the cost of a million tokens."
EVALUATION_TEXT_INFO = "Scored in place of the texts that come with the playground, in up to 512 tokens a window."
REMEASURE_DONE = "This machine's limits are forgotten: the next run measures them again."
SPEED_UNKNOWN = "Speed is predicted once this machine has been measured: the first run does that."
NEXT_ROUND = "Waits for its next round."
STEADIER = "use more repeats: the careful protocol takes 10, in two alternating rounds"
DIFFERS_INFO = "Everything else is as in the baseline."
EXPERIMENT_HINT = "Pick a ready-made experiment, or set up your own below."
HISTORY_INFO = "Every run is kept on this machine. Opening one brings its settings and results back."
ROW_INFO = "Each prompt is one row; the first eight stream, all others appear when they are complete."
NOTHING_RUNS = "Nothing is running."
STILL_GOING = "Your run is still going: stop it first, or wait."
STOPPED_UNSEEN = "Your run was stopped; what is shown is another one."
READY = "Ready."
GONE = "This run is no longer there: its results were removed from the store."
INTERRUPTED = "This run was interrupted when the server ended; what it had measured until then is shown."
LIVE_EMPTY = "Press Run: text and live charts appear here at once; side-by-side charts and a table of every metric when it is done."

STATUS = {
    "waiting": "waiting",
    "running": "running",
    "done": "done",
    "failed": "failed",
    "cancelled": "stopped",
    "interrupted": "interrupted",
}

PHASES = {
    "round": "Starting",
    "load": "Loading the model",
    "ceilings": "Measuring what this machine can do at best",
    "prepare": "Preparing the input",
    "evidence": "Checking that every setting took effect",
    "compile": "Compiling the decode step",
    "warmup": "Warming up",
    "timed": "Measuring",
    "energy": "Measuring energy",
    "quality": "Scoring output quality",
    "profile": "Profiling one decode step",
}

BOTTLENECKS = {
    "launch": "launch-bound",
    "memory": "memory-bound",
    "compute": "compute-bound",
    "communication": "communication-bound",
    "unknown": "bottleneck not known",
}

FAILURE_ADVICE = {
    "oom": "Choose fewer bits, a shorter text, a smaller batch or a smaller model.",
    "crash": "The page and the other variants are not affected; the next run starts afresh.",
    "hang": "The worker was ended; the next run starts afresh.",
    "unsupported": "",
    "model": "",
    "user": "",
}

ESTIMATE_UNKNOWN = "Its size is known once the model has been fetched."
ESTIMATE_RECORDED = "nothing is loaded here, since a recording is played."

ENDINGS = {
    "done": "Done. Results are below and in the history.",
    "failed": "Ended with a failure; its column says why. The next run starts afresh.",
    "cancelled": "Stopped.",
    "interrupted": INTERRUPTED,
    "gone": GONE,
}
BASELINE_INFO = "All others are compared with this one."
