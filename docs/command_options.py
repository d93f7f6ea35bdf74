"""The directive `command-options`: arguments and options of a command, from the function behind it."""

from functools import reduce
from operator import getitem

from cyclopts import Parameter
from docutils import nodes
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

from truemorph.cli import COMMANDS, command_app


def options_of(command):
    """Yield group, name, default and help of each argument of a command."""
    app = reduce(getitem, command.split(), command_app(command))
    collection = app.assemble_argument_collection(default_parameter=Parameter(negative=()), parse_docstring=True)
    for one in collection.filter_by(show=True):
        name = ", ".join(one.names)
        if one.field_info.is_positional:
            name = one.name.removeprefix("--").upper().replace("-", "_")
        default = one.field_info.default
        number = isinstance(default, int | float | str) and not isinstance(default, bool)
        yield one.parameter.group[0].name, name, str(default) if number else "", one.parameter.help or ""


class CommandOptions(SphinxDirective):
    """List the arguments and options of the named command."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self):
        """Return definition lists; options of another group than a command's own get a heading."""
        command = self.arguments[0]
        if command not in COMMANDS:
            raise self.error(f"no command {command!r}")
        result, last = [], "Parameters"
        for group, name, default, text in options_of(command):
            if not result or group not in (last, "Parameters"):
                result += [nodes.rubric(text=group)] if group not in ("Arguments", "Parameters") else []
                result.append(nodes.definition_list(classes=["options"]))
                last = group
            found, messages = self.parse_inline(text)
            about = nodes.paragraph("", "", *found, *messages)
            if default:
                about += [nodes.Text(" Default: "), nodes.literal(text=default), nodes.Text(".")]
            label = nodes.make_id(f"{command} {name}")
            term = nodes.term("", "", nodes.literal(text=name), ids=[label])
            # So that a search for the option finds it.
            result.insert(0, addnodes.index(entries=[("single", name, label, "main", None)]))
            result[-1] += nodes.definition_list_item("", term, nodes.definition("", about))
        return result
