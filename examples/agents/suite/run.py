"""Runs the suite: words to stderr, a report to the file that is named, exit code 1 when a test failed."""

import sys
import unittest


class Both:
    def __init__(self, *streams):
        self.streams = streams

    def write(self, text):
        for stream in self.streams:
            stream.write(text)

    def flush(self):
        for stream in self.streams:
            stream.flush()


with open(sys.argv[1], "w", encoding="utf-8") as report:
    suite = unittest.defaultTestLoader.discover(".")
    result = unittest.TextTestRunner(stream=Both(sys.stderr, report), verbosity=2).run(suite)
print(f"{result.testsRun - len(result.failures) - len(result.errors)} passed, {len(result.failures) + len(result.errors)} failed")
sys.exit(not result.wasSuccessful())
