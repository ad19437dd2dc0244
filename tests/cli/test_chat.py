"""A chat, on a terminal made for the test: turns, Ctrl-C, Ctrl-D, the end of the context."""
import os
import pty
import select
import termios
import time

import base

CTRL_C, CTRL_D = b"\x03", b"\x04"


class Terminal:
    """A tenon that believes a person sits in front of it."""

    def __init__(self, *words):
        self.seen = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                os.execve(words[0], words, os.environ | {"TERM": "dumb"})
            finally:
                os._exit(127)

    def wait_for(self, text, seconds=120):
        """Reads until text has appeared after what was waited for last; '' waits for the end."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if text and text in self.seen:
                before, self.seen = self.seen.split(text, 1)
                return before
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    data = os.read(self.fd, 65536)
                except OSError:  # the other side is closed
                    data = b""
                if not data:
                    if text:
                        raise AssertionError(f"ended before {text!r}: {self.seen!r}")
                    return self.seen
                self.seen += data.decode(errors="replace")
        raise AssertionError(f"waited in vain for {text!r}: {self.seen!r}")

    def type(self, data):
        os.write(self.fd, data if isinstance(data, bytes) else data.encode())

    def exit_code(self):
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class Chat(base.Case):
    def chat(self, *words):
        t = Terminal(base.OPTIONS.tenon, "run", "-m", self.model, "--temp", "0", *words)
        self.addCleanup(os.close, t.fd)
        t.wait_for("> ")
        return t

    def left(self, t):
        rest = t.wait_for("")
        self.assertEqual(t.exit_code(), 0, rest)
        return rest

    def test_turns(self):
        t = self.chat("-n", "4")
        for line in ("hello", "Grüße"):
            t.type(line + "\n")
            t.wait_for(line)
            t.wait_for("> ")
        t.type(CTRL_D)
        self.left(t)

    def test_ctrl_d_ahead_of_the_prompt(self):
        t = self.chat("--ignore-eos")
        t.type(b"hello\n")
        t.wait_for("hello")
        t.type(CTRL_D)
        self.left(t)

    def test_ctrl_c_twice_leaves(self):
        t = self.chat()
        t.type(b"half a line" + CTRL_C)
        t.wait_for("again leaves")
        t.wait_for("> ")
        t.type(CTRL_C)
        self.left(t)

    def test_ctrl_c_stops_an_answer(self):
        t = self.chat("--ignore-eos", "-c", "100000")
        t.type("hello\n")
        t.wait_for("hello")
        time.sleep(0.5)
        t.type(CTRL_C)
        answer = t.wait_for("> ")
        self.assertNotIn("^C", answer)
        self.assertTrue(answer.endswith("\r\n"), answer[-20:])
        t.type(CTRL_D)
        self.left(t)

    def test_the_terminal_is_left_as_it_was(self):
        t = self.chat("-n", "4")
        t.type("hello\n")
        t.wait_for("hello")
        t.wait_for("> ")
        t.type(CTRL_D)
        self.left(t)
        self.assertTrue(termios.tcgetattr(t.fd)[3] & termios.ECHO)

    def test_full_context(self):
        """An answer fills the context; what follows knows nothing of it, and no timings are told."""
        t = self.chat("-c", "40", "--ignore-eos")
        answers = []
        for _ in range(2):
            t.type("hello\n")
            t.wait_for("hello")
            answers.append(t.wait_for("The context of 40 tokens is full"))
            self.assertIn("a fresh conversation", t.wait_for("> "))
        self.assertEqual(answers[0], answers[1])
        t.type(CTRL_D)
        self.assertNotIn("eval time", "".join(answers) + self.left(t))

    def test_conversation_outgrows_the_context(self):
        """The last message is answered in a fresh conversation; one that is too long alone is refused."""
        t = self.chat("-c", "60", "-n", "1", "--ignore-eos")
        t.type("hello hello hello\n")
        t.wait_for("> ")
        t.type("hello hello hello" + " x" * 8 + "\n")
        t.wait_for("The context of 60 tokens is full")
        self.assertIn("a fresh conversation", t.wait_for("> "))
        t.type("y " * 70 + "\n")
        t.wait_for("too long")
        t.wait_for("> ")
        t.type("hello\n")
        t.wait_for("hello")
        self.assertNotIn("context", t.wait_for("> "))
        t.type(CTRL_D)
        self.left(t)

    def test_timings_on_demand(self):
        for words, told in ((["-v"], True), ([], False)):
            t = self.chat("-n", "4", "--ignore-eos", *words)
            t.type("hello\n")
            t.wait_for("hello")
            self.assertEqual("eval time" in t.wait_for("> "), told)
            t.type(CTRL_D)
            self.left(t)

    def test_usage(self):
        for words in (["--json"], ["--raw"]):
            t = Terminal(base.OPTIONS.tenon, "run", "-m", self.model, *words)
            self.addCleanup(os.close, t.fd)
            self.assertIn("needs a prompt", t.wait_for(""))
            self.assertEqual(t.exit_code(), base.USAGE)


if __name__ == "__main__":
    base.main()
