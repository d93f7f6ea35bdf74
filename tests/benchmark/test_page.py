"""Tables for readers."""

from truemorph.benchmark.page import cell, markdown


def row(method, **means):
    return {"world": "plain", "definition": "d", "method": method, "seeds": 2, "means": means,
            "stds": dict.fromkeys(means, 0.01)}  # fmt: skip


def test_markdown_has_as_many_cells_in_every_line():
    content = {"trust": ["Scored."], "truemorph_version": "0", "date": "today", "command": "c", "rows": [
        row("a", balanced_accuracy=0.9, log_loss=None, seconds=12.3), row("b", balanced_accuracy=0.8, log_loss=0.5,
                                                                        seconds=1.23)]}  # fmt: skip
    text = markdown(content, {"a": "p(y | x)", "b": "plain"})
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 4
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert "| p(y \\| x) | 0.900 ± 0.010 | – | 12 |" in text


def test_numbers_without_a_spread_have_none():
    one = row("a", balanced_accuracy=0.9)
    one["stds"]["balanced_accuracy"] = None
    assert cell(one, "balanced_accuracy") == "0.900"
    assert cell(one, "log_loss") == "–"
