"""nas report"""

from __future__ import annotations

from nas.cli import options as o


def command(run: o.RunFolder, quiet: o.Quiet = False, json: o.Json = False, debug: o.Debug = False) -> None:
    from nas.report import page

    path = page(run)
    o.answer({"run": str(run), "report": str(path)}, str(path), as_json=json)
