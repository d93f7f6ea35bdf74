"""BibTeX of what to cite."""

import json
import re

import truemorph as tm
from conftest import ROOT, run


def test_bibtex_has_the_papers_and_this_version_of_the_software(capsys):
    status, out, _ = run(capsys, "cite")
    assert status == 0
    assert re.findall(r"^@(\w+)\{", out, re.MULTILINE) == ["article", "article", "software"]
    assert out.count("{") == out.count("}")
    assert tm.__version__ in out


def test_json_and_citation_file_name_the_same_paper(capsys):
    paper = json.loads(run(capsys, "cite", "--json")[1])["medinarosales_debiasing"]
    cff = (ROOT / "CITATION.cff").read_text()
    assert paper["eprint"] in cff
    assert paper["title"].strip("{}") in cff
