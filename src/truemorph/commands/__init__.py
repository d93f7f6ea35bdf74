"""Commands: one module and one public function each; its signature and docstring are the command line.

A command reads files or takes tables in memory, calls the rooms, writes files and returns a `Result`.
"""
