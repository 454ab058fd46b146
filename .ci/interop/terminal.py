"""The interactive Codex in a terminal of its own: asks once, and is left with Ctrl-C."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time

from codex import limited

# Its user reads the answer. Meanwhile Codex sends what there is to tell: at its end the terminal waits for a second only, and what
# is not sent by then is nowhere.
STAY_SECONDS = 6.0
LEAVE_SECONDS = 1.0
# What a terminal answers: where the cursor is, what it can, its colours.
ANSWERS = {
    b"\x1b[6n": b"\x1b[1;1R",
    b"\x1b[c": b"\x1b[?1;2c",
    b"\x1b]10;?": b"\x1b]10;rgb:ffff/ffff/ffff\x1b\\",
    b"\x1b]11;?": b"\x1b]11;rgb:0000/0000/0000\x1b\\",
}


def play(codex, prompt, is_over):
    """One prompt; once `is_over` says so, and a little after, its user leaves."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    codex.env["TERM"] = "xterm-256color"
    process = codex.start([codex.binary, *codex.flags, prompt], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    over, leaves = None, 0
    try:
        with limited(process):
            while process.poll() is None:
                _answer(ours)
                if over is None and is_over():
                    over = time.monotonic()
                # Once to be asked whether one is sure, and again.
                if over is not None and leaves < 2 and time.monotonic() - over > STAY_SECONDS + LEAVE_SECONDS * leaves:
                    leaves, last = leaves + 1, time.monotonic()
                    os.write(ours, b"\x03")
    finally:
        os.close(ours)
    if process.returncode not in (0, 130):
        raise subprocess.CalledProcessError(process.returncode, "codex")
    codex.exit_seconds = time.monotonic() - last


def _answer(ours):
    ready, _, _ = select.select([ours], [], [], 0.05)
    if not ready:
        return
    try:
        said = os.read(ours, 65536)
    # The other end is closed.
    except OSError:
        time.sleep(0.01)
        return
    for asked, answer in ANSWERS.items():
        if asked in said:
            os.write(ours, answer)
