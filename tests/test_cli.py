"""What all commands share."""

from __future__ import annotations

import subprocess
import sys


def test_a_reader_that_has_enough_ends_a_command_quietly():
    command = [sys.executable, "-m", "minicnn.summary", "resnet20"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()  # before it has written anything
        assert process.stderr.read() == b""
    assert process.returncode == 141
