"""The program as a process: how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys

PROGRAM = "from fusionbench_core.__main__ import program; program()"


def test_the_module_is_the_program():
    done = subprocess.run(
        [sys.executable, "-m", "fusionbench_core", "list", "--jsno"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: fb list")
    assert done.stderr.endswith("\n")


def test_everything_printed_reaches_a_pipe(fake_plugin):
    fake_plugin.methods("fb-alpha", *(f"method_{number}" for number in range(400)))
    done = fake_plugin.fb("list", "methods", "--json", code=PROGRAM)
    assert done.returncode == 0
    names = [method["name"] for method in json.loads(done.stdout)]
    assert {f"alpha/method_{number}" for number in range(400)} <= set(names)


def test_what_asked_to_be_called_at_the_end_is_called(fake_plugin):
    done = fake_plugin.fb("--version", code=f"import atexit; atexit.register(print, 'called'); {PROGRAM}")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "called"


def test_a_thread_that_works_on_is_waited_for(fake_plugin):
    code = (
        "import threading, time\n"
        "def work():\n    time.sleep(0.5)\n    print('done')\n"
        f"threading.Thread(target=work).start()\n{PROGRAM}"
    )
    done = fake_plugin.fb("nothing", code=code)
    assert done.returncode == 2
    assert done.stdout == "done\n"


def test_a_closed_pipe_is_met_in_silence():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "fusionbench_core", "list", "methods"], stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    assert done.stderr == b""
