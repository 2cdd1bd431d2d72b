"""Findings: what was looked at before a start, what was seen, how well that is, and the remedy."""

from __future__ import annotations

import enum
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from postroom import errors

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Finding", "Grade", "obey"]

logger = logging.getLogger(__name__)


class Grade(enum.Enum):
    """How well something is."""

    OK = "ok"
    WARN = "warn"  # it works, and a promise is weaker than it might be
    FAIL = "fail"  # it cannot work like this


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    `what` names it in a few words; `found` is what was seen, as a sentence; the `remedy`, if there
    is one, is a command, or else a sentence. `lasting` says of a failure that no wait can mend it:
    whoever started it has to.
    """

    what: str
    found: str
    grade: Grade = Grade.OK
    remedy: str = ""
    lasting: bool = False

    @property
    def sentence(self) -> str:
        """What was seen and what to do, as one text."""
        return f"{self.found}. {self.remedy}" if self.remedy else self.found


def obey(findings: Iterable[Finding], *, action: str = "preflight") -> None:
    """Log what is less than well, and refuse to go on with what cannot work.

    Raises:
        ConfigurationError: a finding has failed for good.
        ServiceUnavailable: one has failed, and may be mended while this one waits.

    """
    findings = list(findings)
    for finding in findings:
        if finding.grade is Grade.WARN:
            logger.warning("%s", finding.sentence, extra={"action": action})
    for finding in sorted(findings, key=lambda found: not found.lasting):
        if finding.grade is Grade.FAIL:
            kind = errors.ConfigurationError if finding.lasting else errors.ServiceUnavailable
            raise kind(finding.sentence)
