"""Runs a command of `tipstaff exec` from an interactive shell on a terminal, and presses keys."""

import os
import pty
import re
import select
import shlex
import sys
import time

PATIENCE = 60
PROMPT = "next> "
command = " ".join(shlex.quote(word) for word in sys.argv[1:]) + " -- "


class Shell:
    def __init__(self):
        self.child, self.terminal = pty.fork()
        if self.child == 0:
            os.environ.update(PS1=PROMPT, TERM="dumb", HISTFILE="")
            os.execvp("bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"])
        self.said = ""
        self.wait(PROMPT)

    def wait(self, text):
        """Waits until this is said, and forgets everything up to it. Returns what came before."""
        end = time.monotonic() + PATIENCE
        while text not in self.said:
            if not select.select([self.terminal], [], [], max(0, end - time.monotonic()))[0]:
                raise RuntimeError(f"never said: {text!r}; but: {self.said!r}")
            self.said += os.read(self.terminal, 65536).decode(errors="replace")
        before, _, self.said = self.said.partition(text)
        return before

    def type(self, keys):
        os.write(self.terminal, keys.encode())

    def run(self, line):
        """Runs a line to its end. Returns what it said."""
        # The terminal shows what is typed; the mark is put together only when it runs.
        self.type(f"{line}; echo 'the'' end' $?\n")
        said = self.wait("the end ")
        code = self.wait(PROMPT)
        return said, int(re.match(r"\d+", code).group())


shell = Shell()

# Ctrl-Z stops all of it, and the shell knows; fg goes on where it was.
shell.type(command + "sh -c 'echo run''ning; read line; echo got $line; exit 5'\n")
shell.wait("running")
shell.type("\x1a")
shell.wait("Stopped")
shell.wait(PROMPT)
states = shell.run("ps -o stat= -s $(ps -o sid= -p $$) | grep -c ^T")[0]
assert int(states.split()[-1]) >= 2, f"not both are stopped: {states!r}"
shell.type("fg\n")
shell.type("hello\n")
shell.wait("got hello")
shell.wait(PROMPT)
assert shell.run("(exit $?)")[1] == 5

# Ctrl-C reaches it, and ends a loop of the shell, too.
shell.type(f"for i in 1 2 3; do {command} sh -c 'echo run''ning; exec sleep 100'; done; echo never\n")
shell.wait("running")
shell.type("\x03")
assert "never" not in shell.wait(PROMPT)
assert shell.run("(exit $?)")[1] == 130

# Once: a program that catches it and goes on.
shell.type(command + "sh -c 'trap \"echo inter\"\"rupt\" INT; echo run''ning; read a || read a; echo e''nd $a'\n")
shell.wait("running")
shell.type("\x03")
shell.wait("interrupt")
shell.type("x\n")
assert "interrupt" not in shell.wait("end x"), "Ctrl-C came twice"
shell.wait(PROMPT)

# In a pipeline each keeps the terminal.
shell.type(f"{command} sh -c 'read line; echo $line; sleep 1' | sh -c 'read line; echo other $line; read line < /dev/tty; echo and $line'\n")
time.sleep(1)
shell.type("first\n")
shell.wait("other first")
shell.type("second\n")
shell.wait("and second")
shell.wait(PROMPT)

# A shell in it has its own jobs, and when it is killed the terminal is the outer one's again.
shell.type(command + "env PS1=inn''er: bash --norc --noprofile --noediting -i\n")
shell.wait("inner:")
shell.type("sh -c 'echo slee''ping; exec sleep 100'\n")
shell.wait("sleeping")
shell.type("\x1a")
shell.wait("Stopped")
shell.type("kill -9 $$\n")
shell.wait(PROMPT)
said, code = shell.run("echo still ''here; (exit 0)")
assert "still here" in said and code == 0, said

# In the background it is a job as any other: `kill %1` comes once.
shell.type(command + "sh -c 'trap \"echo termin\"\"ated\" TERM; echo run''ning; sleep 100 & wait; wait; kill $!' &\n")
shell.wait("running")
shell.type("kill %1\n")
shell.wait("terminated")
time.sleep(1)
said, _ = shell.run("jobs; kill -9 %1; wait")
assert "terminated" not in said, "it came twice"

shell.type("exit\n")
os.waitpid(shell.child, 0)
print("all as it should be")
