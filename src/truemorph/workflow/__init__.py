"""What each verb does: files in, files out, and a result as plain data for `--json`, the demo and the report.

Names load on first use, so that `truemorph --help` is quick; `__init__.pyi` says where they are.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
