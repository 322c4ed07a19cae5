"""Errors about preference data.

Every message says what was given, what was expected and what to do next. The classes take the message alone,
so that they can be pickled and cross process borders unchanged::

    PreferenceDataError
    ├── InputRefused      a file cannot be read at all (format, encoding, size)
    ├── RowRefused        one row of a file cannot become records; the rest goes on
    ├── StoreError        the database refuses (locked, full, foreign schema)
    ├── QueueError        a project, item or lease is not what was asked for
    │   └── Refused       a judgement cannot be taken as it was sent
    └── VersionError      a dataset version is missing, damaged or would be empty
"""


class PreferenceDataError(Exception):
    """Anything wrong with what people said, or with where it is kept."""


class InputRefused(PreferenceDataError, ValueError):  # noqa: N818 - says what happened
    """A whole file cannot be imported."""


class RowRefused(PreferenceDataError, ValueError):  # noqa: N818 - says what happened
    """One row of a file cannot be imported."""


class StoreError(PreferenceDataError):
    """The database cannot do what was asked."""


class QueueError(PreferenceDataError, ValueError):
    """A project, an item or its settings are not what was asked for."""


class Refused(QueueError):  # noqa: N818 - says what happened
    """A judgement cannot be taken as it was sent: about another's item, given already, or of another kind."""


class AccessRefused(PreferenceDataError):  # noqa: N818 - says what happened
    """Somebody is not let in."""


class VersionError(PreferenceDataError):
    """A dataset version is missing, damaged or empty."""
