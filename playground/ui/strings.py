"""Longer texts of the page in one place. Names and explanations of settings are not here: they come from the techniques and engines."""

from __future__ import annotations

TITLE = "Inference Playground"
TAGLINE = "Change how a language model runs. See what it costs, and why."
COMPARE = "Compare"
PROMPTS_INFO = "One prompt a line. ⏎ stands for a line break inside a prompt."
PROMPT_TOKENS_INFO = "0: the prompts as they are written. Else each is replaced by a text of ours of exactly this length."
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
DIFFERS_INFO = "Everything else is as in the baseline."
RECORDINGS_INFO = "Real runs, replayed at their own pace: no model is loaded."
EXPERIMENT_HINT = "Pick a ready-made experiment, or set up your own below."
ROW_INFO = "Each prompt is one row; the first eight stream, all others appear when they are complete."
BEING_FILLED = "The form was still being filled in: press it again."
NOTHING_RUNS = "Nothing is running."
STILL_GOING = "Your run is still going: stop it first, or wait."
STOPPED_UNSEEN = "Your run was stopped; what is shown is another one."
READY = "Ready."
GONE = "This run is no longer there: its results were removed from the store."
INTERRUPTED = "This run was interrupted when the server ended; what it had measured until then is shown."
LIVE_EMPTY = "Press Run: text and live charts appear here at once; side-by-side charts and a table of every metric when it is done."

STATUS = {
    "oom": "out of memory",
    "skipped": "skipped",
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

FAILURE_ADVICE = {  # of other kinds the message itself has the way out
    "crash": "The page and the other variants are not affected; the next run starts afresh.",
    "hang": "The worker was ended; the next run starts afresh.",
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

MAKE_INTRO = (
    "Make something small here and see what it changes: it gets a name, runs like anything else, and says how it was made. Choose what to "
    "make and a text to learn from, press Make, and compare the result with what it came from."
)
MAKE_NAME_INFO = "Letters, digits, dots, dashes and underscores. It is used as made:NAME."
MAKE_TEXT_INFO = "Some pages of plain text. The end of it is held out, to test on."
MAKE_READY = "Ready. Nothing is trained until you press Make."
MADE_INFO = "Everything that was made on this machine, the newest first."
NOTHING_MADE = "Nothing has been made on this machine yet."
OWN_TEXT_MISSING = "Paste a text of your own, or choose ours."

MAKING_PHASES = {"load": "Loading", "quality": "Measuring", "train": "Training", "save": "Writing"}
MAKING_ENDINGS = {
    "done": "Made.",
    "cancelled": "Stopped. Nothing was kept.",
    "gone": "This job is no longer known: the server was restarted.",
}

HISTORY_INTRO = (
    "Every run is kept on this machine with its raw events. Find one again, say what it was about, run it again, or tick runs to compare."
)
HISTORY_EMPTY = (
    "Nothing has been run yet. In the tab Compare, pick an experiment such as “Precision ladder” and press Run: it will stand here."
)
NOTHING_FOUND = "No experiment fits these filters."
ANY = "any"
IMPORT_DONE = "Imported as {}: it is with the recordings in the tab Compare now, and opens as recorded."
EXPORTED = "{} is ready as a file."
IMPORT_SWEEP = "Imported as {}: it is with the sweeps in the tab Sweep now, as recorded."
DELETED = "{} deleted. “Undo delete” brings it back."
RESTORED = "Brought back."

EXPLORE_INTRO = "Two to eight runs side by side: which give up nothing, which stay within your limits, and what all their numbers are."
EXPLORE_EMPTY = (
    "Tick two to eight runs in the tab History, or press “Explore these” under finished results in the tab Compare. "
    "A first one to try there: the experiment “Quantization”."
)

SWEEP_INTRO = (
    "Vary one or two settings over a grid and see where an optimisation starts to pay, and where it stops. Pick a question, or choose what "
    "varies; all else comes from the tab Compare. A sweep goes on in the background; what it has finished is never run again."
)
SWEEP_EMPTY = (
    "No sweep is shown. A first one that takes a few minutes on a CPU: pick “Batch size: 1 to 64” and press Start. "
    "Or choose a recorded one above, from a fast GPU."
)
SWEEP_SOURCE_INFO = "What everything else is taken from. Each variant is a line of its own in the charts."
SWEEP_VALUES_INFO = "With commas, or a range: 1:64:x2 doubles, 128:512:128 adds."
SWEEP_QUICK_INFO = "One warm-up and three repeats, no quality: else the protocol of the tab Compare. A question above has its own."
SWEEP_DELETE, SWEEP_DELETE_SURE = "Delete this sweep", "Delete it and its runs for good"
SWEEP_PICKS = "Explore takes two to eight runs; this sweep has {}. Open them in the tab History and tick those that you want."
SWEEP_STATUS = {
    "waiting": "Waiting",
    "running": "Running",
    "pausing": "Pausing after this run",
    "paused": "Paused",
    "stopped": "Stopped",
    "interrupted": "Interrupted when the server ended: press Go on",
    "done": "Done",
    "recorded": "Recorded",
}
