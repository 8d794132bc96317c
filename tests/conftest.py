"""The summary counts skips by their reasons; with SCGAN_COMPLETE none may be for want of what pip or npm installs.

A module that is skipped as a whole is known to pytest-xdist's workers alone, which send word of it when they end.
"""

import os
import shutil
import signal
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings

# examples take what time a busy machine has for them
settings.register_profile("scgan", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("scgan")

# what a shell starts in the background, or nohup, is deaf to these, and so would be what tests interrupt
for sent in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(sent) is signal.SIG_IGN:
        signal.signal(sent, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# how reasons begin or end: pytest's importorskip, a package of a file format, a runtime for Node or browsers
PIP, NPM = ("could not import", "without "), "make node"
SKIPPED = {}


def note(report):
    if report.skipped and not hasattr(report, "wasxfail"):
        SKIPPED[report.nodeid] = str(report.longrepr[2]).removeprefix("Skipped: ")


pytest_runtest_logreport = pytest_collectreport = note


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    SKIPPED.update(getattr(node, "workeroutput", {}).get("skipped", {}))


def untested():
    """Return the reasons that a complete installation has no place for."""
    if not os.environ.get("SCGAN_COMPLETE"):
        return []
    ends = (NPM,) if shutil.which("npm") else ()
    return sorted({why for why in SKIPPED.values() if why.startswith(PIP) or why.endswith(ends)})


def pytest_sessionfinish(session, exitstatus):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["skipped"] = SKIPPED
    elif untested() and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    for why, count in sorted(Counter(SKIPPED.values()).items()):
        terminalreporter.write_line(f"skipped {count}: {why}")
    for why in untested():
        terminalreporter.write_line(f"FAILED: not tested, though it can be installed: {why}")
