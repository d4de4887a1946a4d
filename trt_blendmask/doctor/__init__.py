"""What this machine has of all that this package can use, and what will not work on it.

Machine (files, programs, libraries asked in processes of their own) -> Facts -> Finding, one rule each -> Report
"""

from __future__ import annotations

from trt_blendmask.doctor import rules_engines, rules_machine
from trt_blendmask.doctor.look import look
from trt_blendmask.doctor.machine import Machine
from trt_blendmask.doctor.report import Report


def examine(machine: Machine | None = None) -> Report:
    """Look at `machine` (default: this one). Bounded in time: no program or library may take longer than its limit."""
    facts = look(machine or Machine())
    found = [finding for rule in (*rules_engines.RULES, *rules_machine.RULES) for finding in rule(facts)]
    return Report(facts, tuple(found))
