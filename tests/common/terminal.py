"""Runs a command on a terminal of its own, until standard input ends: then the terminal is closed.

    terminal.py LOG COMMAND ARGUMENT…

TERMINAL_SIZE in the environment, "ROWS COLUMNS", is the size of the terminal.

The command's standard input, output and error are the terminal; with a LOG other than "-" its standard
error is appended to that file. SIGTERM is passed on. Ends as the command does: with its exit code, or
with 128 and the number of the signal that killed it. Whatever ends this program kills the command.
"""

import ctypes
import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios

PR_SET_PDEATHSIG = 1

log, command = sys.argv[1], sys.argv[2:]
pid, terminal = pty.fork()
if pid == 0:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if "TERMINAL_SIZE" in os.environ:
        rows, columns = map(int, os.environ["TERMINAL_SIZE"].split())
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    if log != "-":
        os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644), 2)
    os.execv(command[0], command)
signal.signal(signal.SIGTERM, lambda number, _frame: os.kill(pid, number))
while True:
    ready, _, _ = select.select([terminal, 0], [], [])
    if 0 in ready and not os.read(0, 1):
        break
    if terminal in ready:
        try:
            os.write(1, os.read(terminal, 65536))
        except OSError:  # The command has ended.
            break
os.close(terminal)
_, status = os.waitpid(pid, 0)
code = os.waitstatus_to_exitcode(status)
sys.exit(code if code >= 0 else 128 - code)
