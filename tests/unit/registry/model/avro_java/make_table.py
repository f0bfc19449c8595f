"""Write ``table.json`` from answers of two releases of Avro Java: ``python make_table.py CASES NEW OLD``.

``text``: what the newer release writes without validation, or the older one if the newer one fails.
``refused``: present if one of them rejects the schema by default.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(cases: str, *answers: str) -> None:
    questions, *answers_by_release = (
        [json.loads(line) for line in Path(name).read_text("utf-8").splitlines()]
        for name in (cases, *answers)
    )
    rows = []
    for case, *results in zip(questions, *answers_by_release, strict=True):
        text = next((each["lenient"] for each in results if "lenient" in each), None)
        refused = {"refused": True} if any("strict" not in each for each in results) else {}
        rows.append(json.dumps({**case, "text": text, **refused}, ensure_ascii=False))
    Path(__file__).with_name("table.json").write_text("[\n" + ",\n".join(rows) + "\n]\n", "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
