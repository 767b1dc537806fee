# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Points of a check: what was looked at, how it came out, and what that means.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import textwrap

PASS, FAIL, NOT_APPLICABLE = "pass", "fail", "n/a"


class Wrong(Exception):
    """A point that is bad. What it is and what to do, in one sentence."""


class NotApplicable(Exception):
    """A point that cannot be asked here. Why, in one sentence."""


class Points:
    """Points by their names: {"name", "outcome", "text"}.

    order: the names as they are listed; bad: classes of exceptions that fail a point, beside Wrong; odd: what is said
    where an answer has not the form that the code expects.
    """

    def __init__(self, order, bad=(), odd="the answer has not the form that is expected"):
        self.order, self.bad, self.odd, self.found = order, (Wrong, *bad), odd, {}

    def put(self, name, outcome, text):
        """Note a point; a failure stays one."""
        if not self.failed(name):
            self.found[name] = {"name": name, "outcome": outcome, "text": text}

    def passed(self, name):
        """Whether a point was asked and is good."""
        return self.found.get(name, {}).get("outcome") == PASS

    def failed(self, name):
        """Whether a point was asked and is bad."""
        return self.found.get(name, {}).get("outcome") == FAIL

    def ask(self, name, work):
        """Note what work() says: a text, or (a text, a value that is returned). None where it does not come about."""
        try:
            said = work()
        except NotApplicable as why:
            self.put(name, NOT_APPLICABLE, str(why))
        except self.bad as why:
            self.put(name, FAIL, str(why))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as why:
            self.put(name, FAIL, "%s (%s)" % (self.odd, type(why).__name__))
        else:
            text, value = said if isinstance(said, tuple) else (said, True)
            self.put(name, PASS, text)
            return value
        return None

    def listed(self):
        """All points in their order."""
        return sorted(self.found.values(), key=lambda point: self.order.index(point["name"]))


def failing(points):
    """The names of those that are bad."""
    return [point["name"] for point in points if point["outcome"] == FAIL]


def lines(points, width):
    """Points as lines for a terminal: one for each, and what does not fit goes on below it."""
    wide = max([len(point["name"]) for point in points] or [0])
    found = []
    for point in points:
        begin = "%-5s%-*s  " % (point["outcome"], wide, point["name"])
        found += textwrap.wrap(
            point["text"],
            max(width, len(begin) + 20),
            initial_indent=begin,
            subsequent_indent=" " * len(begin),
            break_on_hyphens=False,
        ) or [begin.rstrip()]
    return found
