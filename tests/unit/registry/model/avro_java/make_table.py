"""Make ``table.json`` of what two releases of Avro Java answered: ``python make_table.py CASES NEW OLD``.

``text``: what the newer release writes, or the older one where the newer cannot, without any validation.
``refused``: whether either refuses to parse it by default; absent: both take it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(cases: str, *answers: str) -> None:
    asked, *answered = (
        [json.loads(line) for line in Path(name).read_text("utf-8").splitlines()]
        for name in (cases, *answers)
    )
    rows = []
    for case, *found in zip(asked, *answered, strict=True):
        text = next((each["lenient"] for each in found if "lenient" in each), None)
        refused = {"refused": True} if any("strict" not in each for each in found) else {}
        rows.append(json.dumps({**case, "text": text, **refused}, ensure_ascii=False))
    Path(__file__).with_name("table.json").write_text("[\n" + ",\n".join(rows) + "\n]\n", "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
