"""Transactions that end one way or the other, whatever interrupts them, and say which.

A commit is sent again while its result is unknown: the server commits a transaction once, however
often it is told. What interrupts the end of a transaction (Ctrl-C, a time limit of Celery's) waits
until the end is known, for ten seconds at most, and is raised then with a note that tells it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import pymongo
from pymongo import ReadPreference, WriteConcern
from pymongo import errors as mongo

from postroom import errors, jitter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pymongo.client_session import ClientSession
    from pymongo.read_concern import ReadConcern

__all__ = [
    "COMMIT_SECONDS",
    "INTERRUPTED_SECONDS",
    "MAJORITY",
    "PAUSE_SECONDS",
    "Attempts",
    "Fate",
    "commit",
    "is_unknown",
    "require_open",
    "require_session",
    "transacted",
    "transaction",
]

Result = TypeVar("Result")

# As long as with_transaction() of the driver goes on.
COMMIT_SECONDS = 120.0
# How long the end of a transaction may hold up what interrupts it.
INTERRUPTED_SECONDS = 10.0
# How much longer the caller waits where PyMongo does not keep to that.
GRACE_SECONDS = 1.0
PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 0.5
MAJORITY = WriteConcern("majority")


class Session(Protocol):
    """A session of either kind of client."""

    @property
    def has_ended(self) -> bool:
        """Whether it has been ended."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction of it is open."""


@dataclass(slots=True)
class Fate:
    """What became of a transaction; None while it is open, and where nobody knows."""

    committed: bool | None = None

    def failed(self, error: BaseException) -> None:
        """Note what a commit that failed says."""
        self.committed = None if is_unknown(error) else False

    def on(self, interruption: BaseException) -> BaseException:
        """Write it on what has interrupted the transaction."""
        sentences = {
            True: "The transaction was committed all the same.",
            False: "The transaction was not committed; nothing was written.",
            None: "Whether the transaction was committed is not known.",
        }
        interruption.add_note(sentences[self.committed])
        return interruption


class Attempts:
    """How often a transaction is tried again as a whole: as with_transaction() of PyMongo does."""

    def __init__(self) -> None:
        self._deadline = time.monotonic() + COMMIT_SECONDS
        self._made = 0

    def pause_after(self, error: mongo.PyMongoError) -> float:
        """Return for how many seconds to wait before the next one.

        Raises:
            pymongo.errors.PyMongoError: the error, where there is to be none.

        """
        transient = error.has_error_label("TransientTransactionError")
        if not transient or time.monotonic() > self._deadline:
            raise error
        self._made += 1
        longest = min(0.005 * 1.5**self._made, LONGEST_PAUSE_SECONDS)
        return jitter.between(0, longest)


def is_unknown(error: BaseException) -> bool:
    """Say whether a commit that failed so may have been done all the same."""
    return not isinstance(error, mongo.PyMongoError) or error.has_error_label(
        "UnknownTransactionCommitResult"
    )


def commit(session: ClientSession, *, seconds: float = COMMIT_SECONDS) -> None:
    """Commit the session's transaction, and again while its result is unknown.

    Raises:
        pymongo.errors.PyMongoError: it was not committed, or after `seconds` nobody knows; the
            error is labelled UnknownTransactionCommitResult then.

    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            session.commit_transaction()
        except mongo.PyMongoError as error:
            if not is_unknown(error) or time.monotonic() > deadline:
                raise
            time.sleep(PAUSE_SECONDS)
        else:
            return


def transacted(
    session: ClientSession,
    write: Callable[[ClientSession], Result],
    *,
    read_concern: ReadConcern | None = None,
) -> Result:
    """Run a function of ours in a transaction of the session, and again where one is in its way.

    As PyMongo does, for two minutes at most unless the caller has a limit; returns what it returns.

    Raises:
        pymongo.errors.PyMongoError: it is not known to be written.

    """
    return session.with_transaction(
        write,
        read_concern=read_concern,
        write_concern=MAJORITY,
        read_preference=ReadPreference.PRIMARY,
    )


@contextlib.contextmanager
def transaction(session: ClientSession, fate: Fate) -> Iterator[None]:
    """Run a block in a transaction of the session; commit it, or abort it where the block fails.

    Where the block has ended the transaction itself, nothing more is done, and nothing is known.

    Raises:
        ScopeClosed: the block has ended the session.
        pymongo.errors.PyMongoError: the commit failed.
        BaseException: what the block raised, or what interrupted the end.

    """
    session.start_transaction(write_concern=MAJORITY, read_preference=ReadPreference.PRIMARY)
    try:
        yield
    except BaseException as error:
        if session.in_transaction:
            fate.committed = False
            _abort(session, error, fate)
            if not isinstance(error, Exception):
                fate.on(error)
        raise
    if session.in_transaction:
        _commit(session, fate)
    require_session(session)


def require_open(session: Session, *, is_open: bool) -> None:
    """Refuse to write in the scope of a session whose transaction is over.

    What is written then would be there whatever becomes of the rest.

    Raises:
        ScopeClosed: it is.

    """
    if not is_open:
        raise errors.ScopeClosed
    if not session.in_transaction:
        raise errors.ScopeClosed(
            "The scope's transaction has been ended in its block, so that the event would stand "
            "alone; it was not written. Leave the end to the scope, or open a new one"
        )


def require_session(session: Session) -> None:
    """Refuse the end of a block that has ended its session, unaware of what that undoes.

    Raises:
        ScopeClosed: it has.

    """
    if session.has_ended:
        raise errors.ScopeClosed(
            "The block has ended the session of its scope, and with it the transaction: what was "
            "not committed before is not written. Leave the session's end to the scope"
        )


def _commit(session: ClientSession, fate: Fate) -> None:
    try:
        commit(session)
        fate.committed = True
    except mongo.PyMongoError as error:
        fate.failed(error)
        raise
    except BaseException as interruption:  # noqa: BLE001 - raised when the end is known
        _in_peace(lambda: _commit_again(session, fate))
        raise fate.on(interruption) from None


def _commit_again(session: ClientSession, fate: Fate) -> None:
    try:
        commit(session, seconds=INTERRUPTED_SECONDS)
        fate.committed = True
    except mongo.PyMongoError as error:
        fate.failed(error)


def _abort(session: ClientSession, cause: BaseException, fate: Fate) -> None:
    if isinstance(cause, Exception):
        try:
            with pymongo.timeout(INTERRUPTED_SECONDS):
                session.abort_transaction()
        except BaseException as interruption:  # noqa: BLE001 - raised when the end is known
            _in_peace(lambda: _roll_back(session))
            raise fate.on(interruption) from cause
    else:
        _in_peace(lambda: _roll_back(session))


def _roll_back(session: ClientSession) -> None:
    if session.in_transaction:
        session.abort_transaction()
    # A command that was cut off may still be at work, or the abort never have been sent.
    with contextlib.suppress(mongo.PyMongoError):
        session.client.admin.command("killSessions", [session.session_id])


def _in_peace(call: Callable[[], None]) -> None:
    """Call in a thread of its own, where no further interruption strikes; wait for its end.

    A second Ctrl-C would cut off the very command that puts an end to the first one's remains, or
    leave a lock of PyMongo's held, or a time limit set for all that this thread ever asks again.
    """
    once, begun, ended = threading.Lock(), threading.Event(), threading.Event()

    def run() -> None:
        if not once.acquire(blocking=False):
            return
        begun.set()
        try:
            with pymongo.timeout(INTERRUPTED_SECONDS):
                call()
        finally:
            ended.set()

    end = time.monotonic() + INTERRUPTED_SECONDS + GRACE_SECONDS
    while not ended.is_set() and time.monotonic() < end:
        with contextlib.suppress(BaseException):  # the first one is raised in the end
            if not begun.is_set():
                threading.Thread(target=run, name="postroom-ending", daemon=True).start()
            ended.wait(max(0.0, end - time.monotonic()))
