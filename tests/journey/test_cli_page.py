"""The examples of docs/how-to/topics-and-offsets.md are run, in their order, beside a worker."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tieline.testing.worker_process import WorkerProcess

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "topics-and-offsets.md"


def examples():
    """``(command, what it prints)`` of each."""
    for block in re.findall(r"```console\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, printed = part.partition("\n")
            yield command, printed


def plain(printed):
    """Without the spaces that only fill columns."""
    return "\n".join(" ".join(line.split()) for line in printed.rstrip().splitlines())


def like(printed):
    """A pattern: … stands for anything within a line."""
    return re.escape(plain(printed)).replace("…", "[^\n]*")


def test_the_examples_print_what_the_page_says(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "tieline").symlink_to(Path(sys.executable).parent / "tieline")
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "COLUMNS": "120"}
    (tmp_path / "worker.yaml").write_text("data.dir: data\n")
    documented = list(examples())
    assert len(documented) >= 12
    lines = {"name": "lines", "connector.class": "file", "file": str(tmp_path / "in.txt"), "topic": "lines"}
    (tmp_path / "in.txt").write_text("a line\n")
    with WorkerProcess(tmp_path, {}, [lines]) as worker:
        worker.wait_for_ledger(lambda ledger: ledger["lines"]["delivered"] == 1)
        for command, printed in documented:
            if command.startswith("export "):
                name, _, value = command.removeprefix("export ").partition("=")
                environment[name] = value
                continue
            answer = subprocess.run(
                ["bash", "-c", command],
                cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, timeout=60, check=False,
            )  # fmt: skip
            assert re.fullmatch(like(printed), plain(answer.stdout)), f"{command}\n{answer.stdout}"
