"""RelayFields: what the lines that a relay logs tell of where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postroom.relay import facts
from postroom.telemetry.logs import note_relay, relay_fields

if TYPE_CHECKING:
    from postroom.observation import Fact

__all__ = ["RelayFields"]


class RelayFields:
    """Hears a relay's facts, in its thread, for the lines that it logs there."""

    def hear(self, fact: Fact) -> None:
        """Note where the relay is."""
        match fact:
            case facts.RowsPruned() | facts.EventsFired():
                pass  # another thread's
            case facts.TermBegan(partition=partition, epoch=epoch, position=position):
                note_relay(partition=partition, epoch=epoch, position=position)
            case facts.ChunkStored(partition=partition, position=position):
                note_relay(partition=partition, position=position)
            case facts.RelayFact(partition=partition) if not relay_fields():
                note_relay(partition=partition)
