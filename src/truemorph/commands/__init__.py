"""Commands: one module and one public function each; its signature and docstring are the command line.

A command reads files or takes tables in memory, calls the rooms, writes files and returns a `Result`.
"""

# Modules and public functions, imported only when they run: all of them would take seconds.
COMMANDS = {
    "fetch": "fetch:fetch_archive",
    "prepare": "prepare:prepare_catalogue",
    "bias": "bias:measure_bias",
    "transition": "transition:estimate_transition",
    "train": "train:train_classifier",
    "label": "label:label_galaxies",
    "export": "export:export_model",
    "explain": "explain:explain_classifier",
    "gold plan": "gold:plan_gold",
    "gold label": "gold:collect_gold",
    "gold import": "gold:import_gold",
    "gold export": "gold:export_gold",
    "report": "report:write_report",
    "send": "send:send_table",
    "benchmark": "benchmark:run_benchmark",
    "reproduce": "reproduce:reproduce_paper",
    "cite": "cite:cite",
    "demo": "demo:run_demo",
}
