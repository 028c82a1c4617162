"""Why SLURM lets a job wait, in words, and what to do about it."""

import re
from typing import NamedTuple


class Reason(NamedTuple):
    """What one of SLURM's words for a waiting job means."""

    meaning: str
    advice: str = ""
    hopeless: bool = False
    """Whether it waits for ever if nobody does anything."""


_FEWER = "ask for less, or for another --qos or --account, and try again"
_REASONS = {
    "None": Reason("SLURM has not looked at it yet"),
    "Resources": Reason("waits for nodes or GPUs to become free"),
    "Priority": Reason("others are before it in the queue"),
    "BeginTime": Reason("begins at a time that was set"),
    "Dependency": Reason("waits for another job"),
    "Reservation": Reason("waits for its reservation to begin"),
    "Cleaning": Reason("its last run is being cleaned up"),
    "Licenses": Reason("waits for a licence"),
    "NodeDown": Reason("a node that it needs is down"),
    "ReqNodeNotAvail": Reason(
        "nodes that it could run on are down, drained or reserved",
        "'sinfo -R' says why; a shorter --time may fit before a maintenance",
    ),
    "DependencyNeverSatisfied": Reason("the job that it waits for failed", "take it down", hopeless=True),
    "JobHeldUser": Reason("you hold it", "release it with 'scontrol release'", hopeless=True),
    "JobHeldAdmin": Reason("an administrator holds it", "ask them", hopeless=True),
    "launch_failed_requeued_held": Reason(
        "it failed to start on a node, and is held", "release it with 'scontrol release'", hopeless=True
    ),
    "JobHoldMaxRequeue": Reason(
        "it was requeued too often, and is held", "see why in its log, then 'scontrol release'", hopeless=True
    ),
    "PartitionTimeLimit": Reason(
        "its time limit is longer than the partition's", "give a shorter --time", hopeless=True
    ),
    "PartitionNodeLimit": Reason("it asks for more nodes than the partition has", _FEWER, hopeless=True),
    "PartitionConfig": Reason(
        "the partition does not allow such jobs",
        "give a shorter --time, or name another --partition",
        hopeless=True,
    ),
    "PartitionDown": Reason("the partition takes jobs but starts none now"),
    "PartitionInactive": Reason("the partition is closed", "name another --partition", hopeless=True),
    "BadConstraints": Reason("no node is as asked for", "ask for other --gres or constraints", hopeless=True),
    "AccountNotAllowed": Reason(
        "the account may not use this partition", "name another --account or --partition", hopeless=True
    ),
    "QOSNotAllowed": Reason(
        "the quality of service is not for this partition", "name another --qos or --partition", hopeless=True
    ),
    "InvalidAccount": Reason("there is no such account", "name another --account", hopeless=True),
    "InvalidQOS": Reason("there is no such quality of service", "name another --qos", hopeless=True),
}
_LIMIT = re.compile(r"(?P<owner>QOS|Assoc|Association|Max)(?P<what>\w+)", re.ASCII)
_OWNERS = {
    "QOS": "the quality of service",
    "Assoc": "your account",
    "Association": "your account",
    "Max": "your account",
}


def explain(reason: str) -> Reason:
    """Say what SLURM's word means.

    Parameters
    ----------
    reason
        As `squeue` has it. Details may follow the word: ``ReqNodeNotAvail, UnavailableNodes:n1``.
    """
    word = re.split(r"[,\s(]", reason.strip("()"), maxsplit=1)[0] or "None"
    if word in _REASONS:
        return _REASONS[word]
    match = _LIMIT.fullmatch(word)
    return _limit(_OWNERS[match["owner"]], match["what"]) if match else Reason("waits")


def _limit(owner: str, what: str) -> Reason:
    if re.search(r"Grp\w*(Minutes|Wall)", what):
        return Reason(f"{owner} has used up its time", "name another --account or --qos", hopeless=True)
    # A limit of each job stays; one of a user, a group or an account frees up as jobs end.
    if re.search(r"PerJob|PerNode|PerLimit|Wall", what):
        return Reason(f"it asks for more than {owner} allows a job", _FEWER, hopeless=True)
    if what.startswith("Min"):
        return Reason(f"it asks for less than {owner} wants", "ask for more", hopeless=True)
    return Reason(f"{owner} has reached a limit, and waits for jobs to end")
