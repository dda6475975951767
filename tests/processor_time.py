"""Keeps `nox -s fast` fast: says how much processor time its tests took, and fails if it was too much.

Processor time and not the clock's: another program on the same machine adds a quarter to it at most. It is that of
the test, of its fixtures and of the programs that it started. CONTRIBUTING's law is that a test which computes for
more than two seconds is marked slow. Twice that fails, since processors differ, and since the first test of a process
imports for all that follow.
"""

import os
from collections.abc import Iterator

import pytest

EACH = 4.0  # processor seconds of one test
ALL = 300.0  # of all, with imports and collection: two minutes on two cores, and a quarter more on shared ones
NAMED = 10  # tests named in the summary


def processor_seconds() -> float:
    """Return the processor time of this process, and of the programs that it started and that have ended."""
    return sum(os.times()[:4])


class ProcessorTime:
    """The pytest plugin: processor seconds of each test, and of each worker of `-n 2`."""

    def __init__(self) -> None:
        self.since = 0.0
        self.tests: dict[str, float] = {}
        self.workers = 0.0

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self) -> None:
        """Start the clock, before the fixtures of the test are set up."""
        self.since = processor_seconds()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Iterator[None]:
        """Write the time since the last report into the report, which a worker sends to the first process."""
        report = yield
        now = processor_seconds()
        report.processor_seconds, self.since = now - self.since, now
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add up the three reports of a test: fixtures, the test itself, clearing up."""
        self.tests[report.nodeid] = self.tests.get(report.nodeid, 0.0) + report.processor_seconds

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        """Add what a worker that has ended took in all."""
        self.workers += getattr(node, "workeroutput", {}).get("processor_seconds", 0.0)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Hand a worker's time to the first process, which fails if it was too much."""
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output["processor_seconds"] = processor_seconds()
        elif self.too_much() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def too_much(self) -> list[str]:
        """Return a sentence for each test, and for all of them, that took more than it may."""
        said = [
            f"{name} took {seconds:.1f} processor seconds and is not marked slow: make it cheaper, or mark it"
            for name, seconds in self.tests.items()
            if seconds > EACH
        ]
        if self.total() > ALL:
            said.append(f"all together took more than {ALL:.0f} processor seconds: mark as slow what takes most")
        return said

    def total(self) -> float:
        """Return the time of all processes so far; workers that have ended are programs that this process started."""
        return self.workers + sum(os.times()[:2]) if self.workers else processor_seconds()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say the whole, the tests that took most of it, and what was too much."""
        terminalreporter.section(f"{self.total():.0f} processor seconds")
        for name, seconds in sorted(self.tests.items(), key=lambda one: -one[1])[:NAMED]:
            terminalreporter.write_line(f"{seconds:6.2f} {name}")
        for sentence in self.too_much():
            terminalreporter.write_line(f"error: {sentence}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    """Register the plugin: `python -m pytest -p tests.processor_time`."""
    config.pluginmanager.register(ProcessorTime(), "processor time of the fast tests")
