"""What can go wrong in the harness, each said in a sentence with what to do."""


class HarnessError(Exception):
    """The harness can't go on; the message says why and what to do."""


class NoCluster(HarnessError):
    """No cluster can be had on this machine; the message says what is missing."""
