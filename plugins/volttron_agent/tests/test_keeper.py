"""A program under a keeper ends on request, and with the process that started it."""

import os
import signal
import subprocess
import sys
import textwrap
import time

from conftest import alive, until
from tieline_agent.run import THREADS, Run

STUBBORN = textwrap.dedent("""\
    import signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("up", flush=True)
    time.sleep(60)
""")
POLITE = textwrap.dedent("""\
    import os, signal, sys, time
    def end(*_):
        os.write(1, b"bye\\n")  # not print: the signal may come in the midst of one
        sys.exit(3)
    signal.signal(signal.SIGTERM, end)
    os.write(1, b"up\\n")
    time.sleep(60)
""")


def python(code, folder, grace=10.0):
    return Run(THREADS, [sys.executable, "-c", code], {}, folder, grace)


def test_its_lines_and_its_status_are_told(tmp_path):
    run = python("import os; print(os.getpid()); print('two'); raise SystemExit(7)", tmp_path)
    assert list(run.lines()) == [str(run.pid), "two"]
    assert run.wait() == 7


def test_a_program_that_is_not_there_is_told_with_its_cause(tmp_path):
    run = Run(THREADS, ["/nowhere/tieline"], {}, tmp_path, 1)
    assert list(run.lines()) == ["/nowhere/tieline cannot be started: No such file or directory"]
    assert (run.pid, run.wait()) == (0, 127)


def test_a_stop_lets_it_end_by_itself(tmp_path):
    run = python(POLITE, tmp_path)
    lines = run.lines()
    assert next(lines) == "up"
    run.stop()
    assert list(lines) == ["bye"]
    assert run.wait() == 3


def test_what_does_not_stop_in_its_time_is_killed(tmp_path):
    run = python(STUBBORN, tmp_path, grace=0.3)
    lines = run.lines()
    assert next(lines) == "up"
    stop_called_at = time.monotonic()
    run.stop()
    assert list(lines) == []
    assert run.wait() == 128 + signal.SIGKILL
    assert time.monotonic() - stop_called_at >= 0.3


def test_what_it_has_started_ends_with_it(tmp_path):
    code = "import subprocess; print(subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL).pid)"
    run = python(code, tmp_path)
    (child,) = run.lines()
    assert run.wait() == 0
    until(lambda: not alive(int(child)))


def test_kill_9_of_the_process_that_started_it_stops_it_politely(tmp_path):
    program = POLITE.replace("os.write(1, ", "open('said', 'ab', 0).write(")
    script = textwrap.dedent(f"""\
        import sys, time
        from pathlib import Path
        from tieline_agent.run import THREADS, Run
        run = Run(THREADS, [sys.executable, "-c", {program!r}], {{}}, Path(sys.argv[1]), 10)
        print(run.pid, flush=True)
        time.sleep(60)
    """)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], env=env, stdout=subprocess.PIPE, text=True
    )
    pid = int(parent.stdout.readline())
    output = tmp_path / "said"
    until(lambda: output.exists() and output.read_text() == "up\n")
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(lambda: not alive(pid))
    assert output.read_text() == "up\nbye\n"


def test_it_dies_with_its_keeper_too(tmp_path):
    run = python(STUBBORN, tmp_path)
    assert next(run.lines()) == "up"
    os.kill(run.keeper_pid, signal.SIGKILL)
    until(lambda: not alive(run.pid))
    run.wait()


def test_a_signal_for_the_whole_group_is_the_programs_to_answer(tmp_path):
    run = python(POLITE, tmp_path)
    lines = run.lines()
    assert next(lines) == "up"
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(run.keeper_pid, number)
    os.kill(run.pid, signal.SIGTERM)
    assert list(lines) == ["bye"]
    assert run.wait() == 3
